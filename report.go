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

// The log's messages. Each is a kind of its own: its first line is written at
// once, its repeats are summed up.
const (
	logTransient     = "docevents: insert failed, trying again"
	logConfiguration = "docevents: insert refused until this is mended"
	logPanic         = "docevents: the drop handler panicked"
	logRecovered     = "docevents: delivering again"
	logSpool         = "docevents: the spool can't be written, so events wait in memory alone"
	logReplay        = "docevents: the spool holds what can't be replayed"
	logPurge         = "docevents: purge failed, trying again"
	logRequired      = "docevents: Check: an event that leaves one of these fields empty will be rejected, since its column is NOT NULL"
	logSlowKey       = "docevents: Check: the id is UNIQUE but not the primary key, so a lost answer costs a request for each of its events: make the id the primary key"
	logDiscards      = "docevents: Check: a trigger or rule of the table discards some of the events that were tried, and Record can't notice that"
)

var logDropped = map[DropReason]string{
	Invalid:   "docevents: event dropped, it can't be stored",
	QueueFull: "docevents: event dropped, the queue is full",
	Rejected:  "docevents: event dropped, the server doesn't take it",
	Closed:    "docevents: event dropped, it was recorded after Close",
	Abandoned: "docevents: events abandoned by Close",
}

// Why an event is dropped, or a request failed, without the server's doing.
var (
	// ErrClosed is the error of events that are recorded after Close.
	ErrClosed = errors.New("the client is closed")

	errQueueFull = errors.New("the queue is full: the server is away, or slower than events are recorded; WithQueueLimits sets the limits")
	errGoexit    = errors.New("the transport ended its goroutine")
)

const (
	maxNotices    = 1000    // handler calls that wait
	maxNoticeText = 1 << 20 // the text of their events, in bytes

	// maxLoggedType and maxLoggedID bound what a line repeats of an event's type
	// and of its document's id, in bytes.
	maxLoggedType = 64
	maxLoggedID   = 128

	// quietFor is how long the repeats of a line are only counted.
	quietFor = 30 * time.Second
)

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
	document   uuid.UUID // of the last event, if it is about events and has a document
	documentID []byte    // likewise, a copy, with Columns.TextIDs
	eventType  []byte    // of the last event, a copy
}

// A reporter owns what is foreign and loud: the app's logger and its drop
// handler. They run on one goroutine, which exists while there is something to
// say, and so can neither delay nor break anybody else.
type reporter struct {
	log        *slog.Logger
	textIDs    bool                           // Columns.TextIDs
	handler    func(Event, DropReason, error) // nil: none
	unreported atomic.Int64

	mu       sync.Mutex // guards all that follows; neither log nor handler is called under it
	changed  *sync.Cond // a notice was said, close gave up, a context is done
	queue    []notice
	queued   int64 // notices, ever
	said     int64 // of them, in the same order
	calls    int   // in the queue
	text     int   // bytes that they hold
	running  bool
	gaveUp   bool              // on a call that doesn't return
	tallies  map[string]*tally // by message
	failures int64             // failed requests since the last recovery
	loud     bool              // the log tells of them
}

func newReporter(c *config) *reporter {
	r := &reporter{log: c.log, textIDs: c.columns.TextIDs, handler: c.dropHandler, tallies: map[string]*tally{}}
	r.changed = sync.NewCond(&r.mu)
	return r
}

// drop reports a lost event, whose Extra is decoded only for the handler. What
// Close abandons is handed over whatever its number.
func (r *reporter) drop(e Event, extra string, reason DropReason, err error, now time.Time) {
	var documentID string
	document, _ := uuid.Parse(e.DocumentID) // a bad UUID may be anything, and isn't logged
	if r.textIDs && checkTextID(e.DocumentID) == nil {
		documentID = row.CutText(e.DocumentID, maxLoggedID)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if msg := logDropped[reason]; msg != "" { // Filtered is no fault
		t := r.tallyLocked(msg, err)
		t.document, t.eventType = document, append(t.eventType[:0], row.CutText(string(e.Type), maxLoggedType)...)
		t.documentID = append(t.documentID[:0], documentID...)
		if reason != Abandoned { // one line for all of those, by Close
			r.lineIfDueLocked(msg, now)
		}
	}
	text := len(e.ID) + len(e.DocumentID) + len(e.UserID) + len(e.Type) + len(e.ErrorMessage) + len(e.Stage) + len(extra)
	switch {
	case r.handler == nil:
	case reason != Abandoned && (r.calls >= maxNotices || r.text+text > maxNoticeText), r.gaveUp && r.running:
		r.unreported.Add(1)
	default:
		own := owned(e)
		r.calls++
		r.text += text
		r.queueLocked(notice{func() {
			own.Extra = row.DecodeExtra(extra)
			r.handler(own, reason, err)
		}, true, text})
	}
}

// failed reports a request that will be sent again; lasting says that somebody
// has to mend something first.
func (r *reporter) failed(lasting bool, err error, pending int64, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures++
	msg := logConfiguration
	if !lasting {
		msg = logTransient
		if e, answered := errors.AsType[*Error](err); answered {
			err = e // without the remedy: there may be nothing to mend
		}
	}
	r.tallyLocked(msg, err)
	r.loud = r.lineIfDueLocked(msg, now, slog.Int64("pending", pending)) || r.loud
}

// fault reports what is wrong elsewhere: a request of a purge that will be sent
// again, a file of the spool.
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

// recovered reports the end of an outage, if the log tells of its beginning.
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

// tallyLocked counts a line of that kind.
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

// lineIfDueLocked writes the line unless the last one is fresh. Its count
// includes what was only counted before.
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
	switch {
	case len(t.documentID) > 0:
		attrs = append(attrs, slog.String("document_id", rest.OneLine(string(t.documentID))))
	case t.document != uuid.Nil:
		attrs = append(attrs, slog.String("document_id", t.document.String()))
	}
	if len(t.eventType) > 0 {
		attrs = append(attrs, slog.String("event_type", rest.OneLine(string(t.eventType))))
	}
	*t = tally{written: now}
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

// owned returns e with copies of its ids and of its short texts.
func owned(e Event) Event {
	for i, text := range []*string{&e.ID, &e.DocumentID, &e.UserID, (*string)(&e.Type), &e.ErrorMessage, &e.Stage} {
		if isID := i < 3; isID || len(*text) <= row.MaxKept {
			*text = strings.Clone(*text)
		}
	}
	return e
}
