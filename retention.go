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
	case cutoff.UTC().Year() < 1:
		return 0, errors.New("docevents: PurgeBefore: the cutoff is before the year 1")
	}
	p := purge{client: c, before: purgeTime(cutoff), rows: c.config.purgeBatch}
	err := p.run(ctx)
	if p.lost && (err == nil || ctx.Err() != nil) {
		err = errors.Join(err, ErrCountIncomplete)
	}
	if err != nil {
		return p.count, fmt.Errorf("docevents: PurgeBefore: %w", err)
	}
	return p.count, nil
}

// purgeTime writes t for a filter. Rows have whole microseconds, so the next
// one up says the same as t.
func purgeTime(t time.Time) string {
	return t.Add(time.Microsecond - 1).UTC().Truncate(time.Microsecond).Format(timeFormat)
}

// A purge is one call of PurgeBefore.
type purge struct {
	client *Client
	before string
	rows   int // of a step; 0: all at once
	count  int64
	lost   bool // an answer was: rows may have gone uncounted
}

func (p *purge) run(ctx context.Context) error {
	if p.rows == 0 {
		err := p.retry(ctx, func() (int64, error) { return p.client.purgeAll(ctx, p.before) })
		if !timedOut(err) {
			return err
		}
		p.rows = DefaultPurgeBatch
	}
	// Each step reads the time of its last row and deletes up to and with it.
	// It begins behind the last step, so that the dead index entries there are
	// not walked again: on a million rows that is half the time.
	after := ""
	for {
		boundary := ""
		err := p.retry(ctx, func() (_ int64, err error) {
			boundary, err = p.client.purgeBoundary(ctx, after, p.before, p.rows)
			return 0, err
		})
		if err == nil {
			if boundary == "" { // fewer than a step are left, and what was written late with an old time
				err = p.retry(ctx, func() (int64, error) { return p.client.purgeStep(ctx, "", "lt", p.before) })
			} else {
				err = p.retry(ctx, func() (int64, error) { return p.client.purgeStep(ctx, after, "lte", boundary) })
			}
		}
		switch {
		case timedOut(err) && p.rows > 1:
			p.rows /= 2
			if boundary == "" {
				after = ""
			}
		case err != nil || boundary == "":
			return err
		default:
			after = boundary
		}
	}
}

// retry sends a request until it succeeds or fails for good, and counts what
// it deleted. A timeout is for good: the same again would time out again.
func (p *purge) retry(ctx context.Context, request func() (int64, error)) error {
	for step := 0; ; step++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := request()
		err = p.client.explain(err)
		p.count += n
		p.lost = p.lost || outcomeUnknown(err)
		switch {
		case errors.Is(err, ErrCountIncomplete):
			p.lost = true
			return nil
		case ctx.Err() != nil && err != nil:
			return ctx.Err()
		case err == nil || timedOut(err) || classify(err) != passing:
			return err
		}
		select {
		case <-time.After(backoff(step, err)):
		case <-ctx.Done():
		}
	}
}

// timedOut says whether err is a statement timeout's, or a gateway's that didn't
// wait for the answer.
func timedOut(err error) bool {
	var e *Error
	return errors.As(err, &e) && (e.Code == "57014" || e.Status == http.StatusGatewayTimeout)
}

// purgeAll deletes every row before a time and counts the ids returned: whole
// rows would be six times as much to send.
func (c *Client) purgeAll(ctx context.Context, before string) (int64, error) {
	pg, err := c.rest(nil)
	if err != nil {
		return 0, err
	}
	query := pg.From(c.config.table)
	query.Select("id", "", false) // Delete on the same builder keeps it
	body, _, err := query.Delete("representation", "").Lt("created_at", before).ExecuteWithContext(ctx)
	if err != nil {
		return 0, err
	}
	var ids []struct{}
	if err := json.Unmarshal(body, &ids); err != nil {
		return 0, ErrCountIncomplete // a gateway dropped Prefer, say
	}
	return int64(len(ids)), nil
}

// purgeBoundary returns the created_at of the n-th row after one time and
// before another, "" where there are fewer.
func (c *Client) purgeBoundary(ctx context.Context, after, before string, n int) (string, error) {
	pg, err := c.rest(nil)
	if err != nil {
		return "", err
	}
	query := pg.From(c.config.table).Select("created_at", "", false)
	body, _, err := behind(query, after).Lt("created_at", before).
		Order("created_at", &postgrest.OrderOpts{Ascending: true}).
		Range(n-1, n-1, "").ExecuteWithContext(ctx)
	if err != nil {
		return "", err
	}
	var rows []struct {
		CreatedAt string `json:"created_at"`
	}
	if err := json.Unmarshal(body, &rows); err != nil || len(rows) == 1 && rows[0].CreatedAt == "" {
		return "", errors.New("the answer to a read is not a list of times: is this PostgREST?")
	}
	if len(rows) == 0 {
		return "", nil
	}
	return rows[0].CreatedAt, nil
}

// purgeStep deletes the rows after one time and up to another, as the operator
// says, and returns the server's count. A DELETE must not have a limit:
// PostgREST ignores it since version 13 and deletes everything that matches.
func (c *Client) purgeStep(ctx context.Context, after, operator, to string) (int64, error) {
	pg, err := c.rest(nil)
	if err != nil {
		return 0, err
	}
	query := pg.From(c.config.table).Delete("minimal", "exact")
	_, n, err := behind(query, after).Filter("created_at", operator, to).ExecuteWithContext(ctx)
	return n, err
}

func behind(query *postgrest.FilterBuilder, after string) *postgrest.FilterBuilder {
	if after == "" {
		return query
	}
	return query.Gt("created_at", after)
}
