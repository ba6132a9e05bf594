package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/docevents/docevents-go"
)

type rangeFlags struct {
	since, until timeFlag
	stuckAfter   time.Duration
}

func addRange(flags *flag.FlagSet) *rangeFlags {
	r := &rangeFlags{}
	flags.Var(&r.since, "since", "`TIME`|a time, or an age such as 7d; default 24h before -until")
	flags.Var(&r.until, "until", "`TIME`|a time (2026-01-31T12:00:00Z) or an age; default now")
	durationVar(flags, &r.stuckAfter, "stuck-after", "`DURATION`|a document under way for longer is stuck; default 30m")
	return r
}

func (r *rangeFlags) query(s *settings) docevents.Query {
	q := docevents.Query{Since: r.since.Time, Until: r.until.Time, StuckAfter: r.stuckAfter, Where: s.Where}
	if q.Until.IsZero() {
		q.Until = time.Now()
	}
	if q.Since.IsZero() {
		q.Since = q.Until.Add(-24 * time.Hour)
	}
	return q
}

// readError adds advice to err, the error of a method that reads the table. If no
// request was sent, the library refused an argument, so the error is a usage error. If
// no answer came, the advice is to check the URL and the network.
func readError(seen *requestLog, err error) error {
	switch {
	case !seen.request.Load():
		return usageError{err}
	case !seen.answer.Load():
		return fmt.Errorf("no answer from SUPABASE_URL: check it and the network: %s", plain(err))
	}
	return err
}

func summary(ctx context.Context, c *call) (int, error) {
	flags := c.newFlags()
	r := addRange(flags)
	asJSON := flags.Bool("json", false, "print a JSON object")
	source := addTable(flags, whereFilters)
	if _, err := c.parse(flags, 0); err != nil {
		return 0, err
	}
	client, settings, err := c.connect(source)
	if err != nil {
		return 0, err
	}
	defer client.Close(ctx) // nothing is queued
	ctx, seen := watch(ctx)
	q := r.query(settings)
	s, err := client.Summary(ctx, q)
	switch {
	case err != nil:
		return 0, readError(seen, err)
	case *asJSON:
		return exitDone, printJSON(c.stdout, newSummaryJSON(s))
	}
	c.printSummary(s, cmp.Or(q.StuckAfter, 30*time.Minute))
	return exitDone, nil
}

func (c *call) printSummary(s *docevents.Summary, stuckAfter time.Duration) {
	stuck := ""
	if s.StuckTotal > 0 {
		stuck = fmt.Sprintf("  %d stuck for longer than %s", s.StuckTotal, plainDuration(stuckAfter))
	}
	fmt.Fprintf(c.stdout, "%s to %s UTC\n\n", inUTC(s.Since), inUTC(s.Until))
	fmt.Fprintf(c.stdout, "documents  %9d\ncompleted  %9d  last %s\nfailed     %9d  last failure of any step %s\nunder way  %9d%s\nskipped    %9d\n",
		s.Documents, s.Completed, inUTC(s.LastCompleted), s.Failed, inUTC(s.LastFailure), s.UnderWay, stuck, s.Skipped)

	if len(s.Stages) > 0 {
		t := &table{head: []string{"STAGE", " ENDED", " FAILED", " MEDIAN", " P95", " MAX"}}
		for _, stage := range s.Stages {
			t.add(cmp.Or(printable(stage.Name), "whole document"), stage.Count, stage.Failed, short(stage.P50), short(stage.P95), short(stage.Max))
		}
		c.section(t, len(s.Stages), s.StagesTotal)
	}
	if len(s.Errors) > 0 {
		t := &table{head: []string{" FAILURES", " DOCUMENTS", "LAST (UTC)", "STAGE", "ERROR"}}
		for _, e := range s.Errors {
			t.add(e.Count, e.Documents, inUTC(e.Last), orDash(e.Stage), orDash(e.Message))
		}
		c.section(t, len(s.Errors), s.ErrorsTotal)
	}
	if len(s.Stuck) > 0 {
		t := &table{head: []string{"STUCK DOCUMENT", " FOR", " STARTS", "LAST EVENT", "STAGE"}}
		for _, d := range s.Stuck {
			t.add(orDash(d.DocumentID), short(s.Until.Sub(d.Since)), d.Starts, orDash(string(d.LastEvent)), orDash(d.LastStage))
		}
		c.section(t, len(s.Stuck), s.StuckTotal)
	}
}

// section prints an empty line and the table t. If t contains only shownRows of allRows
// rows, section also prints how many are left out.
func (c *call) section(t *table, shownRows int, allRows int64) {
	fmt.Fprintln(c.stdout)
	t.print(c.stdout)
	if more := allRows - int64(shownRows); more > 0 {
		fmt.Fprintf(c.stdout, "and %d more\n", more)
	}
}

// plainDuration formats a duration without zero units: 30m instead of 30m0s.
func plainDuration(d time.Duration) string {
	text := d.String()
	if d%time.Minute == 0 {
		text = strings.TrimSuffix(text, "0s")
	}
	if d%time.Hour == 0 {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// A summaryJSON is a Summary as -json prints it. Durations are integers, and their
// names end with the unit, such as p50_ms.
type summaryJSON struct {
	*docevents.Summary
	LastCompleted time.Time   `json:"last_completed,omitzero"`
	LastFailure   time.Time   `json:"last_failure,omitzero"`
	Seconds       int64       `json:"interval_seconds"`
	Stages        []stageJSON `json:"stages"`
}

type stageJSON struct {
	docevents.Stage
	P50 int64 `json:"p50_ms"`
	P95 int64 `json:"p95_ms"`
	Max int64 `json:"max_ms"`
}

func newSummaryJSON(s *docevents.Summary) summaryJSON {
	out := summaryJSON{Summary: s, LastCompleted: s.LastCompleted, LastFailure: s.LastFailure, Seconds: int64(s.Interval.Seconds()), Stages: []stageJSON{}}
	for _, stage := range s.Stages {
		out.Stages = append(out.Stages, stageJSON{stage, stage.P50.Milliseconds(), stage.P95.Milliseconds(), stage.Max.Milliseconds()})
	}
	return out
}

const timelineHelp = `It lists at most the newest 1,000 events, the oldest of them first. If there are
older ones, a note shows the -before that lists them. A "where" in a -config
file has no effect: all events of the document are listed.
`

func timeline(ctx context.Context, c *call) (int, error) {
	flags := c.newFlags()
	var before timeFlag
	flags.Var(&before, "before", "`TIME`|only events before this: a time, or an age such as 7d")
	asJSON := flags.Bool("json", false, "print a JSON object")
	source := addTable(flags, whereIgnored)
	others, err := c.parse(flags, 1)
	if err != nil {
		return 0, err
	}
	if len(others) == 0 {
		return 0, usagef("the document's id is missing: docevents timeline DOCUMENT")
	}
	client, settings, err := c.connect(source)
	if err != nil {
		return 0, err
	}
	defer client.Close(ctx) // nothing is queued
	if len(settings.Where) > 0 {
		fmt.Fprintf(c.stderr, "docevents timeline: note: where in %s has no effect: these are all events of the document\n", source.file)
	}
	ctx, seen := watch(ctx)
	var events []docevents.Event
	if before.IsZero() {
		events, err = client.Timeline(ctx, others[0])
	} else {
		events, err = client.TimelineBefore(ctx, others[0], before.Time)
	}
	truncated := errors.Is(err, docevents.ErrTruncated)
	switch {
	case err != nil && !truncated:
		return 0, readError(seen, err)
	case *asJSON:
		return exitDone, printJSON(c.stdout, newTimelineJSON(events, truncated))
	case len(events) == 0:
		fmt.Fprintln(c.stderr, "docevents timeline: note: no events of this document were found")
		return exitDone, nil
	}
	t := &table{head: []string{"TIME (UTC)", "TYPE", "STAGE", " TOOK", "ERROR"}}
	for _, e := range events {
		t.add(e.CreatedAt.UTC().Format(timeFormat+".000"), orDash(string(e.Type)), orDash(e.Stage), short(e.Duration), printable(e.ErrorMessage))
	}
	t.print(c.stdout)
	if truncated {
		fmt.Fprintf(c.stderr, "docevents timeline: note: these are the newest %d events; for older ones add -before %s\n",
			len(events), events[0].CreatedAt.UTC().Format(time.RFC3339Nano))
	}
	return exitDone, nil
}

// A timelineJSON is the object that "docevents timeline -json" prints, with the oldest
// event first.
type timelineJSON struct {
	Events    []eventJSON `json:"events"`
	Truncated bool        `json:"truncated"` // there are older events
}

// An eventJSON is an event as -json prints it, with the column names of the migration.
type eventJSON struct {
	ID           string         `json:"id"`
	DocumentID   string         `json:"document_id"`
	UserID       string         `json:"user_id"`
	Type         string         `json:"event_type"`
	Duration     int64          `json:"duration_ms"`
	ErrorMessage string         `json:"error_message"`
	Stage        string         `json:"stage"`
	CreatedAt    time.Time      `json:"created_at"`
	Extra        map[string]any `json:"extra,omitempty"`
}

func newTimelineJSON(events []docevents.Event, truncated bool) timelineJSON {
	out := timelineJSON{Events: []eventJSON{}, Truncated: truncated}
	for _, e := range events {
		out.Events = append(out.Events, eventJSON{
			e.ID, e.DocumentID, e.UserID, string(e.Type), e.Duration.Milliseconds(), e.ErrorMessage, e.Stage, e.CreatedAt, e.Extra,
		})
	}
	return out
}

var states = []string{"completed", "failed", "under_way", "stuck", "skipped"}

func documents(ctx context.Context, c *call) (int, error) {
	flags := c.newFlags()
	q := docevents.DocumentsQuery{}
	flags.StringVar((*string)(&q.State), "state", "", "`STATE`|"+strings.Join(states, ", "))
	flags.StringVar(&q.Stage, "stage", "", "`STAGE`|stage of the latest event; with -error, of the failure")
	flags.StringVar(&q.Error, "error", "", "`ERROR`|error, copied from docevents summary")
	flags.IntVar(&q.Limit, "limit", 50, "`NUMBER`|documents on a page, at most 500; default 50")
	flags.StringVar(&q.Cursor, "cursor", "", "`CURSOR`|list the page after the one that printed this cursor")
	r := addRange(flags)
	asJSON := flags.Bool("json", false, "print a JSON object; next is the next page's cursor")
	source := addTable(flags, whereFilters)
	if _, err := c.parse(flags, 0); err != nil {
		return 0, err
	}
	if q.State != "" && !slices.Contains(states, string(q.State)) {
		return 0, usagef("%q is not a state: use %s", q.State, strings.Join(states, ", "))
	}
	client, settings, err := c.connect(source)
	if err != nil {
		return 0, err
	}
	defer client.Close(ctx) // nothing is queued
	ctx, seen := watch(ctx)
	q.Query = r.query(settings)
	page, err := client.Documents(ctx, q)
	switch {
	case err != nil:
		return 0, readError(seen, err)
	case *asJSON:
		return exitDone, printJSON(c.stdout, struct {
			Documents []docevents.Document `json:"documents"`
			Next      string               `json:"next"`
		}{append([]docevents.Document{}, page.Documents...), page.Next})
	case len(page.Documents) == 0:
		fmt.Fprintln(c.stderr, "docevents documents: note: no documents were found")
		return exitDone, nil
	}
	t := &table{head: []string{"DOCUMENT", "STATE", "LATEST EVENT (UTC)", "STAGE", "ERROR"}}
	for _, d := range page.Documents {
		t.add(orDash(d.ID), orDash(string(d.State)), inUTC(d.LastAt), orDash(d.Stage), printable(d.Error))
	}
	t.print(c.stdout)
	if page.Next != "" {
		fmt.Fprintf(c.stderr, "docevents documents: note: there are more documents; for the next page add -cursor %s\n", page.Next)
	}
	return exitDone, nil
}
