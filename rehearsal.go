package docevents

import (
	"cmp"
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

// maxVaried is the most columns that narrow tries one by one. It bounds the number of
// requests.
const maxVaried = 8

// A rehearsal sends the same insert as Record, but PostgREST rolls it back. To achieve
// that, the insert has several rows, and asks for a single object as the result.
// PostgREST runs the insert with its triggers and immediate foreign keys, sees that
// the result isn't a single object, rolls back, and answers with the number of rows.
// Each event is sent twice: if the id is unique, only one of the two becomes a row.
//
// If the server refuses the insert for a reason that concerns every event, that is a
// finding. The next insert leaves out the column in question, or fills it, so that
// PostgreSQL gets as far as the next problem:
//
//	send -> rolled back -> count: is the id unique, does a trigger discard rows?
//	     -> refused -> learn -> a column is filled, added or left out -> send
//	                         -> narrow: types are left out            -> send
//	                         -> it depends on the app's own values: the end
type rehearsal struct {
	*Client
	about    definition
	columns  []string // the columns of the insert
	types    []EventType
	document string                 // the document's id: a made-up UUID
	values   map[string]any         // made-up values, by column
	filled   []string               // the columns that every row fills with the made-up value
	guessed  bool                   // the table may reject a made-up value of these columns, or a made-up type
	fills    map[EventType][]string // further columns that an event of the type fills; nil before narrow
	copies   int                    // how often each event is sent: 2, or 1 if the id is UNIQUE but not the primary key
	noID     bool                   // there is a finding about the id column
	refused  bool                   // a DELETE isn't tried, since it would fail for the same reason as the insert
	at       time.Time              // the time of the last row
	required []string               // optional fields of Event whose column is NOT NULL
	findings []error
}

func newRehearsal(c *Client) *rehearsal {
	return &rehearsal{
		Client: c, types: c.config.types.listed, columns: strings.Split(c.config.columns.all, ","),
		document: uuid.NewString(), values: map[string]any{}, copies: 2, at: time.Now().Add(-time.Second),
	}
}

// makeUp chooses a value that fits the column's type. For all other types, or if the
// type is unknown, that is text, cut to the column's length.
func (r *rehearsal) makeUp(name, text string) {
	switch about := r.about.Properties[name]; {
	case len(about.Enum) > 0:
		r.values[name] = about.Enum[0]
	case about.Format == "uuid":
		r.values[name] = r.document
	case about.Format == "date", strings.HasPrefix(about.Format, "time"):
		r.values[name] = "2024-01-01T00:00:00Z"
	case about.Format == "inet", about.Format == "cidr":
		r.values[name] = "::1"
	case strings.HasSuffix(about.Format, "[]"):
		r.values[name] = []any{}
	default:
		r.values[name] = text[:min(len(text), cmp.Or(about.MaxLength, len(text)))]
	}
}

// rows returns at least three events, at least one of each type, and then their copies.
// The number of events is odd. If it were even, a trigger that discards half of the
// rows could hide that the id isn't unique: the rest would be as many as the events.
func (r *rehearsal) rows() (rows []map[string]any) {
	for _, t := range r.types {
		rows = append(rows, r.row(t, r.fills[t]))
	}
	for len(rows) < 3 || len(rows)%2 == 0 {
		rows = append(rows, r.row(r.types[0], r.fills[r.types[0]]))
	}
	return slices.Repeat(rows, r.copies)
}

// row returns an event of type t that fills the columns in r.filled and in fill. As in
// Record's rows, other columns of base are NULL, and other Extra columns are left out.
func (r *rehearsal) row(t EventType, fill []string) map[string]any {
	row, columns := map[string]any{}, &r.config.columns
	r.at = r.at.Add(-time.Millisecond) // a unique key may contain the time
	for _, name := range r.columns {
		switch {
		case name == columns.ID:
			row[name] = uuid.Must(uuid.NewV7()).String()
		case name == columns.Type:
			row[name] = t
		case name == columns.CreatedAt:
			row[name] = r.at.UTC().Format(timeFormat)
		case slices.Contains(r.filled, name) || slices.Contains(fill, name):
			row[name] = r.values[name]
		case !slices.Contains(columns.Extra, name):
			row[name] = nil
		}
	}
	return row
}

// fillings returns the sets of optional columns that narrow tries: the empty set, each
// column alone, all columns except one, and all columns. All except one are needed if
// some columns must be filled, and only one of two others may be.
func (r *rehearsal) fillings() (fillings [][]string) {
	optional := slices.DeleteFunc(slices.Clone(r.columns), func(name string) bool {
		return r.values[name] == nil || slices.Contains(r.filled, name)
	})
	fillings = append(fillings, nil)
	for i := range min(len(optional), maxVaried) {
		fillings = append(fillings, optional[i:i+1], slices.Concat(optional[:i], optional[i+1:]))
	}
	return append(fillings, optional)
}

var (
	number = regexp.MustCompile(`\d+`)

	// errStored means that the server stored the rows instead of rolling back. takeOut
	// has added a finding.
	errStored = errors.New("stored")
)

// send sends one insert and returns the number of rows that the server inserted and
// rolled back. Its error is errStored, an answer of the server, or the reason why none
// arrived.
func (r *rehearsal) send(ctx context.Context, rows []map[string]any) (n int, err error) {
	timeout, cancel := context.WithTimeout(ctx, r.config.requestTimeout)
	defer cancel()
	body, _ := json.Marshal(rows) // JSON has a form for every made-up value
	insertion := rest.Insertion{Columns: strings.Join(r.columns, ","), Rows: body, Accept: "application/vnd.pgrst.object+json"}
	if !r.noID {
		insertion.Conflict = r.config.columns.conflict()
	}
	insertion.Partial = slices.ContainsFunc(rows, func(row map[string]any) bool { return len(row) < len(r.columns) })
	err = r.rest.Insert(timeout, insertion)
	e, answered := errors.AsType[*rest.Error](err)
	switch {
	case err == nil && len(rows) > 0:
		r.takeOut(ctx, rows)
		return 0, errStored
	case answered && e.Code == "PGRST116":
		return strconv.Atoi(number.FindString(e.Details))
	case err == nil || answered:
		return 0, err
	}
	return 0, r.explain(err)
}

// takeOut deletes rows that the server stored instead of rolling back, and adds a
// finding. It selects the rows by their ids. If there is a finding about the id column,
// it selects them by the document.
func (r *rehearsal) takeOut(ctx context.Context, rows []map[string]any) {
	columns, ids := &r.config.columns, []string{}
	for _, row := range rows {
		ids = append(ids, fmt.Sprint(row[columns.ID]))
	}
	theirs := r.deletion().In(columns.ID, ids)
	if r.noID {
		theirs = r.deletion().Eq(columns.DocumentID, r.document)
	}
	r.find("", "the server stored the rows of Check instead of rolling them back: find the proxy that removes the header Accept. Check deletes the rows (document "+r.document+"); if that fails, the next line has the reason")
	r.remove(ctx, theirs)
}

// remove deletes rows and adds a finding if that fails. An answer without the number
// of deleted rows is fine, because a proxy may have removed it.
func (r *rehearsal) remove(ctx context.Context, rows *postgrest.FilterBuilder) {
	ctx, cancel := context.WithTimeout(ctx, r.config.requestTimeout)
	defer cancel()
	if _, err := r.deleted(ctx, rows); !errors.Is(err, ErrCountIncomplete) {
		r.add("delete", err)
	}
}
