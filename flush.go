package docevents

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// cancelGrace is how long Close waits for cancelled requests to return.
const cancelGrace = 500 * time.Millisecond

// flushPause is the least time between two calls to Flush that cut the backoff short.
// Serverless functions call Flush before every reply. Without this limit, each call
// would send requests to a server that is down.
const flushPause = time.Second

var errSuspects = errors.New("the remaining events keep failing, although others were stored")

// A flush counts the rows that one call to Flush still waits for.
type flush struct {
	last int64 // the number of the newest of these rows
	left int64 // how many of them are still pending
}

// attemptLocked cuts the backoff short: the next probe and every batch in the retry
// lane may be sent now, even if the server asked for a wait (Retry-After).
func (d *delivery) attemptLocked(now time.Time) {
	d.health.lasting = nil // if the next failure is a refusal, it is set again
	d.health.probeAt = now
	for _, b := range d.retry.batches {
		b.due = now
	}
}

// flush sends the pending rows and waits until all rows that were recorded before the
// call are stored or dropped. It stops waiting if stopWaitingLocked returns an error.
func (d *delivery) flush(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := &flush{last: d.number, left: d.stats.Pending}
	d.flushes = append(d.flushes, f)
	defer func() {
		d.flushes = slices.DeleteFunc(d.flushes, func(other *flush) bool { return other == f })
	}()
	if ctx.Err() == nil { // if ctx has ended, flush doesn't wait, so nobody has to wake it
		defer context.AfterFunc(ctx, d.wakeWaiting)()
	}
	if now := time.Now(); now.Sub(d.attempt) >= flushPause {
		d.attempt = now
		d.attemptLocked(now)
	}
	d.startLocked(time.Now(), false)
	for f.left > 0 {
		if err := d.stopWaitingLocked(ctx); err != nil {
			return fmt.Errorf("docevents: Flush: %d events still pending: %w", f.left, err)
		}
		d.changed.Wait()
	}
	return nil
}

// stopWaitingLocked returns nil if Flush and Close should continue to wait. If refusals
// are lasting, it returns the last refusal. If ctx has ended, it returns the error of
// ctx, together with the last failure of a pending row, if any.
func (d *delivery) stopWaitingLocked(ctx context.Context) error {
	if d.health.lasting != nil || ctx.Err() == nil {
		return d.health.lasting
	}
	if last := d.lastFailureLocked(); last != nil {
		return fmt.Errorf("%w, after: %w", ctx.Err(), last)
	}
	return ctx.Err()
}

// lastFailureLocked looks at the pending batches that have failed. It returns the error
// of the batch that was sent last, or nil if no batch has failed.
func (d *delivery) lastFailureLocked() (err error) {
	newest := int64(0)
	for _, b := range d.batchesLocked() {
		if b.err != nil && b.request >= newest {
			newest, err = b.request, b.err
		}
	}
	return err
}

func (d *delivery) wakeWaiting() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.changed.Broadcast()
}

// close is the part of Close that deals with rows and requests. When it stops waiting
// for the pending rows, it cancels the requests in flight, lets the spool write the
// rows that are still pending, and abandons them.
func (d *delivery) close(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed {
		d.closed = true
		d.health.failedProbes = 0
		if ctx.Err() == nil {
			d.attemptLocked(time.Now())
			d.startLocked(time.Now(), false)
		}
		d.mirror.wakeLocked(true)
	}
	defer context.AfterFunc(ctx, d.wakeWaiting)()
	for (d.stats.Pending > 0 || d.mirror.isBusyLocked()) && d.cause == nil {
		if d.stats.Pending > 0 && d.onlyFailingLocked() {
			d.cause = fmt.Errorf("%w: %w", errSuspects, d.lastFailureLocked())
		} else if d.cause = d.stopWaitingLocked(ctx); d.cause == nil {
			d.changed.Wait()
		}
	}
	d.cancel()
	// Late answers still count, so wait a little. The app's transport may never return.
	deadline := time.Now().Add(cancelGrace)
	defer time.AfterFunc(cancelGrace, d.wakeWaiting).Stop()
	defer time.AfterFunc(cancelGrace*3/2, d.wakeWaiting).Stop() // ends the wait in mirror.closeLocked
	for len(d.inFlight) > 0 && time.Now().Before(deadline) {
		d.changed.Wait()
	}
	d.mirror.closeLocked(deadline.Add(cancelGrace / 2)) // the drop handler has the rest of closeGrace
	d.abandonLocked()
	if n := d.stats.Dropped.Abandoned; n > 0 {
		return fmt.Errorf("docevents: Close: %d events abandoned: %w", n, d.cause)
	}
	return nil
}

// onlyFailingLocked reports whether every pending row keeps failing and has failed
// enoughTries times since Close began. For rows that don't keep failing, closeTries
// stays 0.
func (d *delivery) onlyFailingLocked() bool {
	return !slices.ContainsFunc(d.batchesLocked(), func(b *batch) bool { return b.closeTries < enoughTries })
}

// abandonLocked drops all pending rows as Abandoned. It releases the mutex after each
// queued batch, so that Record doesn't wait for all of them. Several calls to Close may
// run it at the same time.
func (d *delivery) abandonLocked() {
	for _, b := range d.inFlight {
		if !b.done {
			d.dropLocked(b, Abandoned, d.abandonErrLocked(b), time.Now())
		}
	}
	d.retry.batches = append(d.retry.batches, d.fresh.batches...)
	d.fresh.batches = nil
	for n := len(d.retry.batches); n > 0; n = len(d.retry.batches) {
		b := d.retry.remove(n - 1)
		d.dropLocked(b, Abandoned, d.abandonErrLocked(b), time.Now())
		d.mu.Unlock()
		d.mu.Lock()
	}
	d.setTimerLocked(time.Now())
}

// abandonErrLocked returns the error with which Close abandons b's rows: b's last
// failure if b is a single row that may be bad (see mayBeBad), and otherwise the reason
// why Close stopped waiting.
func (d *delivery) abandonErrLocked(b *batch) error {
	err := d.cause
	if b.mayBeBad() {
		err = b.err
	}
	return fmt.Errorf("abandoned by Close: %w", err)
}
