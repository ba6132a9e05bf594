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

// flushPause is how often Flush ends the waits at most: functions call it
// before every reply, in an outage, too.
const flushPause = time.Second

var errSuspects = errors.New("what is left fails while other events are delivered")

// A flush counts down the records that one call of Flush waits for.
type flush struct {
	until int64 // the number of the last one
	left  int64
}

// attemptLocked ends every wait and sends whatever is not in flight, while
// senders are free. Should it fail again, the outage goes on where it was.
func (d *delivery) attemptLocked(now time.Time) {
	d.endOutageLocked()
	d.lasting = nil
	d.queue.wake()
	d.startLocked(now, true)
}

// flush waits until what was recorded before is settled, or ctx is done, or a
// refusal is lasting.
func (d *delivery) flush(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := &flush{until: d.number, left: d.stats.Pending}
	d.flushes = append(d.flushes, f)
	defer func() {
		d.flushes = slices.DeleteFunc(d.flushes, func(other *flush) bool { return other == f })
	}()
	if ctx.Err() == nil { // else there is nothing to wait for
		defer context.AfterFunc(ctx, d.wake)()
	}
	if now := time.Now(); now.Sub(d.tried) >= flushPause {
		d.tried = now
		d.attemptLocked(now)
	} else {
		d.startLocked(now, true)
	}
	for f.left > 0 {
		if why := d.whyLocked(ctx); why != nil {
			return fmt.Errorf("docevents: Flush: %d events still pending: %w", f.left, why)
		}
		d.changed.Wait()
	}
	return nil
}

// whyLocked says why to wait no longer: a lasting refusal, or that ctx is done,
// with what failed last.
func (d *delivery) whyLocked(ctx context.Context) error {
	switch {
	case d.lasting != nil, ctx.Err() == nil:
		return d.lasting
	case d.failures == 0:
		return ctx.Err()
	}
	return fmt.Errorf("%w, after: %w", ctx.Err(), d.last)
}

func (d *delivery) wake() {
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
		d.closed, d.before, d.step = true, d.stats.Requests, 0
		for b := range d.queue.waiting {
			b.records[0].tries = 0 // what failed before doesn't count
		}
		d.attemptLocked(time.Now())
		d.mirror.wakeLocked(true)
	}
	defer context.AfterFunc(ctx, d.wake)()
	for (d.stats.Pending > 0 || d.mirror.isBusyLocked()) && d.cause == nil {
		switch {
		case d.stats.Pending > 0 && d.allLocked(func(b *batch) bool { return b.tried }): // they have failed since, although the server takes others
			d.cause = fmt.Errorf("%w: %w", errSuspects, d.last)
		default:
			d.cause = d.whyLocked(ctx)
		}
		if d.cause == nil {
			d.changed.Wait()
		}
	}
	d.cancel()
	// A late answer still counts, but a foreign transport may never return.
	deadline := time.Now().Add(cancelGrace)
	defer time.AfterFunc(cancelGrace, d.wake).Stop()
	defer time.AfterFunc(cancelGrace*3/2, d.wake).Stop() // as does a disk
	for len(d.inFlight) > 0 && time.Now().Before(deadline) {
		d.changed.Wait()
	}
	d.mirror.closeLocked(deadline.Add(cancelGrace / 2)) // and leaves the drop handler some time
	d.abandonLocked()
	if n := d.stats.Dropped.Abandoned; n > 0 {
		return fmt.Errorf("docevents: Close: %d events abandoned: %w", n, d.cause)
	}
	return nil
}

// abandonLocked drops what is left, a batch at a time, so that Record doesn't
// wait for all of it.
func (d *delivery) abandonLocked() {
	if d.stats.Pending == 0 {
		return
	}
	err := fmt.Errorf("abandoned by Close: %w", d.cause)
	d.endOutageLocked()
	d.queue.wake()
	for _, b := range d.inFlight {
		if !b.gone {
			d.dropLocked(b, Abandoned, err, true, time.Now())
		}
	}
	for len(d.queue.ready) > 0 {
		d.dropLocked(d.queue.pop(), Abandoned, err, false, time.Now())
		d.changed.Broadcast()
		d.mu.Unlock()
		d.mu.Lock()
	}
}
