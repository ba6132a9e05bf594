package docevents

import (
	"context"
	"fmt"
	"math"
	"time"
)

// A Summary is what happened in a range of time. A document counts once, in the
// state that its latest event in the range gives it; notes are passed over. An
// event with a Stage is about that step, one without is about the whole
// document. So the end of a step doesn't complete a document that a Started
// event without a Stage holds open. sql/014_create_docevents_reading.sql has
// the definitions in full.
//
// Stages, Errors and Stuck hold up to 20 each; StagesTotal, ErrorsTotal and
// StuckTotal count all. Texts are cut to 200 characters.
type Summary struct {
	Since time.Time `json:"since"`
	Until time.Time `json:"until"` // not itself in the range

	Documents int64 `json:"documents"` // that have any event in the range
	Completed int64 `json:"completed"`
	Failed    int64 `json:"failed"`
	UnderWay  int64 `json:"under_way"` // the stuck ones included
	Skipped   int64 `json:"skipped"`

	LastCompleted time.Time `json:"last_completed"` // of documents that count as completed; zero if there is none
	LastFailure   time.Time `json:"last_failure"`   // of Failures; zero if there is none

	Interval time.Duration `json:"-"`      // between points, 1 min to 24 h, or whole days beyond 99 of them
	Series   []Point       `json:"series"` // at most 100, without gaps, each from a whole Interval (UTC) on

	Stages      []Stage         `json:"-"` // the slowest by P95 first
	StagesTotal int64           `json:"stages_total"`
	Errors      []ErrorGroup    `json:"errors"` // the most frequent first
	ErrorsTotal int64           `json:"errors_total"`
	Stuck       []StuckDocument `json:"stuck"` // the longest first
	StuckTotal  int64           `json:"stuck_total"`
}

// A Point counts documents at the time of their latest event, so that the points
// add up to the Summary's counts.
type Point struct {
	At        time.Time `json:"at"`
	Completed int64     `json:"completed"`
	Failed    int64     `json:"failed"`
	UnderWay  int64     `json:"under_way"`
	Skipped   int64     `json:"skipped"`

	// Failures counts Failed events, also those that a later try made good. An
	// event without a Stage isn't counted if a step of its document failed with
	// the same message.
	Failures int64 `json:"failures"`
}

// A Stage counts the runs of one step that ended in the range.
type Stage struct {
	Name     string `json:"stage"` // "" is the whole document
	Count    int64  `json:"count"` // Completed and Failed events, and Skipped ones of a step
	Failed   int64  `json:"failed"`
	Measured int64  `json:"measured"` // how many of Count have a Duration

	// Half of the measured runs took at most P50, 95 % at most P95.
	P50, P95, Max time.Duration `json:"-"`
}

// An ErrorGroup is the Failures of a stage whose messages differ only in numbers
// and ids. In Message these are replaced by #.
type ErrorGroup struct {
	Stage     string    `json:"stage"`
	Message   string    `json:"error"`
	Count     int64     `json:"count"`
	Documents int64     `json:"documents"`
	First     time.Time `json:"first_at"`
	Last      time.Time `json:"last_at"`
	Example   string    `json:"example"` // the document that failed last; "" if no event of the group has one
}

// A StuckDocument has been under way for longer than [Query].StuckAfter: it
// hangs, or begins again and again.
type StuckDocument struct {
	DocumentID string    `json:"document_id"`
	Since      time.Time `json:"started"` // its first start since its latest end
	Starts     int64     `json:"starts"`  // how many starts there are since then
	LastEvent  EventType `json:"last_event"`
	LastStage  string    `json:"last_stage"`
	LastAt     time.Time `json:"last_at"`
}

// Summary returns what happened in a range of time, in one call of a function of
// sql/014_create_docevents_reading.sql; if that is missing, the error says so.
// Its time depends on the number of events in the range: 1.5 s for a million on
// two cores. Requests and retries are those of Timeline. It is safe for
// concurrent use.
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
	s := answer.Summary
	s.Interval = time.Duration(answer.Seconds) * time.Second
	for _, stage := range answer.Stages {
		stage.Stage.P50, stage.Stage.P95, stage.Stage.Max = milliseconds(stage.P50), milliseconds(stage.P95), milliseconds(stage.Max)
		s.Stages = append(s.Stages, stage.Stage)
	}
	return s, nil
}

// summaryAnswer is the function's JSON, in which durations are in milliseconds.
type summaryAnswer struct {
	*Summary
	Seconds int64 `json:"interval_seconds"`
	Stages  []struct {
		Stage
		P50 float64 `json:"p50_ms"`
		P95 float64 `json:"p95_ms"`
		Max float64 `json:"max_ms"`
	} `json:"stages"`
}

func (a summaryAnswer) valid() bool { return a.Summary != nil && a.Seconds > 0 }

// milliseconds returns 0 for what isn't a duration that Go can hold.
func milliseconds(ms float64) time.Duration {
	if ns := ms * float64(time.Millisecond); math.Abs(ns) < math.MaxInt64 { // not NaN
		return time.Duration(ns)
	}
	return 0
}
