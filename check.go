package docevents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/docevents/docevents-go/internal/rest"
)

// Check finds out whether the server accepts the app's inserts and purges. Call Check
// when the program starts. Its error has a line for each problem, with advice on how
// to fix it.
//
// Check first reads PostgREST's description of the table. If the server offers no
// description, Check finds fewer problems. Then Check inserts events of each type as
// Record does, but makes PostgREST roll the inserts back. If the server stores the
// rows nevertheless, Check deletes them and returns an error. [WithRequestTimeout]
// sets the timeout of each request.
//
// Check can't find problems that depend on the values in the app's events, for
// example a foreign key to a row that doesn't exist. docs/your-table.md lists these
// problems.
//
// For three problems Check only logs a warning and returns no error:
//
//   - A column is NOT NULL, but its field of Event may be empty. The table will
//     reject events in which the field is empty.
//   - A trigger or rule discards some of the events that Check inserts, so it may
//     also discard events of the app.
//   - The id is UNIQUE but not the primary key, and its column is called id. If the
//     answer to an insert is lost, the client needs many requests to send the events
//     of that insert again.
//
// If the server answers that the key, the table or a grant is wrong, Check tries
// again for up to 5 s, or until ctx ends, because PostgREST may not know the latest
// changes to the schema yet.
func (c *Client) Check(ctx context.Context) error {
	if c.isNone() {
		return nil
	}
	var r *rehearsal
	err := retryMisconfigured(ctx, func() error {
		r = newRehearsal(c)
		return r.examine(ctx)
	})
	if len(r.required) > 0 {
		c.report.warn(logRequired, slog.String("fields", strings.Join(r.required, ", ")))
	}
	if err != nil {
		return fmt.Errorf("docevents: Check: %w", err)
	}
	return nil
}

// retryMisconfigured calls check, a function that examines the table once, and returns
// its error. If the error means that the key, the table or a grant is wrong,
// retryMisconfigured waits and calls check again, for up to 5 s or until ctx ends. If
// ctx ends during a repeated call, it returns the error of the call before, because
// that error is about the table.
func retryMisconfigured(ctx context.Context, check func() error) error {
	began := time.Now()
	var last error
	for step := 0; ; step++ {
		err := check()
		if last != nil && ctx.Err() != nil {
			return last
		}
		wait := backoff(step, longWait, err)
		if rest.Classify(err) != rest.Configuration || time.Since(began)+wait > lastingAfter {
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

// examine checks the table once. It reads PostgREST's description of the table, and
// then sends inserts, which PostgREST rolls back. After each problem it changes the
// insert, until it finds no further problem. Finally, unless r.refused is set, it sends
// a DELETE that matches no row. examine returns all problems as one error.
func (r *rehearsal) examine(ctx context.Context) error {
	r.describe(ctx)
	r.readTypes()
	for again := true; again; { // learn changes the inserts, or returns false
		rows := r.rows()
		n, err := r.send(ctx, rows)
		if err == nil {
			r.count(n, len(rows)/r.copies)
		}
		again = err != nil && r.learn(ctx, err)
	}
	if !r.refused {
		r.remove(ctx, r.deletion().Lt(r.config.columns.CreatedAt, beforeAll)) // a purge that deletes no row
	}
	return errors.Join(r.findings...)
}

// add adds err, the error of a request, to r.findings, the problems that Check returns.
// op is "insert" or "delete". add ignores nil and errStored.
func (r *rehearsal) add(op string, err error) {
	switch {
	case err == nil, errors.Is(err, errStored):
		return
	case !errors.As(err, new(*Error)):
		err = fmt.Errorf("check SUPABASE_URL and the network, or, if a test mocks the transport, add a responder for this request: %w", err)
	}
	r.findings = append(r.findings, fmt.Errorf("%s: %w", op, err))
}

// maxDescriptionBytes is the most that Check reads of PostgREST's description of a
// schema. PostgREST writes about 3 KB for a table of eight columns.
const maxDescriptionBytes = 64 << 20

// A definition describes one table or view. It is a part of PostgREST's description
// of a schema, which is in OpenAPI format. A definition contains no CHECK and no
// UNIQUE constraints, so Check needs inserts to find problems with them.
type definition struct {
	Required   []string // the columns that are NOT NULL; empty for a view
	Properties map[string]struct {
		Format      string   // the type; for a domain, its base type
		Enum        []string // the words of an enum type
		MaxLength   int      // in characters; 0 means no limit
		Description string   // contains <pk/> for a column of the primary key
	}
}

// describe reads the types of the columns, and which columns are NOT NULL, from
// PostgREST's description into r.about. If the server offers no description, r.about
// stays empty, and Check finds fewer problems. PostgREST describes 1,000 tables in
// 0.4 s. describe stops after at most 5 s, so that time for the inserts is left before
// ctx ends.
func (r *rehearsal) describe(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, min(5*time.Second, r.config.requestTimeout))
	defer cancel()
	_ = r.rest.Get(ctx, rest.Reading{Path: "/", Schema: r.config.schema, Accept: "application/openapi+json"}, func(resp *http.Response) error {
		var description struct {
			Definitions map[string]json.RawMessage
		}
		var about definition
		err := json.NewDecoder(io.LimitReader(resp.Body, maxDescriptionBytes)).Decode(&description)
		if err == nil && json.Unmarshal(description.Definitions[r.config.table], &about) == nil {
			r.about = about
		}
		return nil
	})
}
