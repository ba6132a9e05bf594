package docevents

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

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

// SystemUser is the UserID of an event that no user is behind: the zero UUID,
// since the column takes no NULL.
const SystemUser = "00000000-0000-0000-0000-000000000000"

// An Event is one row of the table. DocumentID, UserID and Type are required.
type Event struct {
	// DocumentID is the document's UUID, in any form that [uuid.Parse] takes.
	// It is sent in canonical form.
	DocumentID string

	// UserID is the UUID of the document's owner, or [SystemUser].
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
}

const (
	maxMessageBytes = 64 << 10
	maxStageBytes   = 1 << 10
	maxTypeBytes    = 256

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
func (c *Client) Record(e Event) {
	if c.isNone() {
		return
	}
	now := time.Now()
	e.ErrorMessage = cleanText(e.ErrorMessage, maxMessageBytes)
	e.Stage = cleanText(e.Stage, maxStageBytes)
	if e.CreatedAt.IsZero() {
		e.CreatedAt = now
	}
	r, err := newRecord(&e, c.config.eventTypes)
	reason, err := c.delivery.add(&r, err, now)
	switch reason {
	case "":
		return
	case Invalid: // these may be anything, of any length
		e.DocumentID = cleanText(e.DocumentID, maxTypeBytes)
		e.UserID = cleanText(e.UserID, maxTypeBytes)
		e.Type = EventType(cleanText(string(e.Type), maxTypeBytes))
	}
	c.report.drop(e, reason, err, now)
}

// A record is an accepted event on its way: nothing in it can make a request
// fail that another record would not.
type record struct {
	id         uuid.UUID // set once, by the first request that carries it
	documentID uuid.UUID
	userID     uuid.UUID
	eventType  EventType
	message    string
	stage      string
	duration   time.Duration // 0: NULL
	createdAt  int64         // Unix microseconds

	// What the delivery remembers of it, under its mutex.
	number  int64 // of its Record, growing; the first half of an id made here
	failed  int64 // the newest request when it first failed; 0: it never did
	seen    int64 // the newest request when it last failed
	strikes uint8 // failures although others were delivered since the one before, alone or in a batch of this size
	tries   uint8 // failures, likewise
	doubt   bool  // one of them may have been carried out
	refused bool  // one of them was a refusal for data
}

// nextNumber returns a number that is greater than last: the milliseconds of
// now, where they allow, and 12 bits that count within them.
func nextNumber(last int64, now time.Time) int64 { return max(last+1, now.UnixMilli()<<12) }

// identify gives those that have none their ids: UUIDs of version 7 (RFC 9562,
// 5.7), whose order is that of Record.
func identify(records []record) {
	for i := range records {
		records[i].identify()
	}
}

func (r *record) identify() {
	if r.id == uuid.Nil {
		binary.BigEndian.PutUint64(r.id[:8], uint64(r.number>>12<<16|7<<12|r.number&0xfff))
		binary.BigEndian.PutUint64(r.id[8:], rand.Uint64()>>2|2<<62) // need not be secret
	}
}

// newRecord checks e, whose text is clean already. Its errors name the field
// and the remedy, never the value.
func newRecord(e *Event, types []EventType) (record, error) {
	r := record{
		eventType: e.Type, message: e.ErrorMessage, stage: e.Stage,
		duration: max(e.Duration, 0), createdAt: e.CreatedAt.UnixMicro(),
	}
	var badDocument, badUser error
	r.documentID, badDocument = uuid.Parse(e.DocumentID)
	r.userID, badUser = uuid.Parse(e.UserID)
	known := slices.Index(types, e.Type)
	if known >= 0 {
		r.eventType = types[known] // holds on to no memory of the caller's
	}
	switch year := e.CreatedAt.UTC().Year(); {
	case badDocument != nil:
		return r, errors.New("DocumentID is not a UUID: pass the document's id as the database has it")
	case badUser != nil:
		return r, errors.New("UserID is not a UUID: pass the owner's id, or docevents.SystemUser where no user is behind the event")
	case known < 0 && len(types) > 0:
		return r, errors.New("the event's Type is none of those accepted: use the constants, or name the table's own with WithEventTypes")
	case known < 0 && !storable(e.Type):
		return r, errors.New("the event's Type is empty, too long or not valid text: use one that the table's CHECK allows")
	case year < 1 || year > 9999:
		return r, errors.New("CreatedAt is outside the years 1 to 9999: leave it zero for the time of Record")
	case known < 0:
		r.eventType = EventType(strings.Clone(string(e.Type)))
	}
	return r, nil
}

// storable says whether any table could store t.
func storable(t EventType) bool {
	return t != "" && len(t) <= maxTypeBytes && utf8.ValidString(string(t)) && !strings.Contains(string(t), "\x00")
}

// text is how many bytes of text r holds.
func (r *record) text() int { return len(r.message) + len(r.stage) + len(r.eventType) }

// event gives r back to the app.
func (r *record) event() Event {
	return Event{
		DocumentID:   r.documentID.String(),
		UserID:       r.userID.String(),
		Type:         r.eventType,
		Duration:     r.duration,
		ErrorMessage: r.message,
		Stage:        r.stage,
		CreatedAt:    time.UnixMicro(r.createdAt).UTC(),
	}
}

// A row is a record as PostgREST takes it. Every row of a request has the same
// keys: PostgREST refuses a mix (PGRST102).
type row struct {
	ID           string    `json:"id"`
	DocumentID   string    `json:"document_id"`
	UserID       string    `json:"user_id"`
	EventType    EventType `json:"event_type"`
	DurationMS   *int32    `json:"duration_ms"`
	ErrorMessage *string   `json:"error_message"`
	Stage        *string   `json:"stage"`
	CreatedAt    string    `json:"created_at"`
}

// rowColumns are row's keys. With columns=... in the query PostgREST hands the
// body to PostgreSQL as it is, instead of parsing it to learn them.
const rowColumns = "id,document_id,user_id,event_type,duration_ms,error_message,stage,created_at"

// newRows turns records into rows that point into them.
func newRows(records []record) []row {
	rows := make([]row, len(records))
	for i := range records {
		r := &records[i]
		rows[i] = row{
			ID:         r.id.String(),
			DocumentID: r.documentID.String(),
			UserID:     r.userID.String(),
			EventType:  r.eventType,
			CreatedAt:  time.UnixMicro(r.createdAt).UTC().Format(timeFormat),
		}
		if r.duration > 0 {
			ms := int32(min(r.duration.Milliseconds(), math.MaxInt32))
			rows[i].DurationMS = &ms
		}
		if r.message != "" {
			rows[i].ErrorMessage = &r.message
		}
		if r.stage != "" {
			rows[i].Stage = &r.stage
		}
	}
	return rows
}

// cleanText makes s storable: no NUL, valid UTF-8, at most limit bytes. It
// cuts first, so that its cost is bounded, and copies only what it changes.
func cleanText(s string, limit int) string {
	const roomForNote = 40
	uncut := len(s)
	s = cutText(s, limit)
	went := uncut - len(s)
	if strings.IndexByte(s, 0) >= 0 {
		s = strings.ReplaceAll(s, "\x00", "")
	}
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\uFFFD")
	}
	if went == 0 && len(s) <= limit {
		return s
	}
	kept := cutText(s, limit-roomForNote)
	return fmt.Sprintf("%s… [%d bytes cut]", kept, went+len(s)-len(kept))
}

// cutText cuts s to at most limit bytes, on a rune boundary.
func cutText(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}
