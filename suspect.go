package docevents

import (
	"fmt"
	"slices"
	"time"
)

// aloneLocked says whether whatever else is pending is under suspicion, too.
func (d *delivery) aloneLocked() bool {
	unproven := func(b *batch) bool { return !b.proven }
	for b := range d.queue.waiting {
		if unproven(b) {
			return false
		}
	}
	return !slices.ContainsFunc(d.queue.ready, unproven) && !slices.ContainsFunc(d.inFlight, unproven)
}

// halveLocked sends the halves of b. Linked, they are known to hold a refused
// row between them: the second waits behind the others, so that it need not be
// sent as a whole once the first is found fine.
func (d *delivery) halveLocked(b *batch, linked, proven bool) {
	first, second := b.halves(proven)
	if linked {
		first.twin, second.twin = second, first
	}
	d.queue.insert(0, first)
	d.queue.push(second)
}

// setAsideLocked takes the rows that an answer names out of b and sends the
// rest again. A row that is refused for its data need not be sent again to be
// given up; of several that share a key, one may be stored.
func (d *delivery) setAsideLocked(b *batch, named []int, v verdict, h history, err error, now time.Time) {
	rest, lone := b.without(named, h.proof)
	d.queue.insert(1, rest) // behind another, which it would hold up with many such rows: what it delivers is proof
	for _, l := range lone {
		switch {
		case v == storedBefore:
			l.request = b.request
			d.deliverLocked(l, now)
		case v == badData && len(lone) > 1:
			d.queue.push(l)
		default:
			d.restLocked(l, v, history{rows: 1}, err, now)
		}
	}
}

// restLocked lets b wait by itself: a batch a short while, a row twice as long
// each time.
func (d *delivery) restLocked(b *batch, v verdict, h history, err error, now time.Time) {
	step := 0
	if h.rows == 1 {
		step = int(b.records[0].tries) - 1
		b.proven = b.proven || h.strikes > 0
		b.apart = b.proven || v == badData
		fresh := v == badData && now.Sub(d.delivered) < shortly
		if v == badData && b.refusal == nil {
			b.refusal = err
			d.refusals = append(d.refusals, b)
		}
		if v == badData && b.refused.IsZero() {
			b.refused = now
		}
		if b.twin != nil || !b.refused.IsZero() { // it is refused for its data: what else comes is by chance
			step = min(step, 1)
		}
		if v == badData {
			step = judgeStep
		}
		b.tried = d.closed && (fresh || h.proof && b.records[0].tries >= closeTries)
	}
	b.compact()
	d.queue.waiting[b] = true
	wait := d.waitLocked(step, err, now)
	b.due = now.Add(wait)
	b.timer = time.AfterFunc(wait, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.queue.end(b) {
			d.queue.push(b)
			d.startLocked(time.Now(), false)
		}
	})
}

// giveUpLocked drops a row against which there is proof.
func (d *delivery) giveUpLocked(b *batch, v verdict, h history, err error, now time.Time) {
	if v != badData {
		err = fmt.Errorf("given up after %d failures while others were delivered: %w", h.strikes, err)
		d.dropLocked(b, Rejected, err, false, now)
		return
	}
	d.dropLocked(b, Rejected, err, false, now)
	d.certain, d.certainAt = codeOf(err), now
	d.judgeLocked(now, false)
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
		case d.proof <= b.records[0].failed:
		case codeOf(b.refusal) == d.certain && now.Sub(d.certainAt) < certainFor && d.delivered.Sub(b.refused) < recently:
			if d.queue.end(b) || d.queue.remove(b) {
				d.dropLocked(b, Rejected, b.refusal, false, now)
			}
		case fine || !tried:
			tried, b.tried = true, false
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
