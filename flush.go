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

// flushPause is the shortest time between two attempts by Flush. Serverless
// functions call it before every reply, also during an outage.
const flushPause = time.Second

var errSuspects = errors.New("the events that are left go on failing, while others were stored")

// A flush counts down the rows that one call of Flush waits for.
type flush struct {
	last int64 // the number of the last of these rows
	left int64
}

// attemptLocked ends all waits. In an outage the next probe is due then.
func (d *delivery) attemptLocked(now time.Time) {
	d.health.lasting = nil // to be confirmed by the next answer
	d.health.probeAt, d.health.probe = now, nil
	for _, b := range d.retry.batches {
		b.due = now
	}
}

// flush waits until the rows recorded before are stored or dropped, ctx is done,
// or a refusal is lasting.
func (d *delivery) flush(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := &flush{last: d.number, left: d.stats.Pending}
	d.flushes = append(d.flushes, f)
	defer func() {
		d.flushes = slices.DeleteFunc(d.flushes, func(other *flush) bool { return other == f })
	}()
	if ctx.Err() == nil { // else there is nothing to wait for
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

// stopWaitingLocked returns why Flush and Close should wait no longer: a lasting
// refusal, or the end of ctx together with the last failure. nil: go on waiting.
func (d *delivery) stopWaitingLocked(ctx context.Context) error {
	if d.health.lasting != nil || ctx.Err() == nil {
		return d.health.lasting
	}
	if last := d.lastFailureLocked(); last != nil {
		return fmt.Errorf("%w, after: %w", ctx.Err(), last)
	}
	return ctx.Err()
}

// lastFailureLocked returns the newest failure of a pending row. nil: none has
// failed.
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

// close ends the delivery as Close promises. The requests that it cancels get
// cancelGrace to return.
func (d *delivery) close(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed {
		d.closed = true
		d.health.step = 0
		d.retry.failures = 0 // suspects are tried at their own pace
		if ctx.Err() == nil {
			d.attemptLocked(time.Now())
			d.startLocked(time.Now(), false)
		}
		d.mirror.wakeLocked(true)
	}
	defer context.AfterFunc(ctx, d.wakeWaiting)()
	for (d.stats.Pending > 0 || d.mirror.isBusyLocked()) && d.cause == nil {
		if d.stats.Pending > 0 && d.onlySuspectsLocked() {
			d.cause = fmt.Errorf("%w: %w", errSuspects, d.lastFailureLocked())
		} else if d.cause = d.stopWaitingLocked(ctx); d.cause == nil {
			d.changed.Wait()
		}
	}
	d.cancel()
	// A late answer still counts, but a foreign transport may never return.
	deadline := time.Now().Add(cancelGrace)
	defer time.AfterFunc(cancelGrace, d.wakeWaiting).Stop()
	defer time.AfterFunc(cancelGrace*3/2, d.wakeWaiting).Stop() // for the spool
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

// onlySuspectsLocked reports whether Close may stop waiting: each pending row, in
// flight or not, is a suspect that has failed often enough since Close began.
func (d *delivery) onlySuspectsLocked() bool {
	return !slices.ContainsFunc(d.batchesLocked(), func(b *batch) bool { return b.closeTries < enoughTries })
}

// abandonLocked drops the rest, a batch at a time, so that Record doesn't wait
// for all of it. Several calls of Close may do so at once.
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

// abandonErrLocked prefers the row's own failure if there was one while other
// rows were stored.
func (d *delivery) abandonErrLocked(b *batch) error {
	err := d.cause
	if b.aloneAt > 0 || b.isSuspect(d.health.stored) {
		err = b.err
	}
	return fmt.Errorf("abandoned by Close: %w", err)
}
