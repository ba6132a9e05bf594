package docevents

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

const (
	// maxStrikes drop a row.
	maxStrikes = 10

	// closeStrikes are enough for Close to stop waiting for a row.
	closeStrikes = 4

	// shortly after a delivery a refusal for data is put down to the row, not
	// to the table: a quarter of a second is a few requests.
	shortly = 250 * time.Millisecond

	// outageWait bounds the wait between two probes. A probe is one row, so
	// finding the server back soon costs little.
	outageWait = 10 * time.Second
)

// An action is what happens to a batch that failed.
type action int

const (
	retry    action = iota // send it again after a wait
	setAside               // the rows that the answer names become a batch; both are sent again
	split                  // send each half by itself, to find the row at fault
	drop                   // the row is at fault: Rejected
)

// decide returns what happens to a batch after an answer. named: the answer
// names some of the rows, but not all. struck: other rows were stored since the
// failure before. strikes includes this one.
func decide(v verdict, rows int, named, struck bool, strikes int) action {
	several := rows > 1
	switch {
	case several && named && (v == badData || v == storedBefore || v == transient):
		return setAside
	case several && (v == badData || v == storedBefore || v == tooMuch || struck):
		return split
	case !several && (v == badData && struck || strikes >= maxStrikes):
		return drop
	}
	return retry
}

// speaksAgainstServer reports whether an answer counts towards an open breaker.
// It doesn't if the row is at fault: other rows were stored between its
// failures (struck), or it was refused for its data, or named, while other rows
// were being stored. sinceStored is the time from the last delivery to this
// request.
func speaksAgainstServer(v verdict, named, struck bool, sinceStored time.Duration) bool {
	ofRow := named || v == badData || v == storedBefore
	return !struck && (!ofRow || sinceStored >= shortly)
}

// fail writes a failure into b's memory and reports whether it is a strike:
// whether a request that was sent after b's failure before, of the same kind,
// had stored rows when b was sent again. What is stored only afterwards is no
// evidence: a table that breaks for a moment would cost innocent rows.
//
// newest is the number of the newest request.
func (b *batch) fail(v verdict, err error, newest int64) (struck bool) {
	before, one := b.failedAt, len(b.records) == 1
	if v == badData {
		before = b.refusedAt
	}
	struck = before > 0 && b.storedWhenSent > before
	if v != badData && struck {
		b.strikes++
	}
	if v == badData && one {
		b.refusedAt = cmp.Or(b.refusedAt, newest)
	}
	if one {
		b.failedAt = b.request
	} else {
		b.failedAt = cmp.Or(b.failedAt, newest)
	}
	b.err = err
	b.noteDoubt(err)
	return struck
}

// noteDoubt remembers that b's rows may be stored, if the answer was lost.
func (b *batch) noteDoubt(err error) {
	if outcomeUnknown(err) {
		for i := range b.records {
			b.records[i].doubt = true
		}
	}
}

// The health of the server, as its answers tell. delivery.mu guards it.
type health struct {
	stored   int64     // the newest request that stored rows; 0: none
	storedAt time.Time // when it was answered

	// These are about the failures since then.
	since   time.Time // the first that was more than a row's fault; zero: none
	refused time.Time // the first of the refusals, if the newest answer was one; zero: it wasn't
	lasting error     // the newest refusal, once they have lasted for lastingAfter

	// The clock of an open breaker, of either lane.
	step    int       // how many probes have failed
	probeAt time.Time // when the next is due
	probe   *batch    // in flight; nil: none
}

// failed notes an answer. A refusal, of the request or of its data, is lasting
// if there was no other answer for lastingAfter.
func (h *health) failed(v verdict, err error, now time.Time) {
	switch {
	case v == transient || v == tooMuch:
		h.refused, h.lasting = time.Time{}, nil
	case h.refused.IsZero():
		h.refused = now
	case now.Sub(h.refused) >= lastingAfter:
		h.lasting = err
	}
}

// setProbe sets when the next probe is due. While every answer is a refusal,
// there is one at the moment when the refusal becomes lasting.
func (h *health) setProbe(err error, now time.Time) {
	wait := backoff(h.step, outageWait, err)
	if h.lasting != nil {
		wait = backoff(longStep, longWait, err)
	} else if !h.refused.IsZero() {
		wait = min(wait, h.refused.Add(lastingAfter).Sub(now))
	}
	h.probeAt = now.Add(wait)
}

// isOutage reports whether the server is away, or refuses everything: the fresh
// lane's breaker is open. Then one row at a time is sent, of either lane.
func (d *delivery) isOutage() bool { return d.fresh.isOpen() }

// failLocked acts on an answer that stored none of b's rows, or on the lack of
// an answer. places are those of the rows that the answer names.
func (d *delivery) failLocked(b *batch, places []int, v verdict, err error, now time.Time) {
	h, rows, from := &d.health, len(b.records), &d.fresh
	if b.failedAt > 0 {
		from = &d.retry
	}
	named := len(places) > 0 && len(places) < rows
	struck := b.fail(v, err, d.stats.Requests)
	ofRow := struck
	if d.closed && !struck && rows == 1 && h.stored > 0 && (b.strikes > 0 || b.refusedAt > 0) {
		b.strikes++ // Close can't wait for other rows to be stored: there may be none left
		ofRow = true
	}
	act := decide(v, rows, named, struck, b.strikes)
	h.failed(v, err, now)

	against := speaksAgainstServer(v, named, ofRow, b.sent.Sub(h.storedAt))
	wasOpen := d.fresh.isOpen() || d.retry.isOpen()
	if against {
		from.failures++
	}
	opens := !wasOpen && from.isOpen()
	if probed := h.probe == b; probed || opens {
		if probed {
			h.probe = nil
			h.step++
		}
		h.setProbe(err, now)
	}
	if opens || act == retry && against {
		h.since = cmp.Or(h.since, now)
		if v != configuration || h.lasting != nil { // a refusal that passes isn't worth a line
			d.report.failed(h.lasting != nil, err, d.stats.Pending, now)
		}
	}
	d.placeLocked(b, act, places, v, now)
	if d.isOutage() {
		d.retry.join(d.config.maxBatch, h.stored)
	}
}

// placeLocked carries out what was decided about b.
func (d *delivery) placeLocked(b *batch, act action, places []int, v verdict, now time.Time) {
	switch act {
	case retry:
		d.retry.push(b, now.Add(backoff(b.strikes, longWait, b.err)))
	case setAside:
		named, rest := b.cut(func(place int) bool { return slices.Contains(places, place) })
		if v == badData && len(places) == 1 {
			named.refusedAt = d.stats.Requests
		}
		d.retry.push(named, now.Add(backoff(0, longWait, b.err)))
		d.retry.push(rest, now)
	case split:
		first, second := b.cut(func(place int) bool { return place < len(b.records)/2 })
		d.retry.push(first, now)
		d.retry.push(second, now)
	case drop:
		err := b.err
		if v != badData {
			err = fmt.Errorf("dropped after %d failures while other events were stored: %w", b.strikes, err)
		}
		d.dropLocked(b, Rejected, err, now)
	}
}
