package docevents

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
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
	Closed    DropReason = "closed"     // recorded after Close; the error matches ErrClosed
	Abandoned DropReason = "abandoned"  // Close ended before its delivery; the error matches ErrOutcomeUnknown
)

// The log's messages. Each is a kind of its own: its first line is written at
// once, its repeats are summed up.
const (
	logTransient     = "docevents: insert failed, trying again"
	logConfiguration = "docevents: insert refused until this is mended"
	logPanic         = "docevents: the drop handler panicked"
	logRecovered     = "docevents: delivering again"
	logSpool         = "docevents: the spool can't be written, so events wait in memory alone"
	logReplay        = "docevents: the spool holds what can't be replayed"
)

var logDropped = map[DropReason]string{
	Invalid:   "docevents: event dropped, it can't be stored",
	QueueFull: "docevents: event dropped, the queue is full",
	Rejected:  "docevents: event dropped, the server doesn't take it",
	Closed:    "docevents: event dropped, it was recorded after Close",
	Abandoned: "docevents: events abandoned by Close",
}

const (
	maxNotices    = 1000    // handler calls that wait
	maxNoticeText = 1 << 20 // the text of their events, in bytes

	// quietFor is how long the repeats of a line are only counted.
	quietFor = 30 * time.Second
)

// A logrusHandler writes what is meant for slog to a logrus logger.
type logrusHandler struct{ logrus.FieldLogger }

func (h logrusHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h logrusHandler) WithAttrs([]slog.Attr) slog.Handler       { return h } // not used here
func (h logrusHandler) WithGroup(string) slog.Handler            { return h } // likewise

func (h logrusHandler) Handle(_ context.Context, r slog.Record) error {
	fields := logrus.Fields{}
	r.Attrs(func(a slog.Attr) bool {
		fields[a.Key] = a.Value.Any()
		return true
	})
	if r.Level == slog.LevelInfo {
		h.WithFields(fields).Info(r.Message)
	} else {
		h.WithFields(fields).Error(r.Message)
	}
	return nil
}

// A notice is a log line or a call of the drop handler.
type notice struct {
	say    func()
	isCall bool
	text   int // bytes that the call's event holds
}

// A tally keeps one kind of line from flooding the log.
type tally struct {
	written    time.Time // the last line; zero, before all: none yet
	suppressed int64     // repeats since
	err        error     // the last of them
}

// A reporter owns what is foreign and loud: the app's logger and its drop
// handler. They run on one goroutine, which exists while there is something to
// say, and so can neither delay nor break anybody else.
type reporter struct {
	log        *slog.Logger
	handler    func(Event, DropReason, error) // nil: none
	unreported atomic.Int64
	gaveUp     context.Context // done once giveUp was called
	giveUp     context.CancelFunc

	mu       sync.Mutex // guards all that follows; neither log nor handler is called under it
	queue    []notice
	calls    int // in the queue
	text     int // bytes that they hold
	running  bool
	tallies  map[string]tally // by message
	failures int64            // failed requests since the last recovery
	loud     bool             // the log tells of them
}

func newReporter(c *config) *reporter {
	r := &reporter{log: c.log, handler: c.dropHandler, tallies: map[string]tally{}}
	r.gaveUp, r.giveUp = context.WithCancel(context.Background())
	return r
}

// drop reports a lost event. What Close abandons is handed over whatever its
// number.
func (r *reporter) drop(e Event, reason DropReason, err error, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if reason == Abandoned { // one line for all of them, by Close
		r.tallies[logDropped[reason]] = tally{suppressed: r.tallies[logDropped[reason]].suppressed + 1, err: err}
	} else {
		r.tallyLocked(logDropped[reason], err, now)
	}
	text := len(e.DocumentID) + len(e.UserID) + len(e.Type) + len(e.ErrorMessage) + len(e.Stage)
	switch {
	case r.handler == nil:
	case reason != Abandoned && (r.calls >= maxNotices || r.text+text > maxNoticeText), r.gaveUp.Err() != nil && r.running:
		r.unreported.Add(1)
	default:
		r.calls++
		r.text += text
		r.queueLocked(notice{func() { r.handler(e, reason, err) }, true, text})
	}
}

// failed reports a request that will be sent again; lasting says that somebody
// has to mend something first.
func (r *reporter) failed(lasting bool, err error, pending int64, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures++
	msg := logTransient
	if lasting {
		msg = logConfiguration
	}
	r.loud = r.tallyLocked(msg, err, now, slog.Int64("pending", pending)) || r.loud
}

// spool reports what is wrong with the spool.
func (r *reporter) spool(msg string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tallyLocked(msg, err, time.Now())
}

// recovered reports the end of an outage, if the log tells of its beginning.
func (r *reporter) recovered(outage time.Duration, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.loud {
		return
	}
	r.lineLocked(slog.LevelInfo, logRecovered, slog.String("outage", outage.String()), slog.Int64("failed_requests", r.failures))
	for _, msg := range []string{logTransient, logConfiguration} {
		r.tallies[msg] = tally{written: r.tallies[msg].written}
	}
	r.failures, r.loud = 0, false
	r.sumUpLocked(quietFor, now)
}

// tallyLocked writes a line, or only counts while the last one is fresh. A
// line's count includes what was only counted before.
func (r *reporter) tallyLocked(msg string, err error, now time.Time, attrs ...slog.Attr) bool {
	t := r.tallies[msg]
	t.suppressed++
	t.err = err
	r.tallies[msg] = t
	if now.Sub(t.written) < quietFor {
		return false
	}
	r.writeLocked(msg, now, attrs...)
	return true
}

func (r *reporter) writeLocked(msg string, now time.Time, attrs ...slog.Attr) {
	t := r.tallies[msg]
	attrs = append(attrs, slog.Int64("count", t.suppressed), slog.Any("error", t.err))
	if e := (*Error)(nil); errors.As(t.err, &e) {
		attrs = append(attrs, slog.Int("status", e.Status), slog.String("code", e.Code))
	}
	r.tallies[msg] = tally{written: now}
	r.lineLocked(slog.LevelError, msg, attrs...)
}

// sumUpLocked writes what was only counted, of the kinds whose last line is at
// least so old.
func (r *reporter) sumUpLocked(age time.Duration, now time.Time) {
	for msg, t := range r.tallies {
		if t.suppressed > 0 && now.Sub(t.written) >= age {
			r.writeLocked(msg, now)
		}
	}
}

func (r *reporter) lineLocked(level slog.Level, msg string, attrs ...slog.Attr) {
	r.queueLocked(notice{say: func() { r.log.LogAttrs(context.Background(), level, msg, attrs...) }})
}

func (r *reporter) queueLocked(n notice) {
	r.queue = append(r.queue, n)
	if !r.running {
		r.running = true
		go r.run()
	}
}

func (r *reporter) run() {
	ended := false
	defer func() {
		if !ended { // the app's code has ended the goroutine, as testing's FailNow does
			go r.run()
		}
	}()
	r.mu.Lock()
	for len(r.queue) > 0 {
		n := r.queue[0]
		r.queue[0] = notice{} // lets go of it: the slice moves on
		r.queue = r.queue[1:]
		if n.isCall {
			r.calls--
			r.text -= n.text
		}
		r.mu.Unlock()
		panicked := n.run()
		r.mu.Lock()
		if panicked != nil {
			r.tallyLocked(logPanic, panicked, time.Now())
		}
	}
	r.queue = nil
	r.running = false
	r.mu.Unlock()
	ended = true
}

// run calls the app's code. What a handler panics with is not repeated: it may
// be anything. A logger that panics costs its line.
func (n *notice) run() (panicked error) {
	defer func() {
		if p := recover(); p != nil && n.isCall {
			panicked = fmt.Errorf("panic with a %T", p)
		}
	}()
	n.say()
	return nil
}

// flush writes the sums that are due and waits, within ctx, until everything
// queued by now has been said.
func (r *reporter) flush(ctx context.Context, age time.Duration) error {
	r.mu.Lock()
	r.sumUpLocked(age, time.Now())
	said := make(chan struct{})
	if r.running {
		r.queueLocked(notice{say: func() { close(said) }})
	} else {
		close(said)
	}
	r.mu.Unlock()
	select {
	case <-said:
	case <-r.gaveUp.Done():
	case <-ctx.Done():
		return fmt.Errorf("docevents: Flush: log lines or drop handler calls still due: %w", ctx.Err())
	}
	return nil
}

// close is flush with all sums, at the end of ctx skipping what waits behind a
// call that doesn't return.
func (r *reporter) close(ctx context.Context) {
	if r.flush(ctx, 0) == nil {
		return
	}
	r.giveUp()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unreported.Add(int64(r.calls))
	r.queue, r.calls, r.text = nil, 0, 0
}
