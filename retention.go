package docevents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/supabase-community/postgrest-go"
)

// ErrCountIncomplete is matched by the error of a purge that ran to its end
// but lost the answer to a part of it: the count is a lower bound.
var ErrCountIncomplete = errors.New("count incomplete: an answer was lost, more rows may have been deleted")

// maxPurgeDays keeps the arithmetic on dates within range; year 1 is nearer.
const maxPurgeDays = 10_000 * 366

// PurgeOlderThan is PurgeBefore with a cutoff of so many times 24 hours before
// now. Less than one day is an error.
func (c *Client) PurgeOlderThan(ctx context.Context, days int) (int64, error) {
	if c == nil {
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
// in flat memory, and so does a timeout of that DELETE. Failures that may pass
// are tried again within ctx; there is no other time limit. On an error, ctx's
// included, the count is of the rows deleted so far. Where the answer to a
// request was lost, the purge goes on to its end and returns a lower bound with
// ErrCountIncomplete.
//
// Events may be recorded meanwhile, and several purges may run at once: each
// row is counted by the one that deleted it.
func (c *Client) PurgeBefore(ctx context.Context, cutoff time.Time) (int64, error) {
	if c == nil {
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
	p := purge{Client: c, before: before, rows: c.config.purgeBatch}
	err := p.run(ctx)
	if p.lost && (err == nil || ctx.Err() != nil) {
		err = errors.Join(err, ErrCountIncomplete)
	}
	if err != nil {
		err = fmt.Errorf("docevents: PurgeBefore: %w", err)
	}
	return p.count, err
}

// A purge is one call of PurgeBefore.
type purge struct {
	*Client
	before string
	rows   int // of a step
	count  int64
	lost   bool // an answer was: rows may have gone uncounted
}

// beforeAll is PostgreSQL's word for a time before every other.
const beforeAll = "-infinity"

func (p *purge) run(ctx context.Context) error {
	if !p.config.purgeInSteps {
		err := p.retry(ctx, true, func() (int64, error) { return p.deleteIDs(ctx, p.before) })
		if !timedOut(err) {
			return err
		}
	}
	// Each step reads the time of its last row and deletes up to and with it.
	// It begins behind the last step, so that the dead index entries there are
	// not walked again: on a million rows that is half the time.
	after := beforeAll
	for {
		boundary := ""
		err := p.retry(ctx, false, func() (_ int64, err error) {
			boundary, err = p.readBoundary(ctx, after, p.before, p.rows)
			return 0, err
		})
		if err == nil {
			err = p.retry(ctx, true, func() (int64, error) {
				if boundary == "" { // fewer than a step are left, and what was written late with an old time
					return p.deleteCount(ctx, "lt", p.before, "")
				}
				return p.deleteCount(ctx, "lte", boundary, after)
			})
		}
		switch {
		case timedOut(err) && p.rows > 1:
			p.rows /= 2
			if boundary == "" {
				after = beforeAll
			}
		case err != nil || boundary == "":
			return err
		default:
			after = boundary
		}
	}
}

// retry sends a request until it succeeds or fails for good, and counts what
// it deleted. A timeout is for good: the same again would time out again. So is
// a foreign key's refusal: a row that points to one of these stays.
func (p *purge) retry(ctx context.Context, deletes bool, request func() (int64, error)) error {
	for step := 0; ; step++ {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		n, err := request()
		p.count += n
		p.lost = p.lost || deletes && outcomeUnknown(err)
		var e *Error
		switch {
		case err == nil, errors.Is(err, ErrCountIncomplete):
			return nil
		case timedOut(err), classify(err) != transient, errors.As(err, &e) && e.Code == "23503":
			return err
		}
		select {
		case <-time.After(backoff(step, err)):
		case <-ctx.Done():
		}
		if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
			return fmt.Errorf("%w, after: %w", ctx.Err(), err)
		}
	}
}

// timedOut says whether err is a statement timeout's, or a gateway's that didn't
// wait for the answer.
func timedOut(err error) bool {
	var e *Error
	return errors.As(err, &e) && (e.Code == "57014" || e.Status == http.StatusGatewayTimeout)
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

// readBoundary returns the created_at of the n-th row after one time and before
// another, "" where there are fewer.
func (c *Client) readBoundary(ctx context.Context, after, before string, n int) (string, error) {
	at := c.config.columns.CreatedAt
	body, _, err := c.from().Select(at, "", false).Gt(at, after).Lt(at, before).
		Order(at, &postgrest.OrderOpts{Ascending: true}).Range(n-1, n-1, "").ExecuteWithContext(ctx)
	if err != nil {
		return "", c.explain(err)
	}
	var rows []map[string]string
	if err := json.Unmarshal(body, &rows); err != nil || len(rows) == 0 {
		return "", err
	}
	return rows[0][at], nil
}

// deleteCount deletes the rows up to one time, as the operator says, and after
// another if there is one, and returns the server's count. Never give a DELETE
// a limit: PostgREST ignores it since version 13 and deletes all that matches.
func (c *Client) deleteCount(ctx context.Context, operator, to, after string) (int64, error) {
	query := c.from().Delete("minimal", "exact").Filter(c.config.columns.CreatedAt, operator, to)
	if after != "" {
		query.Gt(c.config.columns.CreatedAt, after)
	}
	_, count, err := query.ExecuteWithContext(ctx)
	return count, c.explain(err)
}
