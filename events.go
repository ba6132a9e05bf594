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

// An EventType is the kind of an event. The four types below are accepted by the table
// that docevents' migration creates. For other types, use [WithEventTypes].
type EventType string

// The event types of sql/013_create_processing_events_table.sql.
const (
	UploadStarted     EventType = "upload_started"
	ProcessingStarted EventType = "processing_started"
	Completed         EventType = "completed"
	Failed            EventType = "failed"
)

// SystemUser is the UserID for events that no user caused. It is the zero UUID instead
// of NULL, because the column user_id of docevents' migration is NOT NULL. If your
// column has a foreign key to auth.users, the server rejects SystemUser. In that case,
// make the column nullable, use [WithColumns], and leave UserID empty.
const SystemUser = "00000000-0000-0000-0000-000000000000"

// An Event is one row of the table. DocumentID, UserID and Type are required. But with
// [WithColumns], DocumentID and UserID may be empty, and are then stored as NULL. If
// the table has no column for a field, the field must be empty.
type Event struct {
	// ID is the row's UUID, in any form that [uuid.Parse] accepts, except the zero
	// UUID. If it is empty, the client generates a UUID of version 7.
	//
	// If several events have the same ID, only the first one is stored. So if a step
	// can run twice but must be recorded only once, derive the UUID from the job and
	// the step, for example with [uuid.NewSHA1].
	ID string

	// DocumentID is the document's UUID, in any form that [uuid.Parse] accepts. It is
	// sent in canonical form. If [Columns].TextIDs is set, DocumentID may be any text
	// of 1 to 1,024 bytes in valid UTF-8 without NUL bytes, and it is sent unchanged.
	DocumentID string

	// UserID is the id of the document's owner, in the same form as DocumentID,
	// or [SystemUser].
	UserID string

	Type EventType

	// Duration is how long the step took. It is stored in whole milliseconds, rounded
	// down. If it is 0 or negative, it counts as not measured and is stored as NULL. A
	// Duration over 2^31-1 ms (24 days) is stored as 2^31-1 ms.
	Duration time.Duration

	// ErrorMessage is stored as NULL if it is empty. A message longer than 64 KiB is
	// cut, and a note with the number of removed bytes is appended. NUL bytes are
	// removed, because PostgreSQL can't store them. Invalid UTF-8 is replaced by
	// U+FFFD.
	//
	// Record doesn't copy a message of more than 256 bytes. If it is part of a larger
	// string, pass strings.Clone(message), so that the larger string doesn't stay in
	// memory.
	ErrorMessage string

	// Stage is the name of the step, such as "ocr". It is stored as NULL if it is
	// empty, and cut to 1 KiB if it is longer. NUL bytes and invalid UTF-8 are
	// treated as in ErrorMessage.
	Stage string

	// CreatedAt is the time of the event, in the years 1 to 9999. It is stored in UTC,
	// in whole microseconds. Zero means the time of the call to Record.
	CreatedAt time.Time

	// Extra contains values for further columns of the table. The keys are the columns'
	// names, which must be listed in [Columns].Extra. A value may be anything that
	// encoding/json can encode, with at most 9,998 levels of maps and slices. A nil
	// value is stored as NULL. If Extra has no key for a listed column, PostgreSQL
	// stores the column's default.
	//
	// If the JSON of Extra is larger than 64 KiB, the event is dropped. NUL bytes and
	// invalid UTF-8 in strings are treated as in ErrorMessage. The app may change the
	// map after Record has returned.
	Extra map[string]any
}

const (
	maxMessageBytes = 64 << 10
	maxStageBytes   = 1 << 10
	maxTypeBytes    = 256
	maxIDBytes      = 1 << 10

	// recordBytes is an estimate of the memory that a queued event takes in addition to
	// its text (see WithQueueLimits).
	recordBytes = 300

	timeFormat = row.TimeFormat
)

// Record queues e for insertion. It returns at once: it never waits for the network,
// the logger, the drop handler, or room in a full queue. It is safe for concurrent use.
// With [WithBefore], Record first calls the app's function, which may change or drop
// the event.
//
// Record drops the event in these cases: a value is invalid (the reason is [Invalid]),
// the queue is full ([QueueFull]), or Close has been called ([Closed]). Such an event
// is counted in [Stats], logged, and passed to the drop handler.
//
// Call Close before the program ends. Otherwise, queued events are lost, except those
// that [WithSpool] has copied to disk.
func (c *Client) Record(e Event) { c.RecordContext(context.Background(), e) }

// RecordContext is like Record, but passes ctx to the function of [WithBefore]. The
// function can read values from ctx, such as a trace id or a tenant. Nothing else uses
// ctx, so the event is stored even if ctx is cancelled.
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
	case Invalid, Filtered: // these fields are unchecked and may have any content and length
		e.ID = row.CleanText(e.ID, maxIDBytes)
		e.DocumentID = row.CleanText(e.DocumentID, maxIDBytes)
		e.UserID = row.CleanText(e.UserID, maxIDBytes)
		e.Type = EventType(row.CleanText(string(e.Type), maxIDBytes))
	}
	c.report.drop(e, r.Extra, reason, err, now)
}

// maxBefore is how many calls to WithBefore's function may run at the same time. It
// prevents a stack overflow if the function records an event each time it is called.
// 10,000 nested calls take about 20 MB of stack, and Go allows 1 GB.
const maxBefore = 10_000

var (
	errFiltered = errors.New("WithBefore's function returned false")
	errTooMany  = fmt.Errorf("%d calls to WithBefore's function are running: the function must not block, and must not record an event each time it is called", maxBefore)
)

// A beforeCaller calls WithBefore's function, with at most maxBefore calls at the same
// time.
type beforeCaller struct{ running atomic.Int64 }

// beforeCaller.call passes a copy of e to WithBefore's function f, and returns the
// event with the changes that f makes. reason and err are set only if the event must be
// dropped.
func (b *beforeCaller) call(ctx context.Context, f func(context.Context, *Event) bool, e Event) (changed Event, reason DropReason, err error) {
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

// A record is a validated event in the form in which it is queued.
type record struct {
	row.Row       // if the event has no ID, the method identify makes one
	block   int64 // the row's place in the spool: see mirror
	old     int64 // the row's previous place, if it was copied from there

	// delivery.mu guards these two.
	number int64 // grows from record to record
	doubt  bool  // the answer to a request with this row was lost: the row may be stored
}

// rowsOf returns pointers to the rows of records. It doesn't copy the records, because
// the mirror may be changing record.block.
func rowsOf(records []record) []*row.Row {
	rows := make([]*row.Row, len(records))
	for i := range records {
		rows[i] = &records[i].Row
	}
	return rows
}

// nextNumber returns the number of a new record: the Unix time in milliseconds, and in
// the lower 12 bits a count of the records in that millisecond. The parameter last is
// the number of the previous record. The result is greater than this number, even if
// the clock was set back.
func nextNumber(last int64, now time.Time) int64 { return max(last+1, now.UnixMilli()<<12) }

// identify gives r an id if it has none yet: a UUID of version 7 (RFC 9562, section
// 5.7). Its first half is made from r.number, so the ids sort in the order in which
// Record was called. A row keeps its id, so that it is stored once even if it is sent
// several times.
func (r *record) identify() {
	if r.ID == uuid.Nil {
		binary.BigEndian.PutUint64(r.ID[:8], uint64(r.number>>12<<16|7<<12|r.number&0xfff))
		binary.BigEndian.PutUint64(r.ID[8:], rand.Uint64()>>2|2<<62) // a UUID needn't be secret
	}
}

// newRecord validates e and converts it to a record. Its error never contains the value
// of a field. The caller must have cleaned ErrorMessage and Stage with row.CleanText.
func newRecord(e *Event, c *config) (record, error) {
	columns := &c.columns
	r := record{Row: row.Row{
		Message: e.ErrorMessage, Stage: e.Stage,
		Duration: max(e.Duration, 0), CreatedAt: e.CreatedAt.UnixMicro(),
		Partial:    len(e.Extra) < len(columns.Extra),
		NoDocument: columns.isNull(columns.DocumentID, e.DocumentID), NoUser: columns.isNull(columns.UserID, e.UserID),
	}}
	var err, badDocument, badUser error
	if r.Extra, err = columns.rows.EncodeExtra(e.Extra); err != nil {
		return r, err
	}
	if r.ID, err = uuid.Parse(e.ID); e.ID != "" && (err != nil || r.ID == uuid.Nil) {
		return r, errors.New("ID is not a UUID, or is the zero UUID: leave it empty, or pass a UUID derived from the job and the step")
	}
	if field := columns.lacks(e); field != "" {
		return r, errors.New(field + " is set, but WithColumns has \"-\" for its column: leave it empty")
	}
	if columns.TextIDs {
		badDocument, badUser = checkTextID(e.DocumentID), checkTextID(e.UserID)
	} else {
		r.DocumentID, badDocument = uuid.Parse(e.DocumentID)
		r.UserID, badUser = uuid.Parse(e.UserID)
	}
	switch {
	case badDocument != nil && !r.NoDocument:
		return r, columns.idError("DocumentID", e.DocumentID)
	case badUser != nil && !r.NoUser:
		return r, columns.idError("UserID", e.UserID)
	case columns.TextIDs:
		r.SetTextIDs(e.DocumentID, e.UserID)
	}
	if columns.Type != noColumn {
		eventType, err := c.types.accept(e.Type)
		if err != nil {
			return r, err
		}
		r.Type = string(eventType)
	}
	if year := e.CreatedAt.UTC().Year(); year < 1 || year > 9999 {
		return r, errors.New("CreatedAt is outside the years 1 to 9999: leave it zero for the time of Record")
	}
	return r, nil
}

// event converts r back to an Event, but without Extra.
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
