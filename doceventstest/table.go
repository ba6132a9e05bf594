package doceventstest

import (
	"cmp"
	"net/http"
	"reflect"
	"slices"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/internal/postgrest"
)

// A column is a column of the server's table, for a field of Event or for a value of
// Event.Extra.
type column struct {
	field    string // the field's name; "" for a column of Extra
	name     string
	required bool   // the column is NOT NULL
	typ      string // the type in PostgreSQL; jsonb for a column of Extra, which accepts any value
}

var parsers = map[string]func(string) (any, error){
	"uuid": parseUUID, "text": parseText, "integer": parseInteger, "timestamp with time zone": parseTime, "jsonb": parseText,
}

func (c column) parse(text string) (any, error) { return parsers[c.typ](text) }

// columns returns the columns of the table in the order of sql/013, and then those in
// Columns.Extra. The order matters: if several values of a row are wrong, the first
// wrong value decides which error is returned, as in PostgreSQL. A column that is named
// "-" in s.Columns is left out, because the table doesn't have it.
func (s *Server) columns() []column {
	named, ids := s.Columns, "uuid"
	if named.TextIDs {
		ids = "text"
	}
	all := []column{
		{"ID", cmp.Or(named.ID, "id"), true, "uuid"},
		{"DocumentID", cmp.Or(named.DocumentID, "document_id"), !s.hasOwnColumns(), ids},
		{"UserID", cmp.Or(named.UserID, "user_id"), !s.hasOwnColumns(), ids},
		{"Type", cmp.Or(named.Type, "event_type"), true, "text"},
		{"Duration", cmp.Or(named.Duration, "duration_ms"), false, "integer"},
		{"ErrorMessage", cmp.Or(named.ErrorMessage, "error_message"), false, "text"},
		{"Stage", cmp.Or(named.Stage, "stage"), false, "text"},
		{"CreatedAt", cmp.Or(named.CreatedAt, "created_at"), true, "timestamp with time zone"},
	}
	all = slices.DeleteFunc(all, func(c column) bool { return c.name == "-" })
	for _, name := range named.Extra {
		all = append(all, column{name: name, typ: "jsonb"})
	}
	return all
}

// nameOf returns the name of a field's column, or "" if the table has no such column.
func nameOf(field string, table []column) string {
	for _, c := range table {
		if c.field == field {
			return c.name
		}
	}
	return ""
}

// hasOwnColumns reports whether the test has set Columns. If so, docevents stores an
// empty DocumentID or UserID as NULL.
func (s *Server) hasOwnColumns() bool { return !reflect.ValueOf(s.Columns).IsZero() }

// allowsType reports whether the table's CHECK constraint allows t.
func (s *Server) allowsType(t docevents.EventType) bool {
	types := s.EventTypes
	if types.Open || slices.Contains(types.Skipped, t) || slices.Contains(types.Notes, t) {
		return true
	}
	for _, field := range []struct {
		types []docevents.EventType
		word  docevents.EventType // the type in the migration
	}{
		{types.Arrived, docevents.UploadStarted},
		{types.Started, docevents.ProcessingStarted},
		{types.Completed, docevents.Completed},
		{types.Failed, docevents.Failed},
	} {
		if slices.Contains(field.types, t) || len(field.types) == 0 && t == field.word {
			return true
		}
	}
	return false
}

// describe answers GET / with a description of the table, as PostgREST does. The
// columns have the types and defaults of sql/013, with two exceptions: the columns in
// Columns.Extra have the type jsonb, and if Columns.TextIDs is true, the ids of the
// document and the user have the type text.
func (s *Server) describe(r *http.Request) (*postgrest.Answer, error) {
	table := postgrest.Table{Name: s.Table}
	for _, c := range s.columns() {
		described := postgrest.Column{Name: c.name, Type: c.typ, NotNull: c.required}
		switch c.field {
		case "ID":
			described.Key, described.Default = true, "gen_random_uuid()"
		case "CreatedAt":
			described.Default = "now()"
		}
		table.Columns = append(table.Columns, described)
	}
	answer, refusal := postgrest.Describe(r, []postgrest.Table{table})
	if refusal != nil {
		return nil, refusal
	}
	return answer, nil
}
