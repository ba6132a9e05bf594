package docevents

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// Check reports whether events will be stored and whether purges will work. Call
// it when the program starts. Its error lists every finding, one a line, with what
// to do about it.
//
// Check rehearses: it sends Record's own insert, of each type, in a way that
// PostgREST carries out and then rolls back. It also reads PostgREST's description
// of the table, if the server gives one. It reports only what it knows. What
// depends on the app's own values is no finding: foreign keys, triggers that raise,
// CHECKs on columns that the app fills. If a column is NOT NULL that events may
// leave empty, Check returns nil and logs which fields the app must fill.
//
// If a server stores the rehearsal's rows all the same, Check deletes them, and that
// is a finding. An answer that may pass by itself, as while PostgREST reloads its
// schema, is asked for again, within ctx and for at most 5 s. Each answer may take
// as long as an insert's.
func (c *Client) Check(ctx context.Context) error {
	if c.isNone() {
		return nil
	}
	var r *rehearsal
	err := lasting(ctx, func() error {
		r = newRehearsal(c)
		return r.examine(ctx)
	})
	if len(r.required) > 0 {
		c.report.warn(logRequired, slog.String("fields", strings.Join(r.required, ", ")))
	}
	if r.slowKey {
		c.report.warn(logSlowKey)
	}
	if err != nil {
		return fmt.Errorf("docevents: Check: %w", err)
	}
	return nil
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

// examine looks at the table, rehearses and tries whether rows may be deleted. Its
// error joins the findings.
func (r *rehearsal) examine(ctx context.Context) error {
	r.describe(ctx)
	r.readTypes()
	for range maxRehearsals {
		rows := r.rows()
		n, err := r.send(ctx, r.columns, rows)
		if err == nil {
			r.count(n, len(rows))
		} else if r.learn(ctx, err) {
			continue
		}
		break
	}
	if !r.refused && !r.bad[r.config.columns.CreatedAt] {
		r.add("delete", r.mayDelete(ctx))
	}
	return errors.Join(r.findings...)
}

// mayDelete sends a purge that matches no row.
func (r *rehearsal) mayDelete(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.config.requestTimeout)
	defer cancel()
	_, err := r.deleted(ctx, r.deletion().Lt(r.config.columns.CreatedAt, beforeAll))
	if errors.Is(err, ErrCountIncomplete) { // only means that purges can't count
		return nil
	}
	return err
}

// add adds an error of a request to the findings. Those of configuration come first:
// lasting goes by the first.
func (r *rehearsal) add(op string, err error) {
	if err == nil {
		return
	}
	at := len(r.findings)
	if !errors.As(err, new(*Error)) {
		err = fmt.Errorf("check SUPABASE_URL and the network, or, if a test mocks the transport, add a responder for this request: %w", err)
	} else if classify(err) == configuration {
		at = 0
	}
	r.findings = slices.Insert(r.findings, at, fmt.Errorf("%s: %w", op, err))
}
