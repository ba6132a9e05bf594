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

// Defaults of the options. Some are based on the measurements in docs/performance.md.
const (
	DefaultSchema = "public"
	DefaultTable  = "document_processing_events"

	// DefaultRequestTimeout is the timeout of an insert request. Hosted Supabase
	// cancels a statement after 8 s, so its error arrives before this timeout.
	DefaultRequestTimeout = 30 * time.Second

	DefaultMaxInFlight = 4        // requests
	DefaultMaxBatch    = 1000     // rows
	DefaultQueueEvents = 100_000  // events
	DefaultQueueBytes  = 64 << 20 // bytes: 64 MiB

	// DefaultPurgeBatch is the number of rows that a purge deletes in one step. By
	// default a purge first sends one DELETE for all old rows, and deletes in steps
	// only if that DELETE fails.
	DefaultPurgeBatch = 10_000
)

// An Option changes a default of [New]. If an option is given twice, the last one
// counts. If an option's argument is nil, the default applies. If a number is out of
// bounds, New returns an error. 0 is out of bounds for every option and never means
// "unlimited".
type Option func(*config)

type config struct {
	log            *slog.Logger
	dropHandler    func(Event, DropReason, error)
	before         func(context.Context, *Event) bool // nil without WithBefore
	transport      http.RoundTripper
	schema, table  string
	spoolDir       string // absolute; empty without WithSpool
	spoolFiles     spool.FS
	types          eventTypes
	columns        columns
	requestTimeout time.Duration
	maxInFlight    int
	maxBatch       int
	queueEvents    int
	queueBytes     int
	purgeBatch     int
	purgeInSteps   bool // WithPurgeBatch was given: steps from the start
}

// WithLogger makes the client log to l. The default is logrus's standard logger. The
// client calls l on a separate goroutine, one line at a time, so a slow logger doesn't
// delay Record or the inserts.
func WithLogger(l logrus.FieldLogger) Option {
	if l == nil {
		l = logrus.StandardLogger()
	}
	return WithSlog(slog.New(logrusHandler{l}))
}

// WithSlog makes the client log to l instead of a logrus logger, with the same
// messages, fields and levels. The client calls l on a separate goroutine, one line at
// a time.
func WithSlog(l *slog.Logger) Option { return func(c *config) { c.log = l } }

// WithDropHandler makes the client call f for every dropped event, with the event, the
// reason, and an error that has the details. The default is no handler.
//
// f may keep the event, so that the app can record it again later. If the client has
// already made an ID for the event, Event.ID contains it, so an event that is recorded
// again is still stored only once. The event's texts are valid and cut to their maximum
// length, as in the table. Extra has been converted to JSON and back, so its numbers
// are [json.Number]. If Extra can't be stored, it is nil.
//
// The client calls f on a separate goroutine, one call at a time. f may call Stats and
// record other events. f must not record the dropped event, because it might be dropped
// and recorded again without end. f must not call Flush or Close, because they wait for
// f. If f panics, the client recovers and logs the panic.
//
// While f is slow, up to 1,000 dropped events with up to 1 MiB of text in total wait
// for it. The client doesn't pass further dropped events to f, but counts them in
// [Stats].Unreported. These limits don't apply to events that Close abandons.
func WithDropHandler(f func(Event, DropReason, error)) Option {
	return func(c *config) { c.dropHandler = f }
}

// WithBefore makes Record and Step first call f with each event. The default is no
// function. f may change the event, for example to add a version, a tenant or a trace
// id, or to remove personal data. If f returns false, the event is dropped with reason
// [Filtered]: it is counted in [Stats] and passed to the drop handler, but not logged.
// ctx is the context that the app passed to RecordContext or StepContext. For Record
// and Step, ctx is [context.Background].
//
// f gets a pointer to a copy of the event, and must not use it after f returns. Fields
// that Record fills in, such as CreatedAt, are still empty. Extra is never nil. f may
// add and delete keys of Extra, but must not change a value in place, because the app
// may still use the value. The client doesn't call f again for events from files of
// [WithSpool].
//
// f runs on the goroutine that calls Record, so it must be fast and safe for concurrent
// use. f may record further events with the same Client, which then calls f for these
// events. If f panics or makes the event invalid, or if 10,000 calls to f are already
// running, the event is dropped with reason [Invalid].
func WithBefore(f func(ctx context.Context, e *Event) bool) Option {
	return func(c *config) { c.before = f }
}

// WithTransport makes the client send all requests through rt, which must be safe for
// concurrent use. rt sees the key in the headers of the requests. Close doesn't close
// the connections of rt.
//
// By default New makes two clones of [http.DefaultTransport], one for inserts and one
// for other requests. The clone for inserts opens at most one connection more than the
// limit of [WithMaxInFlight]. If http.DefaultTransport isn't a [*http.Transport], for
// example after httpmock.Activate, New uses it directly.
func WithTransport(rt http.RoundTripper) Option { return func(c *config) { c.transport = rt } }

// WithSchema sets the name of the table's schema: 1 to 63 letters, digits and
// underscores. The default is [DefaultSchema]. The project's API settings must expose
// the schema, or the server refuses every request.
func WithSchema(name string) Option { return func(c *config) { c.schema = name } }

// WithTable sets the table's name: 1 to 63 letters, digits and underscores. The
// default is [DefaultTable].
func WithTable(name string) Option { return func(c *config) { c.table = name } }

// WithEventTypes lists the event types that the table accepts, grouped by their
// meaning. The default is [UploadStarted], [ProcessingStarted], [Completed] and
// [Failed]. With EventTypes{Open: true} Record also accepts any other type.
func WithEventTypes(types EventTypes) Option {
	types.clone()
	return func(c *config) { c.types.EventTypes = types }
}

// WithColumns describes a table whose columns differ from those in
// sql/013_create_processing_events_table.sql, for example in their names or types. With
// this option, an empty DocumentID or UserID is stored as NULL. Without it, such an
// event is dropped with reason [Invalid].
func WithColumns(columns Columns) Option {
	columns.Extra = slices.Clone(columns.Extra)
	return func(c *config) { c.columns.Columns, c.columns.own = columns, true }
}

// WithRequestTimeout sets the timeout of each insert request and of each request of
// Check, from 1 ms to 10 min. The default is [DefaultRequestTimeout]. A read, such as a
// Timeline or a Summary, must end within this time, including its retries. A purge is
// limited only by its context.
func WithRequestTimeout(d time.Duration) Option { return func(c *config) { c.requestTimeout = d } }

// WithMaxInFlight sets how many insert requests may be in flight at once, from 1 to
// 64. The default is [DefaultMaxInFlight]. If all these requests seem to hang, Flush
// and Close send one more.
func WithMaxInFlight(requests int) Option { return func(c *config) { c.maxInFlight = requests } }

// WithMaxBatch sets the maximum number of rows per insert request, from 1 to 10,000.
// The default is [DefaultMaxBatch]. A request carries at most 1 MiB of text, so it has
// fewer rows if the texts are long.
func WithMaxBatch(rows int) Option { return func(c *config) { c.maxBatch = rows } }

// WithQueueLimits limits the events that the client keeps in memory until they are
// stored: their number, from 1 to 10,000,000, and their bytes, from 128 KiB to 1 GiB.
// An event counts as 300 bytes plus its texts and the JSON of Extra. If a new event
// would exceed either limit, Record drops it with reason [QueueFull]. The defaults
// are [DefaultQueueEvents] and [DefaultQueueBytes].
func WithQueueLimits(events, bytes int) Option {
	return func(c *config) { c.queueEvents, c.queueBytes = events, bytes }
}

// WithSpool makes the client copy queued events to files in the folder dir, which is
// called the spool. A copy is kept until its event is stored or dropped. The default is
// "", which means no spool.
//
// Events in the spool survive the end of the process: kill -9, a panic, running out of
// memory, or the restart of a container whose volume is kept. They don't survive a loss
// of power, because the client doesn't sync the files. An event is usually in a file
// within 1 ms of Record, and under load within 50 ms.
//
// If a process has died, the next client with the same dir, URL, schema and table sends
// the events that the process left. Events keep their IDs, so the table ignores an
// event that it contains already. But if that event was purged in the meantime, it is
// stored again.
//
// If Close can't send an event that is in the spool, it leaves the event there and
// counts it in [Stats].Kept.
//
// Any number of processes may share dir. WithSpool makes a relative dir absolute. If
// dir doesn't exist, the client creates it, accessible only to the user of the process.
// If other users can write to dir, the client logs a line, sends no events from dir,
// and copies events to dir only when Close can't send them.
//
// The files contain personal data if the events do. Together the files take up to about
// twice the bytes of [WithQueueLimits], and briefly up to four times. While the spool
// is full, new events stay in memory only. The client never deletes a file that it
// can't use: it adds .bad to the name of a damaged file, and .kept to the name of a
// file with values for columns that [WithColumns] doesn't list.
//
// A disk that is full, slow or broken never blocks New or Record. The client logs
// failures, and events stay in memory only. Windows isn't supported: the client logs a
// line, and all events stay in memory only.
func WithSpool(dir string) Option {
	if abs, err := filepath.Abs(dir); err == nil && dir != "" { // if there is no working directory, the spool can't open dir either
		dir = abs
	}
	return func(c *config) { c.spoolDir, c.spoolFiles = dir, spool.OS{} }
}

// WithPurgeBatch makes a purge delete in steps of the given number of rows, from 1 to
// 1,000,000. By default a purge sends one DELETE for all old rows. If this DELETE fails
// for a reason that may be temporary, such as a timeout or a lost connection, the purge
// continues in steps of [DefaultPurgeBatch] rows.
func WithPurgeBatch(rows int) Option {
	return func(c *config) { c.purgeBatch, c.purgeInSteps = rows, true }
}

// nameFormat matches valid names of schemas and tables. PostgreSQL allows other
// characters too, but in requests they would have to be escaped.
var nameFormat = regexp.MustCompile(`^[A-Za-z0-9_]{1,63}$`)

// newConfig returns the defaults, changed by opts. Its error lists every invalid value.
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
		{"WithQueueLimits' bytes", int64(c.queueBytes), 128 << 10, 1 << 30}, // the minimum has room for the texts of any event
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
	c.columns, c.types, bad = columns, types, append(bad, badColumns, badTypes)
	return c, errors.Join(bad...)
}

// A logrusHandler is a slog.Handler that writes to a logrus logger.
type logrusHandler struct{ logrus.FieldLogger }

func (h logrusHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h logrusHandler) WithAttrs([]slog.Attr) slog.Handler       { return h } // unused: reporter calls only LogAttrs
func (h logrusHandler) WithGroup(string) slog.Handler            { return h } // unused as well

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
