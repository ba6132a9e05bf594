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

	"github.com/docevents/docevents-go/internal/rest"
	"github.com/google/uuid"
	"github.com/supabase-community/postgrest-go"
)

// maxVaried limits the number of optional columns that Check fills one by one. Check
// does so if the table rejects an event type, to find out which columns the type needs.
const maxVaried = 8

// A rehearsal checks the table once, with inserts that PostgREST rolls back. Its method
// insert repeats three steps:
//
//  1. The method send sends the rows that the method rows returns.
//  2. The method react chooses a reaction to the server's answer.
//  3. The method insert carries out the reaction: it adds a finding (a problem that
//     Check returns), or changes the next insert, or both.
type rehearsal struct {
	*Client
	about    definition
	required []string // optional fields of Event whose columns are NOT NULL
	findings []error

	// The next insert:
	documents [2]string // the ids of the documents: made-up UUIDs
	columns   []string  // the columns of the insert
	leftOut   []string  // the columns that the insert leaves out, because there is a finding about them
	types     []EventType
	fillings  map[EventType][]string // the optional columns that an event of the type fills; nil until tryTypes runs
	copies    int                    // how often each event is sent: 2, or 1 if the id is UNIQUE but not the primary key
}

func newRehearsal(c *Client) *rehearsal {
	return &rehearsal{
		Client: c, documents: [2]string{uuid.NewString(), uuid.NewString()}, copies: 2,
		columns: strings.Split(c.config.columns.all, ","), types: c.config.types.listed,
	}
}

// leave makes the next inserts leave out a column, because there is a finding about it.
func (r *rehearsal) leave(name string) {
	r.leftOut = append(r.leftOut, name)
	r.columns = slices.DeleteFunc(r.columns, func(other string) bool { return other == name })
}

// lacksID reports whether the insert leaves out the id.
func (r *rehearsal) lacksID() bool { return slices.Contains(r.leftOut, r.config.columns.ID) }

// isOwner reports whether the column stores the id of the event's document or user.
func (r *rehearsal) isOwner(name string) bool {
	return name == r.config.columns.DocumentID || name == r.config.columns.UserID
}

// isGiven reports whether the column stores a field that every event has.
func (r *rehearsal) isGiven(name string) bool {
	return slices.Contains([]string{r.config.columns.ID, r.config.columns.Type, r.config.columns.CreatedAt}, name)
}

// isFilled reports whether every row has a made-up value in the column.
func (r *rehearsal) isFilled(name string) bool {
	switch isRequired := slices.Contains(r.about.Required, name); {
	case r.isGiven(name):
		return false // the value of an event, not a made-up one
	case !slices.Contains(strings.Split(r.config.columns.all, ","), name):
		return true // added by the reaction fill
	case r.isOwner(name): // without WithColumns, Record requires the id; without a description, the table might
		return isRequired || !r.config.columns.own || len(r.about.Required) == 0
	default: // if an extra column has a default, a CHECK might reject a made-up value
		return isRequired && !(slices.Contains(r.config.columns.Extra, name) && r.about.Properties[name].Default != nil)
	}
}

// value returns the made-up value of a column in row i. Usually it is 1, which fits
// most types. For the id of a document or user it is usually a UUID. The rows belong to
// two documents and two users in turn.
func (r *rehearsal) value(name string, i int) any {
	switch about := r.about.Properties[name]; {
	case len(about.Enum) > 0:
		return about.Enum[0]
	case about.Format == "uuid", r.isOwner(name) && !r.config.columns.TextIDs && !builtIn.MatchString(about.Format) && (about.MaxLength == 0 || about.MaxLength >= len(r.documents[0])):
		return r.documents[i%2]
	case about.Format == "date", strings.HasPrefix(about.Format, "time"):
		return "2024-01-01 00:00:00" // with a T in it, it wouldn't fit a time of day
	case about.Format == "inet", about.Format == "cidr":
		return "::1"
	case strings.HasSuffix(about.Format, "[]"):
		return []any{}
	case r.isOwner(name):
		return strconv.Itoa(1 + i%2)
	}
	return "1"
}

// rows returns the rows of an insert: two events of each type and one more event, all
// of them r.copies times.
//
// There are two events of each type, and two documents, because the method count must
// notice a trigger that discards all events except the first one of each type or
// document. There must be several rows, because PostgREST doesn't roll back an insert
// of a single row. The number of events is odd, so that no trigger can discard exactly
// half of them. If the id isn't unique, the method count wouldn't notice that, because
// both copies of the other half would be inserted.
func (r *rehearsal) rows(types []EventType) (rows []map[string]any) {
	columns, at := &r.config.columns, time.Now().Add(-time.Second)
	for i := range 2*len(types) + 1 {
		row, t := map[string]any{}, types[i%len(types)]
		for _, name := range r.columns {
			switch {
			case name == columns.ID:
				row[name] = uuid.Must(uuid.NewV7()).String()
			case name == columns.Type:
				row[name] = t
			case name == columns.CreatedAt: // a unique key may contain the time, so it differs
				row[name] = at.Add(-time.Duration(i) * time.Millisecond).UTC().Format(timeFormat)
			case r.isFilled(name), slices.Contains(r.fillings[t], name):
				row[name] = r.value(name, i)
			case !slices.Contains(columns.Extra, name): // an empty column of Extra is left out
				row[name] = nil
			}
		}
		rows = append(rows, row)
	}
	return slices.Repeat(rows, r.copies)
}

// possibleFillings returns the sets of optional columns that tryType fills. These are
// the set without columns, the set of all columns, and two sets for each of the first
// maxVaried columns: only this column, and all columns except this one. The sets of all
// columns except one are for a CHECK constraint that requires several columns but
// forbids another.
func (r *rehearsal) possibleFillings() [][]string {
	optional := slices.DeleteFunc(slices.Clone(r.columns), func(name string) bool { return r.isGiven(name) || r.isFilled(name) })
	fillings := [][]string{nil, optional}
	for i := range min(len(optional), maxVaried) {
		fillings = append(fillings, optional[i:i+1], slices.Concat(optional[:i], optional[i+1:]))
	}
	return fillings
}

// errStored means that the server stored the rows. The finding that deleteStored adds
// matches errStored, so that Check doesn't store further rows in another attempt.
var errStored = errors.New("the server stored the rows of Check instead of rolling them back: find the proxy that removes the header Accept, or the trigger that discards all events except one")

var number = regexp.MustCompile(`\d+`)

// send sends one insert and makes PostgREST roll it back: the insert has several rows,
// but asks for a single object as the result. n is the number of rows that PostgreSQL
// inserted before the rollback. By then, triggers have run, and foreign keys are
// checked, except deferred ones.
//
// If the server refused the insert, refusal is its answer. If there was no answer, or
// only an answer that says nothing about the insert, such as status 503, err is the
// reason. If the server stored the rows, err is errStored.
func (r *rehearsal) send(ctx context.Context, rows []map[string]any) (n int, refusal *rest.Error, err error) {
	timeout, cancel := context.WithTimeout(ctx, r.config.requestTimeout)
	defer cancel()
	body, _ := json.Marshal(rows) // JSON has a form for every made-up value
	insertion := rest.Insertion{Columns: strings.Join(r.columns, ","), Rows: body, Accept: "application/vnd.pgrst.object+json"}
	if !r.lacksID() {
		insertion.Conflict = r.config.columns.conflict()
	}
	insertion.Partial = slices.ContainsFunc(rows, func(row map[string]any) bool { return len(row) < len(r.columns) })
	err = r.rest.Insert(timeout, insertion)
	refusal, answered := errors.AsType[*rest.Error](err)
	switch {
	case err == nil && len(rows) > 0:
		r.deleteStored(ctx, rows)
		return 0, nil, errStored
	case answered && refusal.Code == "PGRST116":
		n, err = strconv.Atoi(number.FindString(refusal.Details))
		return n, nil, err
	case answered && !isTemporary(refusal):
		return 0, refusal, nil
	}
	return 0, nil, r.explain(err)
}

// isTemporary reports whether the answer says nothing about the insert, for example
// because the server is overloaded.
func isTemporary(e *rest.Error) bool {
	// A trigger can raise any code, but its message isn't PostgreSQL's own, so package
	// rest replaces it by LeftOut.
	return slices.Contains([]rest.Verdict{rest.Transient, rest.TooMuch}, rest.Classify(e)) && e.Code != "23503" && e.Message != rest.LeftOut
}

// deleteStored deletes rows that the server stored, and adds a finding. It does so even
// if ctx has ended. It selects the rows by their ids, or by the made-up UUIDs of their
// documents. If the rows have neither, it deletes nothing, because it can't tell them
// from the app's rows.
func (r *rehearsal) deleteStored(ctx context.Context, rows []map[string]any) {
	key := r.config.columns.ID
	if r.lacksID() {
		key = r.config.columns.DocumentID
	}
	if r.lacksID() && rows[0][key] != r.documents[0] {
		r.findings = append(r.findings, fmt.Errorf("insert: %w. Check can't tell its rows from others, so delete them yourself: it inserted %d rows, the newest for the time %v", errStored, len(rows), rows[0][r.config.columns.CreatedAt]))
		return
	}
	var values []string
	for _, row := range rows {
		values = append(values, fmt.Sprint(row[key]))
	}
	r.findings = append(r.findings, fmt.Errorf("insert: %w. Check deletes the rows (the first one's %s is %s); if that fails, the next line has the reason", errStored, key, values[0]))
	r.remove(context.WithoutCancel(ctx), r.deletion().In(key, values))
}

// remove deletes the rows that the given filter selects, and adds a finding if the
// DELETE fails. It adds no finding if only the number of deleted rows is missing from
// the answer, because a proxy may have removed this number.
func (r *rehearsal) remove(ctx context.Context, filter *postgrest.FilterBuilder) {
	ctx, cancel := context.WithTimeout(ctx, r.config.requestTimeout)
	defer cancel()
	if _, err := r.deleted(ctx, filter); !errors.Is(err, ErrCountIncomplete) {
		r.add("delete", err)
	}
}
