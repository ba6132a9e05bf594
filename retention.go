package docevents

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/supabase-community/postgrest-go"
)

// ErrCountIncomplete is matched by the error of a purge that lost the answer to
// a part of it, whatever else the error matches: the count is a lower bound.
var ErrCountIncomplete = errors.New("count incomplete: an answer was lost, more rows may have been deleted")

const (
	beforeAll        = "-infinity"  // PostgreSQL's word for a time before every other
	maxPurgeDays     = 10_000 * 366 // keeps the arithmetic on dates within range; year 1 is nearer
	maxPurgeFailures = 10           // in a row: 40 to 80 s of waits
)

// PurgeOlderThan is PurgeBefore with a cutoff of so many times 24 hours before
// now. Less than one day is an error.
func (c *Client) PurgeOlderThan(ctx context.Context, days int) (int64, error) {
	if c.isNone() {
		return 0, nil
	}
	now := time.Now().UTC() // where a day has 24 hours
	if days < 1 || days > maxPurgeDays || now.AddDate(0, 0, -days).Year() < 1 {
		return 0, errors.New("docevents: PurgeOlderThan: days must be at least 1, and lead to a date after the year 0")
	}
	return c.PurgeBefore(ctx, now.AddDate(0, 0, -days))
}

// PurgeBefore deletes the rows whose created_at is before cutoff, and returns
// how many. A row at the cutoff stays. A zero cutoff is an error, so is one in
// the future: the one would do nothing, the other empty the table.
//
// It is one DELETE that returns the ids; WithPurgeBatch makes it go in steps,
// in flat memory, and so does a timeout of that DELETE. What may pass is waited
// out, with a line in the log. What ends the purge: a refusal that has stood for
// 5 s; ten timeouts in a row, the last of a single row; ten failures in a row
// (a minute or two) where ctx has no deadline. On an error, ctx's included, the
// count is of the rows deleted so far; where an answer was lost, it is a lower
// bound, and the error matches ErrCountIncomplete.
//
// Events may be recorded meanwhile, and several purges may run at once: each
// row is counted by the one that deleted it.
func (c *Client) PurgeBefore(ctx context.Context, cutoff time.Time) (int64, error) {
	if c.isNone() {
		return 0, nil
	}
	switch {
	case cutoff.IsZero():
		return 0, errors.New("docevents: PurgeBefore: the cutoff is zero: pass the time before which rows are old")
	case cutoff.After(time.Now()):
		return 0, errors.New("docevents: PurgeBefore: the cutoff is in the future: that would delete every row")
	case cutoff.UTC().Year() < 1 || cutoff.UTC().Year() > 9999: // far enough ahead, After overflows
		return 0, errors.New("docevents: PurgeBefore: the cutoff is outside the years 1 to 9999")
	}
	// Rows have whole microseconds, so the next one up says the same as cutoff.
	before := cutoff.Add(time.Microsecond - 1).UTC().Truncate(time.Microsecond).Format(timeFormat)
	p := purge{Client: c, before: before, after: beforeAll, whole: !c.config.purgeInSteps}
	p.size.rows, p.size.most = c.config.purgeBatch, c.config.purgeBatch
	err := p.run(ctx)
	switch {
	case err == nil && p.lost:
		err = ErrCountIncomplete
	case p.lost:
		err = fmt.Errorf("%w; %w", err, ErrCountIncomplete)
	case err == nil:
		return p.count, nil
	}
	return p.count, fmt.Errorf("docevents: PurgeBefore: %w", err)
}

// A purge is one call of PurgeBefore: one DELETE, or steps from the oldest rows
// on. A step that failed is not repeated: the next looks anew at what is left.
type purge struct {
	*Client
	before string
	whole  bool // the one DELETE is still to be tried
	size   stepSize
	count  int64
	lost   bool // an answer was: rows may have gone uncounted

	after    string    // where the last step ended
	boundary string    // where this one ends: the time of its last row
	tooMany  string    // a boundary whose step timed out
	oneTime  string    // the time whose rows go by their ids: they are more than a step takes
	lastID   string    // up to which they went
	failures int       // in a row
	refused  time.Time // the first of them where all since were of configuration, else zero
}

func (p *purge) run(ctx context.Context) (err error) {
	_, bounded := ctx.Deadline()
	for done := false; ctx.Err() == nil; {
		if done, err = p.step(ctx); err == nil && done {
			return nil
		}
		if err == nil {
			p.size.succeeded()
			p.refused = time.Time{}
			continue
		}
		if ctx.Err() != nil {
			break
		}
		again, fewer := p.failed(err, time.Now(), bounded)
		if fewer && !p.whole {
			err = fmt.Errorf("a step of %d rows: %w; is there an index on %s, as in sql/013_create_processing_events_table.sql, or a lock on the table?", p.size.rows, err, p.config.columns.CreatedAt)
			p.size.timedOut()
			p.tooMany = p.boundary
		}
		if !again {
			return err
		}
		p.whole = p.whole && !fewer
		p.report.fault(logPurge, err, time.Now())
		select {
		case <-time.After(backoff(p.failures-1, longWait, err)):
		case <-ctx.Done():
		}
	}
	if err == nil || errors.Is(err, ctx.Err()) {
		return cmp.Or(err, ctx.Err())
	}
	return fmt.Errorf("%w, after: %w", ctx.Err(), err)
}

// step deletes the oldest rows, and says whether they were the last. It reads
// the time of its last row and deletes up to and with it. It begins behind the
// last step, so that the dead index entries there are not walked again: on a
// million rows that is half the time.
func (p *purge) step(ctx context.Context) (done bool, err error) {
	if p.whole {
		return true, p.counted(p.deleteIDs(ctx, p.before))
	}
	if p.oneTime != "" {
		if found, err := p.stepByID(ctx); found || err != nil {
			return false, err
		}
		p.oneTime, p.tooMany, p.lastID = "", "", ""
	}
	at := p.config.columns.CreatedAt
	p.boundary, err = p.readNth(ctx, at, p.from().Select(at, "", false).Gt(at, p.after).Lt(at, p.before))
	switch {
	case err != nil:
		return false, err
	case p.boundary == "": // fewer than a step are left, and what was written late with an old time
		p.after = beforeAll
		return true, p.counted(p.deleted(ctx, p.deletion().Lt(at, p.before)))
	case p.boundary == p.tooMany: // with half the rows, too: all these are of that time
		p.oneTime = p.boundary
		return p.step(ctx)
	}
	if err = p.counted(p.deleted(ctx, p.deletion().Lte(at, p.boundary).Gt(at, p.after))); err == nil {
		p.after = p.boundary
	}
	return false, err
}

// stepByID deletes the oldest rows of one time: up to and with an id, and again
// behind the last step. It finds none where fewer than a step are left.
func (p *purge) stepByID(ctx context.Context) (found bool, err error) {
	column := p.config.columns.ID
	left := func(query *postgrest.FilterBuilder) *postgrest.FilterBuilder {
		if p.lastID != "" {
			query.And(column+".gt."+p.lastID, "")
		}
		return query.Eq(p.config.columns.CreatedAt, p.oneTime)
	}
	id, err := p.readNth(ctx, column, left(p.from().Select(column, "", false)))
	if err != nil || id == "" {
		return false, err
	}
	if err = p.counted(p.deleted(ctx, left(p.deletion().Lte(column, id)))); err == nil {
		p.lastID = id
	}
	return true, err
}

// counted keeps what a DELETE has returned. It takes rows that went to end a row
// of failures: where a trigger keeps them, steps succeed for ever.
func (p *purge) counted(n int64, err error) error {
	p.count += n
	switch incomplete := errors.Is(err, ErrCountIncomplete); {
	case incomplete || n > 0:
		p.failures = 0
		p.lost = p.lost || incomplete
		return nil
	case outcomeUnknown(err):
		p.lost = true
		return fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
	}
	return err
}

// failed says whether another step follows a failure, and whether of fewer rows;
// bounded is a purge that a deadline ends. A foreign key's refusal is for good:
// a row that points to one of these stays.
func (p *purge) failed(err error, now time.Time, bounded bool) (again, fewer bool) {
	p.failures++
	since := cmp.Or(p.refused, now)
	p.refused = time.Time{}
	verdict := classify(err)
	e, ok := errors.AsType[*Error](err)
	switch {
	case ok && e.Code == "57014": // 20 halvings lead to a single row from the most that a step may be
		return p.failures < maxPurgeFailures || p.size.rows > 1 && p.failures < 2*maxPurgeFailures, true
	case verdict == configuration:
		p.refused = since
		return now.Sub(since) < lastingAfter, false
	case verdict != transient || ok && e.Code == "23503":
		return false, false
	}
	// A gateway that didn't wait for the one DELETE won't the next time.
	return bounded || p.failures < maxPurgeFailures, p.whole && ok && e.Status == http.StatusGatewayTimeout && e.Code == ""
}

// A stepSize is how many rows a step takes: half after a timeout, twice as many
// after a success. A size that has only timed out is tried again after twice as
// many successes each time: a try may cost the whole statement timeout.
type stepSize struct {
	rows, most int
	successes  int // at this size
	limit      int // a size that has timed out before it had a success; 0: none
	patience   int // so many successes are not enough to try it again
}

func (s *stepSize) succeeded() {
	s.successes++
	if s.rows >= s.limit {
		s.limit = 0
	}
	if next := min(2*s.rows, s.most); next > s.rows && (s.limit == 0 || next < s.limit || s.successes > s.patience) {
		s.rows, s.successes = next, 0
	}
}

func (s *stepSize) timedOut() {
	if s.rows == s.limit {
		s.patience = 2*s.patience + 1
	} else if s.successes == 0 {
		s.limit, s.patience = s.rows, 0
	}
	s.rows, s.successes = max(s.rows/2, 1), 0
}

// deleteIDs deletes every row before a time and counts the ids returned: whole
// rows would be six times as much to send.
func (c *Client) deleteIDs(ctx context.Context, before string) (int64, error) {
	query := c.from()
	query.Select(c.config.columns.ID, "", false) // Delete on the same builder keeps it
	body, _, err := query.Delete("representation", "").Lt(c.config.columns.CreatedAt, before).ExecuteWithContext(ctx)
	if err != nil {
		return 0, c.explain(err)
	}
	var ids []struct{}
	if json.Unmarshal(body, &ids) != nil || ids == nil {
		return 0, ErrCountIncomplete // see RoundTrip, too
	}
	return int64(len(ids)), nil
}

// readNth returns the column of a step's last row, of those that match, in its
// order, "" where they are fewer.
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
	return strings.Trim(string(rows[0][column]), `"`), nil // a time, or an id: of a table of one's own a number, maybe
}

// deletion is a DELETE whose rows the server counts. Never give it a limit:
// PostgREST ignores it since version 13 and deletes all that matches.
func (c *Client) deletion() *postgrest.FilterBuilder { return c.from().Delete("minimal", "exact") }

// deleted returns the count.
func (c *Client) deleted(ctx context.Context, query *postgrest.FilterBuilder) (int64, error) {
	_, count, err := query.ExecuteWithContext(ctx)
	return count, c.explain(err)
}
