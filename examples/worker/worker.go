//go:build darwin || linux

package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/examples/internal/wordcount"
)

// pollInterval is how often an empty queue is looked at.
const pollInterval = time.Second

// A worker does one job after the other.
type worker struct {
	queue  queue
	record func(docevents.Event)
	drain  bool // end when the queue is empty
	out    io.Writer
}

// run works until ctx ends or, to drain, until there is no job. A job that has
// begun is finished.
func (w *worker) run(ctx context.Context) error {
	for ctx.Err() == nil {
		j, err := w.queue.next()
		switch {
		case err != nil:
			return err
		case j != nil:
			if err := w.do(context.WithoutCancel(ctx), j); err != nil {
				return err
			}
		case w.drain:
			return nil
		default:
			select {
			case <-time.After(pollInterval):
			case <-ctx.Done():
			}
		}
	}
	return nil
}

// do does a job and records that, in events without a Stage: they are about the
// whole document. They are on their way when the job goes
// off the queue: a queue that should rather give a job out again than lose the
// events of a crash would call the client's Flush in between.
func (w *worker) do(ctx context.Context, j *job) error {
	start := time.Now()
	e := docevents.Event{DocumentID: j.document, UserID: docevents.SystemUser, Type: docevents.ProcessingStarted}
	w.record(e)
	counts, err := wordcount.Count(ctx, j.file)
	e.Type, e.Duration = docevents.Completed, time.Since(start)
	if err != nil {
		e.Type, e.ErrorMessage = docevents.Failed, err.Error()
	}
	w.record(e)
	result := fmt.Sprintf("%d words", counts.Words)
	if err != nil {
		result = err.Error()
	}
	fmt.Fprintf(w.out, "%s %s: %s\n", e.Type, j.document, result)
	return j.end(err == nil)
}
