package docevents

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/docevents/docevents-go/internal/advice"
	"github.com/docevents/docevents-go/internal/rest"
)

var (
	columnName     = regexp.MustCompile(`column "([^"]+)"|'([^']+)' column`)
	constraintName = regexp.MustCompile(`constraint "([^"]+)"`)
	depends        = regexp.MustCompile(`^(22...|23502|23514)$`) // the codes of errors that depend on which columns an event fills

	// builtIn matches PostgreSQL's own types that can't hold every text. The names
	// are PostgREST's, which calls a bigint int64.
	builtIn = regexp.MustCompile(`^(int32|int64|numeric|real|double precision|boolean|uuid|date|time .*|timestamp .*|interval|.*\[\])$`)
	uuids   = regexp.MustCompile(`^uuid$`)
)

// fits has an element for each column of base, in that order: the types of builtIn
// that the column may have (nil if it may have none of them), the advice if it has
// another type, and a text to fill the column with.
var fits = [len(base)]struct {
	types *regexp.Regexp
	do    string
	value string
}{
	{uuids, "{key}; or make {column} itself a uuid", ""},
	{uuids, textIDs, ""},
	{uuids, textIDs, ""},
	{nil, "make it text or an enum, or name another column as Type with WithColumns", ""},
	{regexp.MustCompile(`^(int32|int64|numeric|real|double precision)$`), "make it an integer of milliseconds, or write \"-\" for it in WithColumns. From an interval: ALTER TABLE {table} ALTER COLUMN {column} TYPE integer USING (extract(epoch FROM {column}) * 1000)::integer", "2"},
	{nil, extraInstead, "check"},
	{nil, extraInstead, "check"},
	{regexp.MustCompile(`^timestamp`), "make it a timestamptz (from a date: ALTER TABLE {table} ALTER COLUMN {column} TYPE timestamptz), or name another column as CreatedAt with WithColumns", ""},
}

const (
	textIDs      = "use WithColumns(Columns{TextIDs: true}), and pass ids that the column can hold, as text"
	extraInstead = "write \"-\" for it in WithColumns, and name it in Extra"
)

// find adds a finding about a column. In the finding, {key} stands for the advice of
// newKey, {table} for the table's name and {column} for the column's.
func (r *rehearsal) find(column, finding string) {
	names := strings.NewReplacer("{key}", r.newKey(column), "{table}", r.advice.TableName(), "{column}", advice.SQLName(column))
	r.findings = append(r.findings, errors.New("insert: "+names.Replace(finding)))
}

// newKey returns advice for a table that has no column that makes events unique.
func (r *rehearsal) newKey(column string) string {
	switch at := r.config.columns.CreatedAt; {
	case len(r.about.Required) == 0 && r.about.Properties != nil:
		return "name the table beneath the view with WithTable, or name a uuid column of the view that is UNIQUE in the table as ID with WithColumns"
	case strings.Contains(r.about.Properties[at].Description, "<pk/>"):
		return "a partitioned table needs a uuid column called id, and the primary key (id, " + advice.SQLName(at) + ")"
	case r.noID:
		return "run: ALTER TABLE " + r.advice.TableName() + " ADD COLUMN event_id uuid NOT NULL DEFAULT gen_random_uuid() UNIQUE; and use WithColumns(Columns{ID: \"event_id\"})"
	}
	return fmt.Sprintf("run: ALTER TABLE %s ADD PRIMARY KEY (%s); or, if it has another primary key, ADD UNIQUE (%[2]s). If the column is the primary key, a trigger replaces its values: let a DEFAULT fill it instead", r.advice.TableName(), advice.SQLName(column))
}

// readTypes adds findings about columns whose type doesn't fit, makes up values, and
// chooses the columns that every event of the rehearsal fills: those that are NOT
// NULL, or, if no NOT NULL columns are known, the ids.
func (r *rehearsal) readTypes() {
	columns := &r.config.columns
	for i, column := range columns.names() {
		name, fit, about := *column, fits[i], r.about.Properties[*column]
		isID, required := i == 1 || i == 2, slices.Contains(r.about.Required, name)
		if isID && columns.TextIDs {
			fit.types, fit.value, r.guessed = builtIn, "1", true
		} else if isID {
			fit.value = r.document
		}
		wrong := builtIn.MatchString(about.Format) && (fit.types == nil || !fit.types.MatchString(about.Format)) || isID && about.MaxLength > 0 && about.MaxLength < len(fit.value)
		if wrong && fit.value == "" && about.Format != "date" { // a rehearsal would always fail because of the column
			r.drop(name)
		}
		if wrong {
			r.find(name, "the type of the column {column} can't hold Event."+base[i].field+": "+fit.do)
		}
		switch {
		case fit.value == "":
			continue
		case wrong: // a value that fits lets the rehearsal find more problems
			fit.value = "1"
		case required && (columns.own || !isID):
			r.required = append(r.required, base[i].field)
		}
		if r.makeUp(name, fit.value); required || isID && (!columns.own || len(r.about.Required) == 0) {
			r.filled, r.guessed = append(r.filled, name), r.guessed || !isID
		}
	}
	for _, name := range columns.Extra {
		if r.makeUp(name, "1"); slices.Contains(r.about.Required, name) {
			r.filled, r.guessed = append(r.filled, name), true
		}
	}
	if len(r.types) > 0 && columns.Type != noColumn {
		return
	}
	r.types, r.guessed = []EventType{Completed}, r.guessed || len(r.types) == 0
	if words := r.about.Properties[columns.Type].Enum; len(words) > 0 {
		r.types[0] = EventType(words[0])
	}
}

// count adds findings from a rehearsal that the server ran. n is how many rows the
// insert had, and events is how many events it had without their copies.
func (r *rehearsal) count(n, events int) {
	switch {
	case r.noID:
	case n > events:
		r.find(r.config.columns.ID, "nothing makes the column {column} unique, so an event that is sent again would be stored twice: {key}")
	case n == 0:
		r.find("", "a trigger or rule of {table} discards every event, and Record can't notice: let it store them")
	case n < events:
		r.report.warn(logDiscards)
	}
}

// learn acts on a rehearsal that was refused, and reports whether another rehearsal
// may find more problems.
func (r *rehearsal) learn(ctx context.Context, err error) bool {
	e, answered := errors.AsType[*rest.Error](err)
	if !answered {
		r.refused = true
		r.add("insert", err)
		return false
	}
	name, key, columns := "", rest.KeyColumns(e.Details), &r.config.columns
	if m := columnName.FindStringSubmatch(e.Message); m != nil {
		name = m[1] + m[2]
	}
	_, isThere := r.about.Properties[name]
	switch ours := slices.Contains(r.columns, name); {
	case e.Message == rest.LeftOut && rest.Classify(e) == rest.BadData:
		return false
	case e.Message == rest.LeftOut: // a trigger's, unless an insert without rows is refused as well
		if _, err := r.send(ctx, []map[string]any{}); err == nil {
			return false
		}
	case ours && (e.Code == "PGRST204" || e.Code == "428C9" || e.Code == "0A000" || e.Code == "42703" && strings.Contains(e.Message, strconv.Quote(r.config.table))):
		r.add("insert", r.explain(e))
		return r.drop(name)
	case e.Code == "23502" && slices.Contains(strings.Split(columns.all, ","), name) && !ours:
		return false // the column has a finding already
	case e.Code == "23502" && isThere && !ours:
		r.add("insert", r.explain(e))
		r.makeUp(name, "1")
		r.columns, r.filled, r.guessed = append(r.columns, name), append(r.filled, name), true
		return true
	case r.copies > 1 && (e.Code == "23505" || e.Code == "23P01") && (key == nil || slices.Contains(key, columns.ID)): // the error of a partition may not show its key
		r.copies = 1
		r.report.warn(logSlowKey)
		return true
	case (e.Code == "23505" || e.Code == "23P01") && len(key) == 1 && (key[0] == columns.DocumentID || key[0] == columns.UserID): // every event has this problem
	case e.Code == "23514" && slices.Equal(key, []string{columns.CreatedAt}): // there is no partition for the present time
	case depends.MatchString(e.Code) && e.Status == 400:
		return r.narrow(ctx, e)
	case rest.Classify(e) == rest.BadData, e.Code == "23503":
		return false
	}
	r.refused = true
	r.add("insert", r.explain(e))
	return false
}

// drop leaves a column that has a finding out of the inserts, and reports whether
// any column is left.
func (r *rehearsal) drop(name string) bool {
	r.noID = r.noID || name == r.config.columns.ID
	r.refused = r.refused || name == r.config.columns.CreatedAt // rows are deleted by this column
	r.columns = slices.DeleteFunc(r.columns, func(other string) bool { return other == name })
	return len(r.columns) > 0
}

// narrow finds the columns that events of each type must fill. It leaves out a type if
// the table refuses it with every choice of columns. empty is the server's answer to
// events with only the common columns. narrow reports whether any type is left.
func (r *rehearsal) narrow(ctx context.Context, empty *rest.Error) bool {
	if r.fills != nil {
		return false
	}
	r.fills = map[EventType][]string{}
	var kept []EventType
	var lacking []string
	var last *rest.Error
	for _, t := range r.types {
		var e *rest.Error
		for _, fill := range r.fillings() {
			r.fills[t] = fill
			_, err := r.send(ctx, []map[string]any{r.row(t, fill), r.row(t, fill)})
			answered := errors.As(err, &e)
			if err != nil && !answered {
				return r.learn(ctx, err)
			}
			if !answered || !depends.MatchString(e.Code) { // PostgreSQL finds other errors after all CHECKs
				e = nil
				break
			}
		}
		if e == nil {
			kept = append(kept, t)
		} else {
			lacking, last = append(lacking, strconv.Quote(string(t))), e
		}
	}
	listed := len(kept) > 0 && len(r.config.types.listed) > 0 // if the app lists no types, the table decides about them
	if len(lacking) > 0 && (listed || len(kept) == 0 && empty.Message == last.Message && r.certain(last)) {
		r.add("insert: the table takes no event of type "+strings.Join(lacking, ", "), r.explain(last))
	}
	r.types = kept
	return len(kept) > 0
}

// certain reports whether the server answers e to every event, whatever the app
// records. It may not: a CHECK may refuse only the values that Check made up.
func (r *rehearsal) certain(e *rest.Error) bool {
	columns := &r.config.columns
	about := strings.Join(rest.KeyColumns(e.Details), " ")
	if m := constraintName.FindStringSubmatch(e.Message); m != nil {
		about = strings.TrimPrefix(m[1], r.config.table)
	}
	named := func(name string) bool { return strings.Contains(about, name) }
	switch e.Code {
	case "23502": // a domain, or a column that the view hides, is NOT NULL; else the column may be another table's
		return len(r.about.Required) == 0 || !columnName.MatchString(e.Message)
	case "23514":
		return len(r.config.types.listed) > 0 && named(columns.Type) || !r.guessed && len(columns.Extra) == 0 &&
			!slices.ContainsFunc([]string{columns.DocumentID, columns.UserID, columns.Duration, columns.ErrorMessage, columns.Stage}, named)
	}
	return !r.guessed || r.about.Properties != nil && strings.Contains(e.Message, " enum ") // Check fills an Extra column that is an enum with a word of it
}
