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

	// depends matches error codes that depend on the values in the row: a value
	// doesn't fit its column, a column is NULL, or a CHECK fails. With other values,
	// the insert may succeed.
	depends     = regexp.MustCompile(`^(22...|23502|23514)$`)
	checkFailed = "23514"

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
}{
	{uuids, "{key}; or make {column} itself a uuid"},
	{uuids, textIDs},
	{uuids, textIDs},
	{nil, "make it text or an enum, or name another column as Type with WithColumns"},
	{regexp.MustCompile(`^(int32|int64|numeric|real|double precision)$`), "make it an integer of milliseconds, or write \"-\" for it in WithColumns. From an interval: ALTER TABLE {table} ALTER COLUMN {column} TYPE integer USING (extract(epoch FROM {column}) * 1000)::integer"},
	{nil, extraInstead},
	{nil, extraInstead},
	{regexp.MustCompile(`^timestamp`), "make it a timestamptz (from a date: ALTER TABLE {table} ALTER COLUMN {column} TYPE timestamptz), or name another column as CreatedAt with WithColumns"},
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
	names := strings.NewReplacer("{key}", r.newKey(column), "{table}", r.client.advice.TableName(), "{column}", advice.SQLName(column))
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
	case r.lacksID():
		return "run: ALTER TABLE " + r.client.advice.TableName() + " ADD COLUMN event_id uuid NOT NULL DEFAULT gen_random_uuid() UNIQUE; and use WithColumns(Columns{ID: \"event_id\"})"
	}
	return fmt.Sprintf("run: ALTER TABLE %s ADD PRIMARY KEY (%s); or, if it has another primary key, ADD UNIQUE (%[2]s). If the column is the primary key, a trigger replaces its values: let a DEFAULT fill it instead", r.client.advice.TableName(), advice.SQLName(column))
}

// readTypes adds a finding for each column whose type can't hold its field of Event. If
// the app lists no event types, readTypes chooses a type for the draft.
func (r *rehearsal) readTypes() {
	columns := &r.config.columns
	for i, column := range columns.names() {
		name, fit, about := *column, fits[i], r.about.Properties[*column]
		if r.isOwner(name) && columns.TextIDs {
			fit.types = builtIn
		}
		misfit := builtIn.MatchString(about.Format) && (fit.types == nil || !fit.types.MatchString(about.Format))
		if misfit && r.isGiven(name) {
			r.leave(name)
		}
		if misfit || r.isOwner(name) && !columns.TextIDs && about.MaxLength > 0 && about.MaxLength < len(r.document) {
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

// requiredFields returns the names of the fields of Event that may be empty, but whose
// columns are NOT NULL.
func (d *draft) requiredFields() (fields []string) {
	for i, column := range d.config.columns.names() {
		name := *column
		if slices.Contains(d.about.Required, name) && !d.isGiven(name) && (d.config.columns.own || !d.isOwner(name)) {
			fields = append(fields, base[i].field)
		}
	}
	return fields
}

// A reaction is the way in which Check handles the answer to an insert.
type reaction int

const (
	accept      reaction = iota // count the rows, and end
	ignore                      // end without a finding: the error depends on the app's own values, or there is a finding about it
	stop                        // add a finding, and end without the DELETE: no other insert can help
	tryNoRows                   // like stop, but ignore the error if an insert without rows succeeds: a trigger raised the error
	leaveOut                    // add a finding, and leave out the column
	fill                        // add a finding, and fill the column
	sendOnce                    // log a warning, and send no event twice
	tryTypes                    // insert the events of each type alone
	rejectTypes                 // add a finding that the table rejects all types, and end
)

// decide returns the reaction to refusal, the answer to an insert of all types. If alone
// is set, refusal is the reason why no type is accepted, not even without the other
// types. If refusal is nil, the insert succeeded.
func (d *draft) decide(refusal *rest.Error, alone bool) reaction {
	if refusal == nil {
		return accept
	}
	code, column, key := refusal.Code, captured(columnName, refusal.Message), rest.KeyColumns(refusal.Details)
	_, described := d.about.Properties[column]
	ownWords := refusal.Message == rest.LeftOut // of a trigger, or translated
	badData := rest.Classify(refusal) == rest.BadData
	duplicate := code == "23505" || code == "23P01"
	values := depends.MatchString(code) && refusal.Status == 400
	for _, rule := range []struct {
		applies bool
		do      reaction
	}{
		{ownWords && badData, ignore},
		{ownWords, tryNoRows},
		{slices.Contains([]string{"PGRST204", "428C9", "0A000"}, code) && slices.Contains(d.sent, column), leaveOut}, // the column doesn't exist or takes no value
		{code == "23502" && slices.Contains(d.leftOut, column), ignore},
		{duplicate && d.copies > 1 && (key == nil || slices.Contains(key, d.config.columns.ID)), sendOnce}, // if the table has partitions, the answer may lack the key
		{duplicate && len(key) == 1 && d.isOwner(key[0]), stop},                                            // a document or a user can have only one event
		{code == "23514" && slices.Equal(key, []string{d.config.columns.CreatedAt}), stop},                 // no partition for the current time
		{values && !alone, tryTypes},
		{code == "23502" && described && !slices.Contains(d.sent, column), fill},
		{values && d.isCertain(refusal), rejectTypes},
		{values || badData || code == "23503", ignore},
	} {
		if rule.applies {
			return rule.do
		}
	}
	return stop
}

// isCertain reports whether e, the reason why no type is accepted, can't be due to the
// values that Check made up.
func (d *draft) isCertain(e *rest.Error) bool {
	columns := &d.config.columns
	listed := len(d.config.types.listed) > 0 // otherwise the type is made up
	madeUp := !listed || columns.TextIDs || slices.ContainsFunc(d.sent, func(name string) bool { return d.isFilled(name) && !d.isOwner(name) })
	// blamed contains the names of the columns that the error is about: the columns of
	// the partition key, or the name of a CHECK, by default TABLE_COLUMN_check.
	blamed := strings.TrimPrefix(captured(constraintName, e.Message), d.config.table) + strings.Join(rest.KeyColumns(e.Details), " ")
	named := func(name string) bool { return strings.Contains(blamed, name) }
	switch e.Code {
	case "23502": // Check fills all NOT NULL columns that it knows, so a trigger inserts the NULL into another table
		return len(d.about.Required) == 0 && !slices.Contains(d.sent, captured(columnName, e.Message)) || captured(columnName, e.Message) == ""
	case "23514": // a CHECK on the type, or on no column with a made-up value
		return listed && named(columns.Type) || !madeUp && len(columns.Extra) == 0 &&
			!slices.ContainsFunc(d.sent, func(name string) bool { return !d.isGiven(name) && named(name) })
	}
	return !madeUp || d.about.Properties != nil && strings.Contains(e.Message, " enum ") // from the description, Check knows a valid word for every enum
}

// farther returns a or b, whichever PostgreSQL finds later. It first checks whether each
// value fits its column (22...), then looks for NULLs (23502), and then checks the CHECKs
// (23514). a may be nil.
func farther(a, b *rest.Error) *rest.Error {
	if a != nil && a.Code > b.Code {
		return a
	}
	return b
}

// captured returns the text that the group of pattern captures in text, or "".
func captured(pattern *regexp.Regexp, text string) string {
	return append(pattern.FindStringSubmatch(text), "", "")[1]
}
