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

	// depends matches the codes of errors that may go away if an event fills other
	// columns: a value doesn't fit its column, a column is NULL, a CHECK fails.
	depends = regexp.MustCompile(`^(22...|23502|23514)$`)

	// builtIn matches PostgreSQL's own types that can't hold every text. PostgREST
	// calls an integer int32 and a bigint int64.
	builtIn = regexp.MustCompile(`^(int32|int64|numeric|real|double precision|boolean|uuid|date|time .*|timestamp .*|interval|.*\[\])$`)
	uuids   = regexp.MustCompile(`^uuid$`)
)

// fits has an element for each column of base, in the same order.
var fits = [len(base)]struct {
	types *regexp.Regexp // the types of builtIn that the column may have; nil means none
	do    string         // advice if the column has another type of builtIn
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

// find adds a finding about a column. In the finding, {column} and {table} stand for
// the names, and {key} for the advice that newKey returns.
func (r *rehearsal) find(column, finding string) {
	names := strings.NewReplacer("{key}", r.newKey(column), "{table}", r.advice.TableName(), "{column}", advice.SQLName(column))
	r.findings = append(r.findings, errors.New("insert: "+names.Replace(finding)))
}

// newKey returns advice on how to make events unique. column is the column that can't
// do that.
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

// readTypes compares the types of the columns with the fields of Event, and adds
// findings. It makes up a value for each column, and lists in r.filled the columns
// that every row of a rehearsal fills. These are the NOT NULL columns, and the ids of
// document and user. With WithColumns the ids may be NULL, so rows fill them only if
// they are NOT NULL, or if the NOT NULL columns are unknown. If the app lists no event
// types, readTypes chooses one.
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

// count compares n, the number of rows that the server inserted, with the number of
// events that were sent. The copies of events don't count as events.
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

// learn handles the error of a rehearsal. If every event would fail for the same
// reason, learn adds a finding. If it can change the next rehearsal so that this may
// find another problem, it does so and returns true.
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
	case e.Code == "23502" && slices.Contains(strings.Split(columns.all, ","), name) && !ours:
		return false // there is a finding about the column already, so it was dropped
	case e.Code == "23502" && isThere && !ours:
		r.add("insert", r.explain(e))
		r.makeUp(name, "1")
		r.columns, r.filled = append(r.columns, name), append(r.filled, name)
		r.guessed, r.fills = true, nil
		return true
	case r.copies > 1 && (e.Code == "23505" || e.Code == "23P01") && (key == nil || slices.Contains(key, columns.ID)): // the answer may not show the key of a partition
		r.copies = 1
		r.report.warn(logSlowKey)
		return true
	case (e.Code == "23505" || e.Code == "23P01") && len(key) == 1 && (key[0] == columns.DocumentID || key[0] == columns.UserID): // a document or a user can have only one event
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

// drop leaves a column that has a finding out of the next inserts. It reports whether
// any column is left.
func (r *rehearsal) drop(name string) bool {
	r.noID = r.noID || name == r.config.columns.ID
	r.columns = slices.DeleteFunc(r.columns, func(other string) bool { return other == name })
	return len(r.columns) > 0
}

// narrow tries each event type alone. A CHECK may require a column for some types only,
// so narrow tries several sets of filled columns. r.fills gets the first set with which
// the table accepts the type. Later inserts leave out the types that the table never
// accepts. narrow adds a finding about these types, except if the table may have
// rejected only made-up values. It reports whether any type is left.
//
// empty is the server's answer before, to events that filled only r.filled.
func (r *rehearsal) narrow(ctx context.Context, empty *rest.Error) bool {
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
				return r.learn(ctx, err)
			}
			if !answered || !depends.MatchString(e.Code) { // accepted; PostgreSQL finds other errors after those
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
	if len(kept) == 0 && last.Message != empty.Message { // behind the problem in empty, all types have another problem
		return r.learn(ctx, last)
	}
	listed := len(kept) > 0 && len(r.config.types.listed) > 0 // an app that lists no types lets the table decide
	if len(lacking) > 0 && (listed || len(kept) == 0 && r.certain(last)) {
		r.add("insert: the table takes no event of type "+strings.Join(lacking, ", "), r.explain(last))
	}
	r.types = kept
	return len(kept) > 0
}

// certain reports whether the table rejects every event with e, whatever values the
// app records. If not, the table may have rejected only the values that Check made up.
func (r *rehearsal) certain(e *rest.Error) bool {
	columns := &r.config.columns
	// about is the name of a CHECK, by default TABLE_COLUMN_check, or the partition key.
	// If it contains the name of a column, it is taken to be about that column.
	about := strings.Join(rest.KeyColumns(e.Details), " ")
	if m := constraintName.FindStringSubmatch(e.Message); m != nil {
		about = strings.TrimPrefix(m[1], r.config.table)
	}
	named := func(name string) bool { return strings.Contains(about, name) }
	switch e.Code {
	case "23502": // if the NOT NULL columns are known, a column that is named here belongs to another table, which a trigger fills
		return len(r.about.Required) == 0 || !columnName.MatchString(e.Message)
	case "23514":
		return len(r.config.types.listed) > 0 && named(columns.Type) || !r.guessed && len(columns.Extra) == 0 &&
			!slices.ContainsFunc([]string{columns.DocumentID, columns.UserID, columns.Duration, columns.ErrorMessage, columns.Stage}, named)
	}
	return !r.guessed || r.about.Properties != nil && strings.Contains(e.Message, " enum ") // with a description, Check fills enums with one of their words
}
