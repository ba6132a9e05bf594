package docevents

import (
	"math"
	"time"
)

const (
	// What was delivered so recently tells of a server that is up: more
	// failures in a row are then put down to chance.
	recently = time.Second

	// A refusal for data so shortly after a delivery is hardly the table's.
	shortly = 250 * time.Millisecond

	// A refused row need not be sent again to be given up where another was
	// within certainFor, for the same code: without that, what every row gets for
	// a moment, from a cache that is stale, looks the same.
	certainFor = 5 * time.Second

	judgeStep     = 3  // of a refused row's wait, which the next delivery may end
	halveStrikes  = 2  // of a batch, at each size
	loseStrikes   = 6  // of one that has a twin: without it a search begins anew
	giveUpStrikes = 10 // of a row
	closeTries    = 4  // of a row: Close then waits for it no longer

	// Failures in a row are weighed: another one of rows that are under
	// suspicion already is hardly news.
	newsWeight    = 10
	outageWeight  = 3 * newsWeight  // where nothing was delivered recently
	certainWeight = 10 * newsWeight // whatever was delivered
)

// A history is what a failed batch looks like to decide.
type history struct {
	rows    int
	named   bool  // the answer names some of them, not all
	linked  bool  // half of a batch that was refused for its data
	proof   bool  // it was sent again after others were delivered since one of them first failed
	struck  bool  // others were delivered since it last failed
	refused bool  // it was refused for its data before, by itself
	strikes uint8 // how often it failed though others were delivered since the time before, or none are left, at this size
}

// fail writes a failure into the rows' memory. request is the number of the
// newest request, proof that of the newest one that delivered anything: what
// was sent before a row failed proves nothing. alone: no others are left to be
// delivered; what came through once is proof enough to look for bad rows then.
func (b *batch) fail(v verdict, request, proof int64, unknown, alone bool) history {
	h := history{rows: len(b.records), linked: b.twin != nil}
	data := v == badData || v == storedBefore
	for i := range b.records {
		r := &b.records[i]
		proven := r.failed > 0 && b.known > r.failed
		struck := r.failed > 0 && proof > r.seen
		h.proof, h.struck, h.refused = h.proof || proven, h.struck || struck, h.refused || r.refused
		if !data && (struck || proven && alone && h.rows > 1 && !h.linked) && r.strikes < math.MaxUint8 {
			r.strikes++
		}
		r.refused = r.refused || data && len(b.records) == 1
		if r.failed == 0 && len(b.records) == 1 { // by itself: what was sent after it will do
			r.failed = b.request
		} else if r.failed == 0 {
			r.failed = request
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
	hurry                // send it again at once: whether it fails by itself is to be seen
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
	case !one && h.strikes >= halveStrikes && (!h.linked || h.strikes >= loseStrikes):
		return halve
	case !one && h.struck:
		return hurry
	}
	return again
}

// failLocked acts on an answer that stored none of b's rows, or on none.
func (d *delivery) failLocked(b *batch, named []int, v verdict, err error, now time.Time) {
	h := b.fail(v, d.stats.Requests, d.proof, outcomeUnknown(err), d.aloneLocked())
	h.named = len(named) > 0 && len(named) < len(b.records)
	next := decide(v, h)
	begins := d.countLocked(b, v, next, err, now)
	// What is refused for its data, while others are delivered, is said when it
	// is dropped, and a refused key once it is more than a moment's.
	fresh := v == badData && now.Sub(d.delivered) < shortly
	passing := v == configuration && d.lasting == nil
	if !passing && (d.down || begins || next == again && !fresh || next == giveUp && v != badData) {
		d.report.failed(d.lasting != nil, err, d.stats.Pending, now)
		if d.since.IsZero() && !b.apart {
			d.since = now
		}
	}
	switch {
	case d.probe == b:
		d.probe = nil
		d.step++
		if v == badData && h.refused && h.proof { // it was, by itself, before the outage, too
			d.dropLocked(b, Rejected, err, false, now)
		} else {
			d.queue.giveBack(b)
		}
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
	case next == hurry:
		b.apart, b.proven = true, true
		d.queue.push(b)
	default:
		d.restLocked(b, v, h, err, now)
	}
}

// countLocked counts a failure and says whether it would begin an outage.
func (d *delivery) countLocked(b *batch, v verdict, next step, err error, now time.Time) bool {
	d.last = err
	switch {
	case v == transient, v == tooMuch:
		d.refused, d.lasting = time.Time{}, nil
	case d.refused.IsZero():
		d.refused = now
	case now.Sub(d.refused) >= lastingAfter:
		d.lasting = err
	}
	quiet := now.Sub(d.delivered)
	weight := newsWeight
	if next == setAside && v == badData && quiet < recently {
		weight = 0 // one row less, each time
	} else if b.apart || v == badData && quiet < recently {
		weight = 1
	}
	d.failures += weight
	idle := len(d.inFlight) == 0 && !b.apart && v != badData
	lone := d.stats.Pending == 1 // its own waits are as long
	return !lone && isOutage(d.failures, idle, quiet)
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
	d.probe = d.queue.draw()
	if d.probe == nil { // the last row that waited is gone
		d.down = false
		return
	}
	d.flyLocked(d.probe, time.Now())
	go d.send(d.probe)
}

func (d *delivery) endOutageLocked() {
	if d.down {
		d.down, d.probe = false, nil // one that is still in flight is a request like any other now
		d.timer.Stop()
	}
}
