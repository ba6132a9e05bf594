package doceventstest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/docevents/docevents-go"
)

// A row is a row of the table, by column: a uuid.UUID, string, int64 or
// time.Time, or nil for NULL.
type row map[string]any

type column struct {
	name     string
	required bool
	parse    func(string) (any, error)
}

// columns are in the table's order, in which PostgreSQL looks at them.
var columns = []column{
	{"id", true, parseUUID},
	{"document_id", true, parseUUID},
	{"user_id", true, parseUUID},
	{"event_type", true, parseText},
	{"duration_ms", false, parseInteger},
	{"error_message", false, parseText},
	{"stage", false, parseText},
	{"created_at", true, parseTime},
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

// parseTime knows docevents' own form, of the many that PostgreSQL takes.
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

// A cell is a JSON value as PostgreSQL casts it to a column's type: by its text.
type cell string

// UnmarshalJSON reads any value but null, of which there is no cell.
func (c *cell) UnmarshalJSON(raw []byte) error {
	text := string(raw)
	if raw[0] == '"' {
		if err := json.Unmarshal(raw, &text); err != nil {
			return err
		}
	}
	if strings.ContainsRune(text, 0) {
		return refuse(400, "22P05", "unsupported Unicode escape sequence")
	}
	*c = cell(text)
	return nil
}

// parseRows reads the body of an insert into the named columns, and the values'
// types.
func parseRows(body []byte, names []string, table string) ([]row, error) {
	for _, name := range names {
		if slices.IndexFunc(columns, func(c column) bool { return c.name == name }) < 0 {
			return nil, refuse(400, "PGRST204", "Could not find the '%s' column of '%s' in the schema cache", name, table)
		}
	}
	var objects []map[string]*cell
	err := json.Unmarshal(body, &objects)
	if e := (*docevents.Error)(nil); errors.As(err, &e) {
		return nil, e
	} else if err != nil {
		return nil, refuse(400, "22P02", "invalid input syntax for type json")
	}
	rows := make([]row, len(objects))
	for i, object := range objects {
		rows[i] = row{}
		for _, c := range columns {
			rows[i][c.name] = nil
			if text := object[c.name]; text != nil {
				if rows[i][c.name], err = c.parse(string(*text)); err != nil {
					return nil, err
				}
			}
		}
	}
	return rows, nil
}

// insertLocked stores all of the rows or none, and returns those that are new.
func (s *Server) insertLocked(rows []row, ignoreDuplicates bool) ([]row, error) {
	known := map[any]bool{}
	for _, r := range s.rows {
		known[r["id"]] = true
	}
	var stored []row
	for _, r := range rows {
		for _, c := range columns {
			if c.required && r[c.name] == nil {
				return nil, refuse(400, "23502", "null value in column %q of relation %q violates not-null constraint", c.name, s.Table)
			}
		}
		if len(s.EventTypes) > 0 && !slices.Contains(s.EventTypes, r.event().Type) {
			return nil, refuse(400, "23514", "new row for relation %q violates check constraint %q", s.Table, s.Table+"_event_type_check")
		}
		if !known[r["id"]] {
			known[r["id"]] = true
			stored = append(stored, r)
		} else if !ignoreDuplicates {
			return nil, refuse(409, "23505", "duplicate key value violates unique constraint %q", s.Table+"_pkey")
		}
	}
	s.rows = append(s.rows, stored...)
	return stored, nil
}

// inTime returns the rows in the order of their times. Those of the same
// microsecond are in that of their ids: docevents' are of version 7, which is
// in the order in which they were made.
func inTime(rows []row) []row {
	return slices.SortedFunc(slices.Values(rows), func(a, b row) int {
		idA, idB := a["id"].(uuid.UUID), b["id"].(uuid.UUID)
		return cmp.Or(a.createdAt().Compare(b.createdAt()), bytes.Compare(idA[:], idB[:]))
	})
}

func (r row) createdAt() time.Time { return r["created_at"].(time.Time) }

// event gives the row back as it was recorded.
func (r row) event() docevents.Event {
	milliseconds, _ := r["duration_ms"].(int64)
	message, _ := r["error_message"].(string)
	stage, _ := r["stage"].(string)
	return docevents.Event{
		DocumentID:   r["document_id"].(uuid.UUID).String(),
		UserID:       r["user_id"].(uuid.UUID).String(),
		Type:         docevents.EventType(r["event_type"].(string)),
		Duration:     time.Duration(milliseconds) * time.Millisecond,
		ErrorMessage: message,
		Stage:        stage,
		CreatedAt:    r.createdAt(),
	}
}
