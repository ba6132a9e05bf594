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
	// waits to share the next one. Measured at a steady 1,000 events/s, that
	// halves the requests beside a sender for every Record.
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
// Its fields are guarded by delivery.mu; while the batch is under way its
// sender may read the records and set their ids.
type batch struct {
	first   int64 // sequence number of records[0]
	records []record
	text    int // bytes of text, kept while the batch is open

	size    int       // records of the next request; 0: all
	suspect int       // among so many at the head one is known to be bad; 0: none known
	tries   int       // failed requests in a row
	strikes int       // of those, how many while others were delivered
	seen    int64     // Stats.Delivered at the last failure
	doubt   bool      // an earlier request may have stored some of the records
	ready   time.Time // where it waits alone: until then
	probe   bool      // under way to try the server with its first record
	closing bool      // taken after Close had begun
}

// A delivery owns the queue and its senders: a group commit. What is recorded
// while requests are under way shares the next one.
//
// A sender is a goroutine that sends batches until there is nothing to send.
// At most maxInFlight are awake, and at most one sleeps, to the end of a wait,
// while records are queued. None exists otherwise.
//
// takeLocked alone decides what is sent next, settleLocked alone acts on an
// answer, shrinkLocked alone lowers Pending.
type delivery struct {
	insert      func(context.Context, []record) error // sends one request
	report      *reporter
	maxInFlight int
	maxBatch    int
	maxEvents   int64
	maxBytes    int64
	ctx         context.Context // of the requests
	cancel      context.CancelFunc

	mu      sync.Mutex // guards all that follows; nothing is sent, logged or called under it
	changed *sync.Cond // for Flush and Close: a batch was settled, a sender has ended, a context is done
	alarm   *sync.Cond // for the sleeping sender: its wait is over, or another one now
	stats   Stats

	next    int64     // sequence number of the next record
	open    *batch    // in the queue, takes the next record; nil: none
	queue   []*batch  // to be sent in this order
	alone   []*batch  // guilty ones, each waiting for its own time
	flying  []*batch  // under way
	started time.Time // of the newest request
	senders int
	asleep  bool // one of the senders is
	flushes []*flush

	down     bool      // an outage: nothing is sent but probes, until one is answered
	since    time.Time // when it began
	until    time.Time // when the next probe is due
	step     int       // how many probes have failed
	probing  bool      // one is under way
	standing error     // the newest failure, where it was one of configuration

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
	d := &delivery{
		insert:      insert,
		report:      report,
		maxInFlight: c.maxInFlight,
		maxBatch:    c.maxBatch,
		maxEvents:   int64(c.queueEvents),
		maxBytes:    int64(c.queueBytes),
	}
	d.changed, d.alarm = sync.NewCond(&d.mu), sync.NewCond(&d.mu)
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d
}

func (d *delivery) snapshot() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stats
}

// refuse counts an event that can't be stored.
func (d *delivery) refuse() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stats.Recorded++
	d.stats.Dropped.Invalid++
}

// add queues a copy of r, or says why not.
func (d *delivery) add(r *record, now time.Time) (DropReason, error) {
	text := r.text()
	cost := int64(recordBytes + text)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stats.Recorded++
	switch {
	case d.closed:
		d.stats.Dropped.Closed++
		return Closed, ErrClosed
	case d.stats.Pending >= d.maxEvents || d.stats.PendingBytes+cost > d.maxBytes:
		d.stats.Dropped.QueueFull++
		return QueueFull, errQueueFull
	}
	d.stats.Pending++
	d.stats.PendingBytes += cost
	b := d.open
	if b == nil || len(b.records) == d.maxBatch || b.text+text > maxBatchText {
		b = &batch{first: d.next}
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
// further one only when a full batch waits that none is about to take, or when
// the newest request has been under way for long. In an outage one is enough.
func (d *delivery) startLocked(now time.Time) {
	awake := d.awakeLocked()
	switch {
	case len(d.queue) == 0, awake >= d.maxInFlight, d.down && d.senders > 0:
		return
	case awake > 0:
		full := len(d.queue)
		if d.open != nil {
			full--
		}
		taking := awake - len(d.flying)
		if full <= taking && (taking > 0 || now.Sub(d.started) < joinWindow) {
			return
		}
	}
	d.senders++
	go d.send()
}

func (d *delivery) awakeLocked() int {
	if d.asleep {
		return d.senders - 1
	}
	return d.senders
}

func (d *delivery) send() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		b, n := d.takeLocked()
		if b == nil {
			break
		}
		d.startLocked(d.started)
		records := b.records[:n]
		d.mu.Unlock()
		err := d.insert(d.ctx, records)
		d.mu.Lock()
		d.settleLocked(b, n, err, time.Now())
	}
	d.senders--
	d.changed.Broadcast()
}

// takeLocked returns the batch to send a prefix of, and how long a prefix, once
// it is time to; nil when this sender is to end.
func (d *delivery) takeLocked() (*batch, int) {
	for d.cause == nil && len(d.queue)+len(d.alone) > 0 {
		now := time.Now()
		wake := d.until
		if d.down {
			if d.probing || d.asleep {
				break // one prober is enough
			}
			if !now.Before(d.until) {
				d.probing = true
				b := d.pickProbeLocked()
				b.probe = true
				return d.flyLocked(b, 1, now)
			}
		} else {
			if d.awakeLocked() > d.maxInFlight {
				break // it slept, and others have begun meanwhile
			}
			isReady := func(b *batch) bool { return !now.Before(b.ready) }
			if i := slices.IndexFunc(d.alone, isReady); i >= 0 {
				b := d.alone[i]
				d.alone = slices.Delete(d.alone, i, i+1)
				return d.flyLocked(b, len(b.records), now)
			}
			if len(d.queue) > 0 {
				b := d.queue[0]
				d.queue[0] = nil // lets go of it: the slice moves on
				d.queue = d.queue[1:]
				return d.flyLocked(b, len(b.records), now)
			}
			if d.asleep {
				break
			}
			wake = slices.MinFunc(d.alone, func(a, b *batch) int { return a.ready.Compare(b.ready) }).ready
		}
		timer := time.AfterFunc(wake.Sub(now), func() { d.wake(d.alarm) })
		d.asleep = true
		d.alarm.Wait() // not for the timer alone: the wait may have changed
		d.asleep = false
		timer.Stop()
	}
	return nil, 0
}

func (d *delivery) wake(c *sync.Cond) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c.Broadcast()
}

// pickProbeLocked takes a batch whose first row is to try the server with: one
// that hasn't failed, if there is one, else it begins at a row drawn by lot from
// all that wait. So the rows that a firewall refuses can't hold up the others,
// wherever they stand.
func (d *delivery) pickProbeLocked() *batch {
	if i := slices.IndexFunc(d.queue, func(b *batch) bool { return b.tries == 0 }); i >= 0 {
		b := d.queue[i]
		d.queue = slices.Delete(d.queue, i, i+1)
		return b
	}
	waiting := slices.Concat(d.queue, d.alone)
	records := 0
	for _, b := range waiting {
		records += len(b.records)
	}
	at := rand.IntN(records)
	i := 0
	for ; at >= len(waiting[i].records); i++ {
		at -= len(waiting[i].records)
	}
	b := waiting[i]
	drop := func(other *batch) bool { return other == b }
	d.queue, d.alone = slices.DeleteFunc(d.queue, drop), slices.DeleteFunc(d.alone, drop)
	if at == 0 {
		return b
	}
	d.queue = append(d.queue, b)
	return b.split(at)
}

// split cuts b at a record and returns what follows, which has failed as often.
func (b *batch) split(at int) *batch {
	rest := &batch{first: b.first + int64(at), records: b.records[at:], size: b.size, tries: b.tries, seen: b.seen, doubt: b.doubt}
	b.records = b.records[:at:at]
	return rest
}

// flyLocked counts a request of at most n records of b.
func (d *delivery) flyLocked(b *batch, n int, now time.Time) (*batch, int) {
	if b == d.open {
		d.open = nil
	}
	if b.size > 0 {
		n = min(n, b.size)
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
	return b, n
}

// settleLocked acts on the answer to a request of b's first n records.
func (d *delivery) settleLocked(b *batch, n int, err error, now time.Time) {
	defer d.changed.Broadcast()
	d.flying = slices.DeleteFunc(d.flying, func(f *batch) bool { return f == b })
	probe := b.probe
	if probe {
		b.probe, d.probing = false, false
	}
	if len(b.records) == 0 {
		return // Close didn't wait for this answer
	}
	v := classify(err)
	switch {
	case v == passing, v == configuration, v == tooMuch && n == 1:
		d.failLocked(b, n, probe, v, err, now)
		return
	case v == accepted:
		d.deliverLocked(b, n)
		b.tries, b.strikes = 0, 0
		if b.suspect > 0 { // it is among the rest
			b.suspect -= n
			b.size = max(1, b.suspect/2)
		} else if !probe {
			b.size = 2 * n
		}
	case n > 1:
		b.tries++
		b.size = n / 2
		if v != tooMuch {
			b.suspect = n
		}
	default: // found; the next may be as bad, so the requests grow again from one row
		if v == storedBefore {
			d.deliverLocked(b, 1)
		} else {
			if b.doubt { // an earlier answer was lost, and this one may be about a later change of the table
				err = fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
			}
			d.dropLocked(b, 1, Rejected, err, now)
		}
		b.tries, b.suspect, b.size = 0, 0, 1
	}
	if len(b.records) > 0 {
		d.queue = slices.Insert(d.queue, 0, b)
	}
	if probe { // the server is up
		d.down, d.step, d.standing = false, 0, nil
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
		b.suspect, b.size = n, n/2
		d.setAloneLocked(b, now.Add(backoff(0, err)))
	case guilty && b.strikes < giveUpStrikes:
		d.setAloneLocked(b, now.Add(backoff(b.tries, err)))
	case guilty:
		err := fmt.Errorf("%w: given up after %d failures while others were delivered: %w", ErrOutcomeUnknown, b.strikes, err)
		d.dropLocked(b, 1, Rejected, err, now)
	default:
		if v != configuration && !probe {
			b.size = max(1, n/2)
		}
		d.queue = append(d.queue, b)
	}
	d.report.failed(v, err, d.stats.Pending, now)
	switch {
	case probe:
		d.step++
	case d.down, guilty:
		return // it belongs to the wait that there is, or is the batch's own
	default:
		d.down, d.since, d.step = true, now, 0
	}
	step := d.step
	d.standing = nil
	if v == configuration {
		d.standing = err
		d.refused = probe && b.closing
		step = longStep
	}
	d.until = now.Add(backoff(step, err))
	if d.closed && (v == configuration || !b.closing) { // the attempt that Close makes at once is still to come
		d.until = now
	}
	d.alarm.Broadcast()
}

func (d *delivery) setAloneLocked(b *batch, ready time.Time) {
	b.ready = ready
	d.alone = append(d.alone, b)
	d.alarm.Broadcast()
}

func (d *delivery) deliverLocked(b *batch, n int) {
	d.stats.Delivered += int64(n)
	clear(d.shrinkLocked(b, n)) // lets go of their text
}

func (d *delivery) dropLocked(b *batch, n int, reason DropReason, err error, now time.Time) {
	switch reason {
	case Rejected:
		d.stats.Dropped.Rejected += int64(n)
	case Abandoned:
		d.stats.Dropped.Abandoned += int64(n)
	}
	d.report.dropRecords(d.shrinkLocked(b, n), reason, err, now)
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
	defer context.AfterFunc(ctx, func() { d.wake(d.changed) })()
	for f.left > 0 {
		why := cmp.Or(d.standing, ctx.Err())
		if why != nil {
			return fmt.Errorf("docevents: Flush: %d events still pending: %w", f.left, why)
		}
		d.changed.Wait()
	}
	return nil
}

// close ends the delivery as Close promises. The requests that ctx's end
// cancels get cancelGrace to return.
func (d *delivery) close(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed { // end every wait, for one more attempt at once
		d.closed = true
		d.until, d.step = time.Time{}, 0
		for _, b := range d.alone {
			b.ready = time.Time{}
		}
		d.alarm.Broadcast()
	}
	defer context.AfterFunc(ctx, func() { d.wake(d.changed) })()
	for d.stats.Pending > 0 && !d.refused && ctx.Err() == nil {
		d.changed.Wait()
	}
	if d.stats.Pending > 0 {
		d.cause = cmp.Or(d.cause, d.standing, ctx.Err())
		d.alarm.Broadcast()
	}
	d.cancel()
	d.awaitSendersLocked() // a late answer still counts
	d.abandonLocked()
	if n := d.stats.Dropped.Abandoned; n > 0 {
		return fmt.Errorf("docevents: Close: %d events abandoned: %w", n, d.cause)
	}
	return nil
}

// awaitSendersLocked waits until no request is under way, but not for ever for
// a foreign transport that doesn't return when it is cancelled.
func (d *delivery) awaitSendersLocked() {
	deadline := time.Now().Add(cancelGrace)
	timer := time.AfterFunc(cancelGrace, func() { d.wake(d.changed) })
	defer timer.Stop()
	for d.senders > 0 && time.Now().Before(deadline) {
		d.changed.Wait()
	}
}

func (d *delivery) abandonLocked() {
	err := fmt.Errorf("%w: abandoned by Close: %w", ErrOutcomeUnknown, d.cause)
	for _, list := range [...][]*batch{d.queue, d.alone, d.flying} {
		for _, b := range list {
			d.dropLocked(b, len(b.records), Abandoned, err, time.Now())
		}
	}
	d.queue, d.alone, d.open = nil, nil, nil
	d.changed.Broadcast()
}
