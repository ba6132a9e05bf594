package docevents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// ErrTruncated is matched by the error of a Timeline that has more events than
// it returned.
var ErrTruncated = errors.New("truncated: the document has further, newer events")

const (
	maxTimeline      = 1000     // events; hosted projects return no more rows than that at once
	maxTimelineBytes = 16 << 20 // of them, as JSON: 1,000 events with the longest messages would be 64 MiB
	maxSummaryBytes  = 4 << 20  // the function's own bounds keep it under 200 KiB

	// readRetryWait is before the one retry of a read that failed in passing.
	readRetryWait = 200 * time.Millisecond
)

// Timeline returns what happened to a document, the oldest event first. Of more
// than 1,000 events, than the project returns rows at once, or than 16 MiB, it
// returns the oldest ones and an error that matches ErrTruncated. A document
// without events has none, and no error. Values of Extra are as JSON has them,
// numbers as [json.Number].
//
// It is one request, which is sent once more after a failure that may pass, within
// ctx and the time of WithRequestTimeout.
func (c *Client) Timeline(ctx context.Context, documentID string) ([]Event, error) {
	if c.isNone() {
		return nil, nil
	}
	id, err := uuid.Parse(documentID)
	if err != nil {
		return nil, errors.New("docevents: Timeline: the document's id is not a UUID: pass it as the database has it")
	}
	columns := &c.config.columns
	if columns.DocumentID == noColumn {
		return nil, errors.New("docevents: Timeline: the table has no column for DocumentID: WithColumns says so")
	}
	query := url.Values{
		"select":           {columns.all},
		columns.DocumentID: {"eq." + id.String()},
		"order":            {columns.CreatedAt + ".asc," + columns.ID + ".asc"},
		"limit":            {strconv.Itoa(maxTimeline)},
	}
	var events []Event
	more := false
	err = c.read(ctx, c.config.table, query, func(resp *http.Response) (err error) {
		if events, more, err = columns.readEvents(resp.Body); more || err != nil {
			return err
		}
		_, count, _ := strings.Cut(resp.Header.Get("Content-Range"), "/")
		total, unknown := strconv.Atoi(count) // of all, where a gateway hasn't dropped Prefer
		more = total > len(events) || unknown != nil && len(events) == maxTimeline
		return nil
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("docevents: Timeline: %w", c.explain(err))
	case more:
		return events, fmt.Errorf("docevents: Timeline: the oldest %d events: %w", len(events), ErrTruncated)
	}
	return events, nil
}

// event is a row, of all columns, as the app recorded it.
func (c *columns) event(row map[string]json.RawMessage) (e Event, err error) {
	var ms float64 // as of a numeric column; NULL leaves all of these alone
	var at string
	fields := [len(base)]any{&e.ID, &e.DocumentID, &e.UserID, &e.Type, &ms, &e.ErrorMessage, &e.Stage, &at}
	for i, name := range c.names() {
		if *name != noColumn && err == nil {
			err = json.Unmarshal(row[*name], fields[i])
		}
	}
	var extra []byte // as in a row
	for i, name := range c.Extra {
		extra = append(append(extra, c.extraKeys[i]...), row[name]...)
	}
	if e.Extra = decodeExtra(string(extra)); len(e.Extra) < len(c.Extra) {
		err = errOtherAnswer
	}
	e.Duration = time.Duration(ms * float64(time.Millisecond))
	if err == nil && at != "" {
		if e.CreatedAt, err = time.Parse(time.RFC3339, at); err != nil { // a timestamp without a zone is in UTC
			e.CreatedAt, err = time.Parse("2006-01-02T15:04:05", at)
		}
		e.CreatedAt = e.CreatedAt.UTC()
	}
	return e, err
}

// readEvents decodes rows one by one, as far as the bound on their bytes goes;
// more says that it didn't go far enough.
func (c *columns) readEvents(body io.Reader) (events []Event, more bool, err error) {
	bounded := &io.LimitedReader{R: body, N: maxTimelineBytes}
	rows := json.NewDecoder(bounded)
	start, err := rows.Token()
	if err == nil && start != json.Delim('[') {
		err = errOtherAnswer
	}
	for err == nil && rows.More() {
		var row map[string]json.RawMessage
		var e Event
		if err = rows.Decode(&row); err == nil {
			if e, err = c.event(row); err != nil { // whole, but not ours
				return nil, false, errOtherAnswer
			}
			events = append(events, e)
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

var errOtherAnswer = errors.New("the answer is not what PostgREST gives for the migrations' table and function")

// unreadable tells an answer that was cut short from another service's. What
// json says of the latter may repeat a value.
func unreadable(err error) error {
	if errors.Is(err, errOtherAnswer) || errors.As(err, new(*json.SyntaxError)) ||
		errors.As(err, new(*json.UnmarshalTypeError)) || errors.As(err, new(*time.ParseError)) {
		return errOtherAnswer
	}
	return fmt.Errorf("answer cut short: %w", err)
}

const summaryFile = "sql/014_create_document_processing_events_summary.sql"

// Summary returns what happened from since up to, not with, until, in one call
// of the function that sql/014_create_document_processing_events_summary.sql
// creates; where it is missing, the error says so. Its time goes with the number
// of events in the range: 1.5 s for a million on two cores. Requests and retry
// are as Timeline's.
func (c *Client) Summary(ctx context.Context, since, until time.Time) (*Summary, error) {
	if c.isNone() {
		return nil, nil
	}
	since, until = wholeMicroseconds(since), wholeMicroseconds(until)
	if !since.Before(until) || since.Year() < 1 || until.Year() > 9999 {
		return nil, errors.New("docevents: Summary: since must be before until, both in the years 1 to 9999")
	}
	query := url.Values{"since": {since.Format(timeFormat)}, "until": {until.Format(timeFormat)}}
	var s *Summary
	err := c.read(ctx, "rpc/"+c.config.table+"_summary", query, func(resp *http.Response) (err error) {
		s, err = readSummary(resp.Body)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("docevents: Summary: %w", c.explainSummary(err))
	}
	return s, nil
}

// wholeMicroseconds rounds up to what a row's time can be: the same rows are
// before t, and the same from t on.
func wholeMicroseconds(t time.Time) time.Time {
	return t.Add(time.Microsecond - 1).UTC().Truncate(time.Microsecond)
}

func readSummary(body io.Reader) (*Summary, error) {
	var answer struct {
		*Summary
		Seconds int64 `json:"interval_seconds"`
		Stages  []struct {
			Stage
			P50 int64 `json:"p50_ms"`
			P95 int64 `json:"p95_ms"`
			Max int64 `json:"max_ms"`
		} `json:"stages"`
	}
	err := json.NewDecoder(io.LimitReader(body, maxSummaryBytes)).Decode(&answer)
	switch {
	case err != nil:
		return nil, unreadable(err)
	case answer.Summary == nil || answer.Seconds < 1:
		return nil, fmt.Errorf("the answer is not the function's: run %s again", summaryFile)
	}
	s := answer.Summary
	s.Interval = time.Duration(answer.Seconds) * time.Second
	for _, stage := range answer.Stages {
		stage.Stage.P50 = time.Duration(stage.P50) * time.Millisecond
		stage.Stage.P95 = time.Duration(stage.P95) * time.Millisecond
		stage.Stage.Max = time.Duration(stage.Max) * time.Millisecond
		s.Stages = append(s.Stages, stage.Stage)
	}
	return s, nil
}

// explainSummary is explain, for answers about the function.
func (c *Client) explainSummary(err error) error {
	e, _ := errors.AsType[*Error](err)
	switch {
	case e == nil:
	case e.Code == "42703":
		return fmt.Errorf("%w; put your columns' names into %s and run it", e, summaryFile)
	case e.Code == "57014" || e.Status == http.StatusGatewayTimeout:
		return fmt.Errorf("%w; ask for a shorter range, or raise service_role's statement_timeout", e)
	}
	return c.explain(err)
}

// read sends a GET and hands the answer to use; after a failure that may pass it
// does both once more. The transport has made an error of what is no success.
func (c *Client) read(ctx context.Context, path string, query url.Values, use func(*http.Response) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.config.requestTimeout)
	defer cancel()
	err := c.readOnce(ctx, path, query, use)
	if e, ok := errors.AsType[*Error](err); err == nil || classify(err) != transient || ok && e.RetryAfter > 0 {
		return err
	}
	select {
	case <-time.After(readRetryWait):
		return c.readOnce(ctx, path, query, use)
	case <-ctx.Done():
		return err
	}
}

// readOnce is not made with postgrest-go, which reads answers without a bound
// and hides what goes wrong with a function's.
func (c *Client) readOnce(ctx context.Context, path string, query url.Values, use func(*http.Response) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.restURL+"/"+path+"?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	for name, value := range c.headers {
		req.Header.Set(name, value)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Accept-Profile", c.config.schema)
	if path == c.config.table {
		req.Header.Set("Prefer", "count=exact")
	}
	resp, err := (&http.Client{Transport: c.transport}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return use(resp)
}
