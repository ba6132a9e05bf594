package docevents

import (
	"time"
)

// joinWindow is how long fresh rows wait after the newest request was sent, to
// share the next one instead of each taking a sender.
const joinWindow = 50 * time.Millisecond

// hangTime is how long no request must have been sent, while as many as allowed
// are in flight, for Flush and Close to take them for hung.
const hangTime = time.Second

// nextLocked takes the batch that is sent next. nil: nothing may be sent now.
func (d *delivery) nextLocked(now time.Time, join bool) (b *batch) {
	if !d.senderIsFreeLocked(now) {
		return nil
	}
	switch {
	case d.isOutage():
		b = d.probeLocked(now)
	case !d.mayRetryLocked():
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

// senderIsFreeLocked reports whether another request may be in flight. If all of
// them seem to hang, Flush and Close get one more.
func (d *delivery) senderIsFreeLocked(now time.Time) bool {
	n, most := len(d.inFlight), d.config.maxInFlight
	if n == most && d.isAwaited() && now.Sub(d.inFlight[n-1].sent) >= hangTime {
		most++
	}
	return n < most && d.cause == nil
}

// probeLocked takes one row, if a probe is due. In an outage it is a row of the
// fresh lane, at random, so that no bad row is drawn again and again; or its
// newest, since the older ones may be the reason for the failures; or a row of
// the retry lane; and so on.
func (d *delivery) probeLocked(now time.Time) *batch {
	h, lane, last := &d.health, &d.fresh, d.health.step%3 == 1
	if h.probe != nil || now.Before(h.probeAt) {
		return nil
	}
	if !d.isOutage() || h.step%3 == 2 && len(d.retry.batches) > 0 || len(d.fresh.batches) == 0 {
		lane, last = &d.retry, false
	}
	h.probe = lane.draw(h.stored, last)
	return h.probe
}

// isAwaited reports whether Flush or Close waits.
func (d *delivery) isAwaited() bool { return d.closed || len(d.flushes) > 0 }

// mayRetryLocked reports whether a sender is free for the retry lane. One is
// kept for fresh rows, since failures may take long, as those behind a lock do.
// A client with only one sender sends every second request from the retry lane.
func (d *delivery) mayRetryLocked() bool {
	retries, n, noFresh := 0, d.config.maxInFlight, len(d.fresh.batches) == 0
	for _, b := range d.inFlight {
		if b.failedAt > 0 {
			retries++
		}
	}
	return retries < n-1 || noFresh && d.isAwaited() || n == 1 && (noFresh || d.stats.Requests%2 == 0)
}

// joinsLocked reports whether the fresh rows, less than a batch, wait to share the
// next request.
func (d *delivery) joinsLocked(now time.Time) bool {
	n := len(d.inFlight)
	return n > 0 && len(d.fresh.batches) == 1 && len(d.fresh.batches[0].records) < d.config.maxBatch &&
		now.Sub(d.inFlight[n-1].sent) < joinWindow
}

// dispatchLocked counts a request of b and gives its rows the ids that they keep.
func (d *delivery) dispatchLocked(b *batch, now time.Time) {
	d.stats.Requests++
	if b.failedAt > 0 {
		d.stats.Retries++
	}
	for i := range b.records {
		b.records[i].identify()
	}
	b.request, b.storedWhenSent, b.sent = d.stats.Requests, d.health.stored, now
	d.inFlight = append(d.inFlight, b)
}

// setTimerLocked has senders started when something becomes due, and when the
// newest request has been in flight for joinWindow or hangTime. A batch that is
// due already is sent as soon as a sender ends.
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
