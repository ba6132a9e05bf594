package doceventstest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/internal/postgrest"
)

type row struct {
	// fields holds the values of the Event fields, such as Stage, by the field's name.
	// A value is a uuid.UUID, string, int64 or time.Time. A field that is NULL is not
	// in the map.
	fields map[string]any

	// extra holds the values of the columns in Columns.Extra, by the column's name.
	// NULL is nil. A column that gets its default is not in the map, because this
	// server doesn't know the defaults.
	extra map[string]any
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

// parseTime parses a time in RFC 3339, as docevents sends it, or -infinity.
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

// parseRows parses body, the JSON of an insert. columns is the URL parameter "columns":
// the columns that the insert sets. If a row has no value for one of them, the column
// gets NULL. If missingDefault is true, a column in Columns.Extra gets its default
// instead, so it is left out of the row.
func (s *Server) parseRows(body []byte, columns []string, missingDefault bool) ([]row, error) {
	table := s.columns()
	for _, name := range columns {
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
			if c.field == "" && (given || !missingDefault && slices.Contains(columns, c.name)) {
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

// parseJSON decodes JSON as docevents does when it reads events: a number becomes a
// json.Number.
func parseJSON(raw json.RawMessage) (value any) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	_ = d.Decode(&value) // raw is valid JSON, or empty, which means NULL
	return value
}

// parseCell converts the JSON in raw to text, as PostgreSQL does, and passes the text
// to the function parse, the parser of the column's type.
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

// newRows checks the rows of an insert, and returns the rows to add to the table. If
// ignoreDuplicates is true, it leaves out rows whose ids are already stored. Otherwise
// such a row is an error.
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
		if t, typed := r.fields["Type"].(string); typed && !s.allowsType(docevents.EventType(t)) {
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

// sortedByTime returns the rows sorted by time and then by id. The client generates
// increasing ids, so rows with the same time are in the order of the calls to Record.
func sortedByTime(rows []row) []row {
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

// compare compares two non-NULL values of a column.
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

// asText converts value to text, as PostgreSQL does. A string in a column of
// Columns.Extra stays as it is, because this server doesn't know the types of these
// columns.
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
