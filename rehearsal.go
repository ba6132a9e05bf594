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

// maxVaried limits the number of inserts that Check sends for one event type. If the
// table rejects the type, Check fills up to maxVaried optional columns one by one, to
// find out which of them the type needs.
const maxVaried = 8

// A rehearsal tries inserts like those of Record and makes PostgREST roll them back.
// To do so, it inserts several rows but asks for a single object as the result.
// PostgREST runs the insert with its triggers and immediate foreign keys. Then it finds
// that the result has several rows, rolls back, and answers with the number of rows.
// The insert contains each event twice. If the id is unique, only one of the two
// becomes a row.
//
// If the server refuses the insert for a reason that concerns every event, the
// rehearsal adds a finding, a problem that Check returns. The next insert leaves out
// the column with the problem, or fills it, so that PostgreSQL gets to the next
// problem. These methods handle the result of an insert:
//
//	send -> rolled back -> count: is the id unique, does a trigger discard rows?
//	     -> refused -> learn -> fills, adds or leaves out a column        -> send again
//	                         -> narrow: leaves out event types            -> send again
//	                         -> the error depends on the app's own values -> end
type rehearsal struct {
	*Client
	about    definition
	columns  []string // the columns of the insert
	types    []EventType
	document string                 // the document's id: a made-up UUID
	values   map[string]any         // made-up values, by column
	filled   []string               // the columns that every row fills with the made-up value
	guessed  bool                   // the table may reject the made-up value of a column in filled, or the made-up type
	fills    map[EventType][]string // further columns that an event of the type fills; nil until narrow runs
	copies   int                    // how often each event is sent: 2, or 1 if the id is UNIQUE but not the primary key
	noID     bool                   // there is a finding about the id column
	refused  bool                   // an insert failed, and no other insert can help: no DELETE is tried
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

// makeUp sets r.values[name], the value that rows contain if they fill the column.
// For an enum, a UUID, a time, an address or an array, makeUp chooses a value that
// fits the type. For every other type, or if the type is unknown, the value is
// sample, cut to the column's length.
func (r *rehearsal) makeUp(name, sample string) {
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
		r.values[name] = sample[:min(len(sample), cmp.Or(max(about.MaxLength, 0), len(sample)))]
	}
}

// rows returns the rows of an insert: at least three events, at least one of each type,
// and then a copy of each event. The number of rows that PostgreSQL inserts shows
// whether the id is unique. So the number of events is odd: if it were an even n, and a
// trigger discarded half of the events, n of the 2n rows would be left even if the id
// isn't unique.
func (r *rehearsal) rows() (rows []map[string]any) {
	for _, t := range r.types {
		rows = append(rows, r.row(t, r.fills[t]))
	}
	for len(rows) < 3 || len(rows)%2 == 0 {
		rows = append(rows, r.row(r.types[0], r.fills[r.types[0]]))
	}
	return slices.Repeat(rows, r.copies)
}

// row returns an event of type t as a row, with a new id and time. The columns in
// r.filled and optional get their made-up values. For the other columns the event has
// no values: columns for fields of Event are NULL, and columns of Extra are left out.
func (r *rehearsal) row(t EventType, optional []string) map[string]any {
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
		case slices.Contains(r.filled, name) || slices.Contains(optional, name):
			row[name] = r.values[name]
		case !slices.Contains(columns.Extra, name):
			row[name] = nil
		}
	}
	return row
}

// fillings returns the fillings that narrow tries. A filling is the set of optional
// columns that an insert fills: no column, each column alone, all columns except one, or
// all columns, which comes last. All columns except one are needed if a CHECK requires
// several columns but forbids another.
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

	// errStored means that the server stored the rows instead of rolling back.
	// deleteStored has then tried to delete the rows and has added a finding.
	errStored = errors.New("stored")
)

// send sends one insert. If the server rolled it back, n is the number of rows that
// PostgreSQL had inserted, and err is nil. If the server stored the rows, err is
// errStored. If the insert failed, err is the server's error, or the reason why no
// answer arrived.
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
		r.deleteStored(ctx, rows)
		return 0, errStored
	case answered && e.Code == "PGRST116":
		return strconv.Atoi(number.FindString(e.Details))
	case err == nil || answered:
		return 0, err
	}
	return 0, r.explain(err)
}

// deleteStored deletes rows that the server stored instead of rolling back, and adds a
// finding. It selects the rows by their ids. But if there is a finding about the id
// column, the inserts leave that column out, so deleteStored selects the rows by the id
// of their document, which the rehearsal made up.
func (r *rehearsal) deleteStored(ctx context.Context, rows []map[string]any) {
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

// remove sends a DELETE for the rows that filter selects, and adds a finding if the
// DELETE fails. If only the number of deleted rows is missing in the answer, remove
// adds no finding, because a proxy may have removed the number.
func (r *rehearsal) remove(ctx context.Context, filter *postgrest.FilterBuilder) {
	ctx, cancel := context.WithTimeout(ctx, r.config.requestTimeout)
	defer cancel()
	if _, err := r.deleted(ctx, filter); !errors.Is(err, ErrCountIncomplete) {
		r.add("delete", err)
	}
}
