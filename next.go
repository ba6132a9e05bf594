package docevents

import (
	"time"
)

// joinWindow is how long after the newest request fresh rows wait, so that they
// share the next request and don't take a sender each.
const joinWindow = 50 * time.Millisecond

// hangTime is how long Flush and Close wait for a sender or a probe. If all senders
// are busy and none has sent a request for this long, one more request is allowed. If
// a probe has been in flight for this long, the next one doesn't wait for it.
const hangTime = time.Second

// nextLocked takes the batch that is sent next, or returns nil if nothing may be
// sent now. If the retry lane may use a sender, its batches that are due go before
// fresh rows. If join is set, fresh rows may wait to share the next request.
func (d *delivery) nextLocked(now time.Time, join bool) (b *batch) {
	if !d.senderIsFreeLocked(now) {
		return nil
	}
	switch {
	case d.isOutage():
		b = d.probeLocked(now)
	case !d.mayRetryLocked(): // fresh rows only
	case d.retry.isOpen():
		b = d.probeLocked(now)
	default:
		b = d.retry.take(now)
	}
	if b == nil && !d.isOutage() && !(join && d.joinsLocked(now)) {
		b = d.fresh.take(now)
	}
	if b != nil {
		d.dispatchLocked(b, now)
	}
	return b
}

// senderIsFreeLocked reports whether one more request may be sent. If all
// requests in flight seem to hang, Flush and Close get one more than maxInFlight.
func (d *delivery) senderIsFreeLocked(now time.Time) bool {
	n, most := len(d.inFlight), d.config.maxInFlight
	if n == most && d.isAwaited() && now.Sub(d.inFlight[n-1].sent) >= hangTime {
		most++
	}
	return n < most && d.cause == nil
}

// probeLocked takes one row if a probe is due, or returns nil. If only the retry
// lane's breaker is open, it takes a row of that lane at random. In an outage
// three kinds of row take turns, and an empty lane's turn goes to the other lane:
//
//   - a random row of the fresh lane, so that a bad row isn't sent every time
//   - the newest row of the fresh lane, since older rows may be the ones that fail
//   - a random row of the retry lane
//
// One probe is in flight at a time. If it seems to hang, Flush and Close don't wait
// for it.
func (d *delivery) probeLocked(now time.Time) *batch {
	h, lane, last := &d.health, &d.fresh, d.health.failedProbes%3 == 1
	hangs := h.probe != nil && d.isAwaited() && now.Sub(h.probe.sent) >= hangTime
	if h.probe != nil && !hangs || now.Before(h.probeAt) {
		return nil
	}
	if !d.isOutage() || h.failedProbes%3 == 2 && len(d.retry.batches) > 0 || len(d.fresh.batches) == 0 {
		lane, last = &d.retry, false
	}
	h.probe = lane.draw(last)
	return h.probe
}

// isAwaited reports whether Flush or Close is waiting.
func (d *delivery) isAwaited() bool { return d.closed || len(d.flushes) > 0 }

// mayRetryLocked reports whether the retry lane may use a sender. One sender is
// reserved for fresh rows, since a request may take long to fail, for example if
// it waits for a lock. The retry lane gets that sender if there are no fresh rows
// and Flush or Close is waiting. A client with only one sender lets the retry
// lane have every second request, or all of them while there are no fresh rows.
func (d *delivery) mayRetryLocked() bool {
	retries, n, noFresh := 0, d.config.maxInFlight, len(d.fresh.batches) == 0
	for _, b := range d.inFlight {
		if b.failMark > 0 {
			retries++
		}
	}
	return retries < n-1 || noFresh && d.isAwaited() || n == 1 && (noFresh || d.stats.Requests%2 == 0)
}

// joinsLocked reports whether the fresh rows should wait to share the next
// request: they are less than a full batch, and the newest request in flight was
// sent less than joinWindow ago.
func (d *delivery) joinsLocked(now time.Time) bool {
	n := len(d.inFlight)
	return n > 0 && len(d.fresh.batches) == 1 && len(d.fresh.batches[0].records) < d.config.maxBatch &&
		now.Sub(d.inFlight[n-1].sent) < joinWindow
}

// dispatchLocked counts a request that carries b, and gives b's rows their ids if
// they don't have any yet. A row keeps its id in all later requests.
func (d *delivery) dispatchLocked(b *batch, now time.Time) {
	d.stats.Requests++
	if b.failMark > 0 {
		d.stats.Retries++
	}
	for i := range b.records {
		b.records[i].identify()
	}
	b.request, b.storedWhenSent, b.sent = d.stats.Requests, d.health.stored, now
	d.inFlight = append(d.inFlight, b)
}

// setTimerLocked sets the timer to the next time at which something may be sent:
// when a batch or a probe becomes due, or when the newest request has been in
// flight for joinWindow or hangTime. Times that have passed don't count, since a
// batch that is due already is sent after the next answer.
func (d *delivery) setTimerLocked(now time.Time) {
	times := [3]time.Time{d.retry.due()}
	if d.isProbing() {
		times[0] = d.health.probeAt
	}
	if n := len(d.inFlight); n > 0 {
		times[1], times[2] = d.inFlight[n-1].sent.Add(joinWindow), d.inFlight[n-1].sent.Add(hangTime)
	}
	next := time.Time{}
	for _, at := range times {
		if at.After(now) && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	if d.cause != nil || d.stats.Pending == 0 {
		next = time.Time{}
	}
	if next.Equal(d.timerAt) {
		return
	}
	d.timer.Stop()
	if d.timerAt = next; !next.IsZero() {
		d.timer.Reset(next.Sub(now))
	}
}

// timeout is called by the timer.
func (d *delivery) timeout() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.startLocked(time.Now(), true)
}
