// Package row converts rows of the table to JSON for PostgREST, and to bytes for the
// spool, which keeps queued rows on disk. It also reads both formats.
package row

import (
	"strings"
	"time"

	"github.com/google/uuid"
)

// A Row is a validated event. Its texts are valid in PostgreSQL.
type Row struct {
	ID         uuid.UUID // zero if not assigned yet
	DocumentID uuid.UUID // unused if textIDs is set, or if NoDocument is true
	UserID     uuid.UUID // unused if textIDs is set, or if NoUser is true
	textIDs    string    // the document's id, a NUL, and the user's id; "" if the ids are UUIDs
	Type       string
	Message    string
	Stage      string
	Extra      string        // encoded by EncodeExtra
	Duration   time.Duration // 0 is stored as NULL
	CreatedAt  int64         // Unix microseconds

	Partial    bool // Extra may have no value for one of its columns
	NoDocument bool // the document's id is NULL, or the table has no column for it
	NoUser     bool // the user's id is NULL, or the table has no column for it
}

// SetTextIDs sets the ids of the document and the user, for tables that store them as
// text. The ids must not contain a NUL.
func (r *Row) SetTextIDs(document, user string) { r.textIDs = document + "\x00" + user }

// Text returns the size of r's texts in bytes.
func (r *Row) Text() int {
	return len(r.Message) + len(r.Stage) + len(r.Type) + len(r.Extra) + len(r.textIDs)
}

// Document returns the document's id, or "" if NoDocument is true.
func (r *Row) Document() string {
	document, _ := r.texts()
	return idText(r.DocumentID, document, r.NoDocument)
}

// User returns the user's id, or "" if NoUser is true.
func (r *Row) User() string {
	_, user := r.texts()
	return idText(r.UserID, user, r.NoUser)
}

// texts returns the ids that SetTextIDs has set, or "" for each if they are UUIDs.
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

// The fields of an event, as indices of the array of names that NewColumns takes.
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

// None takes the place of a column's name if the table doesn't have that column.
const None = "-"

// Columns holds the names of the table's columns.
type Columns struct {
	names [Fields]string // by field; None for a field without a column
	extra []string       // the columns for Extra
}

// NewColumns returns the Columns of a table. The array names contains the name of each
// field's column. The slice extra contains the names of the columns for Event.Extra.
func NewColumns(names [Fields]string, extra []string) Columns { return Columns{names, extra} }
