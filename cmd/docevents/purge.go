package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/docevents/docevents-go"
)

const purgeHelp = `Only the columns id and created_at are used. Exit codes: 0 done, or counted.
1 failed; rows may have been deleted, see the count. 2 a flag or a setting is
wrong, and nothing was sent. 3 stopped by -timeout, SIGTERM or Ctrl-C; the next
run continues. 4 done, but an answer was lost: the count may be too low.
`

type purgeFlags struct {
	olderThan, timeout time.Duration
	batch              int
	dryRun, json       bool
	table              *tableSource
}

func (c *call) purgeFlags() (*purgeFlags, error) {
	flags := c.newFlags()
	f := &purgeFlags{timeout: 10 * time.Minute}
	flags.Func("older-than", "`AGE`|delete rows older than this: 12h, 30d or 2w; required", func(s string) (err error) {
		f.olderThan, err = parseAge(s)
		return err
	})
	flags.BoolVar(&f.dryRun, "dry-run", false, "count the rows and delete none")
	flags.IntVar(&f.batch, "batch", docevents.DefaultPurgeBatch, "`ROWS`|maximum rows that one request deletes; default 10000")
	durationVar(flags, &f.timeout, "timeout", "`DURATION`|stop after this time; default 10m; 0s for no limit")
	flags.BoolVar(&f.json, "json", false, "print a JSON object")
	f.table = addTable(flags, whereRefused)
	if _, err := c.parse(flags, 0); err != nil {
		return nil, err
	}
	if f.olderThan == 0 {
		return nil, usagef("-older-than is missing; to count the rows first, run docevents purge -older-than 30d -dry-run")
	}
	return f, nil
}

func runPurge(ctx context.Context, c *call) (int, error) {
	f, err := c.purgeFlags()
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if f.timeout > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, f.timeout, fmt.Errorf("stopped by -timeout %s", plainDuration(f.timeout)))
		defer stop()
	}
	m := &meter{base: http.DefaultTransport, dryRun: f.dryRun, unreachable: cancel}
	line := newProgress(c.stderr)
	c.stderr = line
	client, _, err := c.connect(f.table, docevents.WithPurgeBatch(f.batch), docevents.WithTransport(m))
	if err != nil {
		return 0, err
	}
	defer client.Close(ctx) // nothing is queued

	start := time.Now()
	r := purgeResult{Cutoff: start.Add(-f.olderThan).UTC().Truncate(time.Microsecond), DryRun: f.dryRun}
	if !f.dryRun {
		stop := line.show(func() string { return m.progress(time.Since(start)) })
		defer stop()
		r.Deleted, err = client.PurgeBefore(ctx, r.Cutoff)
		stop()
	} else if _, err = client.PurgeBefore(ctx, r.Cutoff); err == nil {
		r.Due, r.estimated = m.due, m.estimated
	}
	r.Seconds = time.Since(start).Seconds()
	code := r.judge(ctx, err, m.failure())
	if r.Error != "" {
		fmt.Fprintf(c.stderr, "docevents purge: %s\n", r.Error)
		c.explain(r.Error)
	}
	if f.json {
		err = printJSON(c.stdout, r)
	} else {
		_, err = fmt.Fprintln(c.stdout, r.String())
	}
	return code, err
}

// A purgeResult is the object that -json prints.
type purgeResult struct {
	Outcome string    `json:"outcome"` // done, counted, failed, stopped or incomplete
	Cutoff  time.Time `json:"cutoff"`  // the purge deletes rows created before it
	DryRun  bool      `json:"dry_run"`
	Deleted int64     `json:"deleted"` // rows deleted
	Due     int64     `json:"due"`     // rows counted by -dry-run
	Exact   bool      `json:"exact"`   // if false, Deleted is a lower bound, and Due is an estimate
	Seconds float64   `json:"seconds"`
	Error   string    `json:"error,omitempty"`

	estimated bool
}

// judge sets Outcome, Error and Exact, and returns the exit code. err is the error that
// PurgeBefore returned, and failure is the reason why the last request failed, or "".
// If the purge was stopped, or never got an answer, context.Cause(ctx) is the reason.
func (r *purgeResult) judge(ctx context.Context, err error, failure string) int {
	r.Exact = !r.estimated && !errors.Is(err, docevents.ErrCountIncomplete)
	switch cause := context.Cause(ctx); {
	case err == nil && r.DryRun:
		r.Outcome = "counted"
		return exitDone
	case err == nil:
		r.Outcome = "done"
		return exitDone
	case errors.As(cause, new(unreachableError)):
		r.Error = cause.Error()
	case cause != nil:
		r.Outcome, r.Error = "stopped", cause.Error()
		if failure != "" {
			r.Error += "; the last request had failed: " + failure
		}
		return exitStopped
	case errors.Unwrap(err) == docevents.ErrCountIncomplete: // and no other error
		r.Outcome, r.Error = "incomplete", plain(err)
		return exitIncomplete
	default:
		r.Error = plain(err)
	}
	r.Outcome = "failed"
	return exitFailed
}

func (r *purgeResult) String() string {
	verb, rows, about := "deleted", r.Deleted, "at least "
	rate := fmt.Sprintf(" (%.0f rows/s)", float64(rows)/r.Seconds)
	if r.DryRun {
		verb, rows, about, rate = "would delete", r.Due, "about ", ""
	}
	if r.Exact {
		about = ""
	}
	if r.DryRun && r.Outcome != "counted" {
		return r.Outcome + ": the rows could not be counted"
	}
	return fmt.Sprintf("%s: %s %s%d rows created before %s, in %.1f s%s",
		r.Outcome, verb, about, rows, r.Cutoff.Format(time.RFC3339), r.Seconds, rate)
}
