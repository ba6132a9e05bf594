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

// Columns lists the names of the table's columns. For example, UserID is the name of
// the column that stores Event.UserID. If a field is empty, its column has the same
// name as in sql/013_create_processing_events_table.sql. "-" means that the table has
// no such column. Then an event with a value for this column is dropped with reason
// [Invalid].
//
// A name has 1 to 63 letters, digits and underscores, and doesn't begin with a digit.
// The names of PostgREST's URL parameters, such as "order", are allowed only in Extra.
type Columns struct {
	// ID is the name of a uuid column for the event's id. The column must be UNIQUE, so
	// that the database ignores an event that is sent again. The column should also be
	// NOT NULL. ID can't be "-".
	//
	// If the name is "id", the column should be the primary key, because the database
	// then recognizes repeated events by the primary key.
	ID string

	DocumentID, UserID, Type string

	Duration string // a number of whole milliseconds

	ErrorMessage, Stage string

	// CreatedAt is the name of the column with the event's time, by which purges select
	// rows. CreatedAt can't be "-".
	CreatedAt string

	// If TextIDs is true, the ids of documents and users may be any valid text of 1 to
	// 1,024 bytes. Their columns may then be text, or have a type to which PostgreSQL
	// can convert text, such as bigint or uuid. If TextIDs is false, the ids must be
	// UUIDs.
	TextIDs bool

	// Extra lists the names of at most 50 further columns, for [Event].Extra.
	Extra []string
}

const (
	noColumn        = row.None
	maxExtraColumns = 50
)

// base lists the fields of Event that have a column, and the default names of the
// columns.
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

// columns holds the names of the columns after New has checked them. noColumn means
// that the table lacks the column.
type columns struct {
	Columns
	own  bool        // WithColumns was passed, so empty ids of documents and users are stored as NULL
	all  string      // the names of all these columns, including those in Extra, separated by commas
	rows row.Columns // the same names, in the form that package row needs
}

var (
	columnFormat = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,62}$`)
	queryWords   = []string{"and", "columns", "limit", "offset", "on_conflict", "or", "order", "select"} // PostgREST's parameters
)

// newColumns checks the names that the app passed to WithColumns, and fills in the
// defaults. Its error lists every invalid name.
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

// conflict returns the URL parameter on_conflict of an insert: the column by which the
// database recognizes events that it already has. If this column is called id, conflict
// returns "", and the database recognizes events by the primary key. Partitioned tables
// need this, because their primary key is the id together with the partition key.
func (c *columns) conflict() string {
	if c.ID == base[0].column {
		return ""
	}
	return c.ID
}

// isNull reports whether the id of an event's document or user isn't stored: the table
// has no column for the id, or the id is empty and the app passed WithColumns. The
// parameter column is the name of the id's column.
func (c *columns) isNull(column, id string) bool { return column == noColumn || c.own && id == "" }

// storable reports whether s isn't empty, has at most limit bytes, and is text that
// PostgreSQL can store.
func storable(s string, limit int) bool {
	return s != "" && len(s) <= limit && row.IsText(s)
}

func checkTextID(id string) error {
	if !storable(id, maxIDBytes) {
		return errNoText
	}
	return nil
}

var errNoText = fmt.Errorf("not 1 to %d bytes of valid text", maxIDBytes)

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

// lacks returns the name of a field that e sets although the table has no column for
// it. If there is no such field, lacks returns "".
func (c *columns) lacks(e *Event) string {
	filled := [...]bool{false, e.DocumentID != "", e.UserID != "", e.Type != "", e.Duration != 0, e.ErrorMessage != "", e.Stage != "", false}
	for i, name := range c.names() {
		if *name == noColumn && filled[i] {
			return base[i].field
		}
	}
	return ""
}

// Columns returns the names that the app passed to [WithColumns], with the default
// for each empty name. On a nil Client, it returns the zero Columns.
func (c *Client) Columns() Columns {
	if c.isNone() {
		return Columns{}
	}
	named := c.config.columns.Columns
	named.Extra = slices.Clone(named.Extra)
	return named
}
