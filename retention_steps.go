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
// A step reads the time of its last row, its boundary, and deletes the rows up
// to and including that time. It begins after the last step's boundary, because
// PostgreSQL would otherwise read the index entries of the deleted rows again:
// on a million rows that takes twice as long.
//
// If a step takes too long, and the next step has half the rows but the same
// boundary, then many rows have the time of that boundary. stepByID deletes
// those rows in the order of their ids.
type position struct {
	after    string // the boundary of the last step
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
	case next.boundary == "": // the last step, which also deletes rows with an old time that were stored during the purge
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

// stepByID deletes the rows at oneTime with the smallest ids. If fewer rows than
// a step are left, it deletes none and returns false: an ordinary step deletes
// them.
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

// counted adds the result of a DELETE to the count. Only a DELETE that deletes
// rows resets the number of failures. If a trigger keeps the rows, every step
// succeeds but deletes nothing.
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

// deleteIDs deletes every row before a time and counts the ids in the answer. An
// answer with all columns would be six times as large.
func (c *Client) deleteIDs(ctx context.Context, before string) (int64, error) {
	query := c.rest.From()
	query.Select(c.config.columns.ID, "", false) // Delete on the same builder keeps it
	body, _, err := query.Delete("representation", "").Lt(c.config.columns.CreatedAt, before).ExecuteWithContext(ctx)
	if err != nil {
		return 0, c.explain(err)
	}
	var ids []struct{}
	if json.Unmarshal(body, &ids) != nil || ids == nil {
		return 0, ErrCountIncomplete // as the transport of package rest does for an answer without a body
	}
	return int64(len(ids)), nil
}

// readNth returns the value of column in the last row of a step, among the rows
// of query in the order of column. It returns "" if there are fewer rows.
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

// deletion returns a DELETE without filters, for deleted. Never give it a limit:
// since version 13, PostgREST ignores the limit and deletes every matching row.
func (c *Client) deletion() *postgrest.FilterBuilder { return c.rest.From().Delete("minimal", "exact") }

// deleted sends the DELETE query and returns the number of deleted rows.
func (c *Client) deleted(ctx context.Context, query *postgrest.FilterBuilder) (int64, error) {
	_, count, err := query.ExecuteWithContext(ctx)
	return count, c.explain(err)
}
