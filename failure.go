package docevents

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/docevents/docevents-go/internal/rest"
)

const (
	// maxStrikes is the number of strikes that drops a row.
	maxStrikes = 10

	// enoughTries is how often Close sends a suspect before it stops waiting for
	// it. With the waits between, that takes 3 to 6 s.
	enoughTries = 5

	// shortly is how long after rows were stored a rejection is taken for the
	// fault of a row and not of the table. It is the time of a few requests.
	shortly = 250 * time.Millisecond

	// outageWait is the longest wait between two probes, and closeWait the
	// longest once Close has begun. A probe is one row, so a short wait costs
	// little and soon finds out that the server is back.
	outageWait = 10 * time.Second
	closeWait  = time.Second
)

// An action is what happens to a batch that failed.
type action int

const (
	sendAgain action = iota // send the batch again after a wait
	setAside                // cut the batch in two: the rows that the answer names, and the others
	split                   // cut the batch in half, to find the bad row
	drop                    // drop the row as Rejected
)

// decide returns what happens to a batch after a failure. named means that the
// answer names some of the rows, but not all. evidence is the result of fail.
// strikes includes this failure.
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

// blamesServer reports whether a failure counts towards opening a breaker. It
// doesn't count if there is evidence against the rows. Nor does it count if the
// answer rejects or names rows and other rows were stored shortly before.
// sinceStored is the time from the last answer that stored rows until this request
// was sent.
func blamesServer(v rest.Verdict, named, evidence bool, sinceStored time.Duration) bool {
	ofRow := named || v == rest.BadData || v == rest.StoredBefore
	return !evidence && (!ofRow || sinceStored >= shortly)
}

// fail writes a failure into b's memory and reports whether there is evidence
// against b. There is evidence if b failed before, a request that was sent after
// that failure stored other rows, and b was sent only after that. Rows that are
// stored while b is in flight don't count, or a table that breaks for a moment
// would cost good rows.
//
// Rejections count apart. A rejection needs an earlier rejection of the row alone
// (aloneAt), because a row that once met a 502 may have good data. Any other
// failure needs an earlier failure of any kind (failedAt).
//
// Only requests after number newest, the newest request so far, can store rows
// that become evidence. A request that is in flight now may have been carried out
// before b failed. If a single row fails, but isn't rejected, requests after its
// own count: that is less strict, but only ten strikes drop the row.
//
// last means that every pending row has been rejected alone. Then there may be no
// other row that could be stored and become evidence. So rows count that were
// stored since the first rejection (refusedAt), even if b was not alone in it. It
// must have had the same code: a table that breaks meanwhile rejects by another.
func (b *batch) fail(v rest.Verdict, err error, newest int64, last bool) (evidence bool) {
	single, rejected := len(b.records) == 1, v == rest.BadData
	if code := codeOf(err); rejected && (b.refusedAt == 0 || code != b.refusedCode) {
		b.refusedAt, b.refusedCode = b.request, code
	}
	before := b.failedAt
	switch {
	case rejected && last:
		before = b.refusedAt
	case rejected:
		before = b.aloneAt
	}
	evidence = before > 0 && b.storedWhenSent > before
	strike := evidence && single && !rejected
	if strike {
		b.strikes++
	}
	if rejected && single {
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

// noteDoubt notes in b's rows that they may be stored, if err means that the
// server may have carried out the request.
func (b *batch) noteDoubt(err error) {
	if rest.OutcomeUnknown(err) {
		for i := range b.records {
			b.records[i].doubt = true
		}
	}
}

// health is what the answers show about the server. delivery.mu guards it.
type health struct {
	stored   int64     // the newest request that stored rows, or 0
	storedAt time.Time // when the server last answered that it stored rows

	// The failures since then. Each field is zero if no request has failed.
	since   time.Time // the first failure that counts as the server's; the log reports it
	refused time.Time // the first of the refusals, if the newest answer is one
	lasting error     // the newest refusal, once refusals have lasted for lastingAfter

	// The clock of the probes. Both lanes share it.
	step    int       // how many probes have failed, which sets the backoff
	probeAt time.Time // when the next probe is due
	probe   *batch    // the probe in flight, or nil
}

// failed notes a failure. Refusals are lasting once there was no other answer for
// lastingAfter.
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

// isOutage reports whether the server is down or refuses every row. Then only
// probes are sent, from either lane.
func (d *delivery) isOutage() bool { return d.fresh.isOpen() }

// isProbing reports whether the breaker of either lane is open.
func (d *delivery) isProbing() bool { return d.fresh.isOpen() || d.retry.isOpen() }

// failLocked acts on a failure of b. places are the indices of the rows that the
// answer names.
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
	if d.closed && b.isSuspect(h.stored) { // it must not open the breaker, so that Close soon has enoughTries
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
		// A row that was rejected alone is joined with others only in an outage,
		// when every row is refused, since joining erases aloneAt.
		d.retry.join(d.config.maxBatch, func(b *batch) bool {
			return b.isSuspect(h.stored) || b.aloneAt > 0 && !d.isOutage()
		})
	}
}

// setProbeLocked sets when the next probe is due, if b was a probe or opens means
// that a breaker opens now.
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
	if !h.refused.IsZero() && h.lasting == nil { // probe when the refusals become lasting
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
