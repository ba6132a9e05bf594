package docevents

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/docevents/docevents-go/internal/rest"
	"github.com/docevents/docevents-go/internal/row"
)

// The engine: how a row gets from Record into the table.
//
//	Record -> fresh lane -> in flight -> stored        (closes both breakers)
//	                        |       ^
//	                        v       |
//	                      retry lane     a suspect may be dropped instead
//
// A row is in exactly one of three places: the fresh lane, the retry lane, or in
// flight. nextLocked alone decides what is sent, settle alone acts on an answer,
// doneLocked alone lowers Pending.
//
// Fresh rows are sent at once, and under load in full batches. A batch that
// failed goes to the retry lane, where it can't delay fresh rows by more than a
// request. There it waits until it is due; a batch that may hold a bad row is
// split, down to the row.
//
// Evidence: a row is dropped only if the server stored other rows between its
// failures. If the server refuses everything, the table or the key is at fault,
// not the rows, and everything waits.
//
// Circuit breakers: five failures in a row, with nothing stored between, open a
// lane's breaker. If the fresh lane's is open, this is an outage: one row per
// wait is sent, a probe, and nothing else. If only the retry lane's is open, the
// probes are its rows, and fresh rows are sent as usual. Anything stored closes
// both breakers.
//
// next.go decides what is sent and when, lane.go holds batches and lanes,
// failure.go decides what a failure means, flush.go waits for the end.

// A delivery owns the lanes and the senders. A sender is a goroutine that sends
// batches until there is nothing to send. While rows wait to become due there is
// a timer and no goroutine; an idle delivery has neither.
type delivery struct {
	// insert sends one request. If the answer names some of the rows, it
	// returns their places.
	insert func([]record) (places []int, err error)
	cancel context.CancelFunc // of all requests
	report *reporter
	config *config
	mirror *mirror

	mu       sync.Mutex // guards the fields below; no I/O, logging or foreign code runs under it
	changed  *sync.Cond // an answer was acted on, a context ended
	stats    Stats
	number   int64 // of the newest row
	texts    row.Keeper
	fresh    lane
	retry    lane
	inFlight []*batch // one for each sender, in the order in which they were sent
	health   health
	timer    *time.Timer // starts senders at timerAt
	timerAt  time.Time   // zero: the timer isn't running
	flushes  []*flush
	attempt  time.Time // when Flush last ended the waits

	closed bool  // Close has begun: no more rows are accepted
	cause  error // why Close stopped waiting; once it is set, nothing is sent
}

func newDelivery(insert func(context.Context, []record) ([]int, error), report *reporter, c *config) *delivery {
	d := &delivery{report: report, config: c}
	d.changed = sync.NewCond(&d.mu)
	d.timer = time.AfterFunc(time.Hour, d.timeout)
	d.timer.Stop()
	ctx, cancel := context.WithCancel(context.Background())
	d.insert, d.cancel = func(rows []record) ([]int, error) { return insert(ctx, rows) }, cancel
	return d
}

// add counts r and queues a copy of it, or returns why it is dropped: for the
// given reason and error, unless reason is "".
func (d *delivery) add(r *record, reason DropReason, err error, now time.Time) (DropReason, error) {
	cost := int64(recordBytes + r.Text())
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stats.Recorded++
	switch {
	case reason != "":
	case d.closed:
		reason, err = Closed, ErrClosed
	case d.stats.Pending >= int64(d.config.queueEvents) || d.stats.PendingBytes+cost > int64(d.config.queueBytes):
		reason, err = QueueFull, errQueueFull
	}
	if reason != "" {
		d.stats.Dropped.add(reason)
		return reason, err
	}
	d.number = nextNumber(d.number, now)
	r.number = d.number
	r.Message, r.Stage = d.texts.Keep(r.Message), d.texts.Keep(r.Stage)
	d.mirror.addLocked(r)
	d.queueLocked(r, now)
	return "", nil
}

func (d *delivery) queueLocked(r *record, now time.Time) {
	d.stats.Pending++
	d.stats.PendingBytes += int64(recordBytes + r.Text())
	d.fresh.add(r, d.config.maxBatch)
	d.startLocked(now, true)
}

// startLocked starts senders for everything that may be sent now, and the timer
// for the rest. join: fresh rows may wait to share the next request.
func (d *delivery) startLocked(now time.Time, join bool) {
	for b := d.nextLocked(now, join); b != nil; b = d.nextLocked(now, join) {
		go d.send(b)
	}
	d.setTimerLocked(now)
}

// send is a sender.
func (d *delivery) send(b *batch) {
	returned := false
	defer func() {
		if !returned { // a foreign transport has ended this goroutine, as testing's FailNow does
			go d.send(d.settle(b, nil, errGoexit))
		}
	}()
	for b != nil {
		places, err := d.insert(b.records)
		b = d.settle(b, places, err)
	}
	returned = true
}

// settle acts on an answer and returns what its sender sends next.
func (d *delivery) settle(b *batch, places []int, err error) (next *batch) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	d.inFlight = slices.DeleteFunc(d.inFlight, func(other *batch) bool { return other == b })
	switch v := rest.Classify(err); {
	case b.done: // Close didn't wait for this answer
	case v == rest.Accepted, v == rest.StoredBefore && len(b.records) == 1:
		d.storeLocked(b, now)
	case d.cause != nil: // Close has cancelled it, and abandons it next
		b.noteDoubt(err)
		d.retry.push(b, now)
	default:
		d.failLocked(b, places, v, err, now)
	}
	d.mirror.wakeLocked(false)
	d.changed.Broadcast()
	next = d.nextLocked(now, false)
	d.startLocked(now, true)
	return next
}

// storeLocked acts on an answer that b's rows are stored.
func (d *delivery) storeLocked(b *batch, now time.Time) {
	d.stats.Delivered += int64(len(b.records))
	d.doneLocked(b)
	clear(b.records) // frees their text
	h := &d.health
	if !h.since.IsZero() {
		d.report.recovered(now.Sub(h.since), now)
	}
	*h = health{stored: max(h.stored, b.request), storedAt: now}
	d.fresh.failures, d.retry.failures = 0, 0
}

// dropLocked drops b. If an answer to an earlier request was lost, or if Close
// doesn't wait for one, its rows may be stored: then the error says so.
func (d *delivery) dropLocked(b *batch, reason DropReason, err error, now time.Time) {
	inFlight := slices.Contains(d.inFlight, b)
	inDoubt := fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
	d.doneLocked(b)
	for i := range b.records {
		r := &b.records[i]
		holds, may := d.mirror.holdsLocked(r)
		if reason == Abandoned && holds {
			d.stats.Kept++
			continue
		}
		d.stats.Dropped.add(reason)
		if inFlight || r.doubt || may {
			d.report.drop(r.event(), r.Extra, reason, inDoubt, now)
		} else {
			d.report.drop(r.event(), r.Extra, reason, err, now)
		}
	}
}

// doneLocked ends b: its rows are no longer pending.
func (d *delivery) doneLocked(b *batch) {
	b.done = true
	d.stats.Pending -= int64(len(b.records))
	for i := range b.records {
		r := &b.records[i]
		d.stats.PendingBytes -= int64(recordBytes + r.Text())
		for _, f := range d.flushes {
			if r.number <= f.last {
				f.left--
			}
		}
	}
}

// batchesLocked returns every batch, in flight or not.
func (d *delivery) batchesLocked() []*batch {
	return slices.Concat(d.inFlight, d.fresh.batches, d.retry.batches)
}
