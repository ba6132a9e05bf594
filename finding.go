package docevents

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/docevents/docevents-go/internal/advice"
	"github.com/docevents/docevents-go/internal/rest"
)

var (
	columnName     = regexp.MustCompile(`(?:column "|find the ')([^"']+)`) // in a message of PostgreSQL or PostgREST
	constraintName = regexp.MustCompile(`constraint "([^"]+)"`)

	// aboutValues matches the codes of errors that depend on the values in the row: a
	// value doesn't fit its column, a column is NULL, or a CHECK fails.
	aboutValues = regexp.MustCompile(`^(22...|23502|23514)$`)

	// builtIn matches PostgreSQL's own types that can't hold every text. Check assumes
	// that the app's values fit all other types, such as enums. Newer versions of
	// PostgREST write int32 and int64 for integer and bigint.
	builtIn = regexp.MustCompile(numbers.String() + `|^(boolean|uuid|date|time .*|timestamp .*|interval|.*\[\])$`)
	numbers = regexp.MustCompile(`^(smallint|integer|bigint|int32|int64|numeric|real|double precision)$`)
	uuids   = regexp.MustCompile(`^uuid$`)
)

// fits has an element for each column of base, in the same order.
var fits = [len(base)]struct {
	types *regexp.Regexp // the types of builtIn that the column may have; nil means none
	do    string         // advice if the column has any other type of builtIn
}{
	{uuids, "{key}; or make {column} itself a uuid"},
	{uuids, textIDs},
	{uuids, textIDs},
	{nil, "make it text or an enum, or name another column as Type with WithColumns"},
	{numbers, "make it an integer of milliseconds, or write \"-\" for it in WithColumns. From an interval: ALTER TABLE {table} ALTER COLUMN {column} TYPE integer USING (extract(epoch FROM {column}) * 1000)::integer"},
	{nil, extraInstead},
	{nil, extraInstead},
	{regexp.MustCompile(`^timestamp`), "make it a timestamptz (from a date: ALTER TABLE {table} ALTER COLUMN {column} TYPE timestamptz), or name another column as CreatedAt with WithColumns"},
}

const textIDs = "use WithColumns(Columns{TextIDs: true}), and pass ids that the column can hold, as text"

const extraInstead = "write \"-\" for it in WithColumns, and name it in Extra"

// find adds a problem with a column to r.findings. In the given text, it replaces
// {column} and {table} by their names, and {key} by advice on how to make the id
// unique.
func (r *rehearsal) find(column, text string) {
	names := strings.NewReplacer("{key}", r.newKey(column), "{table}", r.advice.TableName(), "{column}", advice.SQLName(column))
	r.findings = append(r.findings, errors.New("insert: "+names.Replace(text)))
}

// newKey returns advice on how to make the id unique. column is the current id column.
func (r *rehearsal) newKey(column string) string {
	switch at := r.config.columns.CreatedAt; {
	case len(r.about.Required) == 0 && r.about.Properties != nil:
		return "name the table beneath the view with WithTable, or name a uuid column of the view that is UNIQUE in the table as ID with WithColumns"
	case strings.Contains(r.about.Properties[at].Description, "<pk/>"):
		return "a partitioned table needs a uuid column called id, and the primary key (id, " + advice.SQLName(at) + ")"
	case r.lacksID():
		return "run: ALTER TABLE " + r.advice.TableName() + " ADD COLUMN event_id uuid NOT NULL DEFAULT gen_random_uuid() UNIQUE; and use WithColumns(Columns{ID: \"event_id\"})"
	}
	return fmt.Sprintf("run: ALTER TABLE %s ADD PRIMARY KEY (%s); or, if it has another primary key, ADD UNIQUE (%[2]s). If the column is the primary key, a trigger replaces its values: let a DEFAULT fill it instead", r.advice.TableName(), advice.SQLName(column))
}

// readTypes adds a finding for each column whose type can't hold the values of its
// field, and lists the optional fields whose columns are NOT NULL. If the app lists no
// event types, or the table has no column for them, readTypes chooses one type for the
// inserts.
func (r *rehearsal) readTypes() {
	columns := &r.config.columns
	for i, column := range columns.names() {
		name, fit, about := *column, fits[i], r.about.Properties[*column]
		if slices.Contains(r.about.Required, name) && !r.isGiven(name) && (columns.own || !r.isOwner(name)) {
			r.required = append(r.required, base[i].field)
		}
		if r.isOwner(name) && columns.TextIDs {
			continue // PostgreSQL converts text to the column's type
		}
		misfit := builtIn.MatchString(about.Format) && (fit.types == nil || !fit.types.MatchString(about.Format))
		if misfit && r.isGiven(name) {
			r.leave(name)
		}
		if misfit || r.isOwner(name) && about.MaxLength > 0 && about.MaxLength < len(r.documents[0]) {
			r.find(name, "the type of the column {column} can't hold Event."+base[i].field+": "+fit.do)
		}
	}
	if len(r.types) == 0 || columns.Type == noColumn {
		r.types = []EventType{Completed}
		if words := r.about.Properties[columns.Type].Enum; len(words) > 0 {
			r.types[0] = EventType(words[0])
		}
	}
}

// A reaction is what Check does after the answer to an insert.
type reaction int

const (
	accept      reaction = iota // count the rows, and end
	ignore                      // end without a finding: the error depends on the app's own values, or there is a finding about it
	stop                        // add a finding, and end without testing purges: no other insert can help
	tryNoRows                   // like stop, but ignore the error if an insert without rows succeeds: then a trigger raised the error
	leaveOut                    // add a finding, and leave out the column that the error names
	fill                        // add a finding, and fill the column that the error names
	sendOnce                    // log a warning, and send each event once
	tryTypes                    // insert the events of each type alone
	rejectTypes                 // add a finding that the table rejects all types, and end
)

// react returns the reaction to an insert, and the column that its error names, or "".
// If triedEach is false, refusal is the error of an insert of all types, or nil if it
// wasn't refused. If triedEach is true, the table accepts no type, and refusal is the
// error that tryTypes returned. react uses the first rule that applies.
func (r *rehearsal) react(refusal *rest.Error, triedEach bool) (reaction, string) {
	if refusal == nil {
		return accept, ""
	}
	columns, code, key := &r.config.columns, refusal.Code, rest.KeyColumns(refusal.Details)
	column := captured(columnName, refusal.Message)
	_, described := r.about.Properties[column]
	sent := slices.Contains(r.columns, column)
	ownWords := refusal.Message == rest.LeftOut // the message is from a trigger, or translated
	badData := rest.Classify(refusal) == rest.BadData
	duplicate := code == "23505" || code == "23P01"
	values := aboutValues.MatchString(code) && refusal.Status == 400
	listed := len(r.config.types.listed) > 0 // otherwise the type is made up
	madeUp := !listed || columns.TextIDs || triedEach && slices.ContainsFunc(r.types, func(t EventType) bool { return len(r.fillings[t]) > 0 }) ||
		slices.ContainsFunc(r.columns, func(name string) bool { return r.isFilled(name) && !r.isOwner(name) })
	// blamedNames is the part of the error in which column names can occur: the name of
	// a CHECK constraint (by default TABLE_COLUMN_check) or the columns of the
	// partition key.
	blamedNames := strings.TrimPrefix(captured(constraintName, refusal.Message), r.config.table)
	if !slices.Contains(key, columns.ID) { // a key that has the id is the list of all columns of the row, as after an insert into a view
		blamedNames += strings.Join(key, " ")
	}
	optional := func(name string) bool { return !r.isGiven(name) && strings.Contains(blamedNames, name) }
	longer := func(name string) bool { return optional(name) && strings.Contains(name, columns.Type) } // such as file_type, if columns.Type is type
	for _, rule := range []struct {
		applies bool
		do      reaction
	}{
		{ownWords && badData, ignore},
		{ownWords, tryNoRows},
		{slices.Contains([]string{"PGRST204", "428C9", "0A000"}, code) && sent, leaveOut}, // the column doesn't exist or takes no value
		{code == "23502" && slices.Contains(r.leftOut, column), ignore},
		// The table allows only one event per document or user. This unique key may
		// belong to another table, into which a trigger inserts.
		{duplicate && len(key) == 1 && (r.isOwner(key[0]) || slices.ContainsFunc(r.documents[:], func(id string) bool { return strings.Contains(refusal.Details, id) })), stop},
		{duplicate && r.copies > 1 && (key == nil || slices.Contains(key, columns.ID)), sendOnce}, // if the table has partitions, the answer may lack the key
		{code == "23514" && slices.Equal(key, []string{columns.CreatedAt}), stop},                 // no partition for the current time
		{!values && (badData || code == "23503"), ignore},
		{!values, stop},
		{!triedEach, tryTypes},
		{code == "23502" && described && !sent, fill},
		{code == "23502" && (column == "" || len(r.about.Required) == 0 && !sent), rejectTypes},
		{code == "23514" && listed && strings.Contains(blamedNames, columns.Type) && !slices.ContainsFunc(r.columns, longer), rejectTypes},
		{code == "23514" && !madeUp && len(columns.Extra) == 0 && !slices.ContainsFunc(r.columns, optional), rejectTypes},
		{code < "23" && (!madeUp || r.about.Properties != nil && (code == "22001" || strings.Contains(refusal.Message, " enum "))), rejectTypes}, // if PostgREST has described the table, the made-up values fit each enum and are short enough
	} {
		if rule.applies {
			return rule.do, column
		}
	}
	return ignore, "" // the reason may be a value that Check made up
}

// captured returns the part of text that the first group in pattern matches, or "".
func captured(pattern *regexp.Regexp, text string) string {
	if match := pattern.FindStringSubmatch(text); match != nil {
		return match[1]
	}
	return ""
}
