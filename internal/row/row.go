// Package row converts a row of the table to JSON for PostgREST, and to bytes for the
// spool, which keeps queued rows on disk. It also reads both formats.
package row

import (
	"strings"
	"time"

	"github.com/google/uuid"
)

// A Row is a validated event. Its texts are valid in PostgreSQL.
type Row struct {
	ID         uuid.UUID // zero: not assigned yet
	DocumentID uuid.UUID // unused if textIDs is set, or if NoDocument is true
	UserID     uuid.UUID // unused if textIDs is set, or if NoUser is true
	textIDs    string    // the document's id, a NUL, and the user's id; "" if the ids are UUIDs
	Type       string
	Message    string
	Stage      string
	Extra      string        // encoded by EncodeExtra
	Duration   time.Duration // 0 is stored as NULL
	CreatedAt  int64         // Unix microseconds

	Partial    bool // Extra lacks a column
	NoDocument bool // the document's id is NULL, or the table has no column for it
	NoUser     bool // the user's id is NULL, or the table has no column for it
}

// SetTextIDs sets the ids of the document and the user if the table's columns for them
// contain text instead of UUIDs. The caller must have checked that the ids contain no
// NUL.
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

// texts returns the ids if they are texts, and "" otherwise.
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

// The constants for the fields of an event. NewColumns takes an array with the names of
// the columns, and each constant is the index of a field's column in that array.
const (
	fieldID = iota
	fieldDocument
	fieldUser
	fieldType
	fieldDuration
	fieldMessage
	fieldStage
	fieldCreatedAt
	Fields // the number of fields
)

// None is the name of a column that the table doesn't have.
const None = "-"

// Columns are the names of the table's columns.
type Columns struct {
	names [Fields]string // by field; None for a field without a column
	extra []string       // the columns for Extra
}

// NewColumns returns the Columns of a table. The array names contains the name of the
// column for each field, and extra contains the names of the columns for Event.Extra.
func NewColumns(names [Fields]string, extra []string) Columns { return Columns{names, extra} }
