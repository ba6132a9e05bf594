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

// A position is where the next step of a purge begins. A step deletes the oldest rows
// that are left, up to its boundary: the created_at of the last row to delete. The step
// begins at the boundary of the previous step. If every step began at beforeAll, a
// purge of a million rows would take twice as long, because PostgreSQL would read the
// index entries of deleted rows again.
//
// A step deletes all rows that have the boundary's time. If there are very many, the
// step may take too long, and a smaller step would have the same boundary. Then the
// purge calls stepByID, which deletes the rows with this time in several requests, in
// the order of their ids.
type position struct {
	after    string // the boundary of the last step that succeeded
	boundary string // the boundary of this step
	tooMany  string // the boundary of a step that took too long

	oneTime string // the time whose rows stepByID deletes, or ""
	lastID  string // the greatest id whose row stepByID has deleted, or ""
}

// step deletes the oldest rows and reports whether the purge is done.
func (p *purge) step(ctx context.Context) (done bool, err error) {
	if p.allAtOnce {
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

// stepByID deletes p.size.rows rows whose created_at is p.next.oneTime, beginning with
// the smallest id. If fewer than p.size.rows such rows are left, it deletes nothing and
// returns false, and the next ordinary step deletes the rest.
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

// counted handles the result of a DELETE: n is the number of deleted rows, and err is
// the error. If more than n rows may have been deleted, the method sets p.lost.
func (p *purge) counted(n int64, err error) error {
	p.count += n
	switch incomplete := errors.Is(err, ErrCountIncomplete); {
	case incomplete || n > 0: // not n == 0: if a trigger keeps rows, such DELETEs may alternate with timeouts without end
		p.failures = 0
		p.lost = p.lost || incomplete
		return nil
	case rest.OutcomeUnknown(err):
		p.lost = true
		return fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
	}
	return err
}

// A stepSize is the number of rows of the next step. It is halved after a step that
// takes too long, and doubled after one or more steps that succeed, up to maxRows.
//
// Each time that the first step after a doubling takes too long, the next doubling
// needs twice as many successes in a row as the last doubling. Otherwise a slow table
// would cost a statement timeout again and again.
type stepSize struct {
	rows, maxRows int
	successes     int  // in a row at this size
	grown         bool // no step of this size has run since it doubled
	patience      int  // the size doubles after more successes than this
}

func (s *stepSize) succeeded() {
	if s.grown {
		s.patience = 0
	}
	s.successes++
	s.grown = s.successes > s.patience && s.rows < s.maxRows
	if s.grown {
		s.rows, s.successes = min(2*s.rows, s.maxRows), 0
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

// deleteIDs deletes the rows whose created_at is before the given time, and returns
// their number. The server's answer contains only the ids of the rows. With all columns
// it would be six times as large.
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

// readNth finds the last row that a step of p.size.rows rows deletes. It sorts the
// query's rows by the given column, and returns this column's value in row number
// p.size.rows. If there are fewer rows, it returns "".
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

// deletion returns a DELETE without filters. The caller adds the filters, and sends the
// DELETE with the method "deleted". Never add a limit: PostgREST 13 and later ignore
// it, and delete every row that matches the filters.
func (c *Client) deletion() *postgrest.FilterBuilder { return c.rest.From().Delete("minimal", "exact") }

// deleted sends the DELETE query and returns the number of deleted rows.
func (c *Client) deleted(ctx context.Context, query *postgrest.FilterBuilder) (int64, error) {
	_, count, err := query.ExecuteWithContext(ctx)
	return count, c.explain(err)
}
