package docevents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docevents/docevents-go/internal/rest"
	"github.com/docevents/docevents-go/internal/row"
	"github.com/google/uuid"
)

// ErrTruncated means that Timeline or TimelineBefore left out older events, because the
// document has too many. Test for it with [errors.Is].
var ErrTruncated = errors.New("truncated: the document has further, older events")

const (
	maxTimeline      = 1000     // events; by default, hosted Supabase returns at most 1,000 rows
	maxTimelineBytes = 16 << 20 // bytes of JSON; 1,000 events with the longest messages would take 64 MiB
)

// Timeline returns the events of a document, the oldest first. It reads at most 1,000
// events, at most 16 MiB of JSON, and no more rows than the project's API allows. If
// the document has more events than that, Timeline returns the newest events and an
// error that matches ErrTruncated. [Client.TimelineBefore] returns the older events. If
// the document has no events, the result is empty and there is no error.
//
// The columns of the table may have any type. If a value is NULL or doesn't fit the
// Event's field, the field is empty. The values of Extra are decoded from JSON, with
// numbers as [json.Number].
//
// If a request fails for a reason that may be temporary, Timeline retries once, unless
// the response has the header Retry-After. Hosted Supabase may refuse a valid key for
// some seconds, with status 401 and code PGRST303. After such a response, Timeline
// retries for up to 5 s. ctx and [WithRequestTimeout] limit the time of all attempts
// together.
//
// Timeline is safe for concurrent use. On a nil Client it returns nil.
func (c *Client) Timeline(ctx context.Context, documentID string) ([]Event, error) {
	return c.timeline(ctx, documentID, "")
}

// TimelineBefore is like [Client.Timeline], but returns only the events before the
// given time. The time is cut to microseconds.
//
// To read a long timeline in pages, pass the CreatedAt of the oldest event that you
// have read. This leaves out unread events with exactly the same CreatedAt. If such
// events are possible, pass this CreatedAt plus a microsecond, and skip the events that
// you have already read.
func (c *Client) TimelineBefore(ctx context.Context, documentID string, before time.Time) ([]Event, error) {
	if before = before.UTC(); !c.isNone() && (before.IsZero() || before.Year() < 1 || before.Year() > 9999) {
		return nil, errors.New("docevents: TimelineBefore: the time is zero, or outside the years 1 to 9999")
	}
	return c.timeline(ctx, documentID, before.Format(timeFormat))
}

func (c *Client) timeline(ctx context.Context, documentID, before string) ([]Event, error) {
	if c.isNone() {
		return nil, nil
	}
	columns := &c.config.columns
	id, err := columns.documentID(documentID)
	if err != nil {
		return nil, fmt.Errorf("docevents: Timeline: %w", err)
	}
	query := url.Values{
		"select":           {columns.rows.Selection()},
		columns.DocumentID: {"eq." + id},
		"order":            {columns.CreatedAt + ".desc," + columns.ID + ".desc"},
		"limit":            {strconv.Itoa(maxTimeline)},
	}
	if before != "" {
		query.Set(columns.CreatedAt, "lt."+before)
	}
	var events []Event
	more := false
	r := rest.Reading{Path: c.config.table, Schema: c.config.schema, Prefer: "count=exact", Query: query}
	err = c.read(ctx, r, func(resp *http.Response) (err error) {
		if events, more, err = columns.readEvents(resp.Body); more || err != nil {
			return err
		}
		_, count, _ := strings.Cut(resp.Header.Get("Content-Range"), "/")
		total, unknown := strconv.Atoi(count) // the number of all rows; a gateway may have removed the header Prefer
		more = total > len(events) || unknown != nil && len(events) == maxTimeline
		return nil
	})
	slices.Reverse(events)
	slices.SortStableFunc(events, func(a, b Event) int { return a.CreatedAt.Compare(b.CreatedAt) }) // a test's fake server may not order them
	switch {
	case err != nil:
		return nil, fmt.Errorf("docevents: Timeline: %w", c.explain(err))
	case more:
		return events, fmt.Errorf("docevents: Timeline: the newest %d events: %w", len(events), ErrTruncated)
	}
	return events, nil
}

var errNoDocumentID = errors.New("WithColumns declares that there is no column for DocumentID: name the column there, and set TextIDs if the ids are not UUIDs")

// documentID returns the id in the form in which the table contains it.
func (c *columns) documentID(id string) (string, error) {
	parsed, err := uuid.Parse(id)
	switch {
	case c.DocumentID == noColumn:
		return "", errNoDocumentID
	case c.TextIDs && checkTextID(id) != nil:
		return "", fmt.Errorf("the document's id is %w", checkTextID(id))
	case c.TextIDs:
		return id, nil
	case err != nil:
		return "", errors.New("the document's id is not a UUID: pass it as the database has it, or set TextIDs in WithColumns if the table's ids are not UUIDs")
	}
	return parsed.String(), nil
}

// readEvents decodes the rows in body one by one. If it stops after maxTimelineBytes,
// hasMore is true, because body contains more rows.
func (c *columns) readEvents(body io.Reader) (events []Event, hasMore bool, err error) {
	bounded := &io.LimitedReader{R: body, N: maxTimelineBytes}
	rows := json.NewDecoder(bounded)
	start, err := rows.Token()
	if err == nil && start != json.Delim('[') {
		err = ErrOtherAnswer
	}
	for err == nil && rows.More() {
		var values map[string]json.RawMessage
		var e Event
		if err = rows.Decode(&values); err == nil {
			if e, err = c.event(values); err == nil {
				events = append(events, e)
			}
		}
	}
	if err == nil {
		_, err = rows.Token() // the end: without it the answer was cut short
	}
	switch {
	case err != nil && bounded.N <= 0:
		return events, true, nil
	case err != nil:
		return nil, false, unreadable(err)
	}
	return events, false, nil
}

// event converts a row to an Event. byColumn contains the row's values. If a column is
// missing, the function returns an error. If a value can't be parsed, its field stays
// empty.
func (c *columns) event(byColumn map[string]json.RawMessage) (Event, error) {
	texts, extra, missing := c.rows.Decode(byColumn)
	if missing != "" {
		return Event{}, otherAnswer(missing)
	}
	ms, _ := strconv.ParseFloat(texts[4], 64) // a column of type numeric may have fractions
	return Event{
		ID: texts[0], DocumentID: texts[1], UserID: texts[2], Type: EventType(texts[3]), Duration: milliseconds(ms),
		ErrorMessage: texts[5], Stage: texts[6], CreatedAt: row.ParseTime(texts[7]), Extra: extra,
	}, nil
}
