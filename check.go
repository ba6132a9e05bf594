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
// the program starts. Its error lists every problem that it finds on a line, with
// advice on how to fix it.
//
// Check reads PostgREST's description of the table, if the server offers one. Then
// it rehearses: it sends the inserts of Record with events of each type, and makes
// PostgREST roll them back. Check can't detect problems that depend on the app's own
// values, such as foreign keys, triggers that raise, and CHECKs on columns that the
// app fills. docs/your-table.md lists them. It logs a warning if a column that events
// may leave empty is NOT NULL, if a trigger discards some of the events, or if the id
// is UNIQUE but not the primary key.
//
// If the server stores the rows of the rehearsal in spite of that, Check deletes them
// and returns an error. While the server answers that the table or a grant is wrong,
// which may pass when PostgREST reloads its schema, Check retries for at most 5 s and
// within ctx. Each request has the timeout of an insert.
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

// lasting calls ask again, with a backoff, while its error is a misconfiguration,
// for at most lastingAfter and within ctx. It returns the last error, or, if ctx
// ends while ask runs again, the error before.
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

// examine reads the description, rehearses, and checks whether rows may be deleted.
// Its error joins the findings.
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

// add adds the error of a request to the findings.
func (r *rehearsal) add(op string, err error) {
	switch {
	case err == nil, errors.Is(err, errStored):
		return
	case !errors.As(err, new(*Error)):
		err = fmt.Errorf("check SUPABASE_URL and the network, or, if a test mocks the transport, add a responder for this request: %w", err)
	}
	r.findings = append(r.findings, fmt.Errorf("%s: %w", op, err))
}

// maxDescriptionBytes is enough for 5,000 tables: a description has about 3 KB for
// each table of the schema.
const maxDescriptionBytes = 16 << 20

// A definition describes a table or a view in PostgREST's OpenAPI description. It
// lists no NOT NULL columns for a view. For a domain it has the base type. It has
// neither CHECKs nor UNIQUE constraints.
type definition struct {
	Required   []string // the columns that are NOT NULL
	Properties map[string]struct {
		Format      string   // the type
		Enum        []string // the words of an enum type
		MaxLength   int      // in characters; 0 means no limit
		Description string   // contains <pk/> for a column of the primary key
	}
}

// describe reads PostgREST's description of the table into r.about. Some servers
// have the description switched off, and then Check finds fewer problems.
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
