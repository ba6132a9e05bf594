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

// Check finds out whether events will be stored and purges will work. Call it when
// the program starts. Its error has a line for each problem that Check finds, with
// advice on how to fix it.
//
// Check first reads PostgREST's description of the table, if the server offers one.
// Then it sends the same inserts as Record, with events of each type, and makes
// PostgREST roll them back. If the server stores the rows nevertheless, Check deletes
// them and returns an error. Each request has the timeout of an insert.
//
// Check can't detect problems that depend on the app's own values, such as foreign
// keys, triggers that raise errors, and CHECKs on columns that the app fills.
// docs/your-table.md lists these problems. Check only logs a warning if
//
//   - a column that events may leave empty is NOT NULL
//   - a trigger discards some of the events
//   - the id is UNIQUE but not the primary key
//
// After an answer that the key, the table or a grant is wrong, Check retries for at
// most 5 s and within ctx, because PostgREST may not have reloaded its schema yet.
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
	if err != nil {
		return fmt.Errorf("docevents: Check: %w", err)
	}
	return nil
}

// lasting calls ask until its error is nil or isn't a misconfiguration, for at most
// lastingAfter and within ctx. It returns the error of the last call. If ctx ends
// during a second or later call, the error of that call is about ctx, so lasting
// returns the server's answer to the call before.
func lasting(ctx context.Context, ask func() error) error {
	began := time.Now()
	var last error
	for step := 0; ; step++ {
		err := ask()
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

// examine reads the description, rehearses until there is nothing left to find, and
// checks whether rows may be deleted. It returns the findings as one error.
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

// add adds the error of a request to the findings. op is "insert" or "delete".
func (r *rehearsal) add(op string, err error) {
	switch {
	case err == nil, errors.Is(err, errStored):
		return
	case !errors.As(err, new(*Error)):
		err = fmt.Errorf("check SUPABASE_URL and the network, or, if a test mocks the transport, add a responder for this request: %w", err)
	}
	r.findings = append(r.findings, fmt.Errorf("%s: %w", op, err))
}

// maxDescriptionBytes bounds the memory for a description. It is enough for a schema
// with 5,000 tables, because PostgREST writes about 3 KB for each table.
const maxDescriptionBytes = 16 << 20

// A definition is the part of PostgREST's description (OpenAPI) that is about a table
// or a view. It lacks CHECKs and UNIQUE constraints.
type definition struct {
	Required   []string // the columns that are NOT NULL; empty for a view
	Properties map[string]struct {
		Format      string   // the type; for a domain, its base type
		Enum        []string // the words of an enum type
		MaxLength   int      // in characters; 0 means no limit
		Description string   // contains <pk/> for a column of the primary key
	}
}

// describe reads PostgREST's description of the table into r.about. If the server
// doesn't offer one, r.about stays empty, and Check finds fewer problems.
func (r *rehearsal) describe(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, r.config.requestTimeout)
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
