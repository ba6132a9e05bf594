package docevents

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/docevents/docevents-go/internal/row"
	"github.com/google/uuid"
)

// EventType says what happened to a document. The table's CHECK lists the four
// below; see [WithEventTypes] for others.
type EventType string

// The event types of sql/013_create_processing_events_table.sql.
const (
	UploadStarted     EventType = "upload_started"
	ProcessingStarted EventType = "processing_started"
	Completed         EventType = "completed"
	Failed            EventType = "failed"
)

// SystemUser is the UserID of an event that no user caused: the zero UUID, since
// the migration's column takes no NULL. It is no user of auth.users: if the
// table's column has a foreign key, use [WithColumns] and leave UserID empty.
const SystemUser = "00000000-0000-0000-0000-000000000000"

// An Event is one row of the table. DocumentID, UserID and Type are required.
// With [WithColumns], an empty DocumentID or UserID is stored as NULL, and a
// field must be empty if the table has no column for it.
type Event struct {
	// ID is the row's UUID, in any form that [uuid.Parse] takes but the zero
	// UUID; "" for one made here, of version 7. Events of the same ID are the
	// same row, stored once: whoever may do a step twice gives a UUID made of
	// the job and the step ([uuid.NewSHA1]). The first one stored stays.
	ID string

	// DocumentID is the document's UUID, in any form that [uuid.Parse] takes. It
	// is sent in canonical form. With [Columns].TextIDs it is 1 to 1,024 bytes of
	// valid text, sent as it is.
	DocumentID string

	// UserID is the id of the document's owner, of the same form, or
	// [SystemUser].
	UserID string

	Type EventType

	// Duration is how long the step took, stored in whole milliseconds, so
	// that a Duration below 1 ms is stored as 0. 0 means not measured and is
	// stored as NULL, as is a negative one. Beyond what a 32-bit count of
	// milliseconds holds (24 days), that maximum is stored.
	Duration time.Duration

	// ErrorMessage is stored as NULL if empty, and cut to 64 KiB, with a note
	// of how much went. NUL bytes, which PostgreSQL can't store, are removed,
	// invalid UTF-8 becomes U+FFFD.
	//
	// Up to 256 bytes it is copied. What is longer stays as it is while it
	// waits, together with the larger string that it may be a piece of:
	// strings.Clone it then.
	ErrorMessage string

	// Stage names the step of the pipeline. It is stored as NULL if empty, cut
	// to 1 KiB, and cleaned and copied as ErrorMessage is.
	Stage string

	// CreatedAt is the event's time, years 1 to 9999, stored in UTC and
	// microseconds. Zero means the time of Record.
	CreatedAt time.Time

	// Extra is the values of the columns that [Columns].Extra names: whatever
	// encoding/json takes, at most 64 KiB of JSON in all, cleaned as
	// ErrorMessage is. A nil value is stored as NULL, a column left out as its
	// default. It is read by Record alone: the map may be used again at once.
	Extra map[string]any
}

const (
	maxMessageBytes = 64 << 10
	maxStageBytes   = 1 << 10
	maxTypeBytes    = 256
	maxIDBytes      = 1 << 10

	// recordBytes is what an event counts against the queue's bytes beside its
	// text: a record, what a slice's growth wastes, and its share of a request.
	recordBytes = 300

	timeFormat = row.TimeFormat
)

// Record queues e for insertion and returns. It never waits for the network, a
// full queue, the logger or the drop handler, and it is safe for concurrent
// use. An event that can't be stored is dropped with reason Invalid, one that
// finds the queue full with QueueFull, one after Close with Closed: counted in
// Stats, logged, and handed to the drop handler.
//
// There is no context on purpose: a request's context is cancelled when its
// handler returns, and the insert must outlive it. Call Flush or Close before
// the program ends, or lose what is queued.
//
// With [WithBefore], Record first calls its function. See [Client.RecordContext].
func (c *Client) Record(e Event) { c.RecordContext(context.Background(), e) }

// RecordContext is Record with a context for the function of [WithBefore], which
// may read values from it, such as a trace id or a tenant. Nothing else uses
// ctx: if it is cancelled, the event is stored all the same.
func (c *Client) RecordContext(ctx context.Context, e Event) {
	if c.isNone() {
		return
	}
	reason, err := DropReason(""), error(nil)
	if c.config.before != nil {
		e, reason, err = c.before.call(ctx, c.config.before, e)
	}
	now := time.Now()
	e.ErrorMessage = row.CleanText(e.ErrorMessage, maxMessageBytes)
	e.Stage = row.CleanText(e.Stage, maxStageBytes)
	if e.CreatedAt.IsZero() {
		e.CreatedAt = now
	}
	r, invalid := newRecord(&e, &c.config)
	e.Extra = nil // the caller's again
	if reason == "" && invalid != nil {
		reason, err = Invalid, invalid
	}
	reason, err = c.delivery.add(&r, reason, err, now)
	switch reason {
	case "":
		return
	case Invalid, Filtered: // these may be anything, of any length
		longest := maxTypeBytes
		if c.config.columns.TextIDs {
			longest = maxIDBytes
		}
		e.ID = row.CleanText(e.ID, maxTypeBytes)
		e.DocumentID = row.CleanText(e.DocumentID, longest)
		e.UserID = row.CleanText(e.UserID, longest)
		e.Type = EventType(row.CleanText(string(e.Type), maxTypeBytes))
	}
	c.report.drop(e, r.Extra, reason, err, now)
}

// maxBefore bounds how many calls of WithBefore's function run at once. A
// function that records an event for each event calls itself without end, and
// the overflow of the stack would end the process. 10,000 calls within each
// other take about 20 MB of stack.
const maxBefore = 10_000

var (
	errFiltered = errors.New("WithBefore's function returned false")
	errTooMany  = fmt.Errorf("%d calls of WithBefore's function are running: it must not block, nor record an event for each event", maxBefore)
)

// A before calls WithBefore's function.
type before struct{ running atomic.Int64 }

// call returns e as f leaves it, or why it is dropped. f gets a copy of e, so
// that the e of Record doesn't escape to the heap without WithBefore, and so that
// an f that keeps its pointer can't change a queued event.
func (b *before) call(ctx context.Context, f func(context.Context, *Event) bool, e Event) (changed Event, reason DropReason, err error) {
	defer b.running.Add(-1)
	if b.running.Add(1) > maxBefore {
		return e, Invalid, errTooMany
	}
	e.Extra = maps.Clone(e.Extra)
	if e.Extra == nil {
		e.Extra = map[string]any{}
	}
	defer func() {
		if p := recover(); p != nil { // its value may be anything, so it isn't logged
			changed, reason, err = e, Invalid, fmt.Errorf("WithBefore's function panicked with a %T: fix it, or recover in it", p)
		}
	}()
	if !f(ctx, &e) {
		return e, Filtered, errFiltered
	}
	return e, "", nil
}

// A record is an accepted event on its way: nothing in it, save the values of
// Extra, can make a request fail that another record would not.
type record struct {
	row.Row       // its ID is the event's; or set once, by the first request that carries it
	block   int64 // where the spool has it: see mirror

	// The engine's, guarded by delivery.mu.
	number int64 // grows with each Record; the first half of an id made here
	doubt  bool  // a request that carried it may have been carried out, and its answer was lost
}

// rowsOf returns the rows of records, uncopied: the spool writes record.block.
func rowsOf(records []record) []*row.Row {
	rows := make([]*row.Row, len(records))
	for i := range records {
		rows[i] = &records[i].Row
	}
	return rows
}

// nextNumber returns a number that is greater than last: the milliseconds of
// now, where they allow, and 12 bits that count within them.
func nextNumber(last int64, now time.Time) int64 { return max(last+1, now.UnixMilli()<<12) }

// identify gives r its id, if it has none: a UUID of version 7 (RFC 9562, 5.7),
// in the order of Record.
func (r *record) identify() {
	if r.ID == uuid.Nil {
		binary.BigEndian.PutUint64(r.ID[:8], uint64(r.number>>12<<16|7<<12|r.number&0xfff))
		binary.BigEndian.PutUint64(r.ID[8:], rand.Uint64()>>2|2<<62) // need not be secret
	}
}

// newRecord checks e, whose text is clean already. Its errors name the field
// and the remedy, never the value.
func newRecord(e *Event, c *config) (record, error) {
	r := record{Row: row.Row{
		Message: e.ErrorMessage, Stage: e.Stage,
		Duration: max(e.Duration, 0), CreatedAt: e.CreatedAt.UnixMicro(),
		Partial:    len(e.Extra) < len(c.columns.Extra),
		NoDocument: c.columns.isNull(c.columns.DocumentID, e.DocumentID), NoUser: c.columns.isNull(c.columns.UserID, e.UserID),
	}}
	var badID, badDocument, badUser, badType, badExtra error
	r.ID, badID = uuid.Parse(e.ID)
	if !c.columns.TextIDs {
		r.DocumentID, badDocument = uuid.Parse(e.DocumentID)
		r.UserID, badUser = uuid.Parse(e.UserID)
	} else if badDocument, badUser = checkTextID(e.DocumentID), checkTextID(e.UserID); (r.NoDocument || badDocument == nil) && (r.NoUser || badUser == nil) {
		r.SetTextIDs(e.DocumentID, e.UserID)
	}
	r.Extra, badExtra = c.columns.rows.EncodeExtra(e.Extra)
	if c.columns.Type != noColumn {
		var eventType EventType
		eventType, badType = c.types.accept(e.Type)
		r.Type = string(eventType)
	}
	lacking := c.columns.lacks(e)
	switch year := e.CreatedAt.UTC().Year(); {
	case e.ID != "" && (badID != nil || r.ID == uuid.Nil):
		return r, errors.New("ID is not a UUID, or the zero one: leave it empty to have it made, or pass one made of the job and the step")
	case lacking != "":
		return r, errors.New(lacking + " is filled, and WithColumns says that the table has no column for it: leave it empty")
	case badDocument != nil && !r.NoDocument:
		return r, c.columns.idError("DocumentID", e.DocumentID)
	case badUser != nil && !r.NoUser:
		return r, c.columns.idError("UserID", e.UserID)
	case badType != nil:
		return r, badType
	case year < 1 || year > 9999:
		return r, errors.New("CreatedAt is outside the years 1 to 9999: leave it zero for the time of Record")
	case badExtra != nil:
		return r, badExtra
	}
	return r, nil
}

// event gives r back to the app, save its Extra: see row.DecodeExtra.
func (r *record) event() Event {
	id := ""
	if r.ID != uuid.Nil {
		id = r.ID.String()
	}
	return Event{
		ID:           id,
		DocumentID:   r.Document(),
		UserID:       r.User(),
		Type:         EventType(r.Type),
		Duration:     r.Duration,
		ErrorMessage: r.Message,
		Stage:        r.Stage,
		CreatedAt:    time.UnixMicro(r.CreatedAt).UTC(),
	}
}
