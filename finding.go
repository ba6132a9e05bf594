package docevents

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What a finding needs further rehearsals for.
const (
	aboutType  = "a type is refused"
	aboutValue = "a value is refused"
)

var (
	quotedName = regexp.MustCompile(`[` + quotes + `]\pZ?([^` + quotes + `]+?)\pZ?[` + quotes + `]`)
	enumFormat = regexp.MustCompile(`(?i)` + enum)
	otherType  = regexp.MustCompile(`^22(001|003|007|008|P02)$`) // a value doesn't fit a column
	realRows   = regexp.MustCompile(`^(23|27|44|P0)...$`)
)

// quoted returns the names in a message of the table: the column's, if that is
// what it is about, and the last, which is a constraint's.
func (c *config) quoted(message string) (column, last string) {
	for _, m := range quotedName.FindAllStringSubmatch(message, -1) {
		if last = m[1]; column == "" || column == c.table { // some languages name the table first
			column = last
		}
	}
	return column, last
}

// finding says what a rehearsal's refusal means for events, and what to mend; ""
// where that is no other than for any request. well: they will be stored.
func (c *config) finding(e *Error) (finding string, well bool) {
	name, constraint := c.quoted(e.Message)
	constraint = "_" + strings.Trim(strings.TrimPrefix(constraint, c.table), "_") + "_"
	named := func(column string) bool { return strings.Contains(constraint, "_"+column+"_") }
	ofTypes := named(c.columns.Type) || // as far as the name of a CHECK tells
		!slices.ContainsFunc(append([]string{c.columns.Duration, c.columns.ErrorMessage, c.columns.Stage}, c.columns.Extra...), named)
	switch {
	case e.Code == "23502" && (name == c.columns.ID || name == c.columns.Stage || slices.Contains(c.columns.Extra, name)):
		return "", true // with the id all else was in order; the others are for real events to fill
	case e.Code == "23502" && (name == c.columns.Duration || name == c.columns.ErrorMessage):
		return fmt.Sprintf("the column %s takes no NULL, which events have there: run: ALTER TABLE %s ALTER COLUMN %s DROP NOT NULL", name, c.tableName(), sqlName(name)), false
	case e.Code == "23502":
		return fmt.Sprintf("the column %s takes no NULL, and nobody fills it: give it a DEFAULT or a BEFORE INSERT trigger, or name it in WithColumns' Extra and fill it with every event",
			cmp.Or(name, "of that domain")), false
	case e.Code == "23514" && classify(e) == configuration:
		return "no partition takes the events of now: make one for each time to come, or a DEFAULT one (sql/optional/partitioned.sql)", false
	case e.Code == "23514" && ofTypes, strings.HasPrefix(e.Code, "22") && enumFormat.MatchString(e.Message):
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
		return fmt.Sprintf("nothing makes the column %s unique: run: ALTER TABLE %s ADD UNIQUE (%s); on a partitioned table, which takes no such constraint, call the column id", c.columns.ID, c.tableName(), sqlName(c.columns.ID)), false
	}
	return "", false
}

// notUUID is the finding about the id, with the two ways out.
func (c *config) notUUID() string {
	return fmt.Sprintf("the column %s doesn't take the UUID by which an event is stored once (Supabase's Table Editor makes it a bigint): "+
		"give the table one that does, ALTER TABLE %s ADD COLUMN event_id uuid NOT NULL DEFAULT gen_random_uuid() UNIQUE, and say WithColumns(Columns{ID: \"event_id\"}); "+
		"or make %[1]s itself a uuid", c.columns.ID, c.tableName())
}

func (c *config) tableName() string { return sqlName(c.schema) + "." + sqlName(c.table) }

// sqlName is a name as SQL takes it: without quotes capitals would be lost.
func sqlName(name string) string {
	if name == strings.ToLower(name) {
		return name
	}
	return `"` + name + `"`
}

// narrow tells by rehearsals of less what one was refused for, a type or a value;
// "" where real events alone can tell.
func (c *Client) narrow(ctx context.Context, about string, bare record, types []EventType, first *Error) (string, error) {
	// The types that are refused whatever else an event of them has. Each is asked
	// for by itself: of several rows only the first that is refused is told of.
	var lacking []string
	for _, t := range types {
		err := c.ask(ctx, &bare, t)
		if about == aboutType && errors.As(err, new(*Error)) {
			end := bare
			end.duration, end.message = time.Millisecond, "check"
			err = c.ask(ctx, &end, t)
		}
		if err != nil && !errors.As(err, new(*Error)) {
			return "", fmt.Errorf("%w, after: %w", err, first)
		} else if err != nil {
			lacking = append(lacking, strconv.Quote(string(t)))
		}
	}
	or := ""
	switch all := len(lacking) == len(types); {
	case len(lacking) == 0:
		return "", nil
	case all && about == aboutType:
		or = "; or, if that is no CHECK of types, fill the column that it is about from Event.Extra"
	case all:
		if e, answered := errors.AsType[*Error](c.ask(ctx, &bare)); answered && e.Code == first.Code {
			return "a column is of another type than the migration's: say \"-\" for it in WithColumns, and name it in its Extra", nil
		}
		return c.config.notUUID(), nil
	}
	return fmt.Sprintf("the table takes no event of type %s: change its CHECK (sql/optional/event_types.sql) or enum, or name with WithEventTypes the types that it takes%s",
		strings.Join(lacking, ", "), or), nil
}
