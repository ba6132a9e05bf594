package docevents

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

// DropReason says why an event was lost.
type DropReason string

// The reasons, each counted in [Drops].
const (
	Invalid   DropReason = "invalid"    // can't be stored; the error names the field and the remedy
	QueueFull DropReason = "queue_full" // the queue had no room; see WithQueueLimits
	Rejected  DropReason = "rejected"   // refused by the server, or given up: then the error matches ErrOutcomeUnknown
	Closed    DropReason = "closed"     // recorded after Close
	Abandoned DropReason = "abandoned"  // Close ended before its delivery; the error matches ErrOutcomeUnknown
)

const (
	maxNotices    = 1000    // handler calls that wait
	maxNoticeText = 1 << 20 // the text of their events, in bytes

	// quietFor is how long repeats of a logged failure are only counted.
	quietFor = 30 * time.Second
)

// A kind is what the log is quiet about: each has its own first line and its
// own sum of repeats.
type kind int

const (
	kindInvalid kind = iota
	kindQueueFull
	kindRejected
	kindClosed
	kindAbandoned
	kindPassing
	kindConfiguration
	kindPanic
	kinds
)

var kindOf = map[DropReason]kind{
	Invalid: kindInvalid, QueueFull: kindQueueFull, Rejected: kindRejected, Closed: kindClosed, Abandoned: kindAbandoned,
}

var kindMessage = [kinds]string{
	kindInvalid:       "docevents: event dropped, it can't be stored",
	kindQueueFull:     "docevents: event dropped, the queue is full",
	kindRejected:      "docevents: event dropped, the server doesn't take it",
	kindClosed:        "docevents: event dropped, it was recorded after Close",
	kindAbandoned:     "docevents: events abandoned by Close",
	kindPassing:       "docevents: insert failed, trying again",
	kindConfiguration: "docevents: insert refused until this is mended",
	kindPanic:         "docevents: the drop handler panicked",
}

// A logFunc writes one line to the app's logger.
type logFunc func(slog.Level, string, []slog.Attr)

func slogFunc(l *slog.Logger) logFunc {
	return func(level slog.Level, msg string, attrs []slog.Attr) {
		l.LogAttrs(context.Background(), level, msg, attrs...)
	}
}

func logrusFunc(l logrus.FieldLogger) logFunc {
	return func(level slog.Level, msg string, attrs []slog.Attr) {
		fields := make(logrus.Fields, len(attrs))
		for _, a := range attrs {
			fields[a.Key] = a.Value.Any()
		}
		if level >= slog.LevelError {
			l.WithFields(fields).Error(msg)
		} else {
			l.WithFields(fields).Info(msg)
		}
	}
}

// A notice is a log line, or the drop handler's calls for an event or for some
// records.
type notice struct {
	level  slog.Level
	msg    string // "": no line
	attrs  []slog.Attr
	event  Event
	rows   []record // if any, instead of event
	reason DropReason
	err    error
}

// A tally keeps one kind of line from flooding the log.
type tally struct {
	written    time.Time // the last line; zero: none yet
	suppressed int64     // repeats since
	err        error     // the last of them
}

// A reporter owns what is foreign and loud: the app's logger and its drop
// handler. They run on one goroutine, which exists while there is something to
// say, and so can neither delay nor break anybody else.
type reporter struct {
	log     logFunc
	handler func(Event, DropReason, error)

	mu         sync.Mutex // guards all that follows; neither log nor handler is called under it
	changed    *sync.Cond // a notice is done with, a context too
	queue      []notice
	calls      int // handler calls in the queue
	text       int // bytes of their events' text
	running    bool
	queued     int64 // lines and calls, ever
	finished   int64 // of those, done with
	unreported int64
	tallies    [kinds]tally
	failures   int64 // failed requests since the last recovery
	loud       bool  // the log tells of them
}

func newReporter(log logFunc, handler func(Event, DropReason, error)) *reporter {
	r := &reporter{log: log, handler: handler}
	r.changed = sync.NewCond(&r.mu)
	return r
}

// drop reports an event that was not accepted.
func (r *reporter) drop(e Event, reason DropReason, err error, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tallyLocked(kindOf[reason], 1, err, now)
	r.callLocked(notice{event: e, reason: reason, err: err}, 1, eventText(&e), maxNotices)
}

// dropRecords reports records that were accepted and then lost. What Close
// abandons is handed over whatever its number.
func (r *reporter) dropRecords(rows []record, reason DropReason, err error, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tallyLocked(kindOf[reason], int64(len(rows)), err, now)
	limit, text := maxNotices, 0
	if reason == Abandoned {
		limit = math.MaxInt
	} else {
		rows = slices.Clone(rows) // a slow handler would hold on to the whole batch
	}
	for i := range rows {
		text += rows[i].text()
	}
	r.callLocked(notice{rows: rows, reason: reason, err: err}, len(rows), text, limit)
}

func (r *reporter) callLocked(n notice, calls, text, limit int) {
	switch {
	case r.handler == nil:
	case r.calls+calls > limit, limit == maxNotices && r.text+text > maxNoticeText:
		r.unreported += int64(calls)
	default:
		r.calls += calls
		r.text += text
		r.queueLocked(n, calls)
	}
}

// failed reports a request that will be sent again.
func (r *reporter) failed(v verdict, err error, pending int64, now time.Time) {
	k := kindPassing
	if v == configuration {
		k = kindConfiguration
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures++
	if r.tallyLocked(k, 1, err, now, slog.Int64("pending", pending)) {
		r.loud = true
	}
}

// recovered reports the end of an outage, if the log tells of its beginning.
func (r *reporter) recovered(outage time.Duration, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.loud {
		return
	}
	r.queueLocked(notice{level: slog.LevelInfo, msg: "docevents: delivering again", attrs: []slog.Attr{
		slog.String("outage", outage.Round(time.Millisecond).String()),
		slog.Int64("failed_requests", r.failures),
	}}, 1)
	r.tallies[kindPassing].suppressed, r.tallies[kindConfiguration].suppressed = 0, 0
	r.failures, r.loud = 0, false
	r.sumUpLocked(now, quietFor)
}

// tallyLocked writes a line, or only counts while the last one is fresh. The
// line stands for what was counted since, too.
func (r *reporter) tallyLocked(k kind, n int64, err error, now time.Time, attrs ...slog.Attr) bool {
	t := &r.tallies[k]
	if !t.written.IsZero() && now.Sub(t.written) < quietFor {
		t.suppressed += n
		t.err = err
		return false
	}
	attrs = append(attrs, slog.Int64("count", t.suppressed+n), slog.Any("error", err))
	if e := (*Error)(nil); errors.As(err, &e) {
		attrs = append(attrs, slog.Int("status", e.Status), slog.String("code", e.Code))
	}
	*t = tally{written: now}
	r.queueLocked(notice{level: slog.LevelError, msg: kindMessage[k], attrs: attrs}, 1)
	return true
}

// sumUpLocked writes what was only counted, of the kinds whose last line is at
// least so old.
func (r *reporter) sumUpLocked(now time.Time, age time.Duration) {
	for k := range r.tallies {
		if t := &r.tallies[k]; t.suppressed > 0 && now.Sub(t.written) >= age {
			t.written = time.Time{}
			r.tallyLocked(kind(k), 0, t.err, now)
		}
	}
}

func (r *reporter) queueLocked(n notice, count int) {
	r.queue = append(r.queue, n)
	r.queued += int64(count)
	if !r.running {
		r.running = true
		go r.run()
	}
}

func (r *reporter) run() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.queue) > 0 {
		n := r.queue[0]
		if n.msg == "" {
			if len(n.rows) > 0 {
				n.event = n.rows[0].event()
				r.text -= n.rows[0].text()
			} else {
				r.text -= eventText(&n.event)
			}
			r.calls--
		}
		if len(n.rows) > 1 {
			r.queue[0].rows = n.rows[1:]
		} else {
			r.queue[0] = notice{} // lets go of it: the slice moves on
			r.queue = r.queue[1:]
		}
		r.mu.Unlock()
		panicked := r.say(&n)
		r.mu.Lock()
		if panicked != nil {
			r.tallyLocked(kindPanic, 1, panicked, time.Now())
		}
		r.finished++
		r.changed.Broadcast()
	}
	r.queue = nil
	r.running = false
}

// say calls the app's code. What it panics with is not repeated: it may be
// anything. A logger that panics costs its line.
func (r *reporter) say(n *notice) (panicked error) {
	defer func() {
		if p := recover(); p != nil && n.msg == "" {
			panicked = fmt.Errorf("panic with a %T", p)
		}
	}()
	if n.msg != "" {
		r.log(n.level, n.msg, n.attrs)
	} else {
		r.handler(n.event, n.reason, n.err)
	}
	return nil
}

// flush writes the sums that are due and waits, within ctx, until everything
// queued by now has been said.
func (r *reporter) flush(ctx context.Context, age time.Duration) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sumUpLocked(time.Now(), age)
	target := r.queued
	defer context.AfterFunc(ctx, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.changed.Broadcast()
	})()
	for r.finished < target {
		if ctx.Err() != nil {
			return fmt.Errorf("docevents: Flush: %d log lines and drop handler calls still due: %w", target-r.finished, ctx.Err())
		}
		r.changed.Wait()
	}
	return nil
}

// giveUp skips what waits behind a call that doesn't return.
func (r *reporter) giveUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) == 0 {
		return
	}
	r.unreported += int64(r.calls)
	r.queue, r.calls, r.text = nil, 0, 0
	r.finished = r.queued - 1 // the call itself
	r.changed.Broadcast()
}

func (r *reporter) skipped() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.unreported
}

func eventText(e *Event) int {
	return len(e.DocumentID) + len(e.UserID) + len(e.Type) + len(e.ErrorMessage) + len(e.Stage)
}
