package docevents

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

var (
	columnName     = regexp.MustCompile(`column "([^"]+)"|'([^']+)' column`)
	constraintName = regexp.MustCompile(`constraint "([^"]+)"`)
	foreignKey     = regexp.MustCompile(`<fk table='([^']+)' column='([^']+)'/>`)
	realRows       = regexp.MustCompile(`^(22|23|27|44|P0|PT)...$`) // what only an app's own rows decide
)

// find adds a finding about what PostgreSQL answered, or about its description.
func (r *rehearsal) find(finding string, e *Error) {
	if e == nil {
		r.findings = append(r.findings, errors.New("insert: "+finding))
		return
	}
	e.details = ""
	r.findings = append(r.findings, fmt.Errorf("insert: %s: %w", finding, e))
}

// readTypes finds types that take what Record sends and mean something else, and
// chooses words for the event types if the app leaves them to the table.
func (r *rehearsal) readTypes() {
	columns := &r.config.columns
	if r.about.Properties[columns.Duration].Format == "interval" {
		r.find(fmt.Sprintf("the column %s is an interval and would take milliseconds for seconds: run: ALTER TABLE %s ALTER COLUMN %s TYPE integer USING (extract(epoch FROM %[3]s) * 1000)::integer",
			columns.Duration, r.tableName(), sqlName(columns.Duration)), nil)
	}
	switch format := r.about.Properties[columns.CreatedAt].Format; {
	case format == "date":
		r.find(fmt.Sprintf("the column %s is a date and would lose the time of day: run: ALTER TABLE %s ALTER COLUMN %s TYPE timestamptz", columns.CreatedAt, r.tableName(), sqlName(columns.CreatedAt)), nil)
	case strings.HasPrefix(format, "time "):
		r.find(fmt.Sprintf("the column %s has no date: make it a timestamptz, or name another column as CreatedAt with WithColumns", columns.CreatedAt), nil)
	}
	for _, f := range []struct{ field, column string }{{"DocumentID", columns.DocumentID}, {"UserID", columns.UserID}} {
		if columns.own && slices.Contains(r.about.Required, f.column) {
			r.required = append(r.required, f.field)
		}
	}
	if len(r.types) == 0 || columns.Type == noColumn {
		r.types = []EventType{Completed}
		r.useEnum()
	}
}

// useEnum rehearses the words of the type column's enum, if it has one.
func (r *rehearsal) useEnum() bool {
	var words []EventType
	for _, word := range r.about.Properties[r.config.columns.Type].Enum {
		words = append(words, EventType(fmt.Sprint(word)))
	}
	if len(words) > 0 {
		r.types = words
	}
	return len(words) > 0
}

// count reads the result of a rehearsal that nothing refused. n is -1 if the rows
// were stored.
func (r *rehearsal) count(n, sent int) {
	if !r.tried["key"] {
		sent-- // the copy
	}
	switch {
	case n < 0 || r.bad[r.config.columns.ID]:
	case n > sent:
		r.find(r.notUnique(nil), nil)
	case n < sent:
		r.find(fmt.Sprintf("of %d events the table kept %d: a trigger or rule of it discards rows, and Record can't notice: let it store them", sent, n), nil)
	}
}

// learn acts on a refusal and reports whether another rehearsal may show more.
func (r *rehearsal) learn(ctx context.Context, err error) bool {
	e, answered := errors.AsType[*Error](err)
	if !answered {
		r.refused = true
		r.add("insert", err)
		return false
	}
	name := ""
	if m := columnName.FindStringSubmatch(e.Message); m != nil {
		name = m[1] + m[2]
	}
	ours := slices.Contains(r.columns, name)
	switch {
	case ours && (e.Code == "PGRST204" || e.Code == "42703" && strings.Contains(e.Message, strconv.Quote(r.config.table))):
		r.add("insert", r.explain(e))
		return r.drop(name)
	case ours && (e.Code == "428C9" || e.Code == "0A000"):
		r.find(r.generated(name), e)
		return r.drop(name)
	case e.Code == "42P10":
		r.find(r.notUnique(e), e)
		r.refused = true
		return false
	case e.Code == "23502":
		return r.fill(ctx, name, e)
	case e.Code == "23503":
		return r.point(ctx, e)
	case e.Code == "23505", e.Code == "23P01":
		return r.separate(e)
	case e.Code == "23514" && strings.HasPrefix(e.Message, "no partition"):
		return r.partition(ctx, e)
	case e.Code == "23514" && strings.HasPrefix(e.Message, "new row for relation"):
		return r.narrow(ctx, e)
	case strings.HasPrefix(e.Code, "22") && e.Status == 400, e.Code == "23514":
		return r.cast(ctx, e)
	case realRows.MatchString(e.Code) && e.Status == 400:
		return false
	case e.Message == leftOut: // a trigger's, unless an insert without rows is refused as well
		if _, err := r.send(ctx, r.columns, []map[string]any{}); err == nil {
			return false
		}
	}
	r.refused = true
	r.add("insert", r.explain(e))
	return false
}

// drop leaves out a column that has a finding.
func (r *rehearsal) drop(name string) bool {
	r.bad[name] = true
	r.columns = slices.DeleteFunc(r.columns, func(other string) bool { return other == name })
	return len(r.columns) > 0
}

// fill gives a column that is NOT NULL a value, in every row from then on. Real
// events may do so if the app knows the column.
func (r *rehearsal) fill(ctx context.Context, name string, e *Error) bool {
	columns := &r.config.columns
	fields := map[string]string{columns.Duration: "Duration", columns.ErrorMessage: "ErrorMessage", columns.Stage: "Stage"}
	switch {
	case name == "" && e.Message != leftOut && r.once("domain"): // a domain's, whose columns the message doesn't name
		for _, name := range columns.Extra {
			r.choose(ctx, name, madeUp...)
		}
		r.filled = append(append(r.filled, columns.Duration, columns.ErrorMessage, columns.Stage), columns.Extra...)
		return true
	case name == "" && e.Message == leftOut, slices.Contains(r.filled, name), name == columns.ID, name == columns.Type, name == columns.CreatedAt:
		return false // a trigger's doing
	case fields[name] != "":
		r.required = append(r.required, fields[name])
		r.filled = append(r.filled, name)
		return r.values[name] != nil
	case name != "" && r.about.Properties != nil && !r.about.isView() && !r.has(name):
		return false // a table that a trigger writes to
	case !r.bad[name] && !slices.Contains(columns.Extra, name):
		r.find(r.unfilled(name), e)
		r.columns = append(r.columns, name)
	}
	r.filled = append(r.filled, name)
	return name != "" && r.choose(ctx, name, madeUp...)
}

// has reports whether the table has a column, by its description.
func (r *rehearsal) has(name string) bool {
	_, has := r.about.Properties[name]
	return has
}

// point acts on a foreign key. Rows point to a row that is there, or to none if
// that is possible.
func (r *rehearsal) point(ctx context.Context, e *Error) bool {
	columns, key := &r.config.columns, keyColumns(e.details)
	if len(key) != 1 || !r.once("parent", key[0]) {
		return false
	}
	if fk := foreignKey.FindStringSubmatch(r.about.Properties[key[0]].Description); fk != nil {
		if value := r.parent(ctx, fk[1], fk[2]); value != nil {
			r.values[key[0]] = value
			return true
		}
	}
	if !columns.own || key[0] != columns.DocumentID && key[0] != columns.UserID || slices.Contains(r.about.Required, key[0]) {
		return false
	}
	r.filled = slices.DeleteFunc(r.filled, func(name string) bool { return name == key[0] })
	return true
}

// separate acts on a unique or exclusion constraint that rows of the rehearsal
// have violated among themselves.
func (r *rehearsal) separate(e *Error) bool {
	columns, key := &r.config.columns, keyColumns(e.details)
	for _, name := range key {
		switch name {
		case columns.ID:
			r.slowKey = true
			return r.once("key")
		case columns.DocumentID, columns.UserID, columns.Type:
		default:
			return false // the app's own values decide
		}
	}
	if len(key) == 0 || !r.once("separate") {
		return false
	}
	r.find(fmt.Sprintf("the table takes one event only for each %s: an app records several: drop the constraint, or make %s a part of it", strings.Join(key, " and "), columns.ID), e)
	r.values[columns.DocumentID], r.values[columns.UserID] = newValue(uuid.NewString), newValue(uuid.NewString)
	return true
}

// partition acts on rows that no partition takes.
func (r *rehearsal) partition(ctx context.Context, e *Error) bool {
	key, _, _ := strings.Cut(e.details, ") = (")
	by := slices.DeleteFunc(slices.Clone(r.columns), func(name string) bool {
		return !regexp.MustCompile(`\b` + name + `\b`).MatchString(key)
	})
	switch columns := &r.config.columns; {
	case len(by) != 1: // or it can't be known
	case by[0] == columns.Type:
		return r.narrow(ctx, e)
	case by[0] == columns.CreatedAt:
		r.find("no partition takes the events of now: make one for each time to come, or a DEFAULT one (sql/optional/partitioned.sql)", e)
	}
	return false
}

// narrow finds the types that a CHECK refuses whatever else their events fill.
func (r *rehearsal) narrow(ctx context.Context, first *Error) bool {
	if !r.once("types") {
		return false
	}
	var fillings [][]string
	return r.keep(first, func(t EventType) (*Error, error) {
		var last *Error
		if fillings == nil {
			fillings = r.fillings(ctx)
		}
		for _, fill := range fillings {
			_, err := r.send(ctx, r.columns, []map[string]any{r.row(t, fill), r.row(t, fill)})
			e, answered := errors.AsType[*Error](err)
			if err != nil && !answered {
				return nil, err
			}
			if e == nil || e.Code != "23514" { // what else is refused is no CHECK's, which come first
				r.fills[t] = fill
				return nil, nil
			}
			last = cmp.Or(last, e)
		}
		return last, nil
	})
}

// keep keeps the types that aren't refused and adds a finding about the others.
func (r *rehearsal) keep(first *Error, refusal func(EventType) (*Error, error)) bool {
	var kept []EventType
	var lacking []string
	for _, t := range r.types {
		e, err := refusal(t)
		if err != nil {
			r.refused = true
			r.add("insert", fmt.Errorf("%w, after: %w", err, first))
			return false
		} else if e == nil {
			kept = append(kept, t)
			continue
		}
		lacking, first = append(lacking, strconv.Quote(string(t))), e
	}
	columns := &r.config.columns
	or := ""
	switch {
	case len(lacking) == 0:
		return true
	case len(r.config.types.listed) == 0 && columns.Type != noColumn, len(kept) == 0 && first.Code == "23514" && !r.certain(first):
		r.types = kept
		return len(kept) > 0
	case len(kept) == 0 && first.Code == "23514":
		or = "; or, if that is no CHECK of types, fill the column that it is about from Event.Extra"
	}
	r.find(fmt.Sprintf("the table takes no event of type %s: change its CHECK (sql/optional/event_types.sql) or enum, or list with WithEventTypes the types that it takes%s", strings.Join(lacking, ", "), or), first)
	r.types = kept
	return len(kept) > 0 || first.Code != "23514" && r.useEnum()
}

// certain reports whether a CHECK that refuses every type does so whatever the app
// records: it is named after the type, or after no column that the app fills, and
// nothing was made up.
func (r *rehearsal) certain(e *Error) bool {
	columns, constraint := &r.config.columns, ""
	if m := constraintName.FindStringSubmatch(e.Message); m != nil {
		constraint = "_" + strings.Trim(strings.TrimPrefix(m[1], r.config.table), "_") + "_"
	}
	named := func(column string) bool { return strings.Contains(constraint, "_"+column+"_") }
	apps := append([]string{columns.Duration, columns.ErrorMessage, columns.Stage}, columns.Extra...)
	return named(columns.Type) || !slices.ContainsFunc(apps, func(name string) bool { return named(name) || slices.Contains(r.filled, name) })
}

// cast acts on a value that a column's type doesn't take: each column is tried by
// itself. What the app fills is tried with other values first.
func (r *rehearsal) cast(ctx context.Context, first *Error) bool {
	columns, again := &r.config.columns, false
	for _, name := range slices.Clone(r.columns) {
		value, known := r.row("", r.columns)[name]
		if name == columns.Type {
			types := len(r.types)
			if !r.keep(first, func(t EventType) (*Error, error) { return r.refuses(ctx, name, t), nil }) {
				return false
			}
			again = again || len(r.types) < types
			continue
		}
		e := (*Error)(nil)
		if known && value != nil {
			e = r.refuses(ctx, name, value)
		}
		isID := name == columns.DocumentID || name == columns.UserID
		switch {
		case e == nil:
			continue
		case isID && columns.TextIDs, slices.Contains(columns.Extra, name):
			r.choose(ctx, name, madeUp...)
		case name == columns.Stage && r.choose(ctx, name, "x"):
		case name != columns.Stage && name != columns.ErrorMessage, e.Code == "22P02" && !strings.Contains(e.Message, "enum"):
			r.find(r.otherType(name), e)
			r.drop(name)
		default: // a short message is the app's own matter
			delete(r.values, name)
		}
		again = true
	}
	return again && len(r.columns) > 0
}
