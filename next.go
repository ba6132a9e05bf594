package docevents

import (
	"time"

	"github.com/docevents/docevents-go/internal/rest"
)

// joinWindow is how long fresh rows may wait after a request was sent, so that several
// of them share the next request.
const joinWindow = 50 * time.Millisecond

// A request seems to hang if it has had no answer for hangTime. While the app waits in
// Flush or Close, another request may then be sent (see maySendLocked and probeLocked).
const hangTime = time.Second

// nextLocked returns the next batch to send, and removes it from its lane. If nothing
// may be sent now, nextLocked returns nil.
//
// In an outage, only probes are sent. Otherwise the retry lane goes first, if
// mayRetryLocked allows it: with a probe if the lane's breaker is open, and with a
// batch if not. If that yields nothing, fresh rows are sent. If join is true, fresh
// rows that don't fill a batch may wait for more rows, up to joinWindow.
func (d *delivery) nextLocked(now time.Time, join bool) (b *batch) {
	if !d.maySendLocked(now) {
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

// maySendLocked reports whether one more request may be sent. The limit is maxInFlight
// requests in flight. The limit is one higher if all of them seem to hang while the app
// waits in Flush or Close. Once Close stops waiting, nothing is sent.
func (d *delivery) maySendLocked(now time.Time) bool {
	n, most := len(d.inFlight), d.config.maxInFlight
	if n == most && d.isAwaited() && now.Sub(d.inFlight[n-1].sent) >= hangTime {
		most++
	}
	return n < most && d.cause == nil
}

// probeLocked removes one row from a lane, to be sent as a probe. It returns nil if no
// probe is due. While a probe is in flight, it also returns nil, unless that probe
// seems to hang and the app waits in Flush or Close. Outside an outage, each probe is a
// random row of the retry lane. In an outage, the probes rotate through three kinds of
// rows:
//
//   - a random row of the fresh lane, so that a bad row isn't sent every time
//   - the last row of the fresh lane, in case all older rows are bad
//   - a random row of the retry lane
//
// If one lane is empty in an outage, all probes come from the other lane.
func (d *delivery) probeLocked(now time.Time) *batch {
	h := &d.health
	hangs := h.probe != nil && d.isAwaited() && now.Sub(h.probe.sent) >= hangTime
	if h.probe != nil && !hangs || now.Before(h.probeAt) {
		return nil
	}
	turn := h.failedProbes % 3
	if !d.isOutage() || len(d.fresh.batches) == 0 || turn == 2 && len(d.retry.batches) > 0 {
		h.probe = d.retry.draw(false)
	} else {
		h.probe = d.fresh.draw(turn == 1)
	}
	return h.probe
}

// setProbeLocked is called after each failure. If the failed batch b was a probe, or a
// breaker has just opened, setProbeLocked sets the time of the next probe.
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

// isAwaited reports whether Flush or Close is waiting.
func (d *delivery) isAwaited() bool { return d.closed || len(d.flushes) > 0 }

// mayRetryLocked reports whether one more request may be sent from the retry lane. One
// of the maxInFlight requests is reserved for fresh rows, so that they don't wait for
// failed rows, which may take seconds to fail again. There are two exceptions:
//
//   - While the app waits in Flush or Close and no fresh rows are queued, no request is
//     reserved.
//   - If maxInFlight is 1, the two lanes take turns while fresh rows are queued.
func (d *delivery) mayRetryLocked() bool {
	retries, n, noFresh := 0, d.config.maxInFlight, len(d.fresh.batches) == 0
	for _, b := range d.inFlight {
		if b.isRetry() {
			retries++
		}
	}
	if n == 1 {
		return noFresh || d.stats.Requests%2 == 0
	}
	return retries < n-1 || noFresh && d.isAwaited()
}

// joinsLocked reports whether fresh rows should wait to share the next request. They
// wait if they don't fill a batch and the newest request in flight was sent less than
// joinWindow ago.
func (d *delivery) joinsLocked(now time.Time) bool {
	n := len(d.inFlight)
	return n > 0 && len(d.fresh.batches) == 1 && len(d.fresh.batches[0].records) < d.config.maxBatch &&
		now.Sub(d.inFlight[n-1].sent) < joinWindow
}

// dispatchLocked marks b as in flight, and gives its request a number.
func (d *delivery) dispatchLocked(b *batch, now time.Time) {
	d.stats.Requests++
	if b.isRetry() {
		d.stats.Retries++
	}
	b.request, b.storedWhenSent, b.sent = d.stats.Requests, d.health.stored, now
	d.inFlight = append(d.inFlight, b)
}

// setTimerLocked sets the timer to the next time at which something may be sent: a
// batch or a probe becomes due, joinWindow ends, or the newest request seems to hang.
// Times in the past are ignored: a batch that is already due needs no timer, because it
// is sent when a request in flight ends.
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
