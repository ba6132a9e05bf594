package docevents

import (
	"context"
	"fmt"
	"math"
	"time"
)

// A Summary describes the documents in a range of time. Each document counts once,
// in the state given by its latest event in the range that isn't a note.
//
// An event with a Stage is about that step; an event without a Stage is about the
// document itself. So a document with a Started event without a Stage isn't
// completed by the end of a step, only by an event without a Stage.
// sql/014_create_docevents_reading.sql has the exact definitions.
//
// Stages, Errors and Stuck have at most 20 elements each. StagesTotal,
// ErrorsTotal and StuckTotal are the full numbers. Texts are cut to 200
// characters.
type Summary struct {
	Since time.Time `json:"since"`
	Until time.Time `json:"until"` // the range ends before Until

	Documents int64 `json:"documents"` // with any event in the range
	Completed int64 `json:"completed"`
	Failed    int64 `json:"failed"`
	UnderWay  int64 `json:"under_way"` // including stuck documents
	Skipped   int64 `json:"skipped"`

	LastCompleted time.Time `json:"last_completed"` // latest event of a completed document; zero if there is none
	LastFailure   time.Time `json:"last_failure"`   // latest failure, see Point; zero if there is none

	Interval time.Duration `json:"-"`      // between points: 1 min to 24 h, or a number of days if the range is longer than 99 days
	Series   []Point       `json:"series"` // at most 100, without gaps, aligned to Interval in UTC

	Stages      []Stage         `json:"-"` // the slowest by P95 first
	StagesTotal int64           `json:"stages_total"`
	Errors      []ErrorGroup    `json:"errors"` // the most frequent first
	ErrorsTotal int64           `json:"errors_total"`
	Stuck       []StuckDocument `json:"stuck"` // the longest under way first
	StuckTotal  int64           `json:"stuck_total"`
}

// A Point covers one Interval, which begins at At. A document counts in the Point
// of its latest event, so the points add up to the Summary's counts.
type Point struct {
	At        time.Time `json:"at"`
	Completed int64     `json:"completed"`
	Failed    int64     `json:"failed"`
	UnderWay  int64     `json:"under_way"`
	Skipped   int64     `json:"skipped"`

	// Failures counts Failed events, even if a later try succeeded. A Failed
	// event without a Stage isn't counted if the same document has a Failed event
	// with a Stage and the same message.
	Failures int64 `json:"failures"`
}

// A Stage counts the runs of one step that ended in the range.
type Stage struct {
	Name     string `json:"stage"` // "" stands for events without a Stage
	Count    int64  `json:"count"` // Completed and Failed events, and Skipped events with a Stage
	Failed   int64  `json:"failed"`
	Measured int64  `json:"measured"` // events with a Duration

	// P50 and P95 are percentiles of the measured durations, and Max is the
	// longest.
	P50, P95, Max time.Duration `json:"-"`
}

// An ErrorGroup is the failures of a stage whose messages differ only in numbers
// and UUIDs. In Message, each of these is replaced by #.
type ErrorGroup struct {
	Stage     string    `json:"stage"`
	Message   string    `json:"error"`
	Count     int64     `json:"count"`
	Documents int64     `json:"documents"`
	First     time.Time `json:"first_at"`
	Last      time.Time `json:"last_at"`
	Example   string    `json:"example"` // the document of the latest failure; "" if no failure has a document
}

// A StuckDocument is a document that has been under way for longer than
// [Query].StuckAfter. It hangs, or it starts again and again.
type StuckDocument struct {
	DocumentID string    `json:"document_id"`
	Since      time.Time `json:"started"` // first Arrived or Started event since its latest end
	Starts     int64     `json:"starts"`  // number of Arrived and Started events since its latest end
	LastEvent  EventType `json:"last_event"`
	LastStage  string    `json:"last_stage"`
	LastAt     time.Time `json:"last_at"`
}

// Summary returns a summary of the events that q selects. It needs a function of
// sql/014_create_docevents_reading.sql. If the function is missing, the error
// names that file. The duration depends on the number of events in the range: a
// million take 1.5 s on two cores. Retries and timeout are those of
// [Client.Timeline]. Summary is safe for concurrent use. On a nil Client it
// returns nil.
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

// summaryAnswer is the function's JSON. Its durations are in milliseconds.
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

// milliseconds returns 0 for NaN and for a number that overflows time.Duration.
func milliseconds(ms float64) time.Duration {
	if ns := ms * float64(time.Millisecond); math.Abs(ns) < math.MaxInt64 { // not NaN
		return time.Duration(ns)
	}
	return 0
}
