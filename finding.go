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
	columnName     = regexp.MustCompile(`column "([^"]+)"|'([^']+)' column`) // in a message of PostgreSQL or PostgREST
	constraintName = regexp.MustCompile(`constraint "([^"]+)"`)

	// depends matches error codes that depend on the values in the row: a value
	// doesn't fit its column, a column is NULL, or a CHECK fails. With other values,
	// the insert may succeed.
	depends = regexp.MustCompile(`^(22...|23502|23514)$`)

	// builtIn matches PostgreSQL's own types that can't hold every text. PostgREST's
	// description writes int32 for integer and int64 for bigint. Check assumes that all
	// other types, such as text and enums, can hold any text.
	builtIn = regexp.MustCompile(`^(int32|int64|numeric|real|double precision|boolean|uuid|date|time .*|timestamp .*|interval|.*\[\])$`)
	uuids   = regexp.MustCompile(`^uuid$`)
)

// fits has an element for each column of base, in the same order.
var fits = [len(base)]struct {
	types *regexp.Regexp // the types of builtIn that the column may have; nil means none
	do    string         // advice if the column has a type of builtIn that types doesn't match
	value string         // the value in rehearsals, except for ids, types and times
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

// find adds a problem to r.findings, the problems that Check returns. column is the
// column with the problem, and text describes the problem. In text, find replaces
// {column} and {table} by their names, and {key} by advice on how to make the id
// unique.
func (r *rehearsal) find(column, text string) {
	names := strings.NewReplacer("{key}", r.newKey(column), "{table}", r.advice.TableName(), "{column}", advice.SQLName(column))
	r.findings = append(r.findings, errors.New("insert: "+names.Replace(text)))
}

// newKey returns advice on how to make the id unique, so that each event is stored
// only once. column is the current id column.
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

// readTypes adds a finding for each column whose type can't hold its field of Event.
// It also prepares the rows that Check will insert: it makes up a value for each
// column, and lists in r.filled the columns in which every row has this value.
//
// r.filled contains the NOT NULL columns. In two cases it also contains the columns
// of the document's and the user's id: if the app didn't pass WithColumns, or if
// Check doesn't know which columns are NOT NULL. If the app lists no event types,
// readTypes chooses a type for the rows.
func (r *rehearsal) readTypes() {
	columns := &r.config.columns
	for i, column := range columns.names() {
		name, fit, about := *column, fits[i], r.about.Properties[*column]
		isID := base[i].field == "DocumentID" || base[i].field == "UserID"
		required := slices.Contains(r.about.Required, name)
		if isID && columns.TextIDs {
			fit.types, fit.value, r.guessed = builtIn, "1", true
		} else if isID {
			fit.value = r.document
		}
		wrong := builtIn.MatchString(about.Format) && (fit.types == nil || !fit.types.MatchString(about.Format)) ||
			isID && about.MaxLength > 0 && about.MaxLength < len(fit.value)
		if wrong && fit.value == "" {
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
		r.makeUp(name, fit.value)
		if required || isID && (!columns.own || len(r.about.Required) == 0) {
			r.filled, r.guessed = append(r.filled, name), r.guessed || !isID
		}
	}
	for _, name := range columns.Extra {
		r.makeUp(name, "1")
		if slices.Contains(r.about.Required, name) {
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

// count handles the answer to an insert that PostgREST rolled back. n is the number
// of rows that PostgreSQL inserted before the rollback. events is the number of
// different events in the insert, which may contain each of them twice. If n is larger
// than events, the id isn't unique. If n is 0, the table discards all events. In both
// cases count adds a finding. If the table discards only some of the events, count logs
// a warning. If the inserts leave out the id column, n shows nothing, so count does
// nothing.
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

// learn handles err, the error of an insert. If every event would get this error, learn
// adds a finding, a problem that Check returns. If a different insert may show another
// problem, learn changes the columns or the values of the next insert and returns true.
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
	case e.Message == rest.LeftOut: // a trigger may have raised it, but not if an insert without rows fails as well
		if _, err := r.send(ctx, []map[string]any{}); err == nil {
			return false
		}
	case ours && (e.Code == "PGRST204" || e.Code == "428C9" || e.Code == "0A000"): // the column doesn't exist or takes no value
		r.add("insert", r.explain(e))
		return r.drop(name)
	case e.Code == "23502" && !ours && (slices.Contains(strings.Split(columns.all, ","), name) || r.values[name] != nil):
		return false // the inserts leave the column out, because there is a finding about it already
	case e.Code == "23502" && isThere && !ours:
		t, fillings, full := r.types[0], r.fillings(), (*rest.Error)(nil)
		every := fillings[len(fillings)-1] // all columns for which Check has values
		if _, err := r.send(ctx, []map[string]any{r.row(t, every), r.row(t, every)}); !errors.As(err, &full) || full.Message != e.Message {
			return r.narrow(ctx, e) // a trigger or an expression fills the column from the others
		}
		r.add("insert", r.explain(e))
		r.makeUp(name, "1")
		r.columns, r.filled = append(r.columns, name), append(r.filled, name)
		r.guessed, r.fills = true, nil
		return true
	case (e.Code == "23505" || e.Code == "23P01") && len(key) == 1 && (key[0] == columns.DocumentID || key[0] == columns.UserID || strings.Contains(e.Details, r.document)):
		// A document or a user can have only one event. The key may be of another table, into which a trigger inserts.
	case r.copies > 1 && (e.Code == "23505" || e.Code == "23P01") && (key == nil || slices.Contains(key, columns.ID)): // if the table has partitions, the answer may lack the key
		r.copies = 1
		r.report.warn(logSlowKey)
		return true
	case e.Code == "23514" && slices.Equal(key, []string{columns.CreatedAt}): // no partition for the current time
	case depends.MatchString(e.Code) && e.Status == 400:
		return r.narrow(ctx, e)
	case rest.Classify(e) == rest.BadData, e.Code == "23503":
		return false
	}
	r.refused = true
	r.add("insert", r.explain(e))
	return false
}

// drop removes a column from the next inserts, because Check has found a problem with
// this column. It reports whether the inserts still have columns.
func (r *rehearsal) drop(name string) bool {
	r.noID = r.noID || name == r.config.columns.ID
	r.columns = slices.DeleteFunc(r.columns, func(other string) bool { return other == name })
	return len(r.columns) > 0
}

// narrow finds out which event types the table accepts, after it rejected an insert
// with the error refusal. It tries the fillings for each type, because a CHECK may
// require a column for this type only, and keeps the accepted filling in r.fills. If the
// table accepts none, later inserts leave the type out, and narrow adds a finding, unless
// all types are rejected and the reason may be a made-up value. narrow reports whether
// to insert again.
func (r *rehearsal) narrow(ctx context.Context, refusal *rest.Error) bool {
	if r.fills != nil { // narrow has run with these columns
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
				r.refused = true
				r.add("insert", fmt.Errorf("%w, after: %w", err, newServerError(refusal, "")))
				return false
			}
			if !answered || !depends.MatchString(e.Code) { // accepted: PostgreSQL checks the values before it finds other errors
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
	if len(kept) == 0 && last.Message != refusal.Message { // no type is accepted, and refusal is no longer the reason
		return r.learn(ctx, last)
	}
	listed := len(kept) > 0 && len(r.config.types.listed) > 0 // an app that lists no types lets the table decide
	if len(lacking) > 0 && (listed || len(kept) == 0 && r.certain(last)) {
		r.add("insert: the table takes no event of type "+strings.Join(lacking, ", "), r.explain(last))
	}
	r.types = kept
	return len(kept) > 0
}

// certain reports whether e means that the table rejects every event of the type, and
// not only the values that Check made up.
func (r *rehearsal) certain(e *rest.Error) bool {
	columns := &r.config.columns
	// blamed contains the names of the columns that the error is about: the columns of
	// the partition key, or the name of a CHECK, by default TABLE_COLUMN_check.
	blamed := strings.Join(rest.KeyColumns(e.Details), " ")
	if m := constraintName.FindStringSubmatch(e.Message); m != nil {
		blamed = strings.TrimPrefix(m[1], r.config.table)
	}
	named := func(name string) bool { return strings.Contains(blamed, name) }
	switch e.Code {
	case "23502": // Check fills all NOT NULL columns that it knows, so a trigger inserts the NULL into another table
		return len(r.about.Required) == 0 || !columnName.MatchString(e.Message)
	case "23514": // a CHECK on the type, or on no column with a made-up value
		return len(r.config.types.listed) > 0 && named(columns.Type) || !r.guessed && len(columns.Extra) == 0 &&
			!slices.ContainsFunc([]string{columns.DocumentID, columns.UserID, columns.Duration, columns.ErrorMessage, columns.Stage}, named)
	}
	return !r.guessed || r.about.Properties != nil && strings.Contains(e.Message, " enum ") // from the description, Check knows a valid word for every enum
}
