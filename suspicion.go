package docevents

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// How often a batch or a row has to fail, although others were delivered since
// the time before, for what comes next.
const (
	halveStrikes  = 2  // of a batch, at each size
	giveUpStrikes = 10 // of a row
	closeTries    = 4  // of a row: Close then waits for it no longer
)

const (
	// A refused row need not be sent again to be given up where another was given
	// up within certainFor, for the same code: without that, what every row gets
	// for a moment, from a cache that is stale, looks the same.
	certainFor = 5 * time.Second

	judgeStep = 3 // of a refused row's wait, which the next delivery may end
)

// A history is what a failed batch looks like to decide.
type history struct {
	rows    int
	named   bool  // the answer names some of them, not all
	proof   bool  // it was sent again after others were delivered since one of them first failed, or was first refused
	strikes uint8 // how often it failed though others were delivered since the time before, or none are left, at this size
}

// fail writes a failure into the rows' memory. request is the number of the
// newest request, proof that of the newest one that delivered anything: what
// was sent before a row failed proves nothing. alone: no others are left to be
// delivered; what came through once is proof enough to look for bad rows then.
func (b *batch) fail(v verdict, request, proof int64, unknown, alone bool) history {
	h := history{rows: len(b.records)}
	data := v == badData || v == storedBefore
	at := request
	if h.rows == 1 { // by itself: what was sent after it will do
		at = b.request
	}
	for i := range b.records {
		r := &b.records[i]
		proven := r.failed > 0 && b.known > r.failed
		struck := r.failed > 0 && proof > r.seen
		if data && !r.refused { // that others were delivered since it failed by chance says nothing of the table
			proven = r.data > 0 && b.known > r.data
		}
		h.proof = h.proof || proven
		if !data && (struck || proven && alone && h.rows > 1) && r.strikes < math.MaxUint8 {
			r.strikes++
		}
		r.failed = cmp.Or(r.failed, at)
		if data {
			r.data, r.refused = cmp.Or(r.data, at), r.refused || h.rows == 1
		}
		r.seen = request
		if r.tries < math.MaxUint8 {
			r.tries++
		}
		r.doubt = r.doubt || unknown
		h.strikes = max(h.strikes, r.strikes)
	}
	return h
}

// A step is what is done next about a failed batch.
type step int

const (
	again    step = iota // send it again, after a wait of its own
	halve                // look for the row by halves
	setAside             // take out the rows that are named, send the rest again
	giveUp               // a row: drop it
)

// decide is what follows from an answer and what was before it, outside of an
// outage.
func decide(v verdict, h history) step {
	one := h.rows == 1
	switch {
	case h.named && !one && (v == badData || v == storedBefore || v == transient):
		return setAside
	case v == badData && one && h.proof:
		return giveUp
	case !one && (v == badData || v == storedBefore || v == tooMuch):
		return halve
	case v == badData:
		return again
	case one && h.strikes >= giveUpStrikes:
		return giveUp
	case !one && h.strikes >= halveStrikes:
		return halve
	}
	return again
}

// allLocked says whether that is so of all that is pending.
func (d *delivery) allLocked(is func(*batch) bool) bool {
	for b := range d.queue.waiting {
		if !is(b) {
			return false
		}
	}
	isNot := func(b *batch) bool { return !is(b) }
	return !slices.ContainsFunc(d.queue.ready, isNot) && !slices.ContainsFunc(d.inFlight, isNot)
}

// giveUpLocked drops a row against which there is proof.
func (d *delivery) giveUpLocked(b *batch, v verdict, h history, err error, now time.Time) {
	if v != badData {
		err = fmt.Errorf("given up after %d failures while others were delivered: %w", h.strikes, err)
	}
	d.dropLocked(b, Rejected, err, false, now)
	if v == badData {
		d.certain, d.certainAt = codeOf(err), now
		d.judgeLocked(now, false)
	}
}

// judgeLocked goes through the refused rows when others were delivered since.
// Where refusals of their code are known to be the rows' own, they are given up.
// Where not, one is sent again, to tell; once it is delivered (fine), all are.
func (d *delivery) judgeLocked(now time.Time, fine bool) {
	tried := false
	d.refusals = slices.DeleteFunc(d.refusals, func(b *batch) bool {
		switch {
		case b.gone || b.refusal == nil: // or forgiven
			return true
		case d.proof <= b.records[0].data:
		case codeOf(b.refusal) == d.certain && now.Sub(d.certainAt) < certainFor && d.delivered.Sub(b.refused) < recently:
			if d.queue.end(b) || d.queue.remove(b) {
				d.dropLocked(b, Rejected, b.refusal, false, now)
			}
		case fine || !tried:
			tried, b.tried = true, false // Close waits for it
			if fine {
				b.apart, b.refusal = false, nil
			}
			if d.queue.end(b) {
				d.queue.push(b)
			}
		}
		return b.gone || fine
	})
}
