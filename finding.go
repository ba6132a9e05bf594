package docevents

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// What a finding needs further rehearsals for.
const (
	aboutType  = "a type is refused"
	aboutValue = "a value is refused"
)

var (
	quotedName = regexp.MustCompile(`["']([^"']+)["']`)
	otherType  = regexp.MustCompile(`^22(001|003|007|008|P02)$`) // a value doesn't fit a column
	realRows   = regexp.MustCompile(`^(23|27|44|P0)...$`)
)

func firstQuoted(message string) string {
	if m := quotedName.FindStringSubmatch(message); m != nil {
		return m[1]
	}
	return ""
}

// finding says what a rehearsal's refusal means for events, and what to mend; ""
// where that is no other than for any request. well: they will be stored.
func (c *config) finding(e *Error) (finding string, well bool) {
	name := firstQuoted(e.Message)
	switch {
	case e.Code == "23502":
		return c.notNull(name)
	case e.Code == "23514" && strings.Contains(e.Message, "no partition"):
		return "no partition takes the events of now: make one for each time to come, or a DEFAULT one (sql/optional/partitioned.sql)", false
	case e.Code == "23514" && c.aboutType(e.Message), strings.HasPrefix(e.Code, "22") && strings.Contains(e.Message, "enum"):
		return aboutType, false
	case otherType.MatchString(e.Code):
		return aboutValue, false
	case realRows.MatchString(e.Code):
		return "", true
	case e.Code == "428C9" && name == c.columns.ID:
		return c.notUUID(), false
	case e.Code == "428C9":
		return fmt.Sprintf(`the column %s is generated: say "-" for it in WithColumns, or make it an ordinary one`, name), false
	case e.Code == "42P10":
		return fmt.Sprintf("nothing makes the column %s unique: run: ALTER TABLE %s ADD UNIQUE (%s)", c.columns.ID, c.tableName(), sqlName(c.columns.ID)), false
	}
	return "", false
}

// aboutType says whether a CHECK is about the type, as far as its name, the
// message's last word, doesn't tell of a column that only real events fill.
func (c *config) aboutType(message string) bool {
	words := strings.Split(message, `"`)
	constraint := strings.TrimPrefix(words[max(0, len(words)-2)], c.table)
	about := ""
	for _, column := range append([]string{c.columns.Type, c.columns.Duration, c.columns.ErrorMessage, c.columns.Stage}, c.columns.Extra...) {
		if len(column) > len(about) && strings.Contains(constraint, column) {
			about = column
		}
	}
	return about == "" || about == c.columns.Type
}

// notNull is the finding about a column that takes no NULL.
func (c *config) notNull(column string) (finding string, well bool) {
	const (
		nobody = "takes no NULL, and nobody fills it: give it a DEFAULT or a BEFORE INSERT trigger, or name it in WithColumns' Extra and fill it with every event"
		domain = "a column of that domain " + nobody + "; where events do fill it, say NOT NULL of the column instead"
	)
	switch {
	case column == "":
		return domain, false
	case column == c.columns.ID: // all else was in order
		return "", true
	case column == c.columns.Stage || slices.Contains(c.columns.Extra, column):
		return "", true
	case column == c.columns.Duration || column == c.columns.ErrorMessage:
		return fmt.Sprintf("the column %s takes no NULL, which events have there: run: ALTER TABLE %s ALTER COLUMN %s DROP NOT NULL", column, c.tableName(), sqlName(column)), false
	}
	return "the column " + column + " " + nobody, false
}

// notUUID is the finding about the id, with the two ways out.
func (c *config) notUUID() string {
	return fmt.Sprintf("the column %s doesn't take the UUID by which an event is stored once (Supabase's Table Editor makes it a bigint): "+
		"give the table one that does, ALTER TABLE %s ADD COLUMN event_id uuid NOT NULL DEFAULT gen_random_uuid() UNIQUE, and say WithColumns(Columns{ID: \"event_id\"}); "+
		"or make %[1]s itself a uuid", c.columns.ID, c.tableName())
}

func (c *config) tableName() string { return sqlName(c.schema) + "." + sqlName(c.table) }

var foldedName = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)

// sqlName is a name as SQL takes it: without quotes capitals would be lost.
func sqlName(name string) string {
	if foldedName.MatchString(name) {
		return name
	}
	return `"` + name + `"`
}

// narrow tells what a rehearsal was refused for, a type or a value, by rehearsals
// of less; "" where real events alone can tell.
func (c *Client) narrow(ctx context.Context, about string, bare record, types []EventType, code string) (finding string, err error) {
	lacking, err := c.lacking(ctx, bare, types)
	switch all := len(lacking) == len(types); {
	case err != nil, len(lacking) == 0: // each is taken by itself, with a message or without
		return "", err
	case about == aboutType && c.config.columns.Type == noColumn:
		return "the table takes no event: fill the column that its CHECK is about from Event.Extra", nil
	case about == aboutType && all:
		finding = "; or, if that is no CHECK of types, fill the column that it is about from Event.Extra"
	case all:
		if e, answered := errors.AsType[*Error](c.ask(ctx, rehearsal(bare))); answered && e.Code == code {
			return "a column is of another type than the migration's: say \"-\" for it in WithColumns, and name it in its Extra", nil
		}
		return c.config.notUUID(), nil
	}
	return fmt.Sprintf("the table takes no event of type %s: change its CHECK (sql/optional/event_types.sql) or enum, or name with WithEventTypes the types that it takes%s",
		strings.Join(lacking, ", "), finding), nil
}

// lacking returns the types, quoted, that the table refuses whatever else an event
// of them has. Each is asked for alone: of the rows of one insert, only the first
// that is refused is told of.
func (c *Client) lacking(ctx context.Context, bare record, types []EventType) (lacking []string, err error) {
	for _, t := range types {
		taken := false
		for _, r := range []record{bare, bare.full()} {
			err := c.ask(ctx, rehearsal(r, t))
			e, answered := errors.AsType[*Error](err)
			if !answered {
				return nil, err
			}
			_, well := c.config.finding(e)
			taken = taken || well
		}
		if !taken {
			lacking = append(lacking, strconv.Quote(string(t)))
		}
	}
	return lacking, nil
}
