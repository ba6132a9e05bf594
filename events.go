package docevents

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"strings"
	"time"

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

	// timeFormat is RFC 3339 in UTC and microseconds, PostgreSQL's resolution.
	// An offset would need escaping in a query: its + is read as a space.
	timeFormat = "2006-01-02T15:04:05.000000Z"
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
	e.ErrorMessage = cleanText(e.ErrorMessage, maxMessageBytes)
	e.Stage = cleanText(e.Stage, maxStageBytes)
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
		e.ID = cleanText(e.ID, maxTypeBytes)
		e.DocumentID = cleanText(e.DocumentID, longest)
		e.UserID = cleanText(e.UserID, longest)
		e.Type = EventType(cleanText(string(e.Type), maxTypeBytes))
	}
	c.report.drop(e, r.extra, reason, err, now)
}

// A record is an accepted event on its way: nothing in it, save the values of
// Extra, can make a request fail that another record would not.
type record struct {
	id         uuid.UUID // the event's; or set once, by the first request that carries it
	documentID uuid.UUID // not used if ids is set, or noDocument
	userID     uuid.UUID // likewise
	ids        string    // with Columns.TextIDs: the document's id, NUL, the user's; else ""
	eventType  EventType
	message    string
	stage      string
	extra      string        // as it stands in a row
	duration   time.Duration // 0: NULL
	createdAt  int64         // Unix microseconds
	block      int64         // where the spool has it: see mirror

	// The engine's, guarded by delivery.mu.
	number int64 // grows with each Record; the first half of an id made here
	doubt  bool  // a request that carried it may have been carried out, and its answer was lost

	partial    bool // extra leaves a column out
	noDocument bool // NULL, or the table has no such column
	noUser     bool // likewise
}

// nextNumber returns a number that is greater than last: the milliseconds of
// now, where they allow, and 12 bits that count within them.
func nextNumber(last int64, now time.Time) int64 { return max(last+1, now.UnixMilli()<<12) }

// identify gives r its id, if it has none: a UUID of version 7 (RFC 9562, 5.7),
// in the order of Record.
func (r *record) identify() {
	if r.id == uuid.Nil {
		binary.BigEndian.PutUint64(r.id[:8], uint64(r.number>>12<<16|7<<12|r.number&0xfff))
		binary.BigEndian.PutUint64(r.id[8:], rand.Uint64()>>2|2<<62) // need not be secret
	}
}

// newRecord checks e, whose text is clean already. Its errors name the field
// and the remedy, never the value.
func newRecord(e *Event, c *config) (record, error) {
	r := record{
		message: e.ErrorMessage, stage: e.Stage,
		duration: max(e.Duration, 0), createdAt: e.CreatedAt.UnixMicro(),
		partial:    len(e.Extra) < len(c.columns.Extra),
		noDocument: c.columns.isNull(c.columns.DocumentID, e.DocumentID), noUser: c.columns.isNull(c.columns.UserID, e.UserID),
	}
	var badID, badDocument, badUser, badType, badExtra error
	r.id, badID = uuid.Parse(e.ID)
	if !c.columns.TextIDs {
		r.documentID, badDocument = uuid.Parse(e.DocumentID)
		r.userID, badUser = uuid.Parse(e.UserID)
	} else if badDocument, badUser = checkTextID(e.DocumentID), checkTextID(e.UserID); (r.noDocument || badDocument == nil) && (r.noUser || badUser == nil) {
		r.ids = e.DocumentID + "\x00" + e.UserID
	}
	r.extra, badExtra = c.columns.encodeExtra(e.Extra)
	if c.columns.Type != noColumn {
		r.eventType, badType = c.types.accept(e.Type)
	}
	lacking := c.columns.lacks(e)
	switch year := e.CreatedAt.UTC().Year(); {
	case e.ID != "" && (badID != nil || r.id == uuid.Nil):
		return r, errors.New("ID is not a UUID, or the zero one: leave it empty to have it made, or pass one made of the job and the step")
	case lacking != "":
		return r, errors.New(lacking + " is filled, and WithColumns says that the table has no column for it: leave it empty")
	case badDocument != nil && !r.noDocument:
		return r, c.columns.idError("DocumentID", e.DocumentID)
	case badUser != nil && !r.noUser:
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

// text is how many bytes of text r holds.
func (r *record) text() int {
	return len(r.message) + len(r.stage) + len(r.eventType) + len(r.extra) + len(r.ids)
}

// event gives r back to the app, save its Extra: see decodeExtra.
func (r *record) event() Event {
	return Event{
		ID:           idText(r.id, "", r.id == uuid.Nil),
		DocumentID:   r.document(),
		UserID:       r.user(),
		Type:         r.eventType,
		Duration:     r.duration,
		ErrorMessage: r.message,
		Stage:        r.stage,
		CreatedAt:    time.UnixMicro(r.createdAt).UTC(),
	}
}

// textIDs returns the ids if they are text, or "".
func (r *record) textIDs() (document, user string) {
	document, user, _ = strings.Cut(r.ids, "\x00")
	return document, user
}

// document returns the document's id, "" if it is NULL.
func (r *record) document() string {
	text, _ := r.textIDs()
	return idText(r.documentID, text, r.noDocument)
}

// user returns the user's id, "" if it is NULL.
func (r *record) user() string {
	_, text := r.textIDs()
	return idText(r.userID, text, r.noUser)
}

func idText(id uuid.UUID, text string, null bool) string {
	if null || text != "" {
		return text
	}
	return id.String()
}
