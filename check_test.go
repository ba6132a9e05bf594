package docevents_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docevents/docevents-go"
	"github.com/google/uuid"
)

func TestCheckRehearses(t *testing.T) {
	w := &wire{}
	c, o := newClient(t, roundTripFunc(w.answer(http.StatusNoContent, "", "Content-Range", "*/0")))
	if err := c.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	sent := w.all()
	if len(sent) != 3 || sent[0].method != "GET" || sent[1].method != "POST" || sent[2].method != "DELETE" {
		t.Fatalf("sent %+v", sent)
	}
	if got := sent[0].header.Get("Accept"); got != "application/openapi+json" || sent[0].url.Path != "/rest/v1/" {
		t.Errorf("GET %s, Accept: %q", sent[0].url, got)
	}
	if got := sent[1].header.Values("Accept"); !slices.Equal(got, []string{"application/vnd.pgrst.object+json"}) {
		t.Errorf("Accept: %q", got)
	}
	if got := sent[1].header.Values("Prefer"); !slices.Equal(got, []string{"return=minimal", "resolution=ignore-duplicates"}) {
		t.Errorf("Prefer: %q", got)
	}
	if got := sent[2].url.RawQuery; got != "created_at=lt.-infinity" {
		t.Errorf("DELETE ?%s", got)
	}
	rows := sent[1].rows(t)
	var types, ids, times []any
	for _, row := range rows {
		types, ids, times = append(types, row["event_type"]), append(ids, row["id"]), append(times, row["created_at"])
		if at, err := time.Parse(time.RFC3339, row["created_at"].(string)); err != nil || time.Since(at).Abs() > time.Minute {
			t.Errorf("%v: not of now", row)
		}
	}
	if want := []any{"upload_started", "processing_started", "completed", "failed"}; len(rows) != 18 || !slices.Equal(types[:4], want) {
		t.Fatalf("sent %v", rows)
	}
	for i, row := range rows[:9] {
		if row["duration_ms"] != nil || row["error_message"] != nil || row["stage"] != nil {
			t.Errorf("%v: an event may leave these out", row)
		}
		if slices.Contains(ids[:i], ids[i]) || slices.Contains(times[:i], times[i]) {
			t.Errorf("%v: two rows have its id or its time", row)
		}
	}
	if !slices.EqualFunc(rows[9:], rows[:9], maps.Equal) {
		t.Errorf("%v are no copies of %v", rows[9:], rows[:9])
	}
	checkStats(t, c, &docevents.Stats{})
	if lines := o.logged(); len(lines) != 0 {
		t.Errorf("logged %v", lines)
	}
}

// inserts is a server that calls the function with the rows of each insert, and
// refuses the insert with the answer that the function returns. If the answer is
// nil, it rolls the insert back, as PostgREST does with a result of several rows.
// Its table has a unique id, and it offers no description.
type inserts func(rows []map[string]any) *answer

func (f inserts) RoundTrip(req *http.Request) (*http.Response, error) {
	switch req.Method {
	case http.MethodGet:
		return undescribed.response(req), nil
	case http.MethodDelete:
		return (&answer{status: http.StatusNoContent, header: map[string]string{"Content-Range": "*/0"}}).response(req), nil
	}
	var rows []map[string]any
	if err := json.NewDecoder(req.Body).Decode(&rows); err != nil {
		return nil, err
	}
	query := req.URL.Query()
	key, ids := cmp.Or(query.Get("on_conflict"), "id"), map[any]bool{}
	for _, row := range rows {
		ids[row[key]] = true
		row["columns="] = query.Get("columns")
		for _, column := range strings.Split(query.Get("columns"), ",") {
			if _, given := row[column]; !given && !slices.Contains(req.Header.Values("Prefer"), "missing=default") {
				row[column] = nil
			}
		}
	}
	a := f(rows)
	switch {
	case a == nil:
		a = rolledBack(len(ids))
	case a.err != nil:
		return nil, a.err
	}
	return a.response(req), nil
}

var undescribed = &answer{status: 404, code: "PGRST126", text: "Root endpoint metadata is disabled"}

// rolledBack returns the answer to a rehearsal that inserted the given number of rows.
func rolledBack(rows int) *answer {
	return &answer{status: 406, code: "PGRST116", text: "Cannot coerce the result to a single JSON object", details: fmt.Sprintf("The result contains %d rows", rows)}
}

// everything refuses every insert with a.
func everything(a *answer) inserts { return func([]map[string]any) *answer { return a } }

// where refuses an insert with a row for which bad returns true.
func where(bad func(row map[string]any) bool, a *answer) inserts {
	return func(rows []map[string]any) *answer {
		if slices.ContainsFunc(rows, bad) {
			return a
		}
		return nil
	}
}

// hasValue reports whether the row has one of the values in a column, or any value if none
// is given.
func hasValue(column string, values ...any) func(row map[string]any) bool {
	return func(row map[string]any) bool {
		return row[column] != nil && (len(values) == 0 || slices.Contains(values, row[column]))
	}
}

// isNull reports whether the column is NULL.
func isNull(column string) func(row map[string]any) bool {
	return func(row map[string]any) bool { return row[column] == nil }
}

// isGiven reports whether the row gives the column a value, which may be NULL.
func isGiven(column string) func(row map[string]any) bool {
	return func(row map[string]any) bool {
		_, given := row[column]
		return given
	}
}

// isListed reports whether the insert lists the column, even if the row gives it no value.
func isListed(column string) func(row map[string]any) bool {
	return func(row map[string]any) bool {
		return slices.Contains(strings.Split(row["columns="].(string), ","), column)
	}
}

// firstOf answers an insert like the first of the tables that refuses it.
func firstOf(tables ...inserts) inserts {
	return func(rows []map[string]any) *answer {
		for _, table := range tables {
			if a := table(rows); a != nil {
				return a
			}
		}
		return nil
	}
}

// notUnique rolls back each insert, with an answer that shows that the id isn't unique.
func notUnique(rows []map[string]any) *answer { return rolledBack(len(rows)) }

func notNull(column string) *answer {
	return refused("23502", fmt.Sprintf(`null value in column %q of relation "document_processing_events" violates not-null constraint`, column))
}

func violates(constraint string) *answer {
	return refused("23514", fmt.Sprintf(`new row for relation "document_processing_events" violates check constraint %q`, constraint))
}

var foreignKey = &answer{status: 409, code: "23503", text: `insert or update on table "x" violates foreign key constraint "fk"`, details: `Key (document_id)=(x) is not present in table "documents".`}

func takesNoValue(column string) *answer {
	return refused("428C9", fmt.Sprintf("cannot insert a non-DEFAULT value into column %q", column))
}

var notInteger = refused("22P02", `invalid input syntax for type integer: "x"`)

// notUniqueFinding is the last problem that Check looks for. If a made-up value were
// refused, Check would not find it.
const notUniqueFinding = "nothing makes the column id unique"

// A checked is a table, with the result of Check.
type checked struct {
	table      inserts
	definition string // PostgREST's description of the table; "" if the server offers none
	opt        docevents.Option
	want       []string // parts of Check's error; if there are none, Check returns nil
	not        string   // a text that isn't in the error
}

func checkTables(t *testing.T, tables map[string]checked) {
	t.Helper()
	for name, test := range tables {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _ := newClient(t, described(test.table, test.definition), test.opt)
				checkSays(t, c, test.want, test.not)
			})
		})
	}
}

func withExtra(names ...string) docevents.Option {
	return docevents.WithColumns(docevents.Columns{Extra: names})
}

// A table may refuse the values that Check makes up, and take those of the app's events.
func TestCheckIgnoresRefusalsOfItsOwnValues(t *testing.T) {
	failed := hasValue("event_type", "failed")
	checkTables(t, map[string]checked{
		"a foreign key":                        {table: everything(foreignKey)},
		"a trigger with PostgreSQL's code":     {table: everything(refused("23514", "no consent"))},
		"a trigger that refuses the test rows": {table: where(isGiven("id"), &answer{status: 403, code: "42501", text: "no consent"})},
		"a trigger that refuses two types in one insert": {
			table: func(rows []map[string]any) *answer {
				if len(slices.CompactFunc(rows, func(a, b map[string]any) bool { return a["event_type"] == b["event_type"] })) > 1 {
					return violates("one_type")
				}
				return nil
			},
		},
		"a failure needs its message and one of two columns": {
			table: where(func(row map[string]any) bool {
				return failed(row) && (row["error_message"] == nil || (row["page"] == nil) == (row["pages"] == nil))
			}, violates("one_of")),
			opt: withExtra("page", "pages"),
		},
		"a CHECK on a stage that takes no NULL": {table: firstOf(where(isNull("stage"), notNull("stage")), everything(violates("known_step")))},
		"a declared column that takes no value": {table: where(isGiven("pages"), takesNoValue("pages")), opt: withExtra("pages")},
		"a default type that the app doesn't list": {
			table: where(failed, violates("x_event_type_check")),
			opt:   docevents.WithEventTypes(docevents.EventTypes{Completed: []docevents.EventType{"done"}}),
		},
	})
}

// The answers are those of PostgreSQL 15 with PostgREST 14.17.
func TestCheckFindings(t *testing.T) {
	checkTables(t, map[string]checked{
		"no unique id": {
			table: notUnique,
			want:  []string{notUniqueFinding, "ALTER TABLE public.document_processing_events ADD PRIMARY KEY (id)"},
		},
		"no unique id, and a trigger that discards a type": {
			table: func(rows []map[string]any) *answer {
				return rolledBack(len(slices.DeleteFunc(rows, hasValue("event_type", "completed"))))
			},
			want: []string{notUniqueFinding},
		},
		"a trigger that discards every row": {
			table: func([]map[string]any) *answer { return rolledBack(0) },
			want:  []string{"discards every event", "trigger"},
		},
		"a column that nobody fills, behind a stage that takes no NULL": {
			table: firstOf(where(isNull("stage"), notNull("stage")), where(isNull("tenant_id"), notNull("tenant_id"))),
			opt:   withExtra("tenant"), // a part of the column's name
			want:  []string{`"tenant_id"`, "nothing fills that column", "DEFAULT", "trigger", "Extra", "23502"},
		},
		"types that the CHECK lacks": {
			table: firstOf(where(hasValue("event_type", "retried", "queued"), violates("x_event_type_check")), notUnique),
			opt:   docevents.WithEventTypes(docevents.EventTypes{Arrived: []docevents.EventType{"queued"}, Completed: []docevents.EventType{"completed"}, Notes: []docevents.EventType{"retried"}}),
			want:  []string{`no event of type "queued", "retried"`, "WithEventTypes", "sql/optional/event_types.sql", "23514", notUniqueFinding},
			not:   "completed",
		},
		"a type that the CHECK lacks, and a foreign key": {
			table: firstOf(where(hasValue("event_type", "failed"), violates("x_event_type_check")), everything(foreignKey)),
			want:  []string{`no event of type "failed":`},
		},
		"a CHECK in a table without event types": {
			table: everything(violates("has_tenant")),
			opt:   docevents.WithColumns(docevents.Columns{Type: "-"}),
			want:  []string{`no event of type "completed":`, "about another column, fill that from Event.Extra"},
		},
		"an id that takes no value": {
			table: firstOf(where(isGiven("id"), takesNoValue("id")), notUnique),
			want:  []string{`the column "id" takes no value`, "name another column"},
			not:   notUniqueFinding,
		},
		"a missing column": {
			table: firstOf(where(isListed("metadata"), refused("PGRST204", "Could not find the 'metadata' column of 'x' in the schema cache")), notUnique),
			opt:   withExtra("metadata"),
			want:  []string{"add the column", "'metadata'", "WithColumns", "NOTIFY pgrst", notUniqueFinding},
		},
		"a missing grant, in German": {
			table: everything(&answer{status: 403, code: "42501", text: "keine Berechtigung für Tabelle"}),
			want:  []string{"GRANT SELECT, INSERT, DELETE ON public.document_processing_events TO service_role"},
		},
		"no answer": {
			table: everything(&answer{err: &net.OpError{Op: "dial", Net: "tcp", Err: errReset}}),
			want:  []string{"check SUPABASE_URL and the network, or, if a test mocks the transport, add a responder", "dial tcp"},
		},
	})
}

// checkSays checks that Check's error contains each text of want, and neither not nor
// anything secret. If want is empty, Check must return nil.
func checkSays(t *testing.T, c *docevents.Client, want []string, not string) {
	t.Helper()
	err := c.Check(t.Context())
	if len(want) == 0 || err == nil {
		if err != nil || len(want) > 0 {
			t.Errorf("got %v, want %q", err, want)
		}
		return
	}
	for _, text := range append(want, "docevents: Check: ") {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%v: want %q", err, text)
		}
	}
	for _, text := range []string{not, testKey, "columns=", "secret row"} {
		if text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("%v: contains %q", err, text)
		}
	}
}

// checkOnce calls Check with a context that ends soon, so that Check doesn't retry for 5 s.
func checkOnce(t *testing.T, c *docevents.Client) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	return c.Check(ctx)
}

func TestCheckOfTheDelete(t *testing.T) {
	for name, test := range map[string]struct {
		answer answer
		want   []string
	}{
		"a missing grant":                  {answer{status: 403, code: "42501", text: "permission denied for table document_processing_events"}, []string{"delete: ", "GRANT SELECT, INSERT, DELETE"}},
		"a gateway drops Prefer, no count": {answer{status: 204}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _ := newClient(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
					if req.Method != http.MethodDelete {
						return everything(nil).RoundTrip(req)
					}
					return test.answer.response(req), nil
				}))
				checkSays(t, c, test.want, "")
			})
		})
	}
}

// A server that ignores the header Accept stores the rows of Check. Check must delete
// them, but no rows that may be the app's.
func TestCheckDeletesItsRows(t *testing.T) {
	const numberID = `{"properties": {"id": {"format": "int64"}}}` // Check inserts no id
	for name, test := range map[string]struct {
		columns    docevents.Columns
		definition string
		refuse     bool   // the DELETE is refused
		key        string // the column that selects the rows; "" if Check deletes none
		want       string
	}{
		"a unique id":                  {docevents.Columns{}, "", false, "id", "Accept"},
		"no document":                  {docevents.Columns{DocumentID: "-", CreatedAt: "at"}, "", false, "id", "Accept"},
		"an id that is a number":       {docevents.Columns{}, numberID, false, "document_id", "column id"},
		"no id and no document":        {docevents.Columns{DocumentID: "-"}, numberID, false, "", "delete them yourself: it inserted 18 rows"},
		"no id and an id that is text": {docevents.Columns{TextIDs: true}, numberID, false, "", "delete them yourself: it inserted 18 rows"},
		"rows that can't be deleted":   {docevents.Columns{}, "", true, "id", "GRANT SELECT, INSERT, DELETE"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var deleted, want []string
				table := roundTripFunc(func(req *http.Request) (*http.Response, error) {
					switch {
					case req.Method == http.MethodGet:
						return undescribed.response(req), nil
					case req.Method == http.MethodPost:
						var rows []map[string]any
						err := json.NewDecoder(req.Body).Decode(&rows)
						var values []string
						for _, row := range rows {
							values = append(values, fmt.Sprint(row[test.key]))
						}
						if test.key != "" {
							want = append(want, url.Values{test.key: {"in.(" + strings.Join(values, ",") + ")"}}.Encode())
						}
						return (&answer{}).response(req), err
					}
					deleted = append(deleted, req.URL.Query().Encode())
					if test.refuse {
						return (&answer{status: 403, code: "42501", text: "permission denied for table document_processing_events"}).response(req), nil
					}
					return (&answer{status: http.StatusNoContent, header: map[string]string{"Content-Range": "*/5"}}).response(req), nil
				})
				c, _ := newClient(t, described(table, test.definition), docevents.WithColumns(test.columns))
				checkSays(t, c, []string{"instead of rolling them back", test.want}, "SUPABASE_URL")
				if !slices.Equal(deleted, want) || len(deleted) > 1 {
					t.Errorf("DELETE ?%.200q, want one of ?%.200q", deleted, want)
				}
			})
		})
	}
}

// Check must delete its rows even if the server refuses the first insert and stores
// a later one.
func TestCheckDeletesRowsAfterARefusal(t *testing.T) {
	inserts, deletes := 0, 0
	c, _ := newClient(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
		if req.Method != http.MethodPost {
			deletes++
			return (&answer{status: http.StatusNoContent, header: map[string]string{"Content-Range": "*/1"}}).response(req), nil
		}
		if inserts++; inserts == 1 {
			return violates("x_event_type_check").response(req), nil
		}
		return (&answer{}).response(req), nil
	}))
	if err := c.Check(t.Context()); err == nil || strings.Count(err.Error(), "instead of rolling them back") != 1 {
		t.Error(err)
	}
	if stored := inserts - 1; stored == 0 || deletes < stored {
		t.Errorf("%d inserts were stored, %d deletes", stored, deletes)
	}
}

// Check must delete its rows even if ctx ends as soon as the server has stored them.
func TestCheckDeletesItsRowsAfterCtx(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	deletes := 0
	c, _ := newClient(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
		switch err := req.Context().Err(); {
		case err != nil:
			return nil, err
		case req.Method == http.MethodGet:
			return undescribed.response(req), nil
		case req.Method == http.MethodDelete:
			deletes++
			return (&answer{status: http.StatusNoContent, header: map[string]string{"Content-Range": "*/9"}}).response(req), nil
		}
		defer cancel()
		return (&answer{}).response(req), nil
	}))
	if err := c.Check(ctx); err == nil || deletes != 1 {
		t.Errorf("%v after %d deletes, want the finding after 1", err, deletes)
	}
}

// Check only logs a warning about a problem that an app may never have.
func TestCheckWarns(t *testing.T) {
	// oneForEach is a table with a trigger that keeps one event of each key, and none
	// if the key is nil. PostgREST doesn't roll back if only one row is left.
	oneForEach := func(key func(row map[string]any) any) inserts {
		return func(rows []map[string]any) *answer {
			stored := map[any]bool{}
			for _, row := range rows {
				stored[key(row)] = true
			}
			if delete(stored, nil); len(stored) == 1 {
				return &answer{status: http.StatusCreated}
			}
			return rolledBack(len(stored))
		}
	}
	for name, test := range map[string]struct {
		table      inserts
		definition string
		opt        docevents.Option
		want       string // a part of the only log line; "" if nothing may be logged
	}{
		"two fields": {
			table:      where(isNull("error_message"), notNull("error_message")),
			definition: `{"required": ["error_message", "stage"], "properties": {}}`,
			want:       "fields=ErrorMessage, Stage",
		},
		"document and user": {
			table:      everything(nil),
			definition: `{"required": ["document_id", "user_id"], "properties": {}}`,
			opt:        docevents.WithColumns(docevents.Columns{}),
			want:       "fields=DocumentID, UserID",
		},
		"the migration's table": {
			table:      everything(nil),
			definition: `{"required": ["id", "document_id", "user_id", "event_type", "created_at"], "properties": {}}`,
		},
		"an id under another name": {table: everything(nil), opt: docevents.WithColumns(docevents.Columns{ID: "event_id"})},
		"a trigger that discards one of two types": {
			table: oneForEach(func(row map[string]any) any {
				if row["event_type"] == "begun" {
					return nil
				}
				return row["id"]
			}),
			opt:  docevents.WithEventTypes(docevents.EventTypes{Started: []docevents.EventType{"begun"}, Completed: []docevents.EventType{"done"}}),
			want: "discards some of the events",
		},
		"a trigger that keeps one event of each document": {
			table: oneForEach(func(row map[string]any) any { return row["document_id"] }),
			want:  "discards some of the events",
		},
		"a unique id that isn't the primary key": {
			table: func(rows []map[string]any) *answer {
				if first := rows[0]["id"]; slices.ContainsFunc(rows[1:], hasValue("id", first)) {
					return &answer{status: 409, code: "23505", text: `duplicate key value violates unique constraint "x"`, details: "Key (id)=(x) already exists."}
				}
				return nil
			},
			want: "make the id the primary key",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, o := newClient(t, described(test.table, test.definition), test.opt)
				checkSays(t, c, nil, "")
				synctest.Wait()
				lines := o.logged()
				if test.want == "" && len(lines) > 0 {
					t.Errorf("logged %v", lines)
				}
				if test.want != "" && (len(lines) != 1 || !strings.Contains(lines[0].text, test.want) || lines[0].level != slog.LevelWarn) {
					t.Errorf("logged %v, want one warning: %q", lines, test.want)
				}
			})
		})
	}
}

// described adds PostgREST's description of the table and of others. If definition is "",
// the server offers no description.
func described(table http.RoundTripper, definition string) http.RoundTripper {
	return roundTripFunc(func(req *http.Request) (*http.Response, error) {
		if req.Method != http.MethodGet || definition == "" {
			return table.RoundTrip(req)
		}
		return (&answer{status: 200, body: `{"swagger": "2.0", "paths": {"/": [1, {"definitions": {}}]}, "definitions": {"a": {"properties": {"document_processing_events": {}}},
			"document_processing_events": ` + definition + `, "z": {}}}`}).response(req), nil
	})
}

func TestCheckFindsColumnsOfTheWrongType(t *testing.T) {
	const toTime = "make it a timestamptz (from a date: ALTER TABLE public.document_processing_events ALTER COLUMN created_at TYPE timestamptz), or name another column as CreatedAt with WithColumns"
	tables := map[string]checked{}
	for _, test := range []struct{ column, description, want string }{
		{"id", `"format": "bigint"`, `Event.ID: run: ALTER TABLE public.document_processing_events ADD COLUMN event_id uuid NOT NULL DEFAULT gen_random_uuid() UNIQUE; and use WithColumns(Columns{ID: "event_id"}); or make id itself a uuid`}, // of an older PostgREST
		{"document_id", `"format": "int64"`, "Event.DocumentID: use WithColumns(Columns{TextIDs: true})"},
		{"document_id", `"format": "character varying", "maxLength": 35`, "Event.DocumentID: use WithColumns(Columns{TextIDs: true})"},
		{"document_id", `"format": "character varying", "maxLength": 36`, ""},
		{"event_type", `"format": "integer"`, "Event.Type: make it text or an enum"},
		{"event_type", `"format": "character varying", "maxLength": 20`, ""},
		{"duration_ms", `"format": "interval"`, "Event.Duration: make it an integer of milliseconds, or write \"-\" for it in WithColumns. From an interval: ALTER TABLE public.document_processing_events ALTER COLUMN duration_ms TYPE integer USING"},
		{"duration_ms", `"format": "smallint"`, ""},
		{"stage", `"format": "int32"`, `Event.Stage: write "-" for it in WithColumns, and name it in Extra`},
		{"created_at", `"format": "date"`, "Event.CreatedAt: " + toTime},
		{"created_at", `"format": "time without time zone"`, "Event.CreatedAt: " + toTime},
		{"created_at", `"format": "timestamp without time zone"`, ""},
	} {
		var want []string
		if test.want != "" {
			want = []string{"the type of the column " + test.column + " can't hold " + test.want}
		}
		tables[test.column+" "+test.description] = checked{
			table:      everything(nil),
			definition: `{"required": ["id"], "properties": {"` + test.column + `": {` + test.description + `}}}`,
			want:       want,
		}
	}
	checkTables(t, tables)
}

// If a declared column is NOT NULL, Check inserts a value that fits the type in
// PostgREST's description.
func TestCheckFillsColumnsOfEveryType(t *testing.T) {
	isUUID := func(value any) bool { return uuid.Validate(fmt.Sprint(value)) == nil }
	tables := map[string]checked{}
	for _, test := range []struct {
		column, description string
		fits                func(value any) bool
		opt                 docevents.Option
	}{
		{"plan", `"enum": ["free", "paid"]`, func(value any) bool { return value == "free" }, withExtra("plan")},
		{"tenant", `"format": "uuid"`, isUUID, withExtra("tenant")},
		{"pages", `"format": "int64"`, func(value any) bool { return value == "1" }, withExtra("pages")},
		{"opens", `"format": "time without time zone"`, func(value any) bool { return value == "2024-01-01 00:00:00" }, withExtra("opens")}, // PostgreSQL refuses it with a T
		{"day", `"format": "date"`, func(value any) bool { return value == "2024-01-01 00:00:00" }, withExtra("day")},
		{"address", `"format": "inet"`, func(value any) bool { return value == "::1" }, withExtra("address")},
		{"tags", `"format": "text[]"`, func(value any) bool { list, ok := value.([]any); return ok && len(list) == 0 }, withExtra("tags")},
		{"user_id", `"format": "text"`, isUUID, nil},
		{"user_id", `"format": "text"`, func(value any) bool { return value == "1" || value == "2" }, docevents.WithColumns(docevents.Columns{TextIDs: true})},
	} {
		tables[fmt.Sprintf("%s %s, with an option: %t", test.column, test.description, test.opt != nil)] = checked{
			table:      firstOf(where(func(row map[string]any) bool { return !test.fits(row[test.column]) }, foreignKey), notUnique),
			definition: `{"required": ["id", "` + test.column + `"], "properties": {"` + test.column + `": {` + test.description + `}}}`,
			opt:        test.opt,
			want:       []string{notUniqueFinding},
		}
	}
	checkTables(t, tables)
}

// PostgREST's description lets Check find more than the inserts do.
func TestCheckReadsTheDescription(t *testing.T) {
	checkTables(t, map[string]checked{
		"all at once": {
			table: firstOf(where(isNull("tenant_id"), notNull("tenant_id")), where(isNull("job_id"), notNull("job_id")),
				where(hasValue("event_type", "failed"), violates("x_event_type_check"))),
			definition: `{"required": ["id"], "properties": {"tenant_id": {"format": "uuid"}, "job_id": {"format": "text"}, "created_at": {"format": "date"}, "user_id": {"format": "int64"}}}`,
			want:       []string{`"tenant_id"`, `"job_id"`, `no event of type "failed"`, "column created_at", "column user_id"},
		},
		"a CHECK of types, behind a column that a trigger fills from the stage": {
			table:      firstOf(where(isNull("stage"), notNull("step")), everything(violates("x_event_type_check"))),
			definition: `{"required": ["id", "step"], "properties": {"step": {"format": "text"}}}`,
			want:       []string{`the CHECK "x_event_type_check" lacks the type`},
			not:        `"step"`,
		},
		"a generated column that is always NULL": {
			table:      firstOf(where(isGiven("step"), takesNoValue("step")), everything(notNull("step"))),
			definition: `{"required": ["id", "step"], "properties": {"step": {"format": "text"}}}`,
			want:       []string{`"step"`, "23502"},
		},
		"a column that nobody fills, behind the first type, which is too long": {
			table:      firstOf(where(hasValue("event_type", "upload_started"), refused("22001", "value too long for type character varying(10)")), where(isNull("org_id"), notNull("org_id"))),
			definition: `{"required": ["org_id"], "properties": {"org_id": {"format": "uuid"}}}`,
			want:       []string{`"org_id"`, "nothing fills that column", `no event of type "upload_started":`},
		},
		"a declared column with a default, whose CHECK rejects other values": {
			table:      firstOf(where(isGiven("origin"), violates("x_origin_check")), notUnique),
			definition: `{"required": ["id", "origin"], "properties": {"origin": {"format": "text", "default": "api"}}}`,
			opt:        withExtra("origin"),
			want:       []string{notUniqueFinding},
		},
		"a foreign key that may be NULL": {
			table:      firstOf(where(hasValue("user_id"), foreignKey), notUnique),
			definition: `{"required": ["document_id"], "properties": {"user_id": {}}}`,
			opt:        docevents.WithColumns(docevents.Columns{}),
			want:       []string{notUniqueFinding},
		},
		"an enum type for the event type, with Open": {
			table:      firstOf(where(func(row map[string]any) bool { return row["event_type"] != "queued" }, refused("22P02", `invalid input value for enum kind: "x"`)), notUnique),
			definition: `{"properties": {"event_type": {"enum": ["queued", "done"]}}}`,
			opt:        docevents.WithEventTypes(docevents.EventTypes{Open: true}),
			want:       []string{notUniqueFinding},
			not:        "no event of type",
		},
		"an id in the key of a partitioned table": {
			table:      where(hasValue("id"), notInteger),
			definition: `{"required": ["id"], "properties": {"id": {"format": "int64", "description": "Note:\nThis is a Primary Key.<pk/>"}, "created_at": {"description": "Note:\nThis is a Primary Key.<pk/>"}}}`,
			want:       []string{"the type of the column id can't hold", "(id, created_at)"},
			not:        "UNIQUE",
		},
		"an id of a view": {
			table:      where(hasValue("id"), notInteger),
			definition: `{"properties": {"id": {"format": "int64"}}}`,
			want:       []string{"name the table beneath the view"},
			not:        "ALTER TABLE",
		},
	})
}

// Check retries for 5 s, and within ctx, if the problem may pass without a fix.
func TestCheckRetries(t *testing.T) {
	clocks := &answer{status: 401, code: "PGRST303", text: "JWT issued at future"}
	for name, test := range map[string]struct {
		answer  *answer
		passes  time.Duration // how long the server gives the answer
		within  time.Duration // the time until ctx ends, or 0
		good    bool
		longest time.Duration
	}{
		"a clock that is behind":      {clocks, 1500 * time.Millisecond, 0, true, 5 * time.Second},
		"a schema that reloads":       {refused("PGRST204", "Could not find the 'stage' column of 'x' in the schema cache"), time.Second, 0, true, 5 * time.Second},
		"a key that is wrong":         {clocks, time.Hour, 0, false, 5 * time.Second},
		"a context that ends":         {clocks, time.Hour, time.Second, false, time.Second},
		"a server that is overloaded": {&answer{status: 503}, time.Second, 0, false, 0},
		"a table that lacks a type":   {refused("23514", `new row for relation "x" violates check constraint "x_event_type_check"`), time.Hour, 0, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				c, _ := newClient(t, inserts(func([]map[string]any) *answer {
					if time.Since(start) < test.passes {
						return test.answer
					}
					return nil
				}))
				ctx := t.Context()
				if test.within > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, test.within)
					defer cancel()
				}
				err := c.Check(ctx)
				if (err == nil) != test.good || time.Since(start) > test.longest {
					t.Errorf("%v after %s", err, time.Since(start))
				}
				if e := (*docevents.Error)(nil); !test.good && (!errors.As(err, &e) || e.Code != test.answer.code) {
					t.Errorf("%v: the answer is lost", err)
				}
			})
		})
	}
}

// If ctx ends while an insert of Check hangs, the error contains the server's earlier
// answer.
func TestCheckReturnsTheEarlierAnswer(t *testing.T) {
	for name, test := range map[string]struct {
		answer   *answer
		answered int // later inserts hang
		want     string
		ended    bool // the error also says that ctx has ended
	}{
		"during a retry":           {&answer{status: 401, code: "PGRST303", text: "JWT issued at future"}, 1, "PGRST303", false},
		"while it tries each type": {violates("x_event_type_check"), 3, "x_event_type_check", true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inserts := 0
				c, _ := newClient(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
					if req.Method == http.MethodGet {
						return undescribed.response(req), nil
					}
					if inserts++; inserts > test.answered {
						<-req.Context().Done()
						return nil, req.Context().Err()
					}
					return test.answer.response(req), nil
				}))
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				err := c.Check(ctx)
				if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "SUPABASE_URL") || inserts != test.answered+1 {
					t.Errorf("got %v after %d inserts, want %s", err, inserts, test.want)
				}
				if errors.Is(err, context.DeadlineExceeded) != test.ended {
					t.Errorf("got %v, want ctx's error: %t", err, test.ended)
				}
			})
		})
	}
}

// If the server can't answer for a moment while Check tries each type alone, Check must
// not take this for consent to the type.
func TestCheckWithAServerThatIsOverloadedForAMoment(t *testing.T) {
	for name, overloaded := range map[string]*answer{
		"a gateway":          {status: 503},
		"a statement's time": {status: 500, code: "57014", text: "canceling statement due to statement timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := newClient(t, inserts(func(rows []map[string]any) *answer {
				if rows[0]["event_type"] == "failed" {
					return overloaded
				}
				return where(hasValue("event_type", "failed"), violates("valid_kind"))(rows)
			}))
			if err := c.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "valid_kind") {
				t.Errorf("got %v, want the refusal that Check examines", err)
			}
		})
	}
}

// A server may never finish its description of the table. Check then continues
// without it, and there is time for that even if ctx ends soon.
func TestCheckWithADescriptionThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := newClient(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
			if err := req.Context().Err(); err != nil {
				return nil, err
			}
			if req.Method != http.MethodGet {
				return everything(nil).RoundTrip(req)
			}
			body := io.MultiReader(strings.NewReader(`{"paths": {}, "definitions": {"a": `), untilDone{req.Context()})
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(body)}, nil
		}))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := c.Check(ctx); err != nil {
			t.Error(err)
		}
	})
}

// untilDone is a body that hangs until its context ends.
type untilDone struct{ context.Context }

func (d untilDone) Read([]byte) (int, error) {
	<-d.Done()
	return 0, d.Err()
}

// The description of a schema with thousands of tables may be 20 MiB long.
func TestCheckReadsALargeDescription(t *testing.T) {
	body := `{"paths": {"/": "` + strings.Repeat("x", 20<<20) + `"}, "definitions": {"document_processing_events": {"properties": {"stage": {"format": "int32"}}}}}`
	c, _ := newClient(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
		if req.Method == http.MethodGet {
			return (&answer{status: 200, body: body}).response(req), nil
		}
		return everything(nil).RoundTrip(req)
	}))
	checkSays(t, c, []string{"the type of the column stage can't hold Event.Stage"}, "")
}

func TestCheckBoundsEachAnswer(t *testing.T) {
	for _, stalled := range []string{http.MethodPost, http.MethodDelete} {
		synctest.Test(t, func(t *testing.T) {
			c, _ := newClient(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
				if req.Method == stalled {
					<-req.Context().Done()
					return nil, req.Context().Err()
				}
				return everything(nil).RoundTrip(req)
			}), docevents.WithRequestTimeout(7*time.Second))
			start := time.Now()
			err := c.Check(t.Context())
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 7*time.Second {
				t.Errorf("%s: %v after %s, want ctx's error after 7s", stalled, err, time.Since(start))
			}
		})
	}
}
