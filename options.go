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

// The defaults of the options. docs/performance.md has the measurements behind
// the sizes.
const (
	DefaultSchema = "public"
	DefaultTable  = "document_processing_events"

	// DefaultRequestTimeout is longer than the 8 s after which hosted Supabase
	// cancels a statement, so the server's own error arrives first.
	DefaultRequestTimeout = 30 * time.Second

	DefaultMaxInFlight = 4        // requests
	DefaultMaxBatch    = 1000     // rows
	DefaultQueueEvents = 100_000  // events
	DefaultQueueBytes  = 64 << 20 // bytes: 64 MiB

	// DefaultPurgeBatch is the number of rows per step of a purge. Without
	// WithPurgeBatch, a purge deletes in steps only after its first DELETE fails.
	DefaultPurgeBatch = 10_000
)

// An Option changes a default of [New]. If an option is given twice, the last
// one counts. A nil argument stands for the default. A value out of bounds makes
// New return an error, and so does 0: no option has a value for "unlimited".
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

// WithLogger sends the log lines to l. The default is logrus's standard logger.
// The client calls l on a separate goroutine, one line at a time, so a slow
// logger delays nothing else.
func WithLogger(l logrus.FieldLogger) Option {
	if l == nil {
		l = logrus.StandardLogger()
	}
	return WithSlog(slog.New(logrusHandler{l}))
}

// WithSlog sends the log lines to l instead of logrus, with the same messages,
// fields and levels. The client calls l on a separate goroutine, one line at a
// time.
func WithSlog(l *slog.Logger) Option { return func(c *config) { c.log = l } }

// WithDropHandler calls f with every lost event, the reason, and an error with
// the details. The default is no handler. The event's texts have been cleaned
// and cut as for the table. If the client had already made an ID for the event,
// it is in Event.ID. So an app may keep the event and record it again later, and
// it is still stored only once. Extra has been converted to JSON and back: its
// numbers are [json.Number]. Extra is nil if it can't be stored.
//
// The client calls f on a separate goroutine, one call at a time. f may call
// Record and Stats. It must not record the dropped event itself, because the
// event may be dropped again without end. It must not call Flush or Close, which
// wait for f. While f is slow, up to 1,000 calls with up to 1 MiB of text wait
// for it. Further calls are skipped and counted in [Stats].Unreported, except for
// events that Close abandons. A panic in f is recovered and logged.
func WithDropHandler(f func(Event, DropReason, error)) Option {
	return func(c *config) { c.dropHandler = f }
}

// WithBefore makes Record call f with each event first. The default is no
// function. f may change the event, for example add a version, a tenant or a
// trace id, or remove personal data. If f returns false, the event is dropped
// with reason [Filtered]: it is counted in [Stats] and passed to the drop handler,
// but not logged. ctx is the context of RecordContext or StepContext; for Record
// and Step it is [context.Background].
//
// f gets a copy of the event, which it must not use after it returns. Extra is
// never nil. It is a shallow copy: f may add and delete keys, but must not change
// the values in place, because they belong to the caller. Fields that Record fills
// in, such as CreatedAt, are still empty. f isn't called for events that are
// replayed from the spool, because it has been called for them before.
//
// f runs on the goroutine that calls Record, so it must be fast and safe for
// concurrent use. f may record further events with the same Client, and is then
// called for those events. An event is dropped with reason [Invalid] if f makes
// it invalid, if f panics, or if 10,000 calls of f are running already.
func WithBefore(f func(ctx context.Context, e *Event) bool) Option {
	return func(c *config) { c.before = f }
}

// WithTransport sends all requests through rt, which must be safe for concurrent
// use. rt sees the key in the headers of the requests. Close doesn't close the
// connections of rt.
//
// By default New clones [http.DefaultTransport]. The clone for inserts opens at
// most one connection more than [WithMaxInFlight] allows requests. If the app has
// replaced http.DefaultTransport with another type, as httpmock.Activate does,
// New uses that transport itself.
func WithTransport(rt http.RoundTripper) Option { return func(c *config) { c.transport = rt } }

// WithSchema sets the table's schema. The name has 1 to 63 letters, digits and
// underscores. The project's API settings must expose the schema. The default is
// [DefaultSchema].
func WithSchema(name string) Option { return func(c *config) { c.schema = name } }

// WithTable sets the table's name, which has 1 to 63 letters, digits and
// underscores. The default is [DefaultTable].
func WithTable(name string) Option { return func(c *config) { c.table = name } }

// WithEventTypes lists the event types that the table accepts, by their meaning.
// The default is [UploadStarted], [ProcessingStarted], [Completed] and [Failed].
// With EventTypes{Open: true} Record also accepts any other type.
func WithEventTypes(types EventTypes) Option {
	types.clone()
	return func(c *config) { c.types.EventTypes = types }
}

// WithColumns describes a table whose columns differ from the migration's: they
// have other names or types, or allow NULL for a document or a user. With this
// option an empty DocumentID or UserID is stored as NULL. Without it, such an
// event is dropped with reason [Invalid].
func WithColumns(columns Columns) Option {
	columns.Extra = slices.Clone(columns.Extra)
	return func(c *config) { c.columns.Columns, c.columns.own = columns, true }
}

// WithRequestTimeout sets the timeout of one insert request, from 1 ms to 10
// min. The default is [DefaultRequestTimeout]. It also bounds each request of
// Check, and each read, such as a Timeline or a Summary, together with its
// retries. Requests of a purge are bounded only by the purge's context.
func WithRequestTimeout(d time.Duration) Option { return func(c *config) { c.requestTimeout = d } }

// WithMaxInFlight sets how many insert requests may be in flight at once, from 1
// to 64. The default is [DefaultMaxInFlight]. Flush and Close send one more if
// all of them seem to hang.
func WithMaxInFlight(requests int) Option { return func(c *config) { c.maxInFlight = requests } }

// WithMaxBatch sets the maximum number of rows per insert request, from 1 to
// 10,000. The default is [DefaultMaxBatch]. Independently of this, the texts of
// a request have at most 1 MiB.
func WithMaxBatch(rows int) Option { return func(c *config) { c.maxBatch = rows } }

// WithQueueLimits limits the events in memory, both queued and in flight: their
// number, from 1 to 10,000,000, and their bytes, from 128 KiB to 1 GiB. An event
// counts 300 bytes plus its texts and the JSON of Extra. If a new event would
// exceed either limit, Record drops it with reason [QueueFull]. The defaults are
// [DefaultQueueEvents] and [DefaultQueueBytes].
func WithQueueLimits(events, bytes int) Option {
	return func(c *config) { c.queueEvents, c.queueBytes = events, bytes }
}

// WithSpool copies queued events to files in the folder dir until they are
// stored or dropped. The default is "", which means no spool.
//
// Events in the spool survive the end of the process: kill -9, a panic, running
// out of memory, or the restart of a container whose volume is kept. They don't
// survive a loss of power, because files are not synced. An event is usually on
// disk within 1 ms of Record, and under load within 50 ms. The next client with
// the same URL, schema and table replays the events of dead processes. They keep
// their IDs, so no event is stored twice. But an event that was stored and then
// purged may be stored again. Close leaves the events that it can't send in the
// spool and counts them in [Stats].Kept.
//
// Any number of processes may share dir. A relative dir is made absolute by
// WithSpool. If dir doesn't exist, the client creates it, accessible to this user
// only. If other users can write to dir, the client logs that and doesn't use dir.
//
// The files contain personal data if the events do. All files together take up
// to about twice the bytes of [WithQueueLimits], even if many processes die; at
// that size, new events stay in memory only. The client keeps a damaged file with
// the suffix .bad, and a file with values for which [WithColumns] has no column
// with the suffix .kept. It never deletes those files.
//
// A disk that is full, slow or broken never blocks New or Record. The failure is
// logged, and events stay in memory only. On Windows they always do.
func WithSpool(dir string) Option {
	if abs, err := filepath.Abs(dir); err == nil && dir != "" { // otherwise there is no working directory, and the spool fails to open dir
		dir = abs
	}
	return func(c *config) { c.spoolDir, c.spoolFiles = dir, spool.OS{} }
}

// WithPurgeBatch makes a purge delete in steps of this many rows, from 1 to
// 1,000,000. By default a purge sends one DELETE for all rows. If that fails for
// a reason that may pass, such as a timeout or a lost connection, the purge
// continues in steps of [DefaultPurgeBatch] rows.
func WithPurgeBatch(rows int) Option {
	return func(c *config) { c.purgeBatch, c.purgeInSteps = rows, true }
}

// nameFormat is stricter than PostgreSQL, which accepts any 63 bytes in quotes,
// because the name becomes a part of the URL.
var nameFormat = regexp.MustCompile(`^[A-Za-z0-9_]{1,63}$`)

// newConfig applies the options to the defaults. Its error lists every value
// that is out of bounds.
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
