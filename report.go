package docevents

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/docevents/docevents-go/internal/rest"
	"github.com/docevents/docevents-go/internal/row"
	"github.com/google/uuid"
)

// The messages of log lines. For each message about an error, at most one line is
// written in 30 s (quietFor). The line's field "count" includes the suppressed lines.
const (
	logTransient     = "docevents: insert failed, trying again"
	logConfiguration = "docevents: insert refused until this is fixed"
	logPanic         = "docevents: the drop handler panicked"
	logRecovered     = "docevents: delivering again"
	logSpool         = "docevents: the spool can't be written, so events wait only in memory"
	logReplay        = "docevents: the spool holds events that can't be replayed"
	logPurge         = "docevents: purge failed, trying again"
	logRequired      = "docevents: Check: an event that leaves one of these fields empty will be rejected, since its column is NOT NULL"
	logSlowKey       = "docevents: Check: the id is UNIQUE but not the primary key, so a lost answer costs up to two requests per event: make the id the primary key"
	logDiscards      = "docevents: Check: a trigger or rule of the table discards some of the events that were tried, and Record can't notice that"
)

var logDropped = map[DropReason]string{
	Invalid:   "docevents: event dropped, it can't be stored",
	QueueFull: "docevents: event dropped, the queue is full",
	Rejected:  "docevents: event dropped, the server rejected it",
	Closed:    "docevents: event dropped, it was recorded after Close",
	Abandoned: "docevents: events abandoned by Close",
}

// Errors that don't come from the server.
var (
	// ErrClosed is the error of events that are recorded after Close.
	ErrClosed = errors.New("the client is closed")

	errQueueFull = errors.New("the queue is full: the server is down, or stores events more slowly than they are recorded; WithQueueLimits sets the limits")
	errGoexit    = errors.New("the transport ended its goroutine")
)

const (
	// At most maxNotices dropped events wait for the drop handler, and their texts have
	// at most maxNoticeText bytes in total. These limits don't apply to events that
	// Close abandons.
	maxNotices    = 1000
	maxNoticeText = 1 << 20

	// A log line contains at most maxLoggedType bytes of an event's type, and at most
	// maxLoggedID bytes of its document's id.
	maxLoggedType = 64
	maxLoggedID   = 128

	// After a line with a message, lines with the same message are suppressed for
	// quietFor.
	quietFor = 30 * time.Second
)

// A notice is a log line or a dropped event that waits for the app's logger or drop
// handler.
type notice struct {
	call   func() // calls the app's logger or drop handler
	isDrop bool   // the notice is a dropped event, not a log line
	text   int    // the size of that event's text, in bytes
}

// A tally counts the suppressed lines that have the same message.
type tally struct {
	written    time.Time // when a line was last written, or zero
	suppressed int64     // how many lines were not written since then
	err        error     // the error of the last suppressed line
	documentID []byte    // a copy of the last dropped event's document id, if that is valid
	eventType  []byte    // a copy of the last dropped event's type
}

// A reporter calls the app's logger and drop handler on a separate goroutine, so that
// they can't delay or crash the rest of the client. The goroutine exists only while
// there is something to report.
type reporter struct {
	log        *slog.Logger
	textIDs    bool                           // Columns.TextIDs
	handler    func(Event, DropReason, error) // may be nil
	unreported atomic.Int64                   // drops for which the handler is not called

	mu       sync.Mutex // guards the fields below; neither log nor handler is called under it
	changed  *sync.Cond // signals that a notice was done, the method close stopped waiting, or a context ended
	queue    []notice
	queued   int64             // how many notices were ever queued
	finished int64             // how many of them are done; they are done in the order of the queue
	drops    int               // how many dropped events are in the queue
	text     int               // the size of their text, in bytes
	running  bool              // the goroutine exists
	closed   bool              // the method close has stopped waiting for a call that doesn't return
	tallies  map[string]*tally // by message
	failures int64             // calls to r.failed since the last recovery
	loud     bool              // a line about these failures was written
}

func newReporter(c *config) *reporter {
	r := &reporter{log: c.log, textIDs: c.columns.TextIDs, handler: c.dropHandler, tallies: map[string]*tally{}}
	r.changed = sync.NewCond(&r.mu)
	return r
}

// drop logs a dropped event and queues it for the app's drop handler, if there is one.
// extra is the JSON of the event's Extra. If too many events wait (see maxNotices), or
// the method close has stopped waiting for a call that hangs, the event is counted as
// unreported instead.
func (r *reporter) drop(e Event, extra string, reason DropReason, err error, now time.Time) {
	documentID := "" // an invalid id may be any text, so it isn't logged
	if uuid.Validate(e.DocumentID) == nil || r.textIDs && checkTextID(e.DocumentID) == nil {
		documentID = row.CutText(e.DocumentID, maxLoggedID)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if msg := logDropped[reason]; msg != "" { // Filtered has no message, since the app asked for it
		t := r.tallyLocked(msg, err)
		t.eventType = append(t.eventType[:0], row.CutText(string(e.Type), maxLoggedType)...)
		t.documentID = append(t.documentID[:0], documentID...)
		if reason != Abandoned { // Close writes one line for all abandoned events
			r.lineIfDueLocked(msg, now)
		}
	}
	text := len(e.ID) + len(e.DocumentID) + len(e.UserID) + len(e.Type) + len(e.ErrorMessage) + len(e.Stage) + len(extra)
	switch {
	case r.handler == nil:
	case reason != Abandoned && (r.drops >= maxNotices || r.text+text > maxNoticeText), r.closed && r.running:
		r.unreported.Add(1)
	default:
		own := owned(e)
		r.drops++
		r.text += text
		r.queueLocked(notice{func() {
			own.Extra = row.DecodeExtra(extra)
			r.handler(own, reason, err)
		}, true, text})
	}
}

// The method failed logs a request that failed and will be retried. If lasting is true,
// retries will fail until somebody fixes the cause, and the log line contains advice.
func (r *reporter) failed(lasting bool, err error, pending int64, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures++
	msg := logConfiguration
	if !lasting {
		msg = logTransient
		if e, answered := errors.AsType[*Error](err); answered {
			err = e // without advice, since there may be nothing to fix
		}
	}
	r.tallyLocked(msg, err)
	r.loud = r.lineIfDueLocked(msg, now, slog.Int64("pending", pending)) || r.loud
}

// fault logs a failure of the spool, or of a purge request that will be retried.
func (r *reporter) fault(msg string, err error, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tallyLocked(msg, err)
	r.lineIfDueLocked(msg, now)
}

// warn writes a line about the table.
func (r *reporter) warn(msg string, attrs ...slog.Attr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lineLocked(slog.LevelWarn, msg, attrs...)
}

// recovered is called when rows are stored after failures. If the failures were logged,
// it logs the recovery. outage is the time since the first of these failures.
func (r *reporter) recovered(outage time.Duration, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.loud {
		r.lineLocked(slog.LevelInfo, logRecovered, slog.String("after", outage.String()), slog.Int64("failed_requests", r.failures))
		for _, msg := range []string{logTransient, logConfiguration} {
			r.tallyLocked(msg, nil).suppressed = 0
		}
		r.sumUpLocked(quietFor, now)
	}
	r.failures, r.loud = 0, false
}

// tallyLocked counts a line with the given message as not yet written.
func (r *reporter) tallyLocked(msg string, err error) *tally {
	t := r.tallies[msg]
	if t == nil {
		t = &tally{}
		r.tallies[msg] = t
	}
	t.suppressed++
	t.err = err
	return t
}

// lineIfDueLocked writes a line with the given message, unless such a line was written
// less than quietFor ago. It reports whether it wrote the line.
func (r *reporter) lineIfDueLocked(msg string, now time.Time, attrs ...slog.Attr) bool {
	due := now.Sub(r.tallies[msg].written) >= quietFor
	if due {
		r.writeLocked(msg, now, attrs...)
	}
	return due
}

func (r *reporter) writeLocked(msg string, now time.Time, attrs ...slog.Attr) {
	t := r.tallies[msg]
	attrs = append(attrs, slog.Int64("count", t.suppressed), slog.Any("error", t.err))
	if e, answered := errors.AsType[*Error](t.err); answered {
		attrs = append(attrs, slog.Int("status", e.Status), slog.String("code", e.Code))
	}
	if len(t.documentID) > 0 {
		attrs = append(attrs, slog.String("document_id", rest.OneLine(string(t.documentID))))
	}
	if len(t.eventType) > 0 {
		attrs = append(attrs, slog.String("event_type", rest.OneLine(string(t.eventType))))
	}
	*t = tally{written: now}
	r.lineLocked(slog.LevelError, msg, attrs...)
}

// For each message that has suppressed lines, sumUpLocked writes one line with their
// number. It skips a message if the last line with it was written less than minAge ago.
func (r *reporter) sumUpLocked(minAge time.Duration, now time.Time) {
	for msg, t := range r.tallies {
		if t.suppressed > 0 && now.Sub(t.written) >= minAge {
			r.writeLocked(msg, now)
		}
	}
}

func (r *reporter) lineLocked(level slog.Level, msg string, attrs ...slog.Attr) {
	r.queueLocked(notice{call: func() { r.log.LogAttrs(context.Background(), level, msg, attrs...) }})
}

// owned returns e with copies of its ids and short texts. It doesn't copy longer texts.
func owned(e Event) Event {
	for i, text := range []*string{&e.ID, &e.DocumentID, &e.UserID, (*string)(&e.Type), &e.ErrorMessage, &e.Stage} {
		if isID := i < 3; isID || len(*text) <= row.MaxKept {
			*text = strings.Clone(*text)
		}
	}
	return e
}
