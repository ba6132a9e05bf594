package docevents

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// ErrClosed is the error of what comes after Close.
var ErrClosed = errors.New("the client is closed")

var (
	errQueueFull = errors.New("the queue is full: the server is away, or slower than what is recorded; WithQueueLimits sets the limits")
	errGoexit    = errors.New("the transport ended its goroutine")
)

// The way of a row:
//
//	Record -> ready -> in flight -> delivered
//	            ^         |
//	            |         +-> dropped, where others were delivered since it first failed
//	            |         |
//	            +- waits -+-> failed: alone for a short while, or all of them in an outage
//
// A failure costs only what failed: while some requests succeed, a batch that
// failed waits by itself and everybody else goes on. What fails again though
// others get through is cut in halves, down to the row; where the answer names
// the row, that row is taken out and the rest goes again whole.
//
// An outage is failures with no success between them. In it everything is ready
// and nothing is sent but one probe of one row per wait; the first row that is
// delivered ends it. It leaves no traces: batches are as whole as before.
//
// Nothing is given up without proof that the server takes others, since what
// every row gets is the table's fault, or the server's.
//
// queue.go holds what waits, suspicion.go what is held against rows, failure.go
// says what a failure does, flush.go how waiting for all of it ends.
const (
	// While the newest request has been in flight for less, what is recorded
	// waits to share the next one, instead of each event taking a request of
	// its own while senders are left.
	joinWindow = 50 * time.Millisecond
)

// A delivery owns the queue and its senders: a group commit. What is recorded
// while requests are in flight shares the next one. A sender is a goroutine
// that sends batches until there is nothing to send; during a wait there is
// none, only a timer.
//
// settleLocked alone acts on an answer, shrinkLocked alone lowers Pending.
type delivery struct {
	// insert sends one request. Where it is refused and the answer names rows,
	// it says which.
	insert func(context.Context, []record) (named []int, err error)
	report *reporter
	config *config
	mirror *mirror
	ctx    context.Context // of the requests
	cancel context.CancelFunc

	mu       sync.Mutex // guards all that follows; nothing is sent, logged or called under it
	changed  *sync.Cond // a batch was settled, a sender has ended, a context is done
	stats    Stats
	queue    queue
	texts    keeper
	inFlight []*batch  // each with a sender
	number   int64     // of the newest record
	started  time.Time // of the newest request
	flushes  []*flush
	tried    time.Time // when Flush last ended the waits

	proof     int64     // the newest request that delivered anything
	delivered time.Time // when
	refusals  []*batch  // rows that were refused for their data
	certain   string    // the code of a refusal that was a row's own
	certainAt time.Time // when

	failures int       // weight of the failures since then
	since    time.Time // the first of them; zero: none
	last     error     // the newest of them
	refused  time.Time // since when every answer was a refusal; zero: the newest was not
	lasting  error     // the newest of these, once they have stood for lastingAfter

	slow  bool        // the newest failure took long
	down  bool        // an outage
	step  int         // how many probes have failed
	timer *time.Timer // of the next probe
	probe *batch      // in flight

	closed bool
	before int64 // the newest request then
	cause  error // why Close abandons events; once it is set nothing more is sent
}

func newDelivery(insert func(context.Context, []record) ([]int, error), report *reporter, c *config) *delivery {
	d := &delivery{insert: insert, report: report, config: c}
	d.queue = queue{maxRows: c.maxBatch, waiting: map[*batch]bool{}}
	d.changed = sync.NewCond(&d.mu)
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d
}

// add counts r and queues a copy of it, or says why not. invalid is what is
// wrong with it already.
func (d *delivery) add(r *record, invalid error, now time.Time) (DropReason, error) {
	cost := int64(recordBytes + r.text())
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
	d.number = nextNumber(d.number, now)
	r.number = d.number
	r.message, r.stage = d.texts.keep(r.message), d.texts.keep(r.stage)
	d.mirror.addLocked(r)
	d.queueLocked(r, now)
	return "", nil
}

func (d *delivery) queueLocked(r *record, now time.Time) {
	d.stats.Pending++
	d.stats.PendingBytes += int64(recordBytes + r.text())
	d.queue.add(r)
	d.startLocked(now, false)
}

// startLocked starts senders: the first at once, further ones only when a full
// batch waits or when the newest request has been in flight for long, or, if
// all is set, for whatever is ready.
func (d *delivery) startLocked(now time.Time, all bool) {
	for n := len(d.inFlight); n < d.config.maxInFlight; n++ {
		ready, open := d.queue.ready, d.queue.open
		joins := len(ready) == 1 && ready[0] == open && len(open.records) < d.config.maxBatch && now.Sub(d.started) < joinWindow
		if n > 0 && joins && !all {
			return
		}
		b := d.nextLocked(now, all)
		if b == nil {
			return
		}
		go d.send(b)
	}
}

// nextLocked takes what is to be sent next. Where failures take long, as
// behind a lock, half of the senders are not for suspects, unless all is set.
func (d *delivery) nextLocked(now time.Time, all bool) *batch {
	if d.down || d.cause != nil {
		return nil
	}
	suspects := 0
	for _, b := range d.inFlight {
		if b.apart {
			suspects++
		}
	}
	b := d.queue.take(all || !d.slow || suspects < max(1, d.config.maxInFlight/2))
	if b != nil {
		d.dispatchLocked(b, now)
	}
	return b
}

// dispatchLocked counts a request of b and gives its rows the ids that they keep.
func (d *delivery) dispatchLocked(b *batch, now time.Time) {
	d.stats.Requests++
	again := false
	for i := range b.records {
		b.records[i].identify()
		again = again || b.records[i].failed > 0
	}
	if again {
		d.stats.Retries++
	}
	b.request, b.known, b.sent = d.stats.Requests, d.proof, now
	d.inFlight = append(d.inFlight, b)
	d.started = now
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
		named, err := d.insert(d.ctx, b.records)
		b = d.settle(b, named, err)
	}
	returned = true
}

// settle acts on an answer and returns what its sender sends next.
func (d *delivery) settle(b *batch, named []int, err error) *batch {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	d.settleLocked(b, named, err, now)
	d.mirror.wakeLocked(false)
	if d.queue.waiting[b] && len(d.inFlight) > 0 && now.Sub(d.delivered) >= recently && !d.closed {
		return nil // the others, or b's own wait, tell whether this is an outage
	}
	next := d.nextLocked(now, false)
	d.startLocked(now, false)
	return next
}

func (d *delivery) settleLocked(b *batch, named []int, err error, now time.Time) {
	defer d.changed.Broadcast()
	d.inFlight = slices.DeleteFunc(d.inFlight, func(other *batch) bool { return other == b })
	v := classify(err)
	switch {
	case b.gone: // Close didn't wait for this answer
	case v == accepted, v == storedBefore && len(b.records) == 1:
		d.deliverLocked(b, now)
	case d.cause != nil: // Close cancelled it
		d.queue.push(b)
	default:
		d.failLocked(b, named, v, err, now)
	}
}

// deliverLocked acts on an answer that b's rows are stored.
func (d *delivery) deliverLocked(b *batch, now time.Time) {
	d.stats.Delivered += int64(len(b.records))
	d.shrinkLocked(b)
	clear(b.records) // lets go of their text
	if !d.since.IsZero() {
		d.report.recovered(now.Sub(d.since), now)
	}
	d.proof, d.delivered = max(d.proof, b.request), now
	d.failures, d.since, d.step = 0, time.Time{}, 0
	d.refused, d.lasting = time.Time{}, nil
	d.endOutageLocked()
	if twin := b.twin; twin != nil && len(twin.records) > 1 && d.queue.remove(twin) { // what both were refused for is in there
		d.halveLocked(twin, true, true)
	}
	d.judgeLocked(now, b.refusal != nil)
}

// dropLocked gives b up. Its rows may be stored where the answer to an earlier
// request was lost, or where Close doesn't wait for one: then the error says so.
func (d *delivery) dropLocked(b *batch, reason DropReason, err error, unknown bool, now time.Time) {
	if reason == Abandoned {
		d.stats.Dropped.Abandoned += int64(len(b.records))
	} else {
		d.stats.Dropped.Rejected += int64(len(b.records))
	}
	d.shrinkLocked(b)
	inDoubt := fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
	for i := range b.records {
		r := &b.records[i]
		held, maybe := d.mirror.holdsLocked(r)
		if reason == Abandoned && held {
			d.stats.Dropped.Abandoned--
			d.stats.Kept++
		} else if unknown || r.doubt || maybe && reason == Abandoned {
			d.report.drop(r.event(), r.extra, reason, inDoubt, now)
		} else {
			d.report.drop(r.event(), r.extra, reason, err, now)
		}
	}
}

// shrinkLocked takes b's rows off what is pending: they are settled.
func (d *delivery) shrinkLocked(b *batch) {
	b.gone = true
	d.stats.Pending -= int64(len(b.records))
	for i := range b.records {
		r := &b.records[i]
		d.stats.PendingBytes -= int64(recordBytes + r.text())
		for _, f := range d.flushes {
			if r.number <= f.until {
				f.left--
			}
		}
	}
}
