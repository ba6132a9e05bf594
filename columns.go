package docevents

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/docevents/docevents-go/internal/row"
)

// Columns maps the fields of [Event] to the columns of the table. For each field,
// "" stands for the name in sql/013_create_processing_events_table.sql, and "-"
// means that the table has no such column. An event that sets a field without a
// column is dropped with reason [Invalid].
//
// A name has 1 to 63 letters, digits and underscores and doesn't begin with a
// digit. PostgreSQL allows more, but the name becomes a part of the URL. For the
// fields above Extra, a name can't be a parameter of PostgREST's, such as order.
type Columns struct {
	// ID is a uuid column, by which the database recognizes an event that is sent
	// again. It must be UNIQUE and should be NOT NULL. A column named id should be
	// the primary key. ID can't be "-".
	ID string

	DocumentID, UserID, Type string

	Duration string // a number of whole milliseconds

	ErrorMessage, Stage string

	// CreatedAt is the time by which a purge selects rows. It can't be "-".
	CreatedAt string

	// TextIDs makes the client send document and user ids as text, each 1 to
	// 1,024 bytes of valid text. The columns may have any type that PostgreSQL
	// can parse from text, such as text, bigint or uuid. By default, ids must be
	// UUIDs.
	TextIDs bool

	// Extra names at most 50 further columns. [Event].Extra holds their values.
	Extra []string
}

const (
	noColumn        = row.None
	maxExtraColumns = 50
)

// base lists the fields of Event that Columns maps, and the migration's names for
// their columns.
var base = [row.Fields]struct{ field, column string }{
	{"ID", "id"},
	{"DocumentID", "document_id"},
	{"UserID", "user_id"},
	{"Type", "event_type"},
	{"Duration", "duration_ms"},
	{"ErrorMessage", "error_message"},
	{"Stage", "stage"},
	{"CreatedAt", "created_at"},
}

// names returns the names of the columns, in the order of base.
func (c *Columns) names() [row.Fields]*string {
	return [...]*string{&c.ID, &c.DocumentID, &c.UserID, &c.Type, &c.Duration, &c.ErrorMessage, &c.Stage, &c.CreatedAt}
}

// columns holds the table's columns, each with its real name or noColumn, and the
// parts of requests that are derived from them.
type columns struct {
	Columns
	own  bool   // WithColumns was given: empty ids are NULL
	all  string // the names of all columns of the table, separated by commas
	rows row.Columns
}

var (
	columnFormat = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,62}$`)
	queryWords   = []string{"and", "columns", "limit", "offset", "on_conflict", "or", "order", "select"} // PostgREST's parameters
)

// newColumns replaces empty names by the migration's names. Its error lists every
// invalid name.
func newColumns(named Columns) (columns, error) {
	c := columns{Columns: named}
	var all []string
	var bad []error
	var names [row.Fields]string
	for i, name := range c.names() {
		*name = cmp.Or(*name, base[i].column)
		names[i] = *name
		switch {
		case *name != noColumn:
			all = append(all, *name)
		case name == &c.ID || name == &c.CreatedAt:
			bad = append(bad, fmt.Errorf("WithColumns: %s can't be \"-\": events need an id to be stored once, and a time to be purged", base[i].field))
		}
		if slices.Contains(queryWords, *name) {
			bad = append(bad, fmt.Errorf("WithColumns: %s can't be %q: PostgREST has a parameter of that name", base[i].field, *name))
		}
	}
	c.rows = row.NewColumns(names, c.Extra)
	all = append(all, c.Extra...)
	for i, name := range all {
		switch {
		case !columnFormat.MatchString(name):
			bad = append(bad, fmt.Errorf("WithColumns: %.70q is not a valid name: it must have 1 to 63 letters, digits and underscores, and not begin with a digit", name))
		case slices.Contains(all[:i], name):
			bad = append(bad, fmt.Errorf("WithColumns: two columns are named %q", name))
		}
	}
	if len(c.Extra) > maxExtraColumns {
		bad = append(bad, fmt.Errorf("WithColumns: Extra must be at most %d names, not %d", maxExtraColumns, len(c.Extra)))
	}
	c.all = strings.Join(all, ",")
	return c, errors.Join(bad...)
}

// conflict returns the column for ON CONFLICT. For a column named id it returns "",
// and PostgREST uses the primary key: in a partitioned table, that is the id and
// the partition key.
func (c *columns) conflict() string {
	if c.ID == base[0].column {
		return ""
	}
	return c.ID
}

// isNull reports whether the id is stored as NULL in the column, or the table
// lacks the column.
func (c *columns) isNull(column, id string) bool { return column == noColumn || c.own && id == "" }

// storable reports whether s is 1 to limit bytes of text that PostgreSQL can
// store.
func storable(s string, limit int) bool {
	return s != "" && len(s) <= limit && row.IsText(s)
}

// checkTextID reports what is wrong with an id that is sent as text.
func checkTextID(id string) error {
	if !storable(id, maxIDBytes) {
		return errNoText
	}
	return nil
}

var errNoText = fmt.Errorf("not 1 to %d bytes of valid text", maxIDBytes)

// idError returns the error for an invalid id of a document or a user. field is
// the name of its field in Event.
func (c *columns) idError(field, id string) error {
	who, or := "document", ""
	switch {
	case field == "UserID" && c.own:
		who, or = "owner", ", or leave it empty for NULL"
	case field == "UserID":
		who, or = "owner", ", or docevents.SystemUser if no user caused the event"
	}
	switch {
	case id == "":
		return fmt.Errorf("%s is empty: pass the %s's UUID%s; WithColumns stores an empty one as NULL", field, who, or)
	case c.TextIDs:
		return fmt.Errorf("%s is %w: pass the %s's id%s", field, errNoText, who, or)
	}
	return fmt.Errorf("%s is not a UUID: pass the %s's UUID%s; if the column is text or a number, use WithColumns(Columns{TextIDs: true})", field, who, or)
}

// lacks returns the name of a field that e sets although it has no column, or "".
func (c *columns) lacks(e *Event) string {
	filled := [...]bool{false, e.DocumentID != "", e.UserID != "", e.Type != "", e.Duration != 0, e.ErrorMessage != "", e.Stage != "", false}
	for i, name := range c.names() {
		if *name == noColumn && filled[i] {
			return base[i].field
		}
	}
	return ""
}

// Columns returns the real names of the table's columns, and "-" for the columns
// that it lacks. On a nil Client it returns the zero Columns.
func (c *Client) Columns() Columns {
	if c.isNone() {
		return Columns{}
	}
	named := c.config.columns.Columns
	named.Extra = slices.Clone(named.Extra)
	return named
}
