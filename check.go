package docevents

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Check tells whether events will be stored and purges will work: meant for the
// start of a program. It rehearses with an insert that PostgreSQL refuses, whole,
// for its last row, whose id is NULL; what it is refused for tells what Record
// would meet. A finding is an error that says what to mend. What only real events
// decide is none: foreign keys, triggers that raise, unique constraints, columns
// of Extra and Stage that take no NULL. PostgreSQL logs the refusal, one line a
// call: null value in column "id".
//
// Where nothing makes the id unique the rows come in: Check deletes them again,
// and says so, save where WithColumns names a column for the id, UNIQUE as it
// must be, that takes NULL.
//
// An answer that may pass by itself, as when PostgREST reloads its schema, is
// asked for again, within ctx and for at most 5 s. Each answer may take as long
// as an insert's.
func (c *Client) Check(ctx context.Context) error {
	if c.isNone() {
		return nil
	}
	op, err := "insert", lasting(ctx, func() error { return c.rehearse(ctx) })
	if err == nil {
		op, err = "delete", lasting(ctx, func() error {
			ctx, cancel := context.WithTimeout(ctx, c.config.requestTimeout)
			defer cancel()
			_, err := c.deleted(ctx, c.deletion().Lt(c.config.columns.CreatedAt, beforeAll))
			return err
		})
	}
	switch {
	case err == nil, errors.Is(err, ErrCountIncomplete): // the latter only means that purges can't count
		return nil
	case !errors.As(err, new(*Error)) && !errors.Is(err, errNotUnique):
		return fmt.Errorf("docevents: Check: %s: check SUPABASE_URL and the network: no answer came: %w", op, err)
	}
	return fmt.Errorf("docevents: Check: %s: %w", op, err)
}

// lasting asks again while the answer is one of configuration, until that has
// stood for lastingAfter, and returns the last answer.
func lasting(ctx context.Context, ask func() error) error {
	began := time.Now()
	var last error
	for step := 0; ; step++ {
		err := ask()
		if last != nil && ctx.Err() != nil {
			return last
		}
		wait := backoff(step, err)
		end, ends := ctx.Deadline()
		if classify(err) != configuration || time.Since(began)+wait > lastingAfter || ends && time.Until(end) < wait {
			return err
		}
		last = err
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return err
		}
	}
}

// rehearse sends a rehearsal of every accepted type, and others where it takes
// them to tell what the first was refused for.
func (c *Client) rehearse(ctx context.Context) error {
	types := c.config.eventTypes
	if c.config.columns.Type == noColumn {
		types = nil
	}
	rows := c.rehearsal(types...)
	if len(types) == 0 { // the table decides: any will do
		rows = c.rehearsal(Completed)
	}
	err := c.ask(ctx, rows)
	e := (*Error)(nil)
	if !errors.As(err, &e) || e.Status == http.StatusUnauthorized { // a role that doesn't exist is 22023
		return err
	}
	finding, well := c.config.finding(e)
	switch {
	case well:
		return nil
	case finding == aboutType && len(types) == 0:
		return nil
	case finding == aboutType:
		if finding = c.refusedTypes(ctx, types); finding == "" {
			return err
		}
	case finding == aboutValue:
		again := (*Error)(nil)
		if errors.As(c.ask(ctx, c.rehearsal()), &again) && again.Code == e.Code {
			finding = "a column is of another type than the migration's: say \"-\" for it in WithColumns, and name it in its Extra"
		} else {
			finding = c.config.notUUID()
		}
	case finding == "":
		return err
	}
	return fmt.Errorf("%s: %w", finding, e)
}

// ask sends a rehearsal, and doesn't leave it in the table.
func (c *Client) ask(ctx context.Context, rows []record) error {
	if err := c.explain(c.insertRows(ctx, rows)); err != nil {
		return err
	}
	return c.takeOut(ctx, rows)
}

// rehearsal makes a row of each type and behind them the one that is refused.
// That one has values for what is NULL in the others, since PostgreSQL casts all
// values before it looks at any row.
func (c *Client) rehearsal(types ...EventType) []record {
	columns := &c.config.columns
	r := record{
		documentID: uuid.New(), createdAt: time.Now().UnixMicro(), partial: len(columns.Extra) > 0,
		noDocument: columns.DocumentID == noColumn, noUser: columns.UserID == noColumn,
	}
	var rows []record
	for _, r.eventType = range types {
		r.id = uuid.Must(uuid.NewV7())
		rows = append(rows, r)
	}
	if len(types) == 0 {
		r.eventType = Completed
	}
	r.id, r.duration, r.message = uuid.Nil, time.Millisecond, "check"
	return append(rows, r)
}

var errNotUnique = errors.New("the rows of Check are deleted again")

// takeOut deletes a rehearsal that came in, and says what that means.
func (c *Client) takeOut(ctx context.Context, rows []record) error {
	ctx, cancel := context.WithTimeout(ctx, c.config.requestTimeout)
	defer cancel()
	columns := &c.config.columns
	var ids []string
	for i := range rows[:len(rows)-1] {
		ids = append(ids, rows[i].id.String())
	}
	last := rows[len(rows)-1]
	var err error
	if len(ids) > 0 {
		_, err = c.deleted(ctx, c.deletion().In(columns.ID, ids))
	}
	if err == nil || errors.Is(err, ErrCountIncomplete) {
		rest := c.deletion().Eq(columns.CreatedAt, time.UnixMicro(last.createdAt).UTC().Format(timeFormat))
		if last.noDocument {
			rest.Is(columns.ID, "null")
		} else {
			rest.Eq(columns.DocumentID, last.documentID.String()) // whatever id a trigger gave it
		}
		_, err = c.deleted(ctx, rest)
	}
	switch {
	case err != nil && !errors.Is(err, ErrCountIncomplete):
		return fmt.Errorf("the table took the rows of Check, whose document is %s, and they couldn't be deleted again: %w", last.documentID, err)
	case columns.conflict: // which PostgREST refuses of a column that isn't unique
		return nil
	}
	return fmt.Errorf("nothing makes the column %s unique, so that an event sent again would be stored twice: run: ALTER TABLE %s ADD PRIMARY KEY (%s); %w",
		columns.ID, c.config.tableName(), columns.ID, errNotUnique)
}

// refusedTypes says which types the table doesn't take, each asked for alone: of
// the rows of one insert, only the first that is refused is told of.
func (c *Client) refusedTypes(ctx context.Context, types []EventType) string {
	var refused []string
	for _, t := range types {
		e := (*Error)(nil)
		if errors.As(c.ask(ctx, c.rehearsal(t)), &e) {
			if finding, _ := c.config.finding(e); finding == aboutType {
				refused = append(refused, fmt.Sprintf("%q", t))
			}
		}
	}
	if len(refused) == 0 {
		return ""
	}
	return fmt.Sprintf("the table takes no event of type %s: change its CHECK (sql/optional/event_types.sql) or enum, or name with WithEventTypes the types that it takes",
		strings.Join(refused, ", "))
}

// What a finding needs further rehearsals for.
const (
	aboutType  = "a type is refused"
	aboutValue = "a value is refused"
)

var (
	quotedName = regexp.MustCompile(`[` + quotes + `]\pZ?([^` + quotes + `]+?)\pZ?[` + quotes + `]`)
	enumFormat = regexp.MustCompile(`(?i)` + enum)
	realRows   = regexp.MustCompile(`^(23|27|44|P0)...$`)
)

// finding says what a rehearsal's refusal means for events, and what to mend; ""
// where that is no other than for any request. well: they will be stored.
func (c *config) finding(e *Error) (finding string, well bool) {
	name := ""
	for _, m := range quotedName.FindAllStringSubmatch(e.Message, 2) { // some languages name the table first
		if name == "" || name == c.table {
			name = m[1]
		}
	}
	switch {
	case e.Code == "23502":
		return c.notNull(name)
	case e.Code == "23514" && classify(e) == configuration:
		return "no partition takes the events of now: make one for each time to come, or a DEFAULT one (sql/optional/partitioned.sql)", false
	case e.Code == "23514":
		for _, column := range append([]string{c.columns.Duration, c.columns.ErrorMessage, c.columns.Stage}, c.columns.Extra...) {
			if strings.Contains(e.Message, "_"+column+"_check") { // as PostgreSQL names it
				return "", true
			}
		}
		return aboutType, false
	case strings.HasPrefix(e.Code, "22") && enumFormat.MatchString(e.Message):
		return aboutType, false
	case strings.HasPrefix(e.Code, "22"):
		return aboutValue, false
	case realRows.MatchString(e.Code):
		return "", true
	case e.Code == "428C9" && name == c.columns.ID:
		return c.notUUID(), false
	case e.Code == "428C9":
		return fmt.Sprintf(`the column %s is generated: say "-" for it in WithColumns, or make it an ordinary one`, name), false
	case e.Code == "42P10":
		return fmt.Sprintf("nothing makes the column %s unique: run: ALTER TABLE %s ADD UNIQUE (%[1]s)", c.columns.ID, c.tableName()), false
	}
	return "", false
}

// notNull is the finding about a column that takes no NULL.
func (c *config) notNull(column string) (finding string, well bool) {
	switch {
	case column == c.columns.ID: // all else was in order
		return "", true
	case column == c.columns.Stage || slices.Contains(c.columns.Extra, column):
		return "", true
	case column == c.columns.Duration || column == c.columns.ErrorMessage:
		return fmt.Sprintf("the column %s takes no NULL, which events have there: run: ALTER TABLE %s ALTER COLUMN %[1]s DROP NOT NULL", column, c.tableName()), false
	}
	return fmt.Sprintf("the column %s takes no NULL, and nobody fills it: give it a DEFAULT or a BEFORE INSERT trigger, or name it in WithColumns' Extra and fill it with every event", column), false
}

// notUUID is the finding about the id, with the two ways out.
func (c *config) notUUID() string {
	return fmt.Sprintf("the column %s doesn't take the UUID by which an event is stored once (Supabase's Table Editor makes it a bigint): "+
		"give the table one that does, ALTER TABLE %s ADD COLUMN event_id uuid NOT NULL DEFAULT gen_random_uuid() UNIQUE, and say WithColumns(Columns{ID: \"event_id\"}); "+
		"or make %[1]s itself a uuid", c.columns.ID, c.tableName())
}

func (c *config) tableName() string { return c.schema + "." + c.table }
