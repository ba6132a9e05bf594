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

// An EventType names what happened to a document. The migration's table accepts
// the four types below. For a table with others, see [WithEventTypes].
type EventType string

// The event types of sql/013_create_processing_events_table.sql.
const (
	UploadStarted     EventType = "upload_started"
	ProcessingStarted EventType = "processing_started"
	Completed         EventType = "completed"
	Failed            EventType = "failed"
)

// SystemUser is the UserID for events that no user caused. It is the zero UUID,
// because the migration's column is NOT NULL. auth.users has no such user: if
// your column has a foreign key, use [WithColumns] and leave UserID empty.
const SystemUser = "00000000-0000-0000-0000-000000000000"

// An Event is one row of the table. DocumentID, UserID and Type are required.
// With [WithColumns], an empty DocumentID or UserID is stored as NULL, and a
// field must be empty if it has no column.
type Event struct {
	// ID is the row's UUID, in any form that [uuid.Parse] accepts, except the
	// zero UUID. If it is empty, the client makes one of version 7. Of several
	// events with the same ID, only the first one is stored. For a step that may
	// run twice, pass a UUID derived from the job and the step, for example with
	// [uuid.NewSHA1].
	ID string

	// DocumentID is the document's UUID, in any form that [uuid.Parse] accepts.
	// It is sent in canonical form. With [Columns].TextIDs it is 1 to 1,024
	// bytes of valid text and is sent unchanged.
	DocumentID string

	// UserID is the id of the document's owner, in the same form as DocumentID,
	// or [SystemUser].
	UserID string

	Type EventType

	// Duration is how long the step took. It is stored in whole milliseconds,
	// rounded down. 0 means not measured and is stored as NULL, and so is a
	// negative Duration. The longest that can be stored is 2^31-1 ms (24 days);
	// a longer one is stored as that.
	Duration time.Duration

	// ErrorMessage is stored as NULL if it is empty. A message longer than 64
	// KiB is cut and ends with a note of how much was cut. NUL bytes, which
	// PostgreSQL can't store, are removed, and invalid UTF-8 is replaced by
	// U+FFFD.
	//
	// Record copies a message of up to 256 bytes. A longer one isn't copied: if
	// it is a substring, the larger string stays in memory until the event is
	// stored. Pass strings.Clone of it to avoid that.
	ErrorMessage string

	// Stage names the step of the pipeline. It is stored as NULL if it is empty,
	// and cut to 1 KiB. Otherwise it is treated like ErrorMessage.
	Stage string

	// CreatedAt is the time of the event, in the years 1 to 9999. It is stored
	// in UTC, in whole microseconds. The zero time means the time of Record.
	CreatedAt time.Time

	// Extra holds values for the columns that [Columns].Extra names. A value may
	// be anything that encoding/json can encode; all of them together may take
	// 64 KiB of JSON, nested up to 1,000 levels. Texts are cleaned like
	// ErrorMessage. A nil value is stored as NULL, and a missing key as the
	// column's default. The map may be changed as soon as Record returns.
	Extra map[string]any
}

const (
	maxMessageBytes = 64 << 10
	maxStageBytes   = 1 << 10
	maxTypeBytes    = 256
	maxIDBytes      = 1 << 10

	// recordBytes is what an event counts against the queue's bytes in addition
	// to its text. It covers the record, the unused capacity of a growing slice,
	// and the record's share of a request body.
	recordBytes = 300

	timeFormat = row.TimeFormat
)

// Record queues e for insertion. It returns at once: it never waits for the
// network, a full queue, the logger or the drop handler. It is safe for
// concurrent use. With [WithBefore], it first calls that option's function.
//
// Record drops the event if it can't be stored (the reason is [Invalid]), if the
// queue has no room for it ([QueueFull]), or after Close ([Closed]). A dropped
// event is counted in [Stats], logged, and passed to the drop handler.
//
// Record has no context parameter because the insert must outlive the caller's
// context: a request's context is cancelled when its handler returns. Call Flush
// or Close before the program ends, or the queued events are lost.
func (c *Client) Record(e Event) { c.RecordContext(context.Background(), e) }

// RecordContext is like Record and passes ctx to the function of [WithBefore],
// which can read values from it, such as a trace id or a tenant. Nothing else
// uses ctx: if it is cancelled, the event is still stored.
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
	e.Extra = nil // the map belongs to the caller again
	if reason == "" && invalid != nil {
		reason, err = Invalid, invalid
	}
	reason, err = c.delivery.add(&r, reason, err, now)
	switch reason {
	case "":
		return
	case Invalid, Filtered: // their fields are unchecked and may have any content and length
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

// maxBefore limits the concurrent calls of WithBefore's function. A function that
// records an event for each event calls itself endlessly, and the stack overflow
// would end the process. 10,000 nested calls take about 20 MB of stack.
const maxBefore = 10_000

var (
	errFiltered = errors.New("WithBefore's function returned false")
	errTooMany  = fmt.Errorf("%d calls of WithBefore's function are running: it must not block or record an event for each event", maxBefore)
)

// A before calls WithBefore's function and limits its concurrent calls.
type before struct{ running atomic.Int64 }

// call calls f with a copy of e and returns the copy, or the reason why the event
// is dropped. The copy has two purposes: without WithBefore, Record's e doesn't
// escape to the heap, and an f that keeps its pointer can't change a queued
// event.
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
		if p := recover(); p != nil { // p may contain anything, so only its type is logged
			changed, reason, err = e, Invalid, fmt.Errorf("WithBefore's function panicked with a %T: fix it, or recover in it", p)
		}
	}()
	if !f(ctx, &e) {
		return e, Filtered, errFiltered
	}
	return e, "", nil
}

// A record is a validated event in the form in which it is queued. The columns
// can hold each of its values, except perhaps text ids and the values of Extra.
type record struct {
	row.Row       // if the event has no ID, identify sets it before the first request
	block   int64 // the row's place in the spool, see mirror
	old     int64 // and the place before, if the row was copied

	// delivery.mu guards these two.
	number int64 // grows with each Record; makes the first half of an id
	doubt  bool  // the answer to a request with this row was lost: the row may be stored
}

// rowsOf returns pointers to the rows of records. Copying a record would race with
// the spool, which writes record.block.
func rowsOf(records []record) []*row.Row {
	rows := make([]*row.Row, len(records))
	for i := range records {
		rows[i] = &records[i].Row
	}
	return rows
}

// nextNumber returns a number greater than last. It is the Unix milliseconds of
// now, followed by a 12-bit counter, unless last is greater already.
func nextNumber(last int64, now time.Time) int64 { return max(last+1, now.UnixMilli()<<12) }

// identify gives r a UUID if it doesn't have one yet. The UUID is of version 7
// (RFC 9562, section 5.7), so UUIDs sort in the order of Record.
func (r *record) identify() {
	if r.ID == uuid.Nil {
		binary.BigEndian.PutUint64(r.ID[:8], uint64(r.number>>12<<16|7<<12|r.number&0xfff))
		binary.BigEndian.PutUint64(r.ID[8:], rand.Uint64()>>2|2<<62) // a UUID needn't be secret
	}
}

// newRecord validates e and converts it. ErrorMessage and Stage must have been
// cleaned. Its errors name the field and what to do, but never contain the value.
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
		return r, errors.New("ID is not a UUID, or is the zero UUID: leave it empty, or pass a UUID derived from the job and the step")
	case lacking != "":
		return r, errors.New(lacking + " is set, but WithColumns has \"-\" for its column: leave it empty")
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

// event returns r as an Event without Extra. The drop handler gets Extra from
// row.DecodeExtra.
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
