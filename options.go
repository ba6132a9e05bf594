package docevents

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/docevents/docevents-go/internal/spool"
	"github.com/sirupsen/logrus"
)

// What New uses where an option is left out. docs/performance.md has the
// measurements behind the sizes.
const (
	DefaultSchema = "public"
	DefaultTable  = "document_processing_events"

	// DefaultRequestTimeout is beyond the 8 s after which hosted Supabase
	// cancels a statement, so that the server's own answer comes first.
	DefaultRequestTimeout = 30 * time.Second

	DefaultMaxInFlight = 4
	DefaultMaxBatch    = 1000
	DefaultQueueEvents = 100_000
	DefaultQueueBytes  = 64 << 20

	// DefaultPurgeBatch is the step of a purge that a timeout has made go in
	// steps. Without WithPurgeBatch a purge starts as one DELETE.
	DefaultPurgeBatch = 10_000
)

// An Option changes a default of [New]. Given twice, the last one counts. A nil
// argument stands for the default; a value out of bounds is an error of New.
type Option func(*config)

type config struct {
	log            *slog.Logger
	dropHandler    func(Event, DropReason, error)
	before         func(context.Context, *Event) bool // nil: none
	transport      http.RoundTripper
	schema, table  string
	spoolDir       string // absolute; empty: none
	spoolErr       error  // of making it absolute
	spoolFiles     spool.FS
	types          eventTypes
	columns        columns
	requestTimeout time.Duration
	maxInFlight    int
	maxBatch       int
	queueEvents    int
	queueBytes     int
	purgeBatch     int
	purgeInSteps   bool // from the start
}

// WithLogger sends the log lines to l. The default is logrus's standard
// logger. It is called on a goroutine of its own, one line at a time.
func WithLogger(l logrus.FieldLogger) Option {
	if l == nil {
		l = logrus.StandardLogger()
	}
	return WithSlog(slog.New(logrusHandler{l}))
}

// WithSlog sends the log lines to l instead of logrus: the same lines, fields
// and levels. It is called on a goroutine of its own, one line at a time.
func WithSlog(l *slog.Logger) Option { return func(c *config) { c.log = l } }

// WithDropHandler calls f for every event that is lost, with the reason and an
// error that says more. The event's text is as it would have been stored:
// cleaned and, where too long, cut. Its ID is the row's where one was made, so
// that recorded again, later, the event is stored once all the same. Its Extra
// is what JSON makes of it, numbers as [json.Number], and nil where it can't be
// stored.
//
// f is called on a goroutine of its own, one call at a time, never on Record's
// caller. It may call Record and Stats; to record the dropped event again
// would go round for ever. It must not call Flush or Close, which wait for it.
// While f is slow, up to 1,000 calls or 1 MiB of text wait for it; further
// ones are skipped and counted in [Stats].Unreported. A panic in f is
// recovered and costs a log line.
func WithDropHandler(f func(Event, DropReason, error)) Option {
	return func(c *config) { c.dropHandler = f }
}

// WithBefore calls f for each event before Record does anything else with it. f
// may change the event: add values such as a worker, a version, a tenant or a
// trace id, or remove personal data. If f returns false, the event is dropped
// with reason Filtered: counted in Stats and handed to the drop handler, but not
// logged. ctx is that of RecordContext or StepContext, else
// [context.Background].
//
// The event is a copy, which must not be used after f returns. Its Extra is a
// copy as well and never nil, so f may add to it and delete from it; the values
// in it are the caller's. Fields that Record fills in are still empty, such as
// CreatedAt. If f makes the event invalid, it is dropped with reason Invalid.
// Events that are replayed from the spool don't pass f again.
//
// f runs on the caller's goroutine, without a lock, so f must be fast and safe
// for concurrent use. It may record further events with the same Client; f is
// called for them as well. If f panics, or 10,000 calls of f are running because
// f blocks or calls itself in this way without end, the event is dropped with
// reason Invalid and a log line.
func WithBefore(f func(ctx context.Context, e *Event) bool) Option {
	return func(c *config) { c.before = f }
}

// WithTransport sends the requests through rt, which must be safe for
// concurrent use. It sees the requests with the key in their headers. Close
// leaves its idle connections alone.
//
// The default is a clone of [http.DefaultTransport] that keeps MaxInFlight
// connections; where the app has replaced http.DefaultTransport by a type of
// its own (httpmock.Activate does), that one, looked up once, by New.
func WithTransport(rt http.RoundTripper) Option { return func(c *config) { c.transport = rt } }

// WithSchema names the table's schema, which the project must expose: 1 to 63
// letters, digits and underscores. The default is [DefaultSchema].
func WithSchema(name string) Option { return func(c *config) { c.schema = name } }

// WithTable names the table: 1 to 63 letters, digits and underscores. The
// default is [DefaultTable].
func WithTable(name string) Option { return func(c *config) { c.table = name } }

// WithEventTypes lists the types that the table takes, by what they mean. The
// default is [UploadStarted], [ProcessingStarted], [Completed] and [Failed];
// EventTypes{Open: true} accepts any other type as well.
func WithEventTypes(types EventTypes) Option {
	types.clone()
	return func(c *config) { c.types.EventTypes = types }
}

// WithColumns is for a table of your own: its columns have other names or types
// than the migration's, or take NULL for a document or a user. With it, an empty
// DocumentID or UserID is stored as NULL; without it, the event is dropped as
// Invalid.
func WithColumns(columns Columns) Option {
	columns.Extra = slices.Clone(columns.Extra)
	return func(c *config) { c.columns.Columns, c.columns.own = columns, true }
}

// WithRequestTimeout bounds one insert request, from 1 ms to 10 min. The
// default is [DefaultRequestTimeout]. Requests of a purge are bounded by the
// purge's context instead.
func WithRequestTimeout(d time.Duration) Option { return func(c *config) { c.requestTimeout = d } }

// WithMaxInFlight bounds how many insert requests are under way at once, from
// 1 to 64; so many connections are kept. The default is [DefaultMaxInFlight].
func WithMaxInFlight(requests int) Option { return func(c *config) { c.maxInFlight = requests } }

// WithMaxBatch bounds the rows of one insert request, from 1 to 10,000. A
// request also carries no more than 1 MiB of text, whatever the rows. The
// default is [DefaultMaxBatch].
func WithMaxBatch(rows int) Option { return func(c *config) { c.maxBatch = rows } }

// WithQueueLimits bounds what waits in memory, requests under way included: so
// many events, from 1 to 10,000,000, and so many bytes, from 128 KiB to 1 GiB,
// an event counting 300 bytes and its text, that of Extra included. Beyond
// either, Record drops the new event with reason QueueFull. The defaults are
// [DefaultQueueEvents] and [DefaultQueueBytes].
func WithQueueLimits(events, bytes int) Option {
	return func(c *config) { c.queueEvents, c.queueBytes = events, bytes }
}

// WithSpool also keeps queued events in files of the folder dir until they are
// stored or dropped, so that they survive the process: kill -9, a panic, running
// out of memory, or the restart of a container whose volume is kept. They don't
// survive a loss of power, since nothing is synced. An event is on disk a moment
// after Record, usually within 1 ms, under load within 50. A client with the same
// URL, schema and table replays the events of dead processes with their ids, so
// that nothing is stored twice; an event that was purged in between may come
// back. Close keeps the events that it can't send, and counts them in
// [Stats].Kept instead of abandoning them.
//
// Any number of processes may share dir. It becomes absolute here, and is made, for
// this user alone, if it doesn't exist. A folder that other users can write to is
// refused with a log line. The files hold personal data if the events do. They
// take about twice the bytes of WithQueueLimits, also if process after process
// dies: then the newest events wait in memory. Damaged files are kept as .bad, and
// files with values that fit no column as .kept, for you to delete. A disk that is
// full, slow or broken never stops New or Record: it costs a log line, and events
// wait in memory alone. On Windows they always do.
//
// The default, "", is no spool.
func WithSpool(dir string) Option {
	var err error
	if dir != "" && !filepath.IsAbs(dir) {
		if dir, err = filepath.Abs(dir); err != nil {
			err = fmt.Errorf("WithSpool: pass an absolute path: %w", err)
		}
	}
	return func(c *config) { c.spoolDir, c.spoolErr, c.spoolFiles = dir, err, spool.OS{} }
}

// WithPurgeBatch makes a purge go in steps of so many rows, from 1 to
// 1,000,000. The default is one DELETE, and steps of [DefaultPurgeBatch] rows
// only after that has run into a timeout.
func WithPurgeBatch(rows int) Option {
	return func(c *config) { c.purgeBatch, c.purgeInSteps = rows, true }
}

// nameFormat is stricter than PostgreSQL, which takes any 63 bytes in quotes:
// the name becomes a part of the URL.
var nameFormat = regexp.MustCompile(`^[A-Za-z0-9_]{1,63}$`)

// newConfig applies the options to the defaults and names all that is out of
// bounds.
func newConfig(opts []Option) (config, error) {
	c := config{
		schema:         DefaultSchema,
		table:          DefaultTable,
		requestTimeout: DefaultRequestTimeout,
		maxInFlight:    DefaultMaxInFlight,
		maxBatch:       DefaultMaxBatch,
		queueEvents:    DefaultQueueEvents,
		queueBytes:     DefaultQueueBytes,
		purgeBatch:     DefaultPurgeBatch,
	}
	for _, opt := range opts {
		if opt != nil {
			opt(&c)
		}
	}
	if c.log == nil {
		WithLogger(nil)(&c)
	}
	var bad []error
	for _, o := range []struct {
		option         string
		got, low, high int64
	}{
		{"WithRequestTimeout, in ms,", c.requestTimeout.Milliseconds(), 1, 600_000},
		{"WithMaxInFlight", int64(c.maxInFlight), 1, 64},
		{"WithMaxBatch", int64(c.maxBatch), 1, 10_000},
		{"WithQueueLimits' events", int64(c.queueEvents), 1, 10_000_000},
		{"WithQueueLimits' bytes", int64(c.queueBytes), 128 << 10, 1 << 30}, // room for any one event's texts
		{"WithPurgeBatch", int64(c.purgeBatch), 1, 1_000_000},
	} {
		if o.got < o.low || o.got > o.high {
			bad = append(bad, fmt.Errorf("%s must be from %d to %d, not %d", o.option, o.low, o.high, o.got))
		}
	}
	if !nameFormat.MatchString(c.schema) || !nameFormat.MatchString(c.table) {
		bad = append(bad, errors.New("WithSchema and WithTable must be 1 to 63 letters, digits and underscores"))
	}
	columns, badColumns := newColumns(c.columns.Columns)
	columns.own = c.columns.own
	types, badTypes := newEventTypes(c.types.EventTypes)
	c.columns, c.types, bad = columns, types, append(bad, badColumns, badTypes, c.spoolErr)
	return c, errors.Join(bad...)
}

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
	switch r.Level {
	case slog.LevelInfo:
		h.WithFields(fields).Info(r.Message)
	case slog.LevelWarn:
		h.WithFields(fields).Warn(r.Message)
	default:
		h.WithFields(fields).Error(r.Message)
	}
	return nil
}
