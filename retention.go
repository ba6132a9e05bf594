package docevents

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/docevents/docevents-go/internal/rest"
)

// ErrCountIncomplete means that a purge may have deleted more rows than the number that
// it returned. The answer to one of its DELETEs was lost, or contained no number of
// rows. Test for it with errors.Is, because a purge's error may match several errors.
var ErrCountIncomplete = rest.ErrNoCount

const (
	maxPurgeDays     = 700_000 // 1,916 years: the cutoff stays after the year 1, and nothing overflows
	maxPurgeFailures = 10      // in a row, with waits of 40 to 80 s in all

	// A broken connection or a gateway's 5xx error may mean that a request took too
	// long. The purge assumes this if the request took purgePatience or more, and
	// deletes fewer rows in the next step. Gateways time out after 10 s or more.
	purgePatience = 5 * time.Second
)

// PurgeOlderThan deletes the rows that are older than the given number of days. A day
// has 24 hours. PurgeOlderThan calls [Client.PurgeBefore] with the current time minus
// this number of days. If days isn't between 1 and 700,000, PurgeOlderThan returns an
// error and deletes nothing.
func (c *Client) PurgeOlderThan(ctx context.Context, days int) (int64, error) {
	if !c.isNone() && (days < 1 || days > maxPurgeDays) {
		return 0, fmt.Errorf("docevents: PurgeOlderThan: days must be from 1 to %d", maxPurgeDays)
	}
	return c.PurgeBefore(ctx, time.Now().UTC().AddDate(0, 0, -days)) // a day of AddDate has 24 hours only in UTC
}

// PurgeBefore deletes the rows whose created_at is before cutoff, and returns the
// number of deleted rows. If cutoff is the zero time, in the future, or before the year
// 1, PurgeBefore returns an error and deletes nothing.
//
// PurgeBefore first sends one DELETE for all these rows. If this DELETE fails for a
// reason that may be temporary, PurgeBefore deletes the rows in steps of
// [DefaultPurgeBatch] rows. With [WithPurgeBatch] it deletes in steps from the start.
// If a step takes too long for the database or a gateway, the next step has half as
// many rows. The answer to the DELETE for all rows contains their ids, so deleting in
// steps needs less memory.
//
// PurgeBefore blocks until the rows are deleted or it fails. After a failure that may
// be temporary, it logs a line, waits and continues. It stops and returns an error in
// these cases:
//
//   - ctx ends.
//   - The server refuses every request for 5 s, for example because the key is wrong.
//   - The server rejects a DELETE because of its rows, for example because another
//     table refers to one of them.
//   - Ten or more requests in a row fail, and the last one reaches the statement
//     timeout although it is for a single row.
//   - ctx has no deadline, and ten requests in a row fail, with waits of 40 to 80 s in
//     all.
//
// If PurgeBefore returns an error, it also returns the number of rows deleted so far.
// If the answer to a DELETE was lost, more rows than that may have been deleted. Then
// the error matches [ErrCountIncomplete].
//
// You can record events during a purge. You can also run several purges at once: each
// row is counted by the purge that deleted it.
func (c *Client) PurgeBefore(ctx context.Context, cutoff time.Time) (int64, error) {
	if c.isNone() {
		return 0, nil
	}
	switch {
	case cutoff.IsZero():
		return 0, errors.New("docevents: PurgeBefore: the cutoff is zero: pass the time before which rows are old")
	case cutoff.After(time.Now()):
		return 0, errors.New("docevents: PurgeBefore: the cutoff is in the future: that would delete every row")
	case cutoff.UTC().Year() < 1 || cutoff.UTC().Year() > 9999: // time.Time overflows far in the future: then After returns false
		return 0, errors.New("docevents: PurgeBefore: the cutoff is outside the years 1 to 9999")
	}
	// Times in the table are whole microseconds, so rounding up selects the same rows.
	before := cutoff.Add(time.Microsecond - 1).UTC().Truncate(time.Microsecond).Format(timeFormat)
	most := c.config.purgeBatch
	p := &purge{Client: c, before: before, allAtOnce: !c.config.purgeInSteps, next: position{after: beforeAll}, size: stepSize{rows: most, maxRows: most}}
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

// A purge is one call to PurgeBefore. Only one goroutine uses it. It goes through these
// states, but with WithPurgeBatch it begins at "steps":
//
//	one DELETE for all rows --done--> end
//	    |failed
//	    v
//	  steps  <--> wait after a failure
//	    |no rows left
//	    v
//	   end
//
// If the DELETE for all rows fails, it isn't repeated, because the database may still
// be running it. A failed step isn't repeated either: the next step reads which rows
// are left, and deletes the oldest of them.
type purge struct {
	*Client
	before    string // the cutoff
	allAtOnce bool   // the next request is the DELETE for all rows
	next      position
	size      stepSize
	failures  int       // failed requests since a DELETE last deleted rows
	refused   time.Time // when the current refusals began, or zero
	count     int64     // deleted rows
	lost      bool      // an answer was lost: count may be too low
}

func (p *purge) run(ctx context.Context) error {
	_, bounded := ctx.Deadline()
	var failure error // the newest failure, or nil if a step has succeeded since
	for ctx.Err() == nil {
		began := time.Now()
		done, err := p.step(ctx)
		switch {
		case err == nil && done:
			return nil
		case err == nil:
			p.size.succeeded()
			p.refused, failure = time.Time{}, nil
			continue
		case ctx.Err() != nil: // ctx ended the request, so an earlier failure explains more than err
			failure = cmp.Or(failure, err)
			continue
		}
		goOn, tooLong := p.failed(err, time.Since(began), bounded)
		if tooLong && !p.allAtOnce {
			err = fmt.Errorf("a step of %d rows: %w; is there an index on %s, as in sql/013_create_processing_events_table.sql, or a lock on the table?", p.size.rows, err, p.config.columns.CreatedAt)
			p.size.timedOut()
			p.next.tooMany = p.next.boundary
		}
		if !goOn {
			return err
		}
		p.allAtOnce, failure = false, err
		p.report.fault(logPurge, err, time.Now())
		select {
		case <-time.After(backoff(p.failures-1, longWait, err)):
		case <-ctx.Done():
		}
	}
	if failure == nil || errors.Is(failure, ctx.Err()) {
		return cmp.Or(failure, ctx.Err())
	}
	return fmt.Errorf("%w, after: %w", ctx.Err(), failure)
}

// The method failed counts a request that failed. bounded means that ctx has a
// deadline. goOn is true if the purge continues. tooLong is true if the request may
// have taken too long, so that the next step must delete fewer rows.
func (p *purge) failed(err error, took time.Duration, bounded bool) (goOn, tooLong bool) {
	p.failures++
	v, code := rest.Classify(err), codeOf(err)
	if v != rest.Configuration {
		p.refused = time.Time{}
	} else if p.refused.IsZero() {
		p.refused = time.Now()
	}
	switch {
	case code == statementTimeout: // 20 halvings reduce the largest step to one row
		return p.failures < maxPurgeFailures || p.size.rows > 1 && p.failures < 2*maxPurgeFailures, true
	case v == rest.Configuration:
		return time.Since(p.refused) < lastingAfter, false
	case v != rest.Transient || code == "23503": // 23503: a row of another table refers to one of these rows
		return false, false
	}
	return bounded || p.failures < maxPurgeFailures, tookTooLong(err, took)
}

// The SQLSTATEs of PostgreSQL's timeouts.
const (
	statementTimeout   = "57014" // query_canceled
	transactionTimeout = "25P04" // transaction_timeout, since PostgreSQL 17
)

// statusTimedOut is the HTTP status that Cloudflare, the proxy in front of hosted
// Supabase, returns if the server doesn't answer within 100 s.
const statusTimedOut = 524

// tookTooLong reports whether a request of a purge may have failed because it reached a
// timeout of the database, of a gateway or of the app's transport.
func tookTooLong(err error, took time.Duration) bool {
	if e, answered := errors.AsType[*rest.Error](err); answered {
		switch {
		case e.Code == statementTimeout, e.Code == transactionTimeout:
			return true
		case e.IsFromDatabase(): // the code names another cause
			return false
		case e.Status == http.StatusRequestTimeout, e.Status == statusTimedOut:
			return true
		}
	}
	timeout, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	return rest.OutcomeUnknown(err) && (took >= purgePatience || ok && timeout.Timeout())
}
