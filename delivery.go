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
//	Record -> fresh lane -> in flight -> stored
//	                        |       ^
//	                        v       |
//	                      retry lane -> dropped, if there is evidence against the row
//
// A batch is the rows of one request. A lane is a queue of batches: the fresh lane for
// rows that were never sent, and the retry lane for rows that have failed. A pending
// row is in one of the lanes or in flight. Each request is sent by a goroutine, which
// ends with the request.
//
// Only nextLocked decides what is sent, only the method settle acts on an answer, and
// only doneLocked lowers Stats.Pending.
//
// At most maxInFlight requests are in flight. One of these requests is reserved for
// fresh rows, so that failed rows don't delay them. For exceptions, see maySendLocked
// and mayRetryLocked.
//
// If a request fails, its batch is sent again after a wait. A batch that may contain a
// bad row is cut in two. Two kinds of failures are called refusals: a rejection blames
// the data of the rows, and a misconfiguration blames the API key, the table or a
// grant.
//
// There is evidence against a batch if it fails both before and after the server stores
// other rows: the server works, so the batch probably contains a bad row. Without
// evidence no row is dropped: if the server refuses every row, the table or the API key
// is at fault.
//
// A row is dropped as Rejected only when it is alone in its request, in two cases:
//
//   - The row is rejected alone twice, and other rows are stored between the two
//     rejections. For an exception, see history.evidence.
//   - The row gets ten strikes. A strike is a failure that is evidence against the row,
//     but not a rejection.
//
// A suspect is a row that may be dropped soon: it has a strike, or it was rejected
// alone and other rows have been stored since then. Suspects are never joined with
// other rows.
//
// Each lane has a circuit breaker, which opens after five consecutive failures that
// blame the server (see blamesServer). Then only probes are sent from the lane, one at
// a time. A probe is a request with a single row, to find out whether the server works.
// Both breakers close as soon as the server stores a row.
//
// While the fresh lane's breaker is open, there is an outage, and the retry lane also
// sends only probes.
//
// next.go decides what is sent and when. lane.go has batches and lanes. failure.go
// decides what a failure means. flush.go has Flush and Close.

// A delivery owns the two lanes and the batches in flight. While all pending rows wait
// for their next attempt, it has a timer but no goroutine. While no row is pending, it
// has neither.
type delivery struct {
	// insert sends one request. If the server's answer refers to some of the rows,
	// places contains their indices.
	insert func([]record) (places []int, err error)
	cancel context.CancelFunc // cancels all requests
	report *reporter
	config *config
	mirror mirror // copies pending rows to the spool, if there is one

	mu       sync.Mutex // guards the fields below; no I/O, logging or code of the app runs under it
	changed  *sync.Cond // wakes Flush and Close, for example after an answer or when a context ends
	stats    Stats
	number   int64 // of the newest row
	texts    row.Keeper
	fresh    lane
	retry    lane
	inFlight []*batch // in the order in which they were sent
	health   health
	timer    *time.Timer // calls startLocked at timerAt
	timerAt  time.Time   // is zero while the timer isn't running
	flushes  []*flush
	attempt  time.Time // when Flush last cut the backoff short

	closed bool  // Close has begun, and no more rows are accepted
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

// add counts r as recorded and queues a copy of it. If the queue is full or the client
// is closed, r is counted as dropped instead of being queued, and add returns the
// reason and an error. If the caller passes a reason, r is counted as dropped too, and
// add returns the caller's reason and err.
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
	r.identify()
	r.Message, r.Stage = d.texts.Keep(r.Message), d.texts.Keep(r.Stage)
	d.mirror.addLocked(r)
	d.queueLocked(r, now)
	return "", nil
}

// queueLocked adds r to the fresh lane. r comes from Record or from the spool.
func (d *delivery) queueLocked(r *record, now time.Time) {
	d.stats.Pending++
	d.stats.PendingBytes += int64(recordBytes + r.Text())
	d.fresh.add(r, d.config.maxBatch)
	d.startLocked(now, true)
}

// startLocked sends each batch that may be sent now, and sets the timer for the others.
// For the parameter join, see nextLocked.
func (d *delivery) startLocked(now time.Time, join bool) {
	for b := d.nextLocked(now, join); b != nil; b = d.nextLocked(now, join) {
		go d.send(b)
	}
	d.setTimerLocked(now)
}

// send sends b and passes the outcome to the method settle. If the app's transport
// calls runtime.Goexit, as FailNow of package testing does, the request fails with
// errGoexit.
func (d *delivery) send(b *batch) {
	places, err := []int(nil), errGoexit
	defer func() { d.settle(b, places, err) }()
	places, err = d.insert(b.records)
}

// settle acts on the outcome of b's request. The rows count as stored if err is nil, or
// if b is a single row and err means that it was stored before. places are the indices
// of the rows that the server's error refers to.
func (d *delivery) settle(b *batch, places []int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	d.inFlight = slices.DeleteFunc(d.inFlight, func(other *batch) bool { return other == b })
	switch v := rest.Classify(err); {
	case b.done: // Close didn't wait for this answer
	case v == rest.Accepted, v == rest.StoredBefore && len(b.records) == 1:
		d.storeLocked(b, now)
	case d.cause != nil: // Close has cancelled the request, and abandons the rows next
		b.noteDoubt(err)
		d.retry.push(b, now)
	default:
		d.failLocked(b, places, v, err, now)
	}
	d.mirror.wakeLocked(false)
	d.changed.Broadcast()
	d.startLocked(now, false) // a request has ended, so fresh rows don't wait for more rows
}

// storeLocked counts b's rows as stored and closes both breakers.
func (d *delivery) storeLocked(b *batch, now time.Time) {
	d.stats.Delivered += int64(len(b.records))
	d.doneLocked(b)
	h := &d.health
	if !h.failedSince.IsZero() {
		d.report.recovered(now.Sub(h.failedSince), now)
	}
	*h = health{stored: max(h.stored, b.request), storedAt: now}
	d.fresh.failures, d.retry.failures = 0, 0
}

// dropLocked drops b's rows. If Close abandons a row that the spool has on disk, the
// row is counted as kept, not as dropped.
func (d *delivery) dropLocked(b *batch, reason DropReason, err error, now time.Time) {
	inFlight := slices.Contains(d.inFlight, b)
	inDoubt := fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
	d.doneLocked(b)
	for i := range b.records {
		r := &b.records[i]
		onDisk, mayBeOnDisk := d.mirror.holdsLocked(r)
		if reason == Abandoned && onDisk {
			d.stats.Kept++
			continue
		}
		d.stats.Dropped.add(reason)
		if inFlight || r.doubt || mayBeOnDisk { // the row may be in the table, or may still get to the disk
			d.report.drop(r.event(), r.Extra, reason, inDoubt, now)
		} else {
			d.report.drop(r.event(), r.Extra, reason, err, now)
		}
	}
}

// doneLocked marks b as done. Its rows are no longer pending.
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
