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

	// enoughTries is how often Close sends a suspect before it stops waiting for it.
	// With the waits between the attempts, that takes 3 to 6 s.
	enoughTries = 5

	// If a row is rejected less than shortly after other rows were stored, the engine
	// blames the row. Otherwise the table may be at fault. A few requests fit into this
	// time.
	shortly = 250 * time.Millisecond

	// outageWait is the longest wait between two probes. A probe is a request with one
	// row, so frequent probes cost the server little. After Close has begun, closeWait
	// is the longest wait between two probes.
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

// decide returns what happens to a batch after a failure. named is true if the answer
// refers to some of its rows, but not to all. evidence is true if there is evidence
// against the batch. strikes includes this failure.
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

// blamesServer reports whether a failure counts towards opening a breaker. It doesn't
// count if there is evidence against the rows, or if the answer blames a row, and the
// server stored other rows shortly before the request was sent, or after that.
// sinceStored is the time from the last stored rows to the sending of this request.
// named is true if the answer refers to some of the rows.
func blamesServer(v rest.Verdict, named, evidence bool, sinceStored time.Duration) bool {
	ofRow := named || v == rest.BadData || v == rest.StoredBefore
	return !evidence && (!ofRow || sinceStored >= shortly)
}

// A history is what a batch remembers about its failures.
//
// Requests are numbered. A mark is the number of a request that failed. If a request
// with a higher number stores other rows, the server works, so the next failure of
// the batch is evidence that one of its own rows is bad. A mark of 0 means that there
// was no such failure.
type history struct {
	// failMark is set by the first failure of any kind. For several rows it is the number
	// of the newest request so far, as in aloneMark: rows that the server stored just
	// before an outage are no evidence against a batch that fails at its beginning. For a
	// single row it is the number of the row's own request, and each strike sets it again.
	// If a batch is split, both parts inherit the mark, so the next failure of a part
	// counts as its second. If failMark is 0, the batch never failed.
	failMark int64

	// aloneMark is set when a single row is rejected for the first time. The row was
	// alone in its request, or was the only row that the answer referred to. aloneMark
	// is not the number of that request, but of the newest request so far. So rows of
	// requests that are in flight now are no evidence: the server may have stored them
	// before it rejected this row.
	aloneMark int64

	// rejectMark is set by the first rejection of one or several rows, and again if a
	// later rejection has another text. Like aloneMark, it is the number of the newest
	// request so far. rejection is the text of the last rejection. If a batch is split,
	// both parts inherit rejectMark and rejection.
	rejectMark int64
	rejection  string

	strikes    int   // the strikes of a single row; each doubles its wait, and the tenth drops the row
	closeTries int   // how often a suspect has failed since Close began
	err        error // the last failure
}

// ofPart returns the history of a batch that is cut from a batch with history h.
func (h history) ofPart() history {
	return history{failMark: h.failMark, rejectMark: h.rejectMark, rejection: h.rejection, err: h.err}
}

// evidence reports whether a new failure is evidence against the batch: the batch failed
// before, and the server has stored other rows between the two failures. Otherwise the
// table or the server may be at fault.
//
// stored is the number of the newest request that had stored rows when the batch was
// sent. Rows that were stored later are no evidence: the table may have broken since.
//
// rejected is true if the new failure is a rejection, and text is its error text. A
// rejection is evidence only if the row was rejected alone before. An earlier failure of
// another kind, such as a 502, shows nothing about the row's data.
//
// allRejected is true if every pending row has been rejected alone. Then perhaps no good
// row is left, and nothing more will be stored. So the row need not have been alone in
// the earlier rejection, if both rejections have the same text. If the table had broken
// in between, the new rejection would have another text.
func (h *history) evidence(stored int64, rejected bool, text string, allRejected bool) bool {
	mark := h.failMark
	switch {
	case rejected && allRejected && text == h.rejection:
		mark = h.rejectMark
	case rejected:
		mark = h.aloneMark
	}
	return mark > 0 && stored > mark
}

// remember adds the failure of b's last request to b's history. newest is the number
// of the newest request so far. evidence means that there is evidence against b.
func (b *batch) remember(err error, rejected, evidence bool, newest int64) {
	single, mark := len(b.records) == 1, newest
	if single {
		mark = b.request
	}
	if text := err.Error(); rejected && (b.rejectMark == 0 || text != b.rejection) {
		b.rejectMark, b.rejection = newest, text
	}
	if rejected && single {
		b.aloneMark = cmp.Or(b.aloneMark, newest)
	}
	if single && evidence && !rejected {
		b.strikes++
		b.failMark = mark
	}
	b.failMark = cmp.Or(b.failMark, mark)
	b.err = err
	b.noteDoubt(err)
}

// noteDoubt marks b's rows as possibly stored, if err means that the server may have
// carried out the request.
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
	failedSince  time.Time // the first failure that is counted for the log; an outage is logged with its length
	refusedSince time.Time // the first of the refusals in a row; zero if the newest answer is no refusal
	refusals     int       // how many refusals there were in a row
	lasting      error     // the newest refusal, if openAfter or more have lasted for lastingAfter

	// The probes. Both lanes share them.
	failedProbes int       // how many probes in a row failed, which sets the backoff
	probeAt      time.Time // when the next probe is due
	probe        *batch    // the probe in flight, or nil
}

// noteRefusal is called after a failure for which the rows aren't to blame. A refusal is
// an answer such as 401 for a wrong key. Any other failure ends the refusals. So does a
// rejection after which the batch is cut in two, because one part may be stored.
func (h *health) noteRefusal(v rest.Verdict, act action, err error, now time.Time) {
	if v == rest.Transient || v == rest.TooMuch || act != sendAgain { // all other failures are refusals
		h.refusedSince, h.refusals, h.lasting = time.Time{}, 0, nil
		return
	}
	h.refusals++
	h.refusedSince = cmp.Or(h.refusedSince, now)
	if h.refusals >= openAfter && now.Sub(h.refusedSince) >= lastingAfter {
		h.lasting = err
	}
}

// isOutage reports whether the server is down or refuses every row. During an
// outage, both lanes send only probes.
func (d *delivery) isOutage() bool { return d.fresh.isOpen() }

// isProbing reports whether the breaker of either lane is open.
func (d *delivery) isProbing() bool { return d.fresh.isOpen() || d.retry.isOpen() }

// failLocked decides what happens to b after a failure, and does it. places are the
// indices of the rows that the answer refers to.
func (d *delivery) failLocked(b *batch, places []int, v rest.Verdict, err error, now time.Time) {
	h, lane := &d.health, &d.fresh
	if b.failMark > 0 {
		lane = &d.retry
	}
	rejected, named := v == rest.BadData, len(places) > 0 && len(places) < len(b.records)
	evidence := b.evidence(b.storedWhenSent, rejected, err.Error(), d.allRejectedLocked(b))
	b.remember(err, rejected, evidence, d.stats.Requests)
	act := decide(v, len(b.records), named, evidence, b.strikes)
	if !evidence {
		h.noteRefusal(v, act, err, now)
	}
	blamed := blamesServer(v, named, evidence, b.sent.Sub(h.storedAt))
	// Close waits until each suspect has failed enoughTries times. These failures don't
	// count for the breaker: if it opened, only one suspect at a time would be sent.
	if d.closed && b.isSuspect(h.stored) {
		b.closeTries++
		blamed = false
	}
	wasProbing := d.isProbing()
	if blamed {
		lane.failures++
	}
	opens := !wasProbing && d.isProbing()
	d.setProbeLocked(b, opens, now)
	if opens || blamed && act == sendAgain { // other actions treat the failure as the fault of a row
		h.failedSince = cmp.Or(h.failedSince, now)
		if v != rest.Configuration || h.lasting != nil { // a misconfiguration that passes within 5 s isn't worth a line
			d.report.failed(h.lasting != nil, err, d.stats.Pending, now)
		}
	}
	d.placeLocked(b, act, places, v, now)
	if d.isProbing() {
		// Rejected batches stay apart, because the search for their bad rows goes on. In an
		// outage even good rows are rejected, so single rows that aren't suspects are joined.
		d.retry.join(d.config.maxBatch, func(b *batch) bool {
			return b.isSuspect(h.stored) || b.rejectMark > 0 && (len(b.records) > 1 || !d.isOutage())
		})
	}
}

// allRejectedLocked reports whether b, which has just failed, and every other pending
// row have been rejected alone.
func (d *delivery) allRejectedLocked(b *batch) bool {
	return b.aloneMark > 0 && !slices.ContainsFunc(d.batchesLocked(), func(other *batch) bool { return other.aloneMark == 0 })
}

// setProbeLocked is called after each failure, with the batch b that failed. If b was a
// probe, or a breaker has just opened, it sets when the next probe is due.
func (d *delivery) setProbeLocked(b *batch, opens bool, now time.Time) {
	h, most := &d.health, outageWait
	if h.probe == b {
		h.probe = nil
		h.failedProbes++
	} else if !opens {
		return
	}
	if h.lasting != nil { // somebody has to fix something, which takes minutes
		h.failedProbes, most = max(h.failedProbes, longStep), longWait
	}
	if d.closed {
		most = closeWait
	}
	wait := jitter(h.failedProbes, most)
	if !h.refusedSince.IsZero() && h.lasting == nil { // probe when refusals become lasting, at the latest
		wait = min(wait, h.refusedSince.Add(lastingAfter).Sub(now))
	}
	h.probeAt = now.Add(max(wait, rest.RetryAfter(b.err)))
}

// placeLocked carries out the action on b, which has just failed. places are the indices
// of the rows that the answer refers to.
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
