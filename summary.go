package docevents

import (
	"context"
	"fmt"
	"math"
	"time"
)

// A Summary contains the number of documents in each state, in a range of time. Each
// document counts once. Its state depends on its latest event in the range, apart from
// notes, which are events that don't change the state.
//
// An event without a Stage is about the entire document, and an event with a Stage is
// about one step of it. If a document has a Started event without a Stage, only a
// Completed event without a Stage completes it. Otherwise the document counts as
// completed after each Completed event, until the next step starts. If a step fails,
// the document counts as failed until its next event. The exact rules are in
// sql/014_create_docevents_reading.sql.
//
// Stages, Errors and Stuck contain at most 20 elements each. StagesTotal, ErrorsTotal
// and StuckTotal are the numbers of elements without this limit. The texts of stages
// and messages are cut to 200 characters.
type Summary struct {
	Since time.Time `json:"since"`
	Until time.Time `json:"until"` // the range ends before Until

	Documents int64 `json:"documents"` // documents with any event in the range, including notes
	Completed int64 `json:"completed"`
	Failed    int64 `json:"failed"`
	UnderWay  int64 `json:"under_way"` // including stuck documents
	Skipped   int64 `json:"skipped"`

	LastCompleted time.Time `json:"last_completed"` // latest event of a completed document; zero if no document completed
	LastFailure   time.Time `json:"last_failure"`   // latest failure, see Point; zero if nothing failed

	Interval time.Duration `json:"-"`      // the time that a Point covers: 1 min to 24 h, or several days if the range is longer than 99 days
	Series   []Point       `json:"series"` // one Point for each Interval of the range, even if nothing happened; at most 100

	Stages      []Stage         `json:"-"` // the slowest by P95 first
	StagesTotal int64           `json:"stages_total"`
	Errors      []ErrorGroup    `json:"errors"` // the most frequent first
	ErrorsTotal int64           `json:"errors_total"`
	Stuck       []StuckDocument `json:"stuck"` // the longest under way first
	StuckTotal  int64           `json:"stuck_total"`
}

// A Point contains the numbers of one Interval, which begins at the time At. A document
// counts only in the Point of its latest event. So for each state, the numbers of all
// Points add up to the number in the Summary.
type Point struct {
	At        time.Time `json:"at"`
	Completed int64     `json:"completed"`
	Failed    int64     `json:"failed"`
	UnderWay  int64     `json:"under_way"`
	Skipped   int64     `json:"skipped"`

	// Failures is the number of Failed events in this Interval, including those of
	// documents that completed later. If an app records a failure twice, for the step
	// and for the entire document, with similar messages (see [ErrorGroup]), only the
	// step's event is counted.
	Failures int64 `json:"failures"`
}

// A Stage counts how often one step ended in the range.
type Stage struct {
	Name     string `json:"stage"` // "" stands for events without a Stage
	Count    int64  `json:"count"` // Completed and Failed events, and Skipped events with a Stage
	Failed   int64  `json:"failed"`
	Measured int64  `json:"measured"` // events with a Duration

	// P50 and P95 are percentiles of the measured durations: 50 % of the durations are
	// at most P50, and 95 % are at most P95. Max is the longest duration.
	P50, P95, Max time.Duration `json:"-"`
}

// An ErrorGroup counts the failures with similar messages in one stage. Two messages
// are similar if they differ only in numbers and UUIDs, or only after the first 200
// characters. In Message, each number or UUID is replaced by #.
type ErrorGroup struct {
	Stage     string    `json:"stage"`
	Message   string    `json:"error"`
	Count     int64     `json:"count"`
	Documents int64     `json:"documents"`
	First     time.Time `json:"first_at"`
	Last      time.Time `json:"last_at"`
	Example   string    `json:"example"` // the document of the latest failure that has a document; "" if none has
}

// A StuckDocument is a document that has been under way for longer than
// [Query].StuckAfter. Its processing hangs, or starts again and again without ending.
type StuckDocument struct {
	DocumentID string    `json:"document_id"`
	Since      time.Time `json:"started"` // first Arrived or Started event since the document last ended
	Starts     int64     `json:"starts"`  // number of Arrived and Started events since then
	LastEvent  EventType `json:"last_event"`
	LastStage  string    `json:"last_stage"`
	LastAt     time.Time `json:"last_at"`
}

// Summary counts the documents and failures, and measures the stages, in the events
// that q selects. It calls a function defined in sql/014_create_docevents_reading.sql.
// If the function is missing from the database, the error refers to that file.
//
// A call takes about 1.5 s for a million events on two cores. For retries and timeouts,
// see [Client.Timeline]. Summary is safe for concurrent use. On a nil Client it returns
// nil.
func (c *Client) Summary(ctx context.Context, q Query) (*Summary, error) {
	if c.isNone() {
		return nil, nil
	}
	s, err := c.summary(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("docevents: Summary: %w", err)
	}
	return s, nil
}

func (c *Client) summary(ctx context.Context, q Query) (*Summary, error) {
	if err := q.normalize(); err != nil {
		return nil, err
	}
	answer, err := call[summaryAnswer](ctx, c, "docevents_summary", c.arguments(&q))
	if err != nil {
		return nil, err
	}
	if answer.Seconds <= 0 {
		return nil, fmt.Errorf("%w: run that file again", ErrOtherAnswer)
	}
	s := &answer.Summary
	s.Interval = time.Duration(answer.Seconds) * time.Second
	for _, stage := range answer.Stages {
		stage.Stage.P50, stage.Stage.P95, stage.Stage.Max = milliseconds(stage.P50), milliseconds(stage.P95), milliseconds(stage.Max)
		s.Stages = append(s.Stages, stage.Stage)
	}
	return s, nil
}

// summaryAnswer is the JSON of docevents_summary. Its durations are in milliseconds.
type summaryAnswer struct {
	Summary
	Seconds int64 `json:"interval_seconds"`
	Stages  []struct {
		Stage
		P50 float64 `json:"p50_ms"`
		P95 float64 `json:"p95_ms"`
		Max float64 `json:"max_ms"`
	} `json:"stages"`
}

// milliseconds converts a number of milliseconds from the table. It returns 0 if ms is
// NaN or too large for a time.Duration.
func milliseconds(ms float64) time.Duration {
	if ns := ms * float64(time.Millisecond); math.Abs(ns) < math.MaxInt64 { // not NaN
		return time.Duration(ns)
	}
	return 0
}
