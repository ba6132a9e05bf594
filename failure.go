package docevents

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/docevents/docevents-go/internal/rest"
)

const (
	maxStrikes = 10 // the tenth strike drops the row

	// Close stops waiting if each remaining row has failed enoughTries times during
	// Close, although other rows were stored. With the waits in between, that takes 3
	// to 6 s.
	enoughTries = 5

	// If the server stored rows less than trustTime before a request was sent, the
	// server works. If that request then fails with an error about its rows, the
	// failure doesn't count towards opening a breaker. The value is the usual time of a
	// few consecutive requests.
	trustTime = 250 * time.Millisecond

	// The wait between two probes is at most outageWait, or closeWait once Close has
	// begun. Retry-After or lasting refusals may make it longer (see setProbeLocked).
	outageWait = 10 * time.Second
	closeWait  = time.Second
)

// An action is what happens to a batch that failed.
type action int

const (
	sendAgain action = iota // send the batch again after a wait
	setAside                // cut the batch in two: the rows that the answer refers to, and the others
	split                   // cut the batch in half, to find the bad row
	drop                    // drop the row as Rejected
)

// decide returns what happens to a batch after a failure. named is true if the answer
// refers to some rows of the batch, but not to all. The number of strikes includes this
// failure.
func decide(v rest.Verdict, rows int, named, evidence bool, strikes int) action {
	several := rows > 1
	switch {
	case several && named && v != rest.Configuration && v != rest.TooMuch:
		return setAside
	case several && (v == rest.BadData || v == rest.StoredBefore || v == rest.TooMuch || evidence):
		return split
	case v == rest.BadData && evidence || strikes >= maxStrikes: // a single row, since only single rows have strikes
		return drop
	}
	return sendAgain
}

// blamesServer reports whether a failure counts towards opening a breaker. Failures
// that seem to be the fault of rows don't count (see trustTime). sinceStored is the
// time from when rows were last stored until the failed request was sent. It is
// negative if the request was sent first.
func blamesServer(v rest.Verdict, named, evidence bool, sinceStored time.Duration) bool {
	aboutRows := named || v == rest.BadData || v == rest.StoredBefore
	return !evidence && (!aboutRows || sinceStored >= trustTime)
}

// A history holds the failures of a batch. A mark is the number of a request, or 0 if
// it was never set. If a request with a higher number than the mark stores rows, the
// next failure is evidence against the batch.
//
// A failure sets a mark to the failed request, or to the newest request at that time.
// The newest request is used where requests in flight must not count as evidence,
// because the server may have stored their rows before the failure.
type history struct {
	// failMark is set by the first failure of any kind. For a single row it is the
	// failed request. For several rows it is the newest request, so that rows that were
	// stored just before an outage are no evidence.
	//
	// Each failure with evidence raises failMark, so that no stored row is evidence
	// twice. Otherwise one stored row would be enough to split a batch down to single
	// rows in an outage.
	failMark int64

	// aloneMark is set to the newest request when a row is first rejected alone: it was
	// alone in its request, or was the only row that the answer referred to.
	aloneMark int64

	// rejectMark is set by the batch's first rejection, in the same way as failMark.
	// The field rejection is the error text of that rejection. A rejection with another
	// text sets both fields again, because it suggests that the table has broken since.
	rejectMark int64
	rejection  string

	strikes    int   // the strikes of a single row; each doubles the row's wait, and the tenth drops the row
	closeTries int   // how often a row that keeps failing has failed since Close began
	err        error // the last failure
}

// ofPart returns the history of a batch that is cut from a batch with history h.
func (h history) ofPart() history {
	return history{failMark: h.failMark, rejectMark: h.rejectMark, rejection: h.rejection, err: h.err}
}

// evidence reports whether a new failure is evidence against the batch: the batch
// failed earlier, and other rows were stored between the earlier failure and the new
// request. lastStored is the newest request that had stored rows when the new request
// was sent. Rows that were stored later don't count, because the new request may have
// failed before that, while the table was still broken.
//
// rejected is true if the new failure is a rejection. Then the earlier failure must be
// a rejection of the row alone. allRejected is true if every pending row has been
// rejected alone. Then a rejection together with other rows is enough.
func (h *history) evidence(lastStored int64, rejected, allRejected bool) bool {
	mark := h.failMark
	switch {
	case rejected && allRejected:
		mark = h.rejectMark // if all pending rows are bad, no more rows are stored, so there would never be evidence
	case rejected:
		mark = h.aloneMark // a failure of another kind, such as a 502, shows nothing about the data
	}
	return mark > 0 && lastStored > mark
}

// remember adds a failure to b's history. The parameter rejection is the error text of
// a rejection, and "" for other failures. The parameter newest is the newest request so
// far.
func (b *batch) remember(err error, rejection string, evidence bool, newest int64) {
	single, mark := len(b.records) == 1, newest
	if single {
		mark = b.request
	}
	if rejection != "" && rejection != b.rejection {
		b.rejectMark, b.rejection = mark, rejection
	}
	if rejection != "" && single {
		b.aloneMark = cmp.Or(b.aloneMark, newest)
	}
	switch {
	case evidence && single && rejection == "":
		b.strikes++
		b.failMark = mark
	case evidence:
		b.failMark = b.storedWhenSent
	default:
		b.failMark = cmp.Or(b.failMark, mark)
	}
	b.err = err
	b.noteDoubt(err)
}

// noteDoubt marks b's rows as possibly stored if the server may have carried out the
// request that failed with err.
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

	// The failures since storedAt. Each field is zero if there was no such failure.
	failedSince  time.Time // the first failure that was the server's fault, not a row's; see reporter.recovered
	refusedSince time.Time // when the current refusals began, or zero; see noteRefusal
	refusals     int       // how many refusals there were since then
	lasting      error     // the newest refusal, if the refusals are lasting; see lastingAfter

	// The probes. Both lanes share them.
	failedProbes int       // how many consecutive probes have failed; the backoff grows with this number
	probeAt      time.Time // when the next probe is due
	probe        *batch    // the probe in flight, or nil
}

// noteRefusal counts a refusal, such as a 401 for a wrong key, and notes whether
// refusals are lasting. Any other failure resets the count. So does a refusal after
// which the batch is cut in two, because one part may be stored.
func (h *health) noteRefusal(v rest.Verdict, act action, err error, now time.Time) {
	if v != rest.BadData && v != rest.Configuration || act != sendAgain {
		h.refusedSince, h.refusals, h.lasting = time.Time{}, 0, nil
		return
	}
	h.refusals++
	h.refusedSince = cmp.Or(h.refusedSince, now)
	if h.refusals >= openAfter && now.Sub(h.refusedSince) >= lastingAfter {
		h.lasting = err
	}
}

// isOutage reports whether the fresh lane's breaker is open: the server seems to be
// down or to refuse every row. Then both lanes send only probes.
func (d *delivery) isOutage() bool { return d.fresh.isOpen() }

func (d *delivery) isProbing() bool { return d.fresh.isOpen() || d.retry.isOpen() }

// failLocked handles a failure of b. places are the indices of the rows that the answer
// refers to.
func (d *delivery) failLocked(b *batch, places []int, v rest.Verdict, err error, now time.Time) {
	h, lane := &d.health, &d.fresh
	if b.isRetry() {
		lane = &d.retry
	}
	rejection, named := "", len(places) > 0 && len(places) < len(b.records)
	if v == rest.BadData {
		rejection = err.Error()
	}
	evidence := b.evidence(b.storedWhenSent, v == rest.BadData, d.allRejectedLocked(b))
	b.remember(err, rejection, evidence, d.stats.Requests)
	act := decide(v, len(b.records), named, evidence, b.strikes)
	if !evidence {
		h.noteRefusal(v, act, err, now)
	}
	blamed := blamesServer(v, named, evidence, b.sent.Sub(h.storedAt))
	// Close waits until each row that keeps failing has failed enoughTries times. If
	// only such rows are pending, the breakers are reset, because with an open breaker
	// the rows would be tried one after another, as probes.
	if d.closed && b.keepsFailing(h.stored) {
		b.closeTries++
		if !slices.ContainsFunc(d.batchesLocked(), func(b *batch) bool { return !b.keepsFailing(h.stored) }) {
			d.fresh.failures, d.retry.failures = 0, 0
		}
	}
	wasProbing := d.isProbing()
	if blamed {
		lane.failures++
	}
	opens := !wasProbing && d.isProbing()
	d.setProbeLocked(b, opens, now)
	if opens || blamed && act == sendAgain { // other actions treat the failure as the fault of a row
		h.failedSince = cmp.Or(h.failedSince, now)
		if v != rest.Configuration || h.lasting != nil { // a misconfiguration that ends within 5 s isn't worth a log line
			d.report.failed(h.lasting != nil, err, d.stats.Pending, now)
		}
	}
	d.placeLocked(b, act, places, v, now)
	// Batches of good rows were split before the outage was noticed. Join them again,
	// but not suspects.
	if d.isOutage() {
		d.retry.join(d.config.maxBatch, func(b *batch) bool { return b.isSuspect(h.stored) })
	}
}

// allRejectedLocked reports whether every pending row has been rejected alone. b has
// just failed and is in neither lane, so it is checked separately.
func (d *delivery) allRejectedLocked(b *batch) bool {
	return b.aloneMark > 0 && !slices.ContainsFunc(d.batchesLocked(), func(other *batch) bool { return other.aloneMark == 0 })
}

// placeLocked carries out the given action on b, which has just failed. For the
// parameter places, see failLocked.
func (d *delivery) placeLocked(b *batch, act action, places []int, v rest.Verdict, now time.Time) {
	switch act {
	case sendAgain:
		d.retry.push(b, now.Add(backoff(cmp.Or(b.closeTries, b.strikes), longWait, b.err)))
	case setAside:
		named, others := b.cut(func(place int) bool { return slices.Contains(places, place) })
		if v == rest.BadData && len(places) == 1 { // as if the row had been rejected alone
			named.aloneMark = d.stats.Requests
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
