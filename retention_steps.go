package docevents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/docevents/docevents-go/internal/rest"
	"github.com/supabase-community/postgrest-go"
)

// beforeAll is PostgreSQL's timestamp before all others.
const beforeAll = "-infinity"

// A position is where the next step of a purge begins.
//
// A step first reads the created_at of its last row. That time is the boundary of the
// step. Then it deletes the rows between the boundary of the step before and its own.
// Without the lower limit, PostgreSQL would read the index entries of all deleted
// rows again, and a purge of a million rows would take twice as long.
//
// Rows with the same time can't be in different steps. If a step takes too long, and
// the smaller step after it has the same boundary, then too many rows have that time.
// In that case stepByID deletes the rows of that time in the order of their ids.
type position struct {
	after    string // the boundary of the step before
	boundary string // the boundary of this step
	tooMany  string // the boundary of a step that took too long

	oneTime string // the time whose rows stepByID deletes, or ""
	lastID  string // the greatest id that stepByID has deleted, or ""
}

// step deletes the oldest rows and reports whether the purge is done.
func (p *purge) step(ctx context.Context) (done bool, err error) {
	if p.whole {
		return true, p.counted(p.deleteIDs(ctx, p.before))
	}
	if p.next.oneTime != "" {
		if found, err := p.stepByID(ctx); found || err != nil {
			return false, err
		}
		p.next = position{after: p.next.after}
	}
	at, next := p.config.columns.CreatedAt, &p.next
	next.boundary, err = p.readNth(ctx, at, p.rest.From().Select(at, "", false).Gt(at, next.after).Lt(at, p.before))
	switch {
	case err != nil:
		return false, err
	case next.boundary == "": // the last step; it also deletes rows that were stored during the purge with an old time
		next.after = beforeAll
		return true, p.counted(p.deleted(ctx, p.deletion().Lt(at, p.before)))
	case next.boundary == next.tooMany:
		next.oneTime = next.boundary
		return p.step(ctx)
	}
	if err = p.counted(p.deleted(ctx, p.deletion().Lte(at, next.boundary).Gt(at, next.after))); err == nil {
		next.after = next.boundary
	}
	return false, err
}

// stepByID deletes the rows of oneTime that have the smallest ids. If fewer rows than
// a full step have that time, stepByID deletes none of them and returns false. An
// ordinary step deletes these rows.
func (p *purge) stepByID(ctx context.Context) (found bool, err error) {
	column := p.config.columns.ID
	left := func(query *postgrest.FilterBuilder) *postgrest.FilterBuilder {
		if p.next.lastID != "" {
			query.And(column+".gt."+p.next.lastID, "")
		}
		return query.Eq(p.config.columns.CreatedAt, p.next.oneTime)
	}
	id, err := p.readNth(ctx, column, left(p.rest.From().Select(column, "", false)))
	if err != nil || id == "" {
		return false, err
	}
	if err = p.counted(p.deleted(ctx, left(p.deletion().Lte(column, id)))); err == nil {
		p.next.lastID = id
	}
	return true, err
}

// counted adds the n rows of a DELETE to the count. If n is 0, failures stays as it
// is: if a trigger keeps the rows, some steps succeed without progress, and timeouts
// between them must still end the purge.
func (p *purge) counted(n int64, err error) error {
	p.count += n
	switch incomplete := errors.Is(err, ErrCountIncomplete); {
	case incomplete || n > 0:
		p.failures = 0
		p.lost = p.lost || incomplete
		return nil
	case rest.OutcomeUnknown(err):
		p.lost = true
		return fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
	}
	return err
}

// A stepSize is the number of rows of a step. It halves after a step that takes
// too long, and doubles after a success. If the first step of a doubled size takes
// too long, the table may always be too slow for that size, and each try costs a
// statement timeout. So the size then doubles only after two successes in a row,
// the next time after four, and so on.
type stepSize struct {
	rows, most int
	successes  int  // in a row at this size
	grown      bool // no step of this size has run since it doubled
	patience   int  // the size doubles after more successes than this
}

func (s *stepSize) succeeded() {
	if s.grown {
		s.patience = 0
	}
	s.successes++
	s.grown = s.successes > s.patience && s.rows < s.most
	if s.grown {
		s.rows, s.successes = min(2*s.rows, s.most), 0
	}
}

func (s *stepSize) timedOut() {
	if s.grown {
		s.patience = 2*s.patience + 1
	} else {
		s.patience = 0
	}
	s.rows, s.successes, s.grown = max(s.rows/2, 1), 0, false
}

// deleteIDs deletes the rows before a time and counts the ids in the answer. If the
// answer had all columns, it would be six times as large.
func (c *Client) deleteIDs(ctx context.Context, before string) (int64, error) {
	query := c.rest.From()
	query.Select(c.config.columns.ID, "", false) // Delete on the same builder keeps it
	body, _, err := query.Delete("representation", "").Lt(c.config.columns.CreatedAt, before).ExecuteWithContext(ctx)
	if err != nil {
		return 0, c.explain(err)
	}
	var ids []struct{}
	if json.Unmarshal(body, &ids) != nil || ids == nil {
		return 0, ErrCountIncomplete // for an answer without a body, package rest returns this error
	}
	return int64(len(ids)), nil
}

// readNth sorts the rows of query by column, and returns column's value in the last
// row of a step. If the query has fewer rows than the step, readNth returns "".
func (p *purge) readNth(ctx context.Context, column string, query *postgrest.FilterBuilder) (string, error) {
	last := p.size.rows - 1
	body, _, err := query.Order(column, &postgrest.OrderOpts{Ascending: true}).Range(last, last, "").ExecuteWithContext(ctx)
	if err != nil {
		return "", p.explain(err)
	}
	var rows []map[string]json.RawMessage
	if err := json.Unmarshal(body, &rows); err != nil || len(rows) == 0 {
		return "", err
	}
	return strings.Trim(string(rows[0][column]), `"`), nil // a time or an id, which may be a number
}

// deletion returns a DELETE that has no filters yet. deleted sends it. Never add a
// limit: since version 13, PostgREST ignores it and deletes every row that matches.
func (c *Client) deletion() *postgrest.FilterBuilder { return c.rest.From().Delete("minimal", "exact") }

// deleted sends the DELETE query and returns the number of deleted rows.
func (c *Client) deleted(ctx context.Context, query *postgrest.FilterBuilder) (int64, error) {
	_, count, err := query.ExecuteWithContext(ctx)
	return count, c.explain(err)
}
