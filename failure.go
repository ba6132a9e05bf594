package docevents

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/docevents/docevents-go/internal/rest"
)

const (
	// maxStrikes drop a row.
	maxStrikes = 10

	// enoughTries of a suspect end the waiting of Close: 3 to 6 s.
	enoughTries = 5

	// shortly after a delivery a refusal for data is put down to the row, not
	// to the table: a quarter of a second is a few requests.
	shortly = 250 * time.Millisecond

	// Between two probes there are at most these waits. A probe is one row, so
	// finding the server back soon costs little, and Close has little time.
	outageWait = 10 * time.Second
	closeWait  = time.Second
)

// An action is what happens to a batch that failed.
type action int

const (
	sendAgain action = iota // after a wait
	setAside                // the rows that the answer names become a batch; both are sent again
	split                   // each half is sent, to find the row at fault
	drop                    // the row is at fault: Rejected
)

// decide returns what happens to a batch after an answer. named: the answer
// names some of the rows, but not all. evidence: other rows were stored since
// its last failure. strikes includes this failure.
func decide(v rest.Verdict, rows int, named, evidence bool, strikes int) action {
	several := rows > 1
	switch {
	case several && named && v != rest.Configuration && v != rest.TooMuch:
		return setAside
	case several && (v == rest.BadData || v == rest.StoredBefore || v == rest.TooMuch || evidence):
		return split
	case !several && (v == rest.BadData && evidence || strikes >= maxStrikes):
		return drop
	}
	return sendAgain
}

// blamesServer reports whether an answer counts towards an open breaker. It
// doesn't if the row is at fault: there is evidence against it, or it was
// refused for its data, or named, while other rows were being stored.
// sinceStored is the time from the last delivery to this request.
func blamesServer(v rest.Verdict, named, evidence bool, sinceStored time.Duration) bool {
	ofRow := named || v == rest.BadData || v == rest.StoredBefore
	return !evidence && (!ofRow || sinceStored >= shortly)
}

// fail writes a failure into b's memory and reports whether there is evidence
// that b is at fault: when b was sent, other rows had been stored by a request
// that was sent after b failed before, in the same way. Rows that are stored
// only later are no evidence, or a table that breaks for a moment would cost
// innocent rows.
//
// newest is the number of the newest request. It is the start of the evidence,
// since requests in flight may have been carried out before the failure. For a
// single row that failed by chance its own request will do: ten strikes are
// needed.
//
// last: all rows that are pending were refused by themselves, so maybe no row is
// left that could become evidence. Then rows count that were stored since the
// first refusal, also if that was one of several rows.
func (b *batch) fail(v rest.Verdict, err error, newest int64, last bool) (evidence bool) {
	single := len(b.records) == 1
	before := b.failedAt
	if v == rest.BadData {
		before = b.aloneAt
	}
	if v == rest.BadData && (b.refusedAt == 0 || codeOf(err) != codeOf(b.err)) {
		b.refusedAt = b.request
	}
	if v == rest.BadData && last {
		before = b.refusedAt
	}
	evidence = before > 0 && b.storedWhenSent > before
	strike := evidence && single && v != rest.BadData
	if strike {
		b.strikes++
	}
	if v == rest.BadData && single {
		b.aloneAt = cmp.Or(b.aloneAt, newest)
	}
	if single && (strike || b.failedAt == 0) {
		b.failedAt = b.request
	}
	b.failedAt = cmp.Or(b.failedAt, newest)
	b.err = err
	b.noteDoubt(err)
	return evidence
}

// noteDoubt remembers that b's rows may be stored, if the answer was lost.
func (b *batch) noteDoubt(err error) {
	if rest.OutcomeUnknown(err) {
		for i := range b.records {
			b.records[i].doubt = true
		}
	}
}

// The health of the server, judged by its answers. delivery.mu guards it.
type health struct {
	stored   int64     // the newest request that stored rows; 0: none
	storedAt time.Time // when it was answered

	// About the failures since then.
	since   time.Time // the first that blames the server; zero: none
	refused time.Time // the first of the refusals, if the newest answer was one; zero: it wasn't
	lasting error     // the newest refusal, once they have lasted for lastingAfter

	// The clock of an open breaker, of either lane.
	step    int       // how many probes have failed
	probeAt time.Time // when the next is due
	probe   *batch    // in flight; nil: none
}

// failed notes an answer. A refusal, of the request or of its data, is lasting
// if there was no other answer for lastingAfter.
func (h *health) failed(v rest.Verdict, err error, now time.Time) {
	switch {
	case v == rest.Transient || v == rest.TooMuch:
		h.refused, h.lasting = time.Time{}, nil
	case h.refused.IsZero():
		h.refused = now
	case now.Sub(h.refused) >= lastingAfter:
		h.lasting = err
	}
}

// isOutage reports whether the server is away, or refuses everything. Then one
// row per wait is sent, of either lane, and nothing else.
func (d *delivery) isOutage() bool { return d.fresh.isOpen() }

// isProbing reports whether the breaker of either lane is open.
func (d *delivery) isProbing() bool { return d.fresh.isOpen() || d.retry.isOpen() }

// failLocked acts on an answer that stored none of b's rows, or on the lack of
// an answer. places are those of the rows that the answer names.
func (d *delivery) failLocked(b *batch, places []int, v rest.Verdict, err error, now time.Time) {
	h, lane := &d.health, &d.fresh
	if b.failedAt > 0 {
		lane = &d.retry
	}
	named := len(places) > 0 && len(places) < len(b.records)
	last := b.aloneAt > 0 && !slices.ContainsFunc(d.batchesLocked(), func(b *batch) bool { return b.aloneAt == 0 })
	evidence := b.fail(v, err, d.stats.Requests, last)
	act := decide(v, len(b.records), named, evidence, b.strikes)
	if !evidence {
		h.failed(v, err, now)
	}
	if d.closed && b.isSuspect(h.stored) { // there may be no other rows left to be stored
		b.closeTries++
		evidence = true
	}
	wasProbing, blamed := d.isProbing(), blamesServer(v, named, evidence, b.sent.Sub(h.storedAt))
	if blamed {
		lane.failures++
	}
	opens := !wasProbing && d.isProbing()
	d.setProbeLocked(b, opens, now)
	if opens || blamed && act == sendAgain {
		h.since = cmp.Or(h.since, now)
		if v != rest.Configuration || h.lasting != nil { // a refusal that passes isn't worth a line
			d.report.failed(h.lasting != nil, err, d.stats.Pending, now)
		}
	}
	d.placeLocked(b, act, places, v, now)
	if d.isProbing() {
		// A refused row is joined only in an outage, when all rows are refused.
		// Else it would be forgotten that it was refused by itself.
		d.retry.join(d.config.maxBatch, func(b *batch) bool {
			return b.isSuspect(h.stored) || b.aloneAt > 0 && !d.isOutage()
		})
	}
}

// setProbeLocked sets when the next probe is due, if b was one or if a breaker
// opens.
func (d *delivery) setProbeLocked(b *batch, opens bool, now time.Time) {
	h, most := &d.health, outageWait
	if h.probe == b {
		h.probe = nil
		h.step++
	} else if !opens {
		return
	}
	if h.lasting != nil {
		h.step, most = max(h.step, longStep), longWait
	}
	if d.closed {
		most = closeWait
	}
	wait := jitter(h.step, most)
	if !h.refused.IsZero() && h.lasting == nil { // ask when the refusal becomes lasting
		wait = min(wait, h.refused.Add(lastingAfter).Sub(now))
	}
	h.probeAt = now.Add(max(wait, rest.RetryAfter(b.err)))
}

// placeLocked carries out the action on b.
func (d *delivery) placeLocked(b *batch, act action, places []int, v rest.Verdict, now time.Time) {
	switch act {
	case sendAgain:
		d.retry.push(b, now.Add(backoff(b.strikes+b.closeTries, longWait, b.err)))
	case setAside:
		named, others := b.cut(func(place int) bool { return slices.Contains(places, place) })
		if v == rest.BadData && len(places) == 1 {
			named.aloneAt = d.stats.Requests
		}
		d.retry.push(named, now.Add(backoff(0, longWait, b.err)))
		d.retry.push(others, now)
	case split:
		first, second := b.cut(func(place int) bool { return place < len(b.records)/2 })
		d.retry.push(first, now)
		d.retry.push(second, now)
	case drop:
		err := b.err
		if v != rest.BadData {
			err = fmt.Errorf("dropped after %d failures while other events were stored: %w", b.strikes, err)
		}
		d.dropLocked(b, Rejected, err, now)
	}
}
