package docevents

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// ErrClosed is the error of what comes after Close.
var ErrClosed = errors.New("the client is closed")

var errQueueFull = errors.New("the queue is full: the server is away, or slower than what is recorded; WithQueueLimits sets the limits")

const (
	// maxBatchText bounds the text of a request's rows, in bytes.
	maxBatchText = 1 << 20

	// While the newest request has been under way for less, what is recorded
	// waits to share the next one, instead of each event taking a request of
	// its own while senders are left.
	joinWindow = 50 * time.Millisecond

	// A batch that fails so often while others are delivered is to blame
	// itself, not the server; a single row that goes on so is given up.
	guiltyStrikes = 3
	giveUpStrikes = 10

	// cancelGrace is how long Close waits for cancelled requests to return.
	cancelGrace = 500 * time.Millisecond
)

// A batch is a contiguous run of records. A request carries a prefix of it, so
// that bisecting, halving and probing are one mechanism: how long a prefix.
// delivery.mu guards its fields; while it is under way its sender alone reads
// the records and sets their ids.
type batch struct {
	first   int64 // sequence number of records[0]
	records []record
	text    int // bytes of text, kept while the batch is open

	size    int         // records of the next request; 0: all
	tries   int         // failed requests in a row
	strikes int         // of those, how many while others were delivered
	seen    int64       // Stats.Delivered at the last failure
	doubt   bool        // an earlier request may have stored some of the records
	probe   bool        // under way to try the server with its first record
	closing bool        // taken after Close had begun
	timer   *time.Timer // while it waits alone
}

// A delivery owns the queue and its senders: a group commit. What is recorded
// while requests are under way shares the next one. A sender is a goroutine
// that sends batches until there is nothing to send; during a wait there is
// none, only a timer.
//
// nextLocked and probe alone decide what is sent next, settleLocked alone acts
// on an answer, shrinkLocked alone lowers Pending.
type delivery struct {
	insert func(context.Context, []record) error // sends one request
	report *reporter
	config *config
	ctx    context.Context // of the requests
	cancel context.CancelFunc

	mu      sync.Mutex // guards all that follows; nothing is sent, logged or called under it
	changed *sync.Cond // a batch was settled, a sender has ended, a context is done
	stats   Stats

	next    int64     // sequence number of the next record
	open    *batch    // in the queue, takes the next record; nil: none
	queue   []*batch  // to be sent in this order
	alone   []*batch  // guilty ones, each waiting for its own time
	flying  []*batch  // under way, each with a sender
	started time.Time // of the newest request
	flushes []*flush

	down     bool        // an outage: nothing is sent but probes, until one is answered
	since    time.Time   // when it began
	step     int         // how many probes have failed
	timer    *time.Timer // of the next probe
	standing error       // the newest failure, where it was one of configuration

	closed  bool
	refused bool  // the attempt that Close makes met an error of configuration
	cause   error // why Close abandons events; once it is set nothing more is sent
}

// A flush counts down the records that one call of Flush waits for.
type flush struct {
	before int64 // their sequence numbers are below
	left   int64
}

func newDelivery(insert func(context.Context, []record) error, report *reporter, c *config) *delivery {
	d := &delivery{insert: insert, report: report, config: c}
	d.changed = sync.NewCond(&d.mu)
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d
}

// add counts r and queues a copy of it, or says why not. invalid is what is
// wrong with it already.
func (d *delivery) add(r *record, invalid error, now time.Time) (DropReason, error) {
	text := r.text()
	cost := int64(recordBytes + text)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stats.Recorded++
	switch {
	case invalid != nil:
		d.stats.Dropped.Invalid++
		return Invalid, invalid
	case d.closed:
		d.stats.Dropped.Closed++
		return Closed, ErrClosed
	case d.stats.Pending >= int64(d.config.queueEvents) || d.stats.PendingBytes+cost > int64(d.config.queueBytes):
		d.stats.Dropped.QueueFull++
		return QueueFull, errQueueFull
	}
	d.stats.Pending++
	d.stats.PendingBytes += cost
	b := d.open
	if full := b != nil && len(b.records) == d.config.maxBatch; b == nil || full || b.text+text > maxBatchText {
		b = &batch{first: d.next}
		if full { // then so will this one be, most likely: nothing to copy as it grows
			b.records = make([]record, 0, d.config.maxBatch)
		}
		d.open = b
		d.queue = append(d.queue, b)
	}
	b.records = append(b.records, *r)
	b.text += text
	d.next++
	d.startLocked(now)
	return "", nil
}

// startLocked starts a sender where one more is of use: the first at once, a
// further one only when a full batch waits or when the newest request has been
// under way for long.
func (d *delivery) startLocked(now time.Time) {
	joins := len(d.queue) == 1 && d.queue[0] == d.open && len(d.open.records) < d.config.maxBatch && now.Sub(d.started) < joinWindow
	if len(d.flying) == 0 || len(d.flying) < d.config.maxInFlight && !joins {
		if b, records := d.nextLocked(now); b != nil {
			go d.send(b, records)
		}
	}
}

func (d *delivery) send(b *batch, records []record) {
	for b != nil {
		err := d.insert(d.ctx, records)
		d.mu.Lock()
		now := time.Now()
		d.settleLocked(b, len(records), err, now)
		if b, records = d.nextLocked(now); b != nil {
			d.startLocked(now)
		}
		d.mu.Unlock()
	}
}

// nextLocked takes the batch at the head of the queue, and the prefix of it to
// send, if there is something to send.
func (d *delivery) nextLocked(now time.Time) (*batch, []record) {
	if d.down || d.cause != nil || len(d.queue) == 0 {
		return nil, nil
	}
	b := d.queue[0]
	d.queue[0] = nil // lets go of it: the slice moves on
	d.queue = d.queue[1:]
	if b.size == 0 {
		return d.flyLocked(b, len(b.records), now)
	}
	return d.flyLocked(b, min(b.size, len(b.records)), now)
}

// flyLocked counts a request of b's first n records.
func (d *delivery) flyLocked(b *batch, n int, now time.Time) (*batch, []record) {
	if b == d.open {
		d.open = nil
	}
	d.stats.Requests++
	if b.tries > 0 {
		d.stats.Retries++
	} else {
		b.seen = d.stats.Delivered
	}
	b.closing = d.closed
	d.flying = append(d.flying, b)
	d.started = now
	return b, b.records[:n]
}

// probe tries, at the end of a wait, whether the server is back: with a row drawn
// by lot from a batch that hasn't failed, if there is one, else from the
// largest. So the rows that a firewall refuses can't hold up the others,
// wherever they stand.
func (d *delivery) probe() {
	d.mu.Lock()
	defer d.mu.Unlock()
	waiting := slices.Concat(d.queue, d.alone)
	if d.cause != nil || len(waiting) == 0 { // Close, or the last row that waited was given up
		d.down, d.standing = false, nil
		return
	}
	b := slices.MaxFunc(waiting, func(a, b *batch) int { return len(a.records) - len(b.records) })
	if i := slices.IndexFunc(waiting, func(b *batch) bool { return b.tries == 0 }); i >= 0 {
		b = waiting[i]
	}
	d.queue, d.alone = without(d.queue, b), without(d.alone, b)
	if at := rand.IntN(len(b.records)); at > 0 {
		if b == d.open {
			d.open = nil
		}
		d.queue = append(d.queue, b)
		b = b.split(at)
	}
	b.probe = true
	go d.send(d.flyLocked(b, 1, time.Now()))
}

func without(list []*batch, b *batch) []*batch {
	return slices.DeleteFunc(list, func(other *batch) bool { return other == b })
}

// split cuts b at a record and returns what follows, which has failed as often.
func (b *batch) split(at int) *batch {
	rest := &batch{first: b.first + int64(at), records: b.records[at:], size: b.size, tries: b.tries, seen: b.seen, doubt: b.doubt}
	b.records = b.records[:at:at]
	return rest
}

// settleLocked acts on the answer to a request of b's first n records.
func (d *delivery) settleLocked(b *batch, n int, err error, now time.Time) {
	defer d.changed.Broadcast()
	d.flying = without(d.flying, b)
	probe := b.probe
	b.probe = false
	if len(b.records) == 0 {
		return // Close didn't wait for this answer
	}
	v := classify(err)
	switch {
	case v == transient, v == configuration, v == tooMuch && n == 1:
		d.failLocked(b, n, probe, v, err, now)
		return
	case v == accepted:
		d.deliverLocked(b, n)
		b.tries, b.strikes = 0, 0
		if !probe {
			b.size = 2 * n
		}
	case n > 1:
		b.tries++
		b.size = n / 2
	default: // found; the next may be as bad, so the requests grow again from one row
		if v == storedBefore {
			d.deliverLocked(b, 1)
		} else {
			if b.doubt { // an earlier answer was lost, and this one may be about a later change of the table
				err = fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
			}
			d.dropLocked(b, 1, Rejected, err, now)
		}
		b.tries, b.size = 0, 1
	}
	if len(b.records) > 0 {
		d.queue = slices.Insert(d.queue, 0, b)
	}
	if probe { // the server is up
		d.down, d.standing = false, nil
		d.report.recovered(now.Sub(d.since), now)
	}
}

// failLocked acts on an answer that says nothing against the rows themselves.
func (d *delivery) failLocked(b *batch, n int, probe bool, v verdict, err error, now time.Time) {
	if d.cause != nil { // Close cancelled it
		d.queue = append(d.queue, b)
		return
	}
	b.tries++
	b.doubt = b.doubt || outcomeUnknown(err)
	if d.stats.Delivered > b.seen {
		b.strikes++
		b.seen = d.stats.Delivered
	}
	if n == 1 && len(b.records) > 1 { // those behind it get their own turn
		rest := b.split(1)
		b.records = slices.Clone(b.records) // lets go of the others
		b.tries = 1
		d.queue = append(d.queue, rest)
	}
	guilty := b.strikes >= guiltyStrikes
	switch {
	case guilty && n > 1: // one row of it, rather: find that
		b.strikes = guiltyStrikes
		b.size = n / 2
		d.waitAloneLocked(b, backoff(0, err))
	case guilty && b.strikes < giveUpStrikes:
		d.waitAloneLocked(b, backoff(b.tries, err))
	case guilty:
		err := fmt.Errorf("%w: given up after %d failures while others were delivered: %w", ErrOutcomeUnknown, b.strikes, err)
		d.dropLocked(b, 1, Rejected, err, now)
	default:
		if v != configuration && !probe {
			b.size = max(1, n/2)
		}
		d.queue = append(d.queue, b)
	}
	d.report.failed(v == configuration, err, d.stats.Pending, now)
	switch {
	case probe:
		d.step++
	case d.down, guilty:
		return // it belongs to the wait that there is, or is the batch's own
	default:
		d.down, d.since, d.step = true, now, 0
	}
	wait := backoff(d.step, err)
	d.standing = nil
	if v == configuration {
		d.standing = err
		d.refused = probe && b.closing
		wait = backoff(longStep, err)
	}
	if d.closed && !d.refused && (v == configuration || !b.closing) { // the attempt that Close makes at once is still to come
		wait = 0
	}
	d.timer = time.AfterFunc(wait, d.probe)
}

// waitAloneLocked puts a guilty batch aside, so that it holds up no other.
func (d *delivery) waitAloneLocked(b *batch, wait time.Duration) {
	d.alone = append(d.alone, b)
	b.timer = time.AfterFunc(wait, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.joinLocked(b)
	})
}

func (d *delivery) joinLocked(b *batch) {
	b.timer.Stop()
	if slices.Contains(d.alone, b) {
		d.alone = without(d.alone, b)
		d.queue = append(d.queue, b)
		d.startLocked(time.Now())
	}
}

func (d *delivery) deliverLocked(b *batch, n int) {
	d.stats.Delivered += int64(n)
	clear(d.shrinkLocked(b, n)) // lets go of their text
}

func (d *delivery) dropLocked(b *batch, n int, reason DropReason, err error, now time.Time) {
	if reason == Abandoned {
		d.stats.Dropped.Abandoned += int64(n)
	} else {
		d.stats.Dropped.Rejected += int64(n)
	}
	settled := d.shrinkLocked(b, n)
	for i := range settled {
		d.report.drop(settled[i].event(), settled[i].extra, reason, err, now)
	}
}

// shrinkLocked takes the first n records off b: they are settled.
func (d *delivery) shrinkLocked(b *batch, n int) []record {
	settled := b.records[:n:n]
	for i := range settled {
		d.stats.PendingBytes -= int64(recordBytes + settled[i].text())
	}
	d.stats.Pending -= int64(n)
	end := b.first + int64(n)
	for _, f := range d.flushes {
		f.left -= max(0, min(end, f.before)-b.first)
	}
	b.first, b.records = end, b.records[n:]
	return settled
}

// flush waits until what was recorded before is settled, or ctx is done, or a
// configuration error stands.
func (d *delivery) flush(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := &flush{before: d.next, left: d.stats.Pending}
	d.flushes = append(d.flushes, f)
	defer func() {
		d.flushes = slices.DeleteFunc(d.flushes, func(other *flush) bool { return other == f })
	}()
	defer context.AfterFunc(ctx, d.wake)()
	for f.left > 0 {
		if why := cmp.Or(d.standing, ctx.Err()); why != nil {
			return fmt.Errorf("docevents: Flush: %d events still pending: %w", f.left, why)
		}
		d.changed.Wait()
	}
	return nil
}

func (d *delivery) wake() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.changed.Broadcast()
}

// close ends the delivery as Close promises. The requests that ctx's end
// cancels get cancelGrace to return.
func (d *delivery) close(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed { // end every wait, for one more attempt at once
		d.closed, d.step = true, 0
		for _, b := range slices.Clone(d.alone) {
			d.joinLocked(b)
		}
		if d.down && d.timer.Stop() {
			d.timer.Reset(0)
		}
	}
	defer context.AfterFunc(ctx, d.wake)()
	for d.stats.Pending > 0 && !d.refused && ctx.Err() == nil {
		d.changed.Wait()
	}
	if d.stats.Pending > 0 {
		d.cause = cmp.Or(d.cause, d.standing, ctx.Err())
	}
	d.cancel()
	// A late answer still counts, but a foreign transport may never return.
	deadline := time.Now().Add(cancelGrace)
	defer time.AfterFunc(cancelGrace, d.wake).Stop()
	for len(d.flying) > 0 && time.Now().Before(deadline) {
		d.changed.Wait()
	}
	d.abandonLocked()
	if n := d.stats.Dropped.Abandoned; n > 0 {
		return fmt.Errorf("docevents: Close: %d events abandoned: %w", n, d.cause)
	}
	return nil
}

func (d *delivery) abandonLocked() {
	if d.timer != nil {
		d.timer.Stop()
	}
	err := fmt.Errorf("%w: abandoned by Close: %w", ErrOutcomeUnknown, d.cause)
	for _, b := range slices.Concat(d.queue, d.alone, d.flying) {
		if b.timer != nil {
			b.timer.Stop()
		}
		d.dropLocked(b, len(b.records), Abandoned, err, time.Now())
	}
	d.queue, d.alone, d.open = nil, nil, nil
	d.changed.Broadcast()
}
