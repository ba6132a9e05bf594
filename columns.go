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

// Columns says how the table's columns differ from those of
// sql/013_create_processing_events_table.sql: "" is the migration's name, "-"
// says that the table has none. An event that fills a field without a column is
// dropped as Invalid; one that leaves it empty is fine.
//
// A name is 1 to 63 letters, digits and underscores, the first no digit:
// PostgreSQL takes more, but it becomes a part of the URL. Nor can it be a word
// that PostgREST keeps for itself there, such as order.
type Columns struct {
	// ID is a uuid column, by which an event is stored once. One of another
	// name than the migration's need not be the table's primary key, but it
	// must be UNIQUE, and better NOT NULL. It can't be "-".
	ID string

	DocumentID, UserID, Type string

	Duration string // of whole milliseconds

	ErrorMessage, Stage string

	// CreatedAt is what a purge goes by. It can't be "-".
	CreatedAt string

	// TextIDs sends document and user ids as they are, each 1 to 1,024 bytes of
	// valid text, for columns of any type that PostgreSQL reads from text: text,
	// bigint, uuid. By default they must be UUIDs.
	TextIDs bool

	// Extra names further columns, at most 50, for the values of [Event].Extra.
	// They may have any name that no column above has.
	Extra []string
}

const (
	noColumn        = row.None
	maxExtraColumns = 50
)

// base are the fields of Event that Columns renames, and the migration's names,
// in the order of names.
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

func (c *Columns) names() [row.Fields]*string {
	return [...]*string{&c.ID, &c.DocumentID, &c.UserID, &c.Type, &c.Duration, &c.ErrorMessage, &c.Stage, &c.CreatedAt}
}

// columns are the table's, by their real names or noColumn, and what requests
// need of them.
type columns struct {
	Columns
	own  bool   // WithColumns was given: empty ids are NULL
	all  string // their names
	rows row.Columns
}

var (
	columnFormat = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,62}$`)
	queryWords   = []string{"and", "columns", "limit", "offset", "on_conflict", "or", "order", "select"} // PostgREST's
)

// newColumns gives what is left out its name, and reports everything that is
// wrong.
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
			bad = append(bad, fmt.Errorf("WithColumns: %s can't be \"-\": an event is stored once by the one, and purged by the other", base[i].field))
		}
		if slices.Contains(queryWords, *name) {
			bad = append(bad, fmt.Errorf("WithColumns: %s can't be %q: PostgREST keeps that word for itself", base[i].field, *name))
		}
	}
	c.rows = row.NewColumns(names, c.Extra)
	all = append(all, c.Extra...)
	for i, name := range all {
		switch {
		case !columnFormat.MatchString(name):
			bad = append(bad, fmt.Errorf("WithColumns: %.70q is no name here: it must be 1 to 63 letters, digits and underscores, the first no digit", name))
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

// conflict returns the column that makes an event unique, or "" for the primary key,
// which PostgREST takes by default.
func (c *columns) conflict() string {
	if c.ID == base[0].column {
		return ""
	}
	return c.ID
}

// isNull reports whether an id is stored as NULL, or not at all, in that column.
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

// idError says what is wrong with a document's or a user's id, and what to pass
// instead. field is its name in Event.
func (c *columns) idError(field, id string) error {
	kind := "UUID"
	if c.TextIDs {
		kind = "id"
	}
	pass := "the document's " + kind
	switch {
	case field == "UserID" && c.own:
		pass = "the owner's " + kind + ", or leave it empty for NULL"
	case field == "UserID":
		pass = "the owner's " + kind + ", or docevents.SystemUser if no user caused the event"
	}
	switch {
	case id == "":
		return fmt.Errorf("%s is empty: pass %s; WithColumns stores an empty one as NULL", field, pass)
	case c.TextIDs:
		return fmt.Errorf("%s is %w: pass %s", field, errNoText, pass)
	}
	return fmt.Errorf("%s is not a UUID: pass %s; if the column is text or a number, use WithColumns(Columns{TextIDs: true})", field, pass)
}

// lacks returns the field that e fills and that has no column, if there is one.
func (c *columns) lacks(e *Event) string {
	filled := [...]bool{false, e.DocumentID != "", e.UserID != "", e.Type != "", e.Duration != 0, e.ErrorMessage != "", e.Stage != "", false}
	for i, name := range c.names() {
		if *name == noColumn && filled[i] {
			return base[i].field
		}
	}
	return ""
}

// Columns returns the table's columns by their real names, "-" for those that it
// lacks. Those of a nil Client are all "".
func (c *Client) Columns() Columns {
	if c.isNone() {
		return Columns{}
	}
	named := c.config.columns.Columns
	named.Extra = slices.Clone(named.Extra)
	return named
}
