package docevents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

const (
	// maxRehearsals bounds one call of Check: each rehearsal after the first leaves
	// out, fills or adds a column, or leaves out types.
	maxRehearsals = 100

	// maxVaried is how many columns of Extra are tried one by one.
	maxVaried = 4
)

// A rehearsal is Record's insert, sent so that PostgREST rolls it back: asked for
// one object, it refuses a result of several rows, after triggers and immediate
// foreign keys have run, and reports how many rows there were. A result of one row
// would be stored.
//
// A refusal becomes a finding if it concerns every event. What it is about is then
// filled or left out, and the next rehearsal shows what was hidden behind it:
//
//	send -> rolled back -> count: is the id unique, are rows swallowed?
//	     -> refused -> learn -> a column is filled, added or left out -> send
//	                         -> types are left out                    -> send
//	                         -> only real events can show more: the end
type rehearsal struct {
	*Client
	about    definition
	columns  []string // of the insert
	types    []EventType
	values   map[string]any         // made up, by column; a newValue for each row
	filled   []string               // the columns with a value in every row
	fills    map[EventType][]string // the further ones of a type, if it needs some
	bad      map[string]bool        // columns with a finding
	tried    map[string]bool        // what is tried once
	at       time.Time              // of the last row
	refused  bool                   // and not for its rows
	findings []error
	required []string // fields that an event must not leave empty
	slowKey  bool     // the id is UNIQUE and not the primary key
}

// A newValue is another value for each row.
type newValue func() string

// madeUp are values of which a column of almost any type takes one.
var madeUp = []any{newValue(uuid.NewString), "x", 1, "2024-01-01T00:00:00Z", []any{}, "::1", "empty", "a@b.co"}

func newRehearsal(c *Client) *rehearsal {
	columns := &c.config.columns
	return &rehearsal{
		Client: c, types: c.config.types.listed, at: time.Now().Add(-time.Second), columns: strings.Split(columns.all, ","),
		values: map[string]any{
			columns.Duration: 2, columns.ErrorMessage: "check", columns.Stage: "check",
			columns.DocumentID: uuid.NewString(), columns.UserID: uuid.NewString(),
		},
		filled: []string{columns.DocumentID, columns.UserID},
		fills:  map[EventType][]string{}, bad: map[string]bool{}, tried: map[string]bool{},
	}
}

// once reports whether it is called with these words for the first time.
func (r *rehearsal) once(words ...string) bool {
	key := strings.Join(words, " ")
	first := !r.tried[key]
	r.tried[key] = true
	return first
}

// rows returns a row of each type, one more that fills all it can, unless a CHECK
// has refused that, and a copy of the first: a unique id passes over it.
func (r *rehearsal) rows() (rows []map[string]any) {
	for _, t := range r.types {
		rows = append(rows, r.row(t, r.fills[t]))
	}
	fill := []string{r.config.columns.Duration, r.config.columns.ErrorMessage, r.config.columns.Stage}
	if r.tried["types"] {
		fill = r.fills[r.types[0]]
	}
	rows = append(rows, r.row(r.types[0], fill))
	if !r.tried["key"] {
		rows = append(rows, rows[0])
	}
	return rows
}

// row returns an event of a type that fills these columns and those that every
// event must. The base columns that it leaves empty are NULL, as in Record's rows.
func (r *rehearsal) row(t EventType, fill []string) map[string]any {
	row, columns := map[string]any{}, &r.config.columns
	r.at = r.at.Add(-time.Millisecond) // a key may hold the time
	for _, name := range r.columns {
		value, known := r.values[name]
		switch {
		case name == columns.ID:
			row[name] = uuid.Must(uuid.NewV7()).String()
		case name == columns.Type:
			row[name] = t
		case name == columns.CreatedAt:
			row[name] = r.at.UTC().Format(timeFormat)
		case known && (slices.Contains(r.filled, name) || slices.Contains(fill, name)):
			if each, is := value.(newValue); is {
				value = each()
			}
			row[name] = value
		case !slices.Contains(columns.Extra, name):
			row[name] = nil
		}
	}
	return row
}

var number = regexp.MustCompile(`\d+`)

// send rehearses an insert and returns how many rows it had, or -1 if the server
// has stored them: then they are deleted again.
func (r *rehearsal) send(ctx context.Context, columns []string, rows []map[string]any) (n int, err error) {
	timeout, cancel := context.WithTimeout(ctx, r.config.requestTimeout)
	defer cancel()
	body, err := json.Marshal(rows)
	if err != nil {
		return 0, err
	}
	t := *r.transport
	t.query = "columns=" + strings.Join(columns, ",")
	if id := r.config.columns.ID; id != base[0].column && !r.bad[id] {
		t.query = "on_conflict=" + id + "&" + t.query
	}
	pg := r.postgrest(&insertion{&t, body})
	pg.Transport.SetHeader("Accept", "application/vnd.pgrst.object+json")
	if slices.ContainsFunc(rows, func(row map[string]any) bool { return len(row) < len(columns) }) {
		pg.Transport.SetHeader("Prefer", "missing=default")
	}
	_, _, err = pg.From(r.config.table).Insert(nil, false, "", "minimal", "").ExecuteWithContext(timeout)
	e, answered := errors.AsType[*Error](err)
	switch {
	case err == nil && len(rows) > 0:
		r.takeOut(ctx, rows)
		return -1, nil
	case answered && e.Code == "PGRST116":
		return strconv.Atoi(number.FindString(e.details))
	case answered:
		return 0, e
	}
	return 0, r.explain(err)
}

// takeOut deletes rows that the server has stored, by their ids and, in case a
// trigger has changed these, by document and time.
func (r *rehearsal) takeOut(ctx context.Context, rows []map[string]any) {
	ctx, cancel := context.WithTimeout(ctx, r.config.requestTimeout)
	defer cancel()
	columns, ids := &r.config.columns, []string{}
	for _, row := range rows {
		if id, has := row[columns.ID].(string); has && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	n, err := r.deleted(ctx, r.deletion().In(columns.ID, ids))
	if document, has := rows[0][columns.DocumentID].(string); has && (err == nil || errors.Is(err, ErrCountIncomplete)) {
		rest := r.deletion().Gte(columns.CreatedAt, r.at.UTC().Format(timeFormat)).Lt(columns.CreatedAt, time.Now().UTC().Format(timeFormat))
		_, err = r.deleted(ctx, rest.Eq(columns.DocumentID, document))
	}
	switch {
	case err != nil && !errors.Is(err, ErrCountIncomplete):
		r.findings = append(r.findings, fmt.Errorf("insert: the server stored the rows of Check, whose document is %v, and they couldn't be deleted again: %w", rows[0][columns.DocumentID], err))
	case n > int64(len(ids)):
		r.find(r.notUnique(nil)+"; the server stored the rows of Check, and they are deleted again", nil)
	case r.once("stored"):
		r.find("the server stored the rows of Check instead of rolling them back, and they are deleted again: does a proxy in front of it remove the header Accept?", nil)
	}
}

// refuses reports whether a column's type doesn't take a value, with the refusal:
// PostgreSQL casts the values before it looks at rows. If it refuses NULL for the
// same reason, a trigger raises that, and nothing can be known.
func (r *rehearsal) refuses(ctx context.Context, name string, value any) *Error {
	id, columns := r.config.columns.ID, []string{name}
	if name != id && !r.bad[id] {
		columns = append(columns, id)
	}
	ask := func(value any) *Error {
		if r.tried["trigger"] {
			return nil
		}
		var rows []map[string]any
		for range 2 {
			row := map[string]any{id: uuid.NewString(), name: value}
			if each, is := value.(newValue); is {
				row[name] = each()
			}
			rows = append(rows, row)
		}
		_, err := r.send(ctx, columns, rows)
		e, _ := errors.AsType[*Error](err)
		if e != nil && (strings.HasPrefix(e.Code, "22") || e.Code == "23514" && strings.HasPrefix(e.Message, "value for domain")) {
			return e
		}
		return nil
	}
	e := ask(value)
	if e != nil && (ask(nil) != nil) {
		r.tried["trigger"] = true
		return nil
	}
	return e
}

// choose finds a value that a column's type takes.
func (r *rehearsal) choose(ctx context.Context, name string, values ...any) bool {
	if words := r.about.Properties[name].Enum; len(words) > 0 {
		values = words
	}
	for _, value := range values {
		if r.refuses(ctx, name, value) == nil {
			r.values[name] = value
			return true
		}
	}
	delete(r.values, name)
	return false
}

// fillings returns what events of a type may fill beyond the columns that all of
// them must: none or more of duration, message and stage, with none, all, one or all
// but one of Extra.
func (r *rehearsal) fillings(ctx context.Context) (fillings [][]string) {
	columns := &r.config.columns
	extras := [][]string{nil}
	optional := slices.DeleteFunc(slices.Clone(columns.Extra), func(name string) bool { return slices.Contains(r.filled, name) || r.bad[name] })
	if len(optional) > 0 {
		extras = append(extras, optional)
	}
	for i := range optional {
		if r.choose(ctx, optional[i], madeUp...); len(optional) > 1 && len(optional) <= maxVaried {
			extras = append(extras, optional[i:i+1], slices.Delete(slices.Clone(optional), i, i+1))
		}
	}
	for _, extra := range extras {
		for set := range 8 {
			fill := slices.Clone(extra)
			for i, name := range []string{columns.Duration, columns.ErrorMessage, columns.Stage} {
				if set&(1<<i) != 0 {
					fill = append(fill, name)
				}
			}
			fillings = append(fillings, fill)
		}
	}
	return fillings
}
