package docevents

import (
	"cmp"
	"time"
)

const (
	// What was delivered so recently tells of a server that is up: more
	// failures in a row are then put down to chance.
	recently = time.Second

	// A refusal for data so shortly after a delivery is hardly the table's.
	shortly = 250 * time.Millisecond

	// Failures in a row are weighed: another one of rows that are under
	// suspicion already is hardly news.
	newsWeight    = 10
	outageWeight  = 3 * newsWeight  // where nothing was delivered recently
	certainWeight = 10 * newsWeight // whatever was delivered
)

// failLocked acts on an answer that stored none of b's rows, or on none.
func (d *delivery) failLocked(b *batch, named []int, v verdict, err error, now time.Time) {
	looks := len(b.records) > 1 || !b.apart // of a suspect's failure it makes no difference, and looking takes long
	alone := looks && d.allLocked(func(other *batch) bool { return other.proven })
	h := b.fail(v, d.stats.Requests, d.proof, outcomeUnknown(err), alone)
	h.named = len(named) > 0 && len(named) < len(b.records)
	next := decide(v, h)
	begins := d.countLocked(b, v, next, alone, err, now)
	// What is refused for its data, while others are delivered, is said when it
	// is dropped, and a refused key once it is more than a moment's.
	fresh := v == badData && now.Sub(d.delivered) < shortly
	passing := v == configuration && d.lasting == nil
	if begins || next == again && !fresh || next == giveUp && v != badData {
		if !passing {
			d.report.failed(d.lasting != nil, err, d.stats.Pending, now)
		}
		if d.since.IsZero() && !b.apart {
			d.since = now
		}
	}
	switch {
	case d.probe == b:
		d.probe = nil
		d.step++
		d.queue.giveBack(b)
		d.timer = time.AfterFunc(d.waitLocked(d.step, err, now), d.tryServer)
	case d.down:
		d.queue.giveBack(b)
	case d.closed && b.request <= d.before: // Close's own attempt is still to come
		d.queue.push(b)
	case begins: // what waits already is tried no later than it would be
		d.down = true
		due := d.queue.forgive()
		d.queue.giveBack(b)
		wait := d.waitLocked(d.step, err, now)
		if !due.IsZero() {
			wait = min(wait, due.Sub(now))
		}
		d.timer = time.AfterFunc(wait, d.tryServer)
	case next == setAside:
		d.setAsideLocked(b, named, v, h, err, now)
	case next == giveUp:
		d.giveUpLocked(b, v, h, err, now)
	case next == halve:
		if b.twin != nil { // which may be as good as any
			b.twin.twin, b.twin.apart = nil, false
		}
		d.halveLocked(b, v == badData || v == storedBefore, h.proof)
	default:
		d.restLocked(b, v, h, err, now)
	}
}

// countLocked counts a failure and says whether it would begin an outage.
func (d *delivery) countLocked(b *batch, v verdict, next step, alone bool, err error, now time.Time) bool {
	d.last, d.slow = err, now.Sub(b.sent) >= recently
	switch {
	case v == transient, v == tooMuch:
		d.refused, d.lasting = time.Time{}, nil
	case d.refused.IsZero():
		d.refused = now
	case now.Sub(d.refused) >= lastingAfter:
		d.lasting = err
	}
	quiet := b.sent.Sub(d.delivered)     // a failure may take long
	lone := alone && len(b.records) == 1 // its own waits are as long as an outage's
	weight := newsWeight
	if next == setAside && quiet < recently {
		weight = 0 // one row less, each time
	} else if b.apart || lone || v == badData && quiet < recently {
		weight = 1
	}
	d.failures += weight
	idle := len(d.inFlight) == 0 && !b.apart && !lone && v != badData
	return !(d.closed && b.proven) && isOutage(d.failures, idle, quiet)
}

// isOutage says whether failures of this weight, with no success between them,
// are one: three in a row or all that was in flight, or ten where something was
// delivered within the last second. At one failure in three by chance, three in
// a row come every second, ten in an hour.
func isOutage(failures int, idle bool, quiet time.Duration) bool {
	return failures >= certainWeight || quiet >= recently && (failures >= outageWeight || idle)
}

// waitLocked returns how long to wait after a failure. A refusal is tried again
// when it has stood for as long as makes it lasting.
func (d *delivery) waitLocked(step int, err error, now time.Time) time.Duration {
	switch {
	case d.lasting != nil:
		return backoff(longStep, err)
	case !d.refused.IsZero():
		return min(backoff(step, err), d.refused.Add(lastingAfter).Sub(now))
	}
	return backoff(step, err)
}

// tryServer tries, at the end of a wait, whether an outage is over.
func (d *delivery) tryServer() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.down || d.probe != nil || d.cause != nil {
		return
	}
	if len(d.queue.ready) == 0 { // suspects alone: they don't knock one by one
		d.queue.wake()
	}
	d.probe = d.queue.draw()
	if d.probe == nil { // the last row that waited is gone
		d.down = false
		return
	}
	d.dispatchLocked(d.probe, time.Now())
	go d.send(d.probe)
}

func (d *delivery) endOutageLocked() {
	if d.down {
		d.down, d.probe = false, nil // one that is still in flight is a request like any other now
		d.timer.Stop()
	}
}

// halveLocked sends the halves of b. Linked, they are known to hold a refused
// row between them: the second waits behind the others, so that it need not be
// sent as a whole once the first is found fine.
func (d *delivery) halveLocked(b *batch, linked, proven bool) {
	first, second := b.halves(proven)
	if linked {
		first.twin, second.twin = second, first
	}
	d.queue.insert(first)
	d.queue.push(second)
}

// setAsideLocked takes the rows that an answer names out of b and sends the
// rest again. A row that is refused for its data need not be sent again to be
// given up; of several that share a key, one may be stored.
func (d *delivery) setAsideLocked(b *batch, named []int, v verdict, h history, err error, now time.Time) {
	rest, lone := b.without(named, h.proof)
	d.queue.insert(rest) // behind another, which it would hold up with many such rows: what it delivers is proof
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
		if v == badData {
			step, b.refused = judgeStep, cmp.Or(b.refused, now)
		} else if b.twin != nil || !b.refused.IsZero() { // it is refused for its data: what else comes is by chance
			step = min(step, 1)
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
