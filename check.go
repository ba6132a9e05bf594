package docevents

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/supabase-community/postgrest-go"
)

// Check tells whether events will be stored and purges will work: meant for the
// start of a program. It rehearses with an insert that PostgreSQL refuses, whole,
// for its last row, whose id is NULL; what it is refused for tells what Record
// would meet. A finding is an error that says what to mend. What only real events
// decide is none: foreign keys, triggers that raise, unique constraints, columns
// of Extra and Stage that take no NULL. PostgreSQL logs its refusals: one line a
// call, null value in column "id", and one for each column of Extra or Stage that
// takes no NULL.
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
		wait := backoff(step, longWait, err)
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

// rehearse rehearses with every accepted type, and with others where it takes them
// to tell what the first was refused for.
func (c *Client) rehearse(ctx context.Context) error {
	columns, types := &c.config.columns, c.config.eventTypes
	if len(types) == 0 || columns.Type == noColumn { // the table decides: any will do
		types = []EventType{Completed}
	}
	bare := record{
		documentID: uuid.New(), createdAt: time.Now().UnixMicro(), partial: len(columns.Extra) > 0,
		noDocument: columns.DocumentID == noColumn, noUser: columns.UserID == noColumn,
	}
	err := c.ask(ctx, &bare, types...)
	e, answered := errors.AsType[*Error](err)
	if !answered {
		return err
	}
	finding, _ := c.config.finding(e)
	switch {
	case bare.extra != "" && strings.HasPrefix(e.Code, "22"), // what fill gave it
		finding == aboutType && len(c.config.eventTypes) == 0 && columns.Type != noColumn:
		return nil
	case finding == aboutType, finding == aboutValue:
		finding, err = c.narrow(ctx, finding, bare, types, e)
	}
	if finding == "" {
		return err
	}
	return fmt.Errorf("%s: %w", finding, e)
}

// ask rehearses with a row like r of each type, and behind them the one that is
// refused. That one has values for what is NULL in the others, since PostgreSQL
// casts all values before it looks at any row. nil: the table takes them.
func (c *Client) ask(ctx context.Context, r *record, types ...EventType) error {
	var rows []record
	var ids []string
	last := *r
	last.eventType = Completed
	for _, last.eventType = range types {
		last.id = uuid.Must(uuid.NewV7())
		rows, ids = append(rows, last), append(ids, last.id.String())
	}
	last.id, last.duration, last.message = uuid.Nil, time.Millisecond, "check"
	err := c.explain(c.insertRows(ctx, append(rows, last)))
	e, answered := errors.AsType[*Error](err)
	switch {
	case err == nil:
		return c.takeOut(ctx, ids, &last)
	case !answered:
		return err
	case c.config.fill(r, e):
		return c.ask(ctx, r, types...)
	}
	if _, well := c.config.finding(e); well {
		return nil
	}
	return err
}

// fill gives r a value in a column that takes no NULL and that real events may
// fill, of Extra or Stage, if e says that this is what it lacks: nothing else is
// told of until then.
func (c *config) fill(r *record, e *Error) bool {
	switch name, _ := c.quoted(e.Message); {
	case e.Code != "23502":
	case name == c.columns.Stage && r.stage == "":
		r.stage = "check"
		return true
	case slices.Contains(c.columns.Extra, name) && !strings.Contains(r.extra, `,"`+name+`":`):
		r.extra += `,"` + name + `":"` + r.documentID.String() + `"` // fits text, uuid and jsonb
		return true
	}
	return false
}

var errNotUnique = errors.New("the rows of Check are deleted again")

// takeOut deletes a rehearsal that came in, and says what that means.
func (c *Client) takeOut(ctx context.Context, ids []string, last *record) error {
	ctx, cancel := context.WithTimeout(ctx, c.config.requestTimeout)
	defer cancel()
	columns := &c.config.columns
	rest := c.deletion().Eq(columns.CreatedAt, time.UnixMicro(last.createdAt).UTC().Format(timeFormat))
	if last.noDocument {
		rest.Is(columns.ID, "null")
	} else {
		rest.Eq(columns.DocumentID, last.documentID.String()) // whatever id a trigger gave it
	}
	for _, query := range []*postgrest.FilterBuilder{c.deletion().In(columns.ID, ids), rest} {
		if _, err := c.deleted(ctx, query); err != nil && !errors.Is(err, ErrCountIncomplete) {
			return fmt.Errorf("the table took the rows of Check, whose document is %s, and they couldn't be deleted again: %w", last.documentID, err)
		}
	}
	if columns.ID != base[0].column { // then on_conflict names it, which is refused of a column that isn't unique
		return nil
	}
	return fmt.Errorf("nothing makes the column %s unique, so that an event sent again would be stored twice: run: ALTER TABLE %s ADD PRIMARY KEY (%s); or else a trigger fills it where it is NULL: let a DEFAULT do that; %w",
		columns.ID, c.config.tableName(), sqlName(columns.ID), errNotUnique)
}
