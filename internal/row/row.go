// Package row knows how an event is written and read as a row of the table: as JSON
// for PostgREST, and as bytes for the spool.
package row

import (
	"strings"
	"time"

	"github.com/google/uuid"
)

// A Row is an event that the table can store. Only the values of Extra can make the
// server refuse one row and store another.
type Row struct {
	ID         uuid.UUID // zero: not assigned yet
	DocumentID uuid.UUID // unused if textIDs is set, or if NoDocument is true
	UserID     uuid.UUID // likewise
	textIDs    string    // the document's id, NUL, the user's id; "": the ids are UUIDs
	Type       string
	Message    string
	Stage      string
	Extra      string        // encoded by EncodeExtra
	Duration   time.Duration // 0: NULL
	CreatedAt  int64         // Unix microseconds

	Partial    bool // Extra lacks a column
	NoDocument bool // the document's id is NULL, or the table has no column for it
	NoUser     bool // likewise
}

// SetTextIDs sets ids that are not UUIDs. A text can't hold a NUL in PostgreSQL.
func (r *Row) SetTextIDs(document, user string) { r.textIDs = document + "\x00" + user }

// Text returns how many bytes of text r holds.
func (r *Row) Text() int {
	return len(r.Message) + len(r.Stage) + len(r.Type) + len(r.Extra) + len(r.textIDs)
}

// Document returns the document's id, or "" if that is NULL.
func (r *Row) Document() string {
	document, _ := r.texts()
	return idText(r.DocumentID, document, r.NoDocument)
}

// User returns the user's id, or "" if that is NULL.
func (r *Row) User() string {
	_, user := r.texts()
	return idText(r.UserID, user, r.NoUser)
}

// texts returns the ids if they are texts, or "".
func (r *Row) texts() (document, user string) {
	document, user, _ = strings.Cut(r.textIDs, "\x00")
	return document, user
}

func idText(id uuid.UUID, text string, null bool) string {
	if null || text != "" {
		return text
	}
	return id.String()
}

// The fields of an event that a column of any name may hold, in the order of the names
// of Columns.
const (
	fieldID = iota
	fieldDocument
	fieldUser
	fieldType
	fieldDuration
	fieldMessage
	fieldStage
	fieldCreatedAt
	Fields // how many there are
)

// None is the name of a column that the table doesn't have.
const None = "-"

// Columns are the names of the table's columns.
type Columns struct {
	names     [Fields]string
	keys      [Fields]string // each name as it is in a row's JSON; "" for None
	extra     []string
	extraKeys []string
}

// NewColumns returns Columns with the names of the fields, of which the first can't be
// None, and of the columns for Extra.
func NewColumns(names [Fields]string, extra []string) Columns {
	c := Columns{names: names, extra: extra}
	for i, name := range names {
		if name != None {
			c.keys[i] = `,"` + name + `":`
		}
	}
	c.keys[0] = "{" + strings.TrimPrefix(c.keys[0], ",")
	for _, name := range extra {
		c.extraKeys = append(c.extraKeys, `,"`+name+`":`)
	}
	return c
}
