package docevents

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/docevents/docevents-go/internal/rest"
)

// Check finds out whether the server accepts the app's inserts and purges. Call Check
// when the program starts. The error of Check has a line for each problem, with advice
// on how to fix it.
//
// Check first reads PostgREST's description of the table. Then it inserts events of
// each type as Record does, but makes PostgREST roll the inserts back. If the server
// stores the rows nevertheless, Check deletes them and returns an error. If the server
// offers no description, Check finds fewer problems. [WithRequestTimeout] sets the
// timeout of each request.
//
// Check can't find problems that depend on the values in the app's events, such as a
// foreign key to a row that doesn't exist. docs/your-table.md lists these problems.
//
// For three problems Check only logs a warning and returns no error:
//
//   - A column is NOT NULL, but its field of Event is optional. The table will reject
//     events in which the field is empty.
//   - A trigger or rule discards some of the events that Check inserts.
//   - The column id is UNIQUE but not the primary key. If the answer to an insert is
//     lost, sending the events again takes up to two requests per event.
//
// If the API key, the table or a grant is wrong, Check tries again for up to 5 s, or
// until ctx ends, because PostgREST may not know the latest changes to the schema yet.
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

// retryMisconfigured calls examineOnce. If the error is a misconfiguration and no rows
// were stored, it repeats the call, for up to 5 s or until ctx ends. If ctx ends during
// a repeated call, retryMisconfigured returns the previous call's error, which says
// what is wrong.
func retryMisconfigured(ctx context.Context, examineOnce func() error) error {
	began := time.Now()
	var last error
	for step := 0; ; step++ {
		err := examineOnce()
		if last != nil && ctx.Err() != nil {
			return last
		}
		wait := backoff(step, longWait, err)
		if rest.Classify(err) != rest.Configuration || errors.Is(err, errStored) || time.Since(began)+wait > lastingAfter {
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

// examine checks the table once, and returns all problems as one error.
func (r *rehearsal) examine(ctx context.Context) error {
	r.describe(ctx)
	r.readTypes()
	if err := r.insert(ctx); err != nil {
		r.add("insert", err)
	} else {
		r.remove(ctx, r.deletion().Lt(r.config.columns.CreatedAt, beforeAll)) // a purge that deletes no row
	}
	return errors.Join(r.findings...)
}

// insert sends inserts until one succeeds or no other insert can help. It adds each
// problem to r.findings, and changes the next insert so that PostgreSQL gets to the
// next problem. If insert returns an error, examine doesn't test a purge, because that
// would probably fail as well.
func (r *rehearsal) insert(ctx context.Context) error {
	for len(r.columns) > 0 {
		rows := r.rows(r.types)
		n, refusal, err := r.send(ctx, rows)
		do, column := r.react(refusal, false)
		if do == tryTypes && r.fillings == nil {
			if refusal, err = r.tryTypes(ctx, refusal); refusal == nil && err == nil {
				continue
			}
			do, column = r.react(refusal, true)
		}
		if err != nil {
			return err
		}
		switch do {
		case accept:
			r.count(n, len(rows)/r.copies)
			return nil
		case ignore, tryTypes: // tryTypes: the table accepts each type alone, but not all in one insert
			return nil
		case rejectTypes:
			r.addRejected(r.types, refusal)
			return nil
		case tryNoRows:
			if _, refusal, err := r.send(ctx, []map[string]any{}); refusal == nil && err == nil {
				return nil
			}
			fallthrough
		case stop:
			return r.explain(refusal)
		case leaveOut:
			r.add("insert", r.explain(refusal))
			r.leave(column)
		case fill:
			r.add("insert", r.explain(refusal))
			r.columns, r.fillings = append(r.columns, column), nil
		case sendOnce:
			r.report.warn(logSlowKey)
			r.copies = 1
		}
	}
	return nil
}

// count handles the answer to an insert that was rolled back. n is the number of rows
// that PostgreSQL had inserted, and numEvents is the number of events. Each event was
// sent r.copies times with the same id. So if n is greater than numEvents, the id isn't
// unique. If n is less than numEvents, the table discards events.
func (r *rehearsal) count(n, numEvents int) {
	switch {
	case r.lacksID(): // n shows nothing
	case n > numEvents:
		r.find(r.config.columns.ID, "nothing makes the column {column} unique, so an event that is sent again would be stored twice: {key}")
	case n == 0:
		r.find("", "a trigger or rule of {table} discards every event, and Record can't notice: let it store them. If it stores them in another table, name that table with WithTable, or use a partitioned table")
	case n < numEvents:
		r.report.warn(logDiscards)
	}
}

// tryTypes inserts the events of each type alone, after the server refused an insert of
// all types. Later inserts contain only the types that the table accepts, and tryTypes
// adds a finding about the others. If the table accepts no type, tryTypes returns the
// reason.
func (r *rehearsal) tryTypes(ctx context.Context, refusal *rest.Error) (reason *rest.Error, err error) {
	var accepted, rejected []EventType
	r.fillings = map[EventType][]string{}
	for _, t := range r.types {
		e, err := r.tryType(ctx, t)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%w, after: %w", err, newServerError(refusal, ""))
		case e == nil:
			accepted = append(accepted, t)
		default:
			rejected = append(rejected, t)
			if reason == nil || e.Code >= reason.Code { // PostgreSQL first tests values (22...), then NULLs (23502), then CHECK constraints (23514)
				reason = e
			}
		}
	}
	if len(accepted) == 0 {
		return reason, nil
	}
	if len(rejected) > 0 {
		r.addRejected(rejected, reason)
	}
	r.types = accepted
	return nil, nil
}

// tryType tries several times to insert events of type t, each time with different
// optional columns filled, because a CHECK may require a column for this type only.
// r.fillings[t] becomes the columns with which the table accepts the type. If the table
// never accepts it, tryType returns the reason.
func (r *rehearsal) tryType(ctx context.Context, t EventType) (reason *rest.Error, err error) {
	var suspect []string
	for i, filling := range r.possibleFillings() {
		r.fillings[t] = filling
		_, e, err := r.send(ctx, r.rows([]EventType{t}))
		if err != nil || e == nil || !aboutValues.MatchString(e.Code) { // PostgreSQL checks the values before it finds other errors
			return nil, err
		}
		if i == 1 && e.Code >= reason.Code && e.Message != reason.Message {
			reason, suspect = e, filling // a made-up value may be the cause
		}
		reason = cmp.Or(reason, e)
		if i == 1 && reason.Code < "23514" { // no filling gets as far as the CHECK constraints
			break
		}
	}
	r.fillings[t] = suspect
	return reason, nil
}

func (r *rehearsal) addRejected(types []EventType, reason *rest.Error) {
	var names []string
	for _, t := range types {
		names = append(names, strconv.Quote(string(t)))
	}
	r.add("insert: the table takes no event of type "+strings.Join(names, ", "), r.explain(reason))
}

// add adds err to r.findings. err is the error of a request, and op begins with
// "insert" or "delete". add ignores nil and errStored.
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

// A definition is PostgREST's description of one table or view, in OpenAPI format. It
// contains no UNIQUE or CHECK constraints, so only inserts can show problems with these
// constraints.
type definition struct {
	Required   []string // the columns that are NOT NULL; empty for a view
	Properties map[string]struct {
		Default     json.RawMessage // the default value; nil if the column has none, or if PostgREST leaves it out, as for jsonb
		Format      string          // the type; for a domain, its base type
		Enum        []string        // the words of an enum type
		MaxLength   int             // in characters; 0 means no limit
		Description string          // contains <pk/> for a column of the primary key
	}
}

// describe reads PostgREST's description of the table into r.about. If the server
// offers none, r.about stays empty. describe stops after at most 5 s, so that there is
// time left for the inserts. PostgREST describes 1,000 tables in 0.4 s.
func (r *rehearsal) describe(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, min(5*time.Second, r.config.requestTimeout))
	defer cancel()
	_ = r.rest.Get(ctx, rest.Reading{Path: "/", Schema: r.config.schema, Accept: "application/openapi+json"}, func(resp *http.Response) error {
		var description struct {
			Definitions map[string]json.RawMessage
		}
		err := json.NewDecoder(io.LimitReader(resp.Body, maxDescriptionBytes)).Decode(&description)
		return errors.Join(err, json.Unmarshal(description.Definitions[r.config.table], &r.about))
	})
}
