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

// Check reports whether events will be stored and whether purges will work. Call
// it when the program starts. Its error lists every finding, one a line, and each
// says what to do.
//
// Check reads PostgREST's description of the table, if the server gives one. Then it
// rehearses: it sends Record's own insert, of each type, in a way that PostgREST
// runs and rolls back. It returns no error for problems that depend on the app's own
// values, such as foreign keys, triggers that raise, and CHECKs on columns that the
// app fills: docs/your-table.md lists them. It logs a warning if a column is NOT NULL
// that events may leave empty, if a trigger discards some of the events, or if the id
// is UNIQUE but not the primary key.
//
// If a server stores the rehearsal's rows all the same, Check deletes them, and
// reports that. If an answer may pass by itself, for example while PostgREST reloads
// its schema, Check asks again for at most 5 s and within ctx. Each answer may take
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
		if rest.Classify(err) != rest.Configuration || time.Since(began)+wait > lastingAfter || ends && time.Until(end) < wait {
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
	for again, i := len(r.types) > 0, 0; again && i < maxRehearsals; i++ {
		rows := r.rows()
		n, err := r.send(ctx, rows)
		if again = err != nil && r.learn(ctx, err); err == nil {
			r.count(n, len(rows)/r.copies)
		}
	}
	if !r.refused {
		r.remove(ctx, r.deletion().Lt(r.config.columns.CreatedAt, beforeAll)) // as a purge, of no row
	}
	return errors.Join(r.findings...)
}

// add adds an error of a request to the findings.
func (r *rehearsal) add(op string, err error) {
	switch {
	case err == nil, errors.Is(err, errStored):
		return
	case !errors.As(err, new(*Error)):
		err = fmt.Errorf("check SUPABASE_URL and the network, or, if a test mocks the transport, add a responder for this request: %w", err)
	}
	r.findings = append(r.findings, fmt.Errorf("%s: %w", op, err))
}

const (
	// A description takes about 3 KB a table, and 0.4 s for 1,000 tables.
	describeTimeout     = 5 * time.Second
	maxDescriptionBytes = 64 << 20
)

// A definition describes a table or a view in PostgREST's OpenAPI description. It
// lists no NOT NULL columns for a view. It shows the base type of a domain, and
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

// describe reads PostgREST's description of the table. Without one, as some servers
// have it switched off, Check finds less.
func (r *rehearsal) describe(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, min(describeTimeout, r.config.requestTimeout))
	defer cancel()
	_ = r.rest.Get(ctx, rest.Reading{Path: "/", Schema: r.config.schema, Accept: "application/openapi+json"}, func(resp *http.Response) error {
		var about definition
		dec := json.NewDecoder(io.LimitReader(resp.Body, maxDescriptionBytes))
		if enter(dec, "definitions") && enter(dec, r.config.table) && dec.Decode(&about) == nil {
			r.about = about
		}
		return nil
	})
}

// enter moves into the object that comes next, up to the value of key. It holds one
// value at a time in memory.
func enter(dec *json.Decoder, key string) bool {
	if token, err := dec.Token(); err != nil || token != json.Delim('{') {
		return false
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil || name == key {
			return err == nil
		}
		if dec.Decode(new(json.RawMessage)) != nil {
			return false
		}
	}
	return false
}
