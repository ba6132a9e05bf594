package docevents

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/sirupsen/logrus"
)

// What New uses where an option is left out. The README's performance section
// has the measurements behind the sizes.
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

	// DefaultPurgeBatch is the step of a purge that a statement timeout has
	// made go in steps. Without WithPurgeBatch a purge starts as one DELETE.
	DefaultPurgeBatch = 10_000
)

// The bounds that New holds the options to.
const (
	maxRequestTimeout = 10 * time.Minute
	maxMaxInFlight    = 64
	maxMaxBatch       = 10_000
	maxQueueEvents    = 10_000_000
	minQueueBytes     = recordBytes + maxMessageBytes + maxStageBytes + maxTypeBytes // one event, however long
	maxQueueBytes     = 1 << 30
	maxPurgeBatch     = 1_000_000
	maxNameBytes      = 63 // PostgreSQL's NAMEDATALEN - 1
)

// An Option changes a default of [New]. Given twice, the last one counts.
type Option func(*config)

type config struct {
	log            logFunc
	dropHandler    func(Event, DropReason, error)
	transport      http.RoundTripper // nil: one of our own
	schema, table  string
	eventTypes     []EventType // empty: the table decides
	requestTimeout time.Duration
	maxInFlight    int
	maxBatch       int
	queueEvents    int
	queueBytes     int
	purgeBatch     int // 0: one DELETE, steps only after a timeout
	bad            []error
}

// WithLogger sends the log lines to l. The default is logrus's standard
// logger. It is called on a goroutine of its own, one line at a time.
func WithLogger(l logrus.FieldLogger) Option {
	return func(c *config) {
		if c.refuseNil("WithLogger", l == nil) {
			return
		}
		c.log = logrusFunc(l)
	}
}

// WithSlog sends the log lines to l instead of logrus: the same lines, fields
// and levels. It is called on a goroutine of its own, one line at a time.
func WithSlog(l *slog.Logger) Option {
	return func(c *config) {
		if c.refuseNil("WithSlog", l == nil) {
			return
		}
		c.log = slogFunc(l)
	}
}

// WithDropHandler calls f for every event that is lost, with the reason. The
// event is as it would have been stored: cleaned and, where too long, cut.
//
// f is called on a goroutine of its own, one call at a time, never on Record's
// caller. It may call Record and Stats; to record the dropped event again
// would go round for ever. It must not call Flush or Close, which wait for it.
// While f is slow, up to 1,000 calls or 1 MiB of text wait for it; further
// ones are skipped and counted in [Stats].Unreported. A panic in f is
// recovered and costs a log line.
func WithDropHandler(f func(Event, DropReason, error)) Option {
	return func(c *config) {
		if c.refuseNil("WithDropHandler", f == nil) {
			return
		}
		c.dropHandler = f
	}
}

// WithTransport sends the requests through rt, which must be safe for
// concurrent use. It sees the requests with the key in their headers. Close
// leaves its idle connections alone.
//
// The default is a clone of [http.DefaultTransport] that keeps MaxInFlight
// connections; where the app has replaced http.DefaultTransport by a type of
// its own (httpmock.Activate does), that one, looked up once, by New.
func WithTransport(rt http.RoundTripper) Option {
	return func(c *config) {
		if c.refuseNil("WithTransport", rt == nil) {
			return
		}
		c.transport = rt
	}
}

// WithSchema names the table's schema, which the project must expose. The
// default is [DefaultSchema]. Letters, digits and underscores, at most 63.
func WithSchema(name string) Option {
	return func(c *config) { c.schema = name }
}

// WithTable names the table. The default is [DefaultTable]. Letters, digits
// and underscores, at most 63.
func WithTable(name string) Option {
	return func(c *config) { c.table = name }
}

// WithEventTypes lists the types that Record accepts, for a table whose CHECK
// has been changed. The default are the four constants. With no argument every
// type goes through, and the table decides.
func WithEventTypes(types ...EventType) Option {
	return func(c *config) { c.eventTypes = slices.Clone(types) }
}

// WithRequestTimeout bounds one insert request, from 1 ms to 10 min. The
// default is [DefaultRequestTimeout]. Requests of a purge are bounded by the
// purge's context instead.
func WithRequestTimeout(d time.Duration) Option {
	return func(c *config) { c.requestTimeout = d }
}

// WithMaxInFlight bounds how many insert requests are under way at once, from
// 1 to 64; so many connections are kept. The default is [DefaultMaxInFlight].
func WithMaxInFlight(requests int) Option {
	return func(c *config) { c.maxInFlight = requests }
}

// WithMaxBatch bounds the rows of one insert request, from 1 to 10,000. A
// request also carries no more than 1 MiB of text, whatever the rows. The
// default is [DefaultMaxBatch].
func WithMaxBatch(rows int) Option {
	return func(c *config) { c.maxBatch = rows }
}

// WithQueueLimits bounds what waits in memory, requests under way included: so
// many events, from 1 to 10,000,000, and so many bytes, to 1 GiB, an event
// counting 300 bytes and its text. Beyond either, Record drops the new event
// with reason QueueFull. The defaults are [DefaultQueueEvents] and
// [DefaultQueueBytes].
func WithQueueLimits(events, bytes int) Option {
	return func(c *config) { c.queueEvents, c.queueBytes = events, bytes }
}

// WithPurgeBatch makes a purge go in steps of so many rows, from 1 to
// 1,000,000. The default is one DELETE, and steps of [DefaultPurgeBatch] rows
// only after that has run into a timeout.
func WithPurgeBatch(rows int) Option {
	return func(c *config) {
		c.purgeBatch = rows
		if rows == 0 { // 0 in the field means: not given
			c.purgeBatch = -1
		}
	}
}

func (c *config) refuseNil(option string, isNil bool) bool {
	if isNil {
		c.bad = append(c.bad, fmt.Errorf("%s(nil): leave the option out for the default", option))
	}
	return isNil
}

// newConfig applies the options to the defaults and names everything that is
// out of bounds.
func newConfig(opts []Option) (config, error) {
	c := config{
		log:            logrusFunc(logrus.StandardLogger()),
		schema:         DefaultSchema,
		table:          DefaultTable,
		eventTypes:     []EventType{UploadStarted, ProcessingStarted, Completed, Failed},
		requestTimeout: DefaultRequestTimeout,
		maxInFlight:    DefaultMaxInFlight,
		maxBatch:       DefaultMaxBatch,
		queueEvents:    DefaultQueueEvents,
		queueBytes:     DefaultQueueBytes,
	}
	for _, opt := range opts {
		if !c.refuseNil("Option", opt == nil) {
			opt(&c)
		}
	}
	within := func(option string, v, low, high int) {
		if v < low || v > high {
			c.bad = append(c.bad, fmt.Errorf("%s: must be from %d to %d", option, low, high))
		}
	}
	name := func(option, s string) {
		if !isIdentifier(s) {
			c.bad = append(c.bad, fmt.Errorf("%s: must be 1 to %d letters, digits and underscores", option, maxNameBytes))
		}
	}
	name("WithSchema", c.schema)
	name("WithTable", c.table)
	if c.requestTimeout < time.Millisecond || c.requestTimeout > maxRequestTimeout {
		c.bad = append(c.bad, fmt.Errorf("WithRequestTimeout: must be from 1ms to %s", maxRequestTimeout))
	}
	within("WithMaxInFlight", c.maxInFlight, 1, maxMaxInFlight)
	within("WithMaxBatch", c.maxBatch, 1, maxMaxBatch)
	within("WithQueueLimits: events", c.queueEvents, 1, maxQueueEvents)
	within("WithQueueLimits: bytes", c.queueBytes, minQueueBytes, maxQueueBytes)
	if c.purgeBatch != 0 {
		within("WithPurgeBatch", c.purgeBatch, 1, maxPurgeBatch)
	}
	for i, t := range c.eventTypes {
		if problem := typeProblem(t); problem != "" {
			c.bad = append(c.bad, fmt.Errorf("WithEventTypes: type %d %s", i+1, problem))
		}
	}
	return c, errors.Join(c.bad...)
}

// isIdentifier is stricter than PostgreSQL, which takes anything in quotes:
// the name becomes a part of the URL.
func isIdentifier(s string) bool {
	for _, r := range s {
		if r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') {
			return false
		}
	}
	return s != "" && len(s) <= maxNameBytes
}

// typeProblem says why no table can store t, "" if one could.
func typeProblem(t EventType) string {
	switch {
	case t == "":
		return "is empty"
	case len(t) > maxTypeBytes:
		return fmt.Sprintf("is longer than %d bytes", maxTypeBytes)
	case !utf8.ValidString(string(t)) || slices.Contains([]byte(t), 0):
		return "is not valid text"
	}
	return ""
}
