package doceventstest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/internal/postgrest"
)

// A row is a row of the table. fields holds the values of Event's fields by the
// field's name: a uuid.UUID, string, int64 or time.Time, and nothing for NULL.
// extra holds the values of Extra's columns, without the columns that took their
// default.
type row struct {
	fields map[string]any
	extra  map[string]any
}

// A column is a column of the table. It belongs to a field of Event or to Extra.
// The server knows only the name of a column of Extra.
type column struct {
	field    string // the field's name; "" for a column of Extra
	name     string
	required bool
	typ      string // the type in PostgreSQL; jsonb for Extra, because it takes any value
}

// parsers holds a parser for each type of a column.
var parsers = map[string]func(string) (any, error){
	"uuid": parseUUID, "text": parseText, "integer": parseInteger, "timestamp with time zone": parseTime, "jsonb": parseText,
}

func (c column) parse(text string) (any, error) { return parsers[c.typ](text) }

// columns returns the table's columns: first those of Event's fields, in the order
// of the migration, which is the order in which PostgreSQL checks them.
func (s *Server) columns() []column {
	named, ids := s.Columns, "uuid"
	if named.TextIDs {
		ids = "text"
	}
	all := []column{
		{"ID", cmp.Or(named.ID, "id"), true, "uuid"},
		{"DocumentID", cmp.Or(named.DocumentID, "document_id"), !s.own(), ids},
		{"UserID", cmp.Or(named.UserID, "user_id"), !s.own(), ids},
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

// nameOf returns the name of a field's column, or "" if the table has none.
func nameOf(field string, table []column) string {
	for _, c := range table {
		if c.field == field {
			return c.name
		}
	}
	return ""
}

func parseText(s string) (any, error) { return s, nil }

func parseUUID(s string) (any, error) {
	id, err := uuid.Parse(s)
	if err != nil {
		return nil, refuse(400, "22P02", "invalid input syntax for type uuid: %q", s)
	}
	return id, nil
}

func parseInteger(s string) (any, error) {
	n, err := strconv.ParseInt(s, 10, 32)
	if errors.Is(err, strconv.ErrRange) {
		return nil, refuse(400, "22003", "value %q is out of range for type integer", s)
	} else if err != nil {
		return nil, refuse(400, "22P02", "invalid input syntax for type integer: %q", s)
	}
	return n, nil
}

// parseTime parses the format in which docevents sends times. PostgreSQL takes
// many more.
func parseTime(s string) (any, error) {
	if s == "-infinity" {
		return time.Time{}.AddDate(-1, 0, 0), nil // before every row
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return nil, refuse(400, "22007", "invalid input syntax for type timestamp with time zone: %q", s)
	}
	return t.UTC(), nil
}

// parseRows parses the body of an insert. names are the columns that the request
// names. A value of a wrong type is an error. If missingDefault is true, a column
// of Extra that a row lacks takes its default; otherwise it is NULL.
func (s *Server) parseRows(body []byte, names []string, missingDefault bool) ([]row, error) {
	table := s.columns()
	for _, name := range names {
		if !slices.ContainsFunc(table, func(c column) bool { return c.name == name }) {
			return nil, postgrest.ErrColumn(s.Table, name)
		}
	}
	var objects []map[string]json.RawMessage
	if json.Unmarshal(body, &objects) != nil {
		return nil, refuse(400, "22P02", "invalid input syntax for type json")
	}
	rows := make([]row, len(objects))
	for i, object := range objects {
		rows[i] = row{fields: map[string]any{}}
		for _, c := range table {
			raw, given := object[c.name]
			if c.field == "" && (given || !missingDefault && slices.Contains(names, c.name)) {
				if rows[i].extra == nil {
					rows[i].extra = map[string]any{}
				}
				rows[i].extra[c.name] = parseJSON(raw)
			} else if c.field != "" && given && string(raw) != "null" {
				value, err := parseCell(raw, c.parse)
				if err != nil {
					return nil, err
				}
				rows[i].fields[c.field] = value
			}
		}
	}
	return rows, nil
}

// parseJSON decodes a value in the same way as docevents does, with numbers as
// json.Number.
func parseJSON(raw json.RawMessage) (value any) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	_ = d.Decode(&value) // raw is valid JSON, or empty, which means NULL
	return value
}

// parseCell converts a JSON value to a column's type. Like PostgreSQL, it parses
// the value's text.
func parseCell(raw json.RawMessage, parse func(string) (any, error)) (any, error) {
	text := string(raw)
	if raw[0] == '"' {
		if err := json.Unmarshal(raw, &text); err != nil {
			return nil, err
		}
	}
	if strings.ContainsRune(text, 0) {
		return nil, refuse(400, "22P05", "unsupported Unicode escape sequence")
	}
	return parse(text)
}

// newRows returns those of rows that an insert adds to the table. If one row is not
// valid, it returns an error, and no row is added.
func (s *Server) newRows(rows []row, ignoreDuplicates bool) ([]row, error) {
	known := map[any]bool{}
	for _, r := range s.rows {
		known[r.fields["ID"]] = true
	}
	var added []row
	for _, r := range rows {
		for _, c := range s.columns() {
			if c.required && r.fields[c.field] == nil {
				return nil, refuse(400, "23502", "null value in column %q of relation %q violates not-null constraint", c.name, s.Table)
			}
		}
		if t, typed := r.fields["Type"].(string); typed && !s.takes(docevents.EventType(t)) {
			return nil, refuse(400, "23514", "new row for relation %q violates check constraint %q", s.Table, s.Table+"_event_type_check")
		}
		if id := r.fields["ID"]; !known[id] {
			known[id] = true
			added = append(added, r)
		} else if !ignoreDuplicates {
			return nil, refuse(409, "23505", "duplicate key value violates unique constraint %q", s.Table+"_pkey")
		}
	}
	return added, nil
}

// inTime returns the rows in the order of their times. Rows of the same microsecond
// are in the order of their ids. docevents makes ids of version 7, whose order is
// the order of creation.
func inTime(rows []row) []row {
	return slices.SortedFunc(slices.Values(rows), func(a, b row) int {
		idA, idB := a.fields["ID"].(uuid.UUID), b.fields["ID"].(uuid.UUID)
		return cmp.Or(a.createdAt().Compare(b.createdAt()), bytes.Compare(idA[:], idB[:]))
	})
}

// value returns the value of a column, or nil for NULL.
func (r row) value(c column) any {
	if c.field == "" {
		return r.extra[c.name]
	}
	return r.fields[c.field]
}

// compare compares two values of a column, which must not be NULL.
func compare(a, b any) int {
	switch a := a.(type) {
	case uuid.UUID:
		b := b.(uuid.UUID)
		return bytes.Compare(a[:], b[:])
	case int64:
		return cmp.Compare(a, b.(int64))
	case time.Time:
		return a.Compare(b.(time.Time))
	}
	return strings.Compare(asText(a), asText(b))
}

// asText converts a value to text as PostgreSQL does. It treats a string in a
// column of Extra as the value of a text column.
func asText(value any) string {
	switch v := value.(type) {
	case string:
		return v
	case uuid.UUID:
		return v.String()
	case int64:
		return strconv.FormatInt(v, 10)
	case time.Time:
		return v.Format("2006-01-02 15:04:05.999999-07")
	}
	return string(postgrest.EncodeJSON(value))
}

func (r row) createdAt() time.Time { return r.fields["CreatedAt"].(time.Time) }

// event returns the row as an Event.
func (r row) event() docevents.Event {
	text := func(field string) string {
		switch value := r.fields[field].(type) {
		case uuid.UUID:
			return value.String()
		case string:
			return value
		}
		return ""
	}
	milliseconds, _ := r.fields["Duration"].(int64)
	return docevents.Event{
		ID:           text("ID"),
		DocumentID:   text("DocumentID"),
		UserID:       text("UserID"),
		Type:         docevents.EventType(text("Type")),
		Duration:     time.Duration(milliseconds) * time.Millisecond,
		ErrorMessage: text("ErrorMessage"),
		Stage:        text("Stage"),
		CreatedAt:    r.createdAt(),
		Extra:        maps.Clone(r.extra), // a copy, which the caller may change
	}
}

// own reports whether the table differs from the migration's. If so, document and
// user ids may be NULL.
func (s *Server) own() bool { return !reflect.ValueOf(s.Columns).IsZero() }

// takes reports whether the table's CHECK allows t.
func (s *Server) takes(t docevents.EventType) bool {
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
