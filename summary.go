package docevents

import "time"

// A Summary is what happened in a range of time. A document counts once, as
// what its latest event in the range says. An event with a Stage is about that
// step, one without is about the whole document: the end of a step doesn't
// complete a document whose own ProcessingStarted, without a Stage, is newer
// than its own last end. sql/014_create_document_processing_events_summary.sql
// has the definitions in full.
//
// Stages, Errors and Stuck hold up to 20 each, and their Total says of how many.
// Texts are cut to 200 characters.
type Summary struct {
	Since time.Time `json:"since"`
	Until time.Time `json:"until"` // not itself in the range

	Documents int64 `json:"documents"` // that have any event in the range
	Completed int64 `json:"completed"`
	Failed    int64 `json:"failed"`
	UnderWay  int64 `json:"under_way"`

	LastCompleted time.Time `json:"last_completed"` // of documents that count as completed; zero: none
	LastFailure   time.Time `json:"last_failure"`   // as Failures count them; zero: none

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

	// Failures counts Failed events, also those that a later try made good. A
	// document's own is left out where a step of it failed with the same
	// message.
	Failures int64 `json:"failures"`
}

// A Stage says how the runs of one step went that ended in the range.
type Stage struct {
	Name     string `json:"stage"` // "": the whole document
	Count    int64  `json:"count"` // Completed and Failed events
	Failed   int64  `json:"failed"`
	Measured int64  `json:"measured"` // of Count, those with a Duration

	// Of the measured ones half took at most P50, 95 % at most P95.
	P50, P95, Max time.Duration `json:"-"`
}

// An ErrorGroup is the Failures of a stage whose messages differ in numbers
// and ids only, which are # here.
type ErrorGroup struct {
	Stage     string    `json:"stage"`
	Message   string    `json:"error"`
	Count     int64     `json:"count"`
	Documents int64     `json:"documents"`
	First     time.Time `json:"first_at"`
	Last      time.Time `json:"last_at"`
	Example   string    `json:"example"` // the document that failed last
}

// A StuckDocument is under way for over 30 minutes: it hangs, or begins again
// and again.
type StuckDocument struct {
	DocumentID string    `json:"document_id"`
	Since      time.Time `json:"started"` // its first start after its last end
	Starts     int64     `json:"starts"`  // so many since then
	LastEvent  EventType `json:"last_event"`
	LastStage  string    `json:"last_stage"`
	LastAt     time.Time `json:"last_at"`
}
