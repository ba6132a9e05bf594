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

// ErrTruncated is matched by the error of a Timeline that has more events than
// it returned.
var ErrTruncated = errors.New("truncated: the document has further, older events")

const (
	maxTimeline      = 1000     // events; hosted projects return no more rows than that at once
	maxTimelineBytes = 16 << 20 // of them, as JSON: 1,000 events with the longest messages would be 64 MiB
)

// Timeline returns what happened to a document, the oldest event first. If there
// are more than 1,000 events, more than the project returns rows at once, or
// more than 16 MiB, it returns the newest ones and an error that matches
// ErrTruncated; TimelineBefore returns the ones before. A document without
// events has an empty timeline and no error.
//
// The columns may be of any type. A value that the event's field can't hold
// leaves the field empty; so does NULL. Values of Extra are as JSON has them,
// numbers as [json.Number].
//
// Timeline sends one request, and one more after a failure that may pass. A 401
// that passes by itself is waited out for up to 5 s. All of it ends with ctx and
// after the time of WithRequestTimeout. It is safe for concurrent use.
func (c *Client) Timeline(ctx context.Context, documentID string) ([]Event, error) {
	return c.timeline(ctx, documentID, "")
}

// TimelineBefore is Timeline for the events before a time: the newest of them,
// the oldest first. Events at that time are not among them, so pages that begin
// with events[0].CreatedAt leave out further events of the same microsecond. To
// miss none, ask for a microsecond later and pass over those that you have.
func (c *Client) TimelineBefore(ctx context.Context, documentID string, before time.Time) ([]Event, error) {
	if year := before.Year(); !c.isNone() && (before.IsZero() || year < 1 || year > 9999) {
		return nil, errors.New("docevents: TimelineBefore: the time is zero, or outside the years 1 to 9999")
	}
	return c.timeline(ctx, documentID, before.UTC().Format(timeFormat))
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
		total, unknown := strconv.Atoi(count) // of all rows, unless a gateway dropped Prefer
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

var errNoDocumentID = errors.New("the table has no column for DocumentID, by WithColumns: name it there, with TextIDs if the ids are not UUIDs")

// documentID returns the id as the table has it.
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

// readEvents decodes rows one by one, up to the bound on their bytes; more
// reports whether there are rows beyond it.
func (c *columns) readEvents(body io.Reader) (events []Event, more bool, err error) {
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

// event returns a row as the app recorded it. A value that can't be parsed
// leaves its field empty. The row must have every column.
func (c *columns) event(values map[string]json.RawMessage) (Event, error) {
	texts, extra, missing := c.rows.Decode(values)
	if missing != "" {
		return Event{}, otherAnswer(missing)
	}
	ms, _ := strconv.ParseFloat(texts[4], 64) // a numeric column's may have a fraction
	return Event{
		ID: texts[0], DocumentID: texts[1], UserID: texts[2], Type: EventType(texts[3]), Duration: milliseconds(ms),
		ErrorMessage: texts[5], Stage: texts[6], CreatedAt: row.ParseTime(texts[7]), Extra: extra,
	}, nil
}
