package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/docevents/docevents-go"
)

// A result is what -json prints.
type result struct {
	Outcome string    `json:"outcome"` // done, counted, failed, stopped or incomplete
	Cutoff  time.Time `json:"cutoff"`  // rows created before it are old
	DryRun  bool      `json:"dry_run"`
	Deleted int64     `json:"deleted"` // rows
	Due     int64     `json:"due"`     // rows that -dry-run found
	Exact   bool      `json:"exact"`   // else Deleted is a lower bound, and Due an estimate
	Seconds float64   `json:"seconds"`
	Error   string    `json:"error,omitempty"`

	estimated bool
}

// judge says how it ended and returns the exit code. failure is why the last
// request failed.
func (r *result) judge(ctx context.Context, err error, failure string) int {
	r.Exact = !r.estimated && !errors.Is(err, docevents.ErrCountIncomplete)
	switch {
	case err == nil && r.DryRun:
		r.Outcome = "counted"
		return exitDone
	case err == nil:
		r.Outcome = "done"
		return exitDone
	case ctx.Err() != nil:
		r.Outcome = "stopped"
		r.Error = context.Cause(ctx).Error()
		if failure != "" {
			r.Error += "; the last request had failed: " + failure
		}
		return exitStopped
	case errors.Is(err, docevents.ErrCountIncomplete):
		r.Outcome = "incomplete"
		r.Error = err.Error()
		return exitIncomplete
	}
	r.Outcome = "failed"
	r.Error = err.Error()
	return exitFailed
}

// print writes the result as one line.
func (r *result) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(r)
	}
	verb, rows, about := "deleted", r.Deleted, "at least "
	rate := fmt.Sprintf(" (%.0f/s)", float64(rows)/r.Seconds)
	if r.DryRun {
		verb, rows, about, rate = "would delete", r.Due, "about ", ""
	}
	if r.Exact {
		about = ""
	}
	_, err := fmt.Fprintf(w, "purge: %s: %s %s%d rows created before %s, in %.1f s%s\n",
		r.Outcome, verb, about, rows, r.Cutoff.Format(time.RFC3339), r.Seconds, rate)
	return err
}
