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
	"github.com/jarcoal/httpmock"
)

func TestCheckRehearses(t *testing.T) {
	w := &wire{}
	good := everything(nil)
	c, o := newClient(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
		if _, err := w.answer(http.StatusNoContent, "", "Content-Range", "*/0")(req); err != nil { // keeps the request
			return nil, err
		}
		sent := w.all()
		req.Body = io.NopCloser(strings.NewReader(sent[len(sent)-1].body))
		return good.RoundTrip(req)
	}))
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
	key, ids := cmp.Or(req.URL.Query().Get("on_conflict"), "id"), map[any]bool{}
	for _, row := range rows {
		ids[row[key]] = true
		row["columns="] = req.URL.Query().Get("columns")
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

// where refuses an insert with a row that has one of the values in a column.
func where(a *answer, column string, values ...string) inserts {
	return func(rows []map[string]any) *answer {
		for _, row := range rows {
			if value, isText := row[column].(string); isText && (len(values) == 0 || slices.Contains(values, value)) {
				return a
			}
		}
		return nil
	}
}

// unless refuses an insert with a row that has the value in a column and no value in
// the column needs.
func unless(a *answer, column, value, needs string) inserts {
	return func(rows []map[string]any) *answer {
		for _, row := range rows {
			if row[column] == value && row[needs] == nil {
				return a
			}
		}
		return nil
	}
}

// required answers an insert with lacking if a row has no value in a column, and
// otherwise with given.
func required(lacking, given *answer, column string) inserts {
	return func(rows []map[string]any) *answer {
		for _, row := range rows {
			if row[column] == nil {
				return lacking
			}
		}
		return given
	}
}

// notText is like required, for a column that takes no text. If a row has a text in
// it, the answer is text, because PostgreSQL checks the types of values first.
func notText(column string, lacking, text *answer, given ...*answer) inserts {
	return func(rows []map[string]any) *answer {
		if a := where(text, column)(rows); a != nil {
			return a
		}
		return required(lacking, append(given, nil)[0], column)(rows)
	}
}

// whereGiven refuses an insert whose rows have a column, even if it is NULL.
func whereGiven(a *answer, column string) inserts {
	return func(rows []map[string]any) *answer {
		if _, given := rows[0][column]; given {
			return a
		}
		return nil
	}
}

// without refuses inserts that list a column, like a table without that column.
func without(a *answer, column string) inserts {
	return func(rows []map[string]any) *answer {
		if len(rows) > 0 && slices.Contains(strings.Split(rows[0]["columns="].(string), ","), column) {
			return a
		}
		return nil
	}
}

// messageAndOneOfTwo refuses a failed event without a message, and one that fills both
// or none of the columns page and pages.
func messageAndOneOfTwo(a *answer) inserts {
	return func(rows []map[string]any) *answer {
		for _, row := range rows {
			if row["event_type"] == "failed" && (row["error_message"] == nil || (row["page"] == nil) == (row["pages"] == nil)) {
				return a
			}
		}
		return nil
	}
}

// severalTypes refuses an insert with events of several types.
func severalTypes(a *answer) inserts {
	return func(rows []map[string]any) *answer {
		if slices.ContainsFunc(rows, func(row map[string]any) bool { return row["event_type"] != rows[0]["event_type"] }) {
			return a
		}
		return nil
	}
}

// unlessEmpty refuses every insert that has rows.
func unlessEmpty(a *answer) inserts {
	return func(rows []map[string]any) *answer {
		if len(rows) > 0 {
			return a
		}
		return nil
	}
}

// repeated refuses an insert in which two events have the same value in a column.
func repeated(a *answer, column string) inserts {
	return func(rows []map[string]any) *answer {
		ids := map[any]any{} // a copy of an event has the same id
		for _, row := range rows {
			if id, has := ids[row[column]]; has && id != row["id"] {
				return a
			}
			ids[row[column]] = row["id"]
		}
		return nil
	}
}

// The answers are those of PostgreSQL 15 with PostgREST 14.17.
func TestCheckFindings(t *testing.T) {
	columns := func(c docevents.Columns) []docevents.Option { return []docevents.Option{docevents.WithColumns(c)} }
	types := func(types docevents.EventTypes) []docevents.Option {
		return []docevents.Option{docevents.WithEventTypes(types)}
	}
	const name = "document_processing_events"
	notNull := func(column, relation string) *answer {
		return refused("23502", fmt.Sprintf("null value in column %q of relation %q violates not-null constraint", column, relation))
	}
	violates := func(constraint string) *answer {
		return refused("23514", fmt.Sprintf("new row for relation %q violates check constraint %q", name, constraint))
	}
	noPartition := func(key string) *answer {
		return &answer{status: 400, code: "23514", text: `no partition of relation "` + name + `" found for row`, details: "Partition key of the failing row contains (" + key + ") = (secret row)."}
	}
	duplicate := func(key string) *answer {
		return &answer{status: 409, code: "23505", text: `duplicate key value violates unique constraint "x"`, details: "Key (" + key + ")=(secret row) already exists."}
	}
	foreignKey := &answer{status: 409, code: "23503", text: `insert or update on table "x" violates foreign key constraint "fk"`, details: `Key (document_id)=(x) is not present in table "documents".`}
	noUnique := refused("42P10", "there is no unique or exclusion constraint matching the ON CONFLICT specification")
	for title, test := range map[string]struct {
		table inserts
		want  []string // parts of the error; if there are none, Check returns nil
		not   string
		opts  []docevents.Option
	}{
		"all is well":                                            {everything(nil), nil, "", nil},
		"an id under another name":                               {everything(nil), nil, "", columns(docevents.Columns{ID: "event_id"})},
		"a foreign key":                                          {everything(foreignKey), nil, "", nil},
		"another unique constraint":                              {everything(duplicate("stage")), nil, "", nil},
		"an exclusion constraint":                                {everything(&answer{status: 400, code: "23P01", text: `conflicting key value violates exclusion constraint "x"`}), nil, "", nil},
		"a trigger that raises":                                  {everything(refused("P0001", "no")), nil, "", nil},
		"a trigger that refuses two types":                       {severalTypes(violates("one_type")), nil, "", nil},
		"a trigger with PostgreSQL's code":                       {everything(refused("23514", "no consent")), nil, "", nil},
		"a trigger that refuses NULL":                            {everything(refused("23502", "no consent")), nil, "", nil},
		"a trigger that refuses the test rows":                   {unlessEmpty(&answer{status: 403, code: "42501", text: "no consent"}), nil, "", nil},
		"a trigger that casts":                                   {everything(refused("22P02", `invalid input syntax for type integer: "x"`)), []string{"22P02"}, "", nil},
		"a view WITH CHECK OPTION":                               {everything(refused("44000", `new row violates check option for view "x"`)), nil, "", nil},
		"a declared column takes no NULL":                        {required(notNull("tenant_id", name), nil, "tenant_id"), nil, "", columns(docevents.Columns{Extra: []string{"tenant_id"}})},
		"the stage takes no NULL":                                {required(notNull("stage", name), nil, "stage"), nil, "", nil},
		"a CHECK on the stage":                                   {everything(violates(name + "_stage_check")), nil, "", nil},
		"a CHECK on a declared column":                           {everything(violates(name + "_tenant_check")), nil, "", columns(docevents.Columns{Extra: []string{"tenant"}})},
		"a CHECK named for the column":                           {everything(violates("has_tenant")), nil, "", columns(docevents.Columns{Extra: []string{"tenant"}})},
		"a CHECK whose name contains no column name":             {required(notNull("origin", name), violates("known_source"), "origin"), nil, "", columns(docevents.Columns{Extra: []string{"origin"}})},
		"a CHECK on a column whose name contains the type's":     {everything(violates("jobs_file_type_check")), nil, "", columns(docevents.Columns{Type: "type", Extra: []string{"file_type"}})},
		"a partition by a column whose name contains the type's": {everything(noPartition("file_type")), nil, "", columns(docevents.Columns{Type: "type", Extra: []string{"file_type"}})},
		"a CHECK on a stage that takes no NULL":                  {required(notNull("stage", name), violates("known_step"), "stage"), nil, "", nil},
		"a failure needs its message":                            {unless(violates(name+"_check"), "event_type", "failed", "error_message"), nil, "", nil},
		"a completed event needs a duration":                     {unless(violates(name+"_check"), "event_type", "completed", "duration_ms"), nil, "", nil},
		"a completed event needs a page":                         {unless(violates(name+"_check"), "event_type", "completed", "page"), nil, "", columns(docevents.Columns{Extra: []string{"page", "pages"}})},
		"a message, and one of two columns":                      {messageAndOneOfTwo(violates("one_of")), nil, "", columns(docevents.Columns{Extra: []string{"page", "pages"}})},
		"a declared column that isn't text":                      {notText("pages", notNull("pages", name), refused("22P02", `invalid input syntax for type integer: "x"`)), nil, "", columns(docevents.Columns{Extra: []string{"pages"}})},
		"a declared column with an enum type":                    {required(notNull("plan", name), refused("22P02", `invalid input value for enum plan: "x"`), "plan"), nil, "", columns(docevents.Columns{Extra: []string{"plan"}})},
		"a stage with an enum type":                              {where(refused("22P02", `invalid input value for enum step: "x"`), "stage"), nil, "", nil},
		"a stage column that is too short":                       {where(refused("22001", "value too long for type character varying(3)"), "stage", "check"), nil, "", nil},
		"a message column that is too short":                     {where(refused("22001", "value too long for type character varying(3)"), "error_message"), nil, "", nil},
		"the table decides about types":                          {everything(violates(name + "_event_type_check")), nil, "", types(docevents.EventTypes{Open: true})},
		"an enum decides about types":                            {where(refused("22P02", `invalid input value for enum kind: "x"`), "event_type"), nil, "", types(docevents.EventTypes{Open: true})},
		"a default type that isn't listed":                       {where(violates("x_event_type_check"), "event_type", "failed"), nil, "", types(docevents.EventTypes{Completed: []docevents.EventType{"done"}})},
		"no column for the type":                                 {everything(nil), nil, "", columns(docevents.Columns{Type: "-"})},
		"ids that are numbers":                                   {where(refused("22P02", `invalid input syntax for type bigint: "x"`), "document_id", "x"), nil, "", columns(docevents.Columns{TextIDs: true})},
		"an Extra whose name is part of another column's name":   {everything(notNull("tenant_id", name)), []string{"nothing fills that column", "DEFAULT", "trigger", "Extra"}, "", columns(docevents.Columns{Extra: []string{"tenant"}})},
		"a partition by a declared column":                       {everything(noPartition("tenant")), nil, "", columns(docevents.Columns{Extra: []string{"tenant"}})},
		"a unique key on the document and the stage":             {everything(duplicate("document_id, stage")), nil, "", nil},

		"a NOT NULL column that nobody fills": {
			required(notNull("tenant_id", name), nil, "tenant_id"),
			[]string{`"tenant_id"`, "nothing fills that column", "DEFAULT", "trigger", "Extra", "23502"},
			"", nil,
		},
		"a NOT NULL column whose name WithColumns rejects": {
			required(notNull("tenant-id", name), nil, "tenant-id"),
			[]string{"tenant-id", "DEFAULT", "trigger", "if its name is of letters"},
			"", nil,
		},
		"a domain that takes no NULL": {
			everything(refused("23502", "domain tenant does not allow null values")),
			[]string{"DEFAULT", "domain tenant"},
			"the column  takes", nil,
		},
		"a CHECK on a column that nobody fills": {
			everything(violates("has_tenant")),
			[]string{`the CHECK "has_tenant" lacks the type`, "about another column, fill that from Event.Extra"},
			"", nil,
		},
		"a CHECK whose name contains the name of another column": {
			where(violates("valid_kind"), "event_type", "completed"),
			[]string{`no event of type "completed":`},
			"", columns(docevents.Columns{ID: "event_id", Extra: []string{"id"}}),
		},
		"a CHECK in a table without event types": {
			everything(violates("has_tenant")),
			[]string{"about another column, fill that from Event.Extra"},
			"", columns(docevents.Columns{Type: "-"}),
		},
		"a type that is too long": {
			where(refused("22001", "value too long for type character varying(16)"), "event_type", "processing_started"),
			[]string{`no event of type "processing_started":`, "character varying(16)"},
			"UUID", nil,
		},
		"a type that the CHECK lacks": {
			where(violates(name+"_event_type_check"), "event_type", "retried", "queued"),
			[]string{`no event of type "queued", "retried"`, "WithEventTypes", "sql/optional/event_types.sql", "23514"},
			"completed",
			types(docevents.EventTypes{Arrived: []docevents.EventType{"queued"}, Completed: []docevents.EventType{"completed"}, Notes: []docevents.EventType{"retried"}}),
		},
		"a type column under another name": {
			where(violates(name+"_kind_check"), "kind", "failed"),
			[]string{`no event of type "failed"`},
			"completed", columns(docevents.Columns{Type: "kind"}),
		},
		"a type that the enum lacks": {
			where(refused("22P02", `invalid input value for enum kind: "failed"`), "event_type", "failed"),
			[]string{`no event of type "failed":`, "enum", "WithEventTypes"},
			`"completed"`, nil,
		},
		"no partition for a type": {
			where(noPartition("event_type"), "event_type", "failed"),
			[]string{`no event of type "failed":`},
			`"completed"`, nil,
		},
		"the Table Editor's id": {
			where(refused("22P02", `invalid input syntax for type bigint: "aaaaaaaa-0000-4000-8000-000000000001"`), "id"),
			[]string{"bigint", "the id must be a uuid", "WithColumns"},
			"another type", nil,
		},
		"an id generated always": {
			whereGiven(refused("428C9", `cannot insert a non-DEFAULT value into column "id"`), "id"),
			[]string{`the column "id" takes no value`, "name another column"},
			"", nil,
		},
		"a stage generated always": {
			whereGiven(refused("428C9", `cannot insert a non-DEFAULT value into column "stage"`), "stage"),
			[]string{`the column "stage" takes no value`, `"-"`},
			"bigint", nil,
		},
		"a time generated always": {
			whereGiven(refused("428C9", `cannot insert a non-DEFAULT value into column "created_at"`), "created_at"),
			[]string{`the column "created_at" takes no value`, "ALTER TABLE public." + name + ` ALTER COLUMN "created_at" DROP EXPRESSION`},
			"", nil,
		},
		"a declared column generated always": {
			whereGiven(refused("428C9", `cannot insert a non-DEFAULT value into column "pages"`), "pages"),
			nil, "", columns(docevents.Columns{Extra: []string{"pages"}}), // Check doesn't fill the column
		},
		"a document id that is a number": {
			where(refused("22P02", `invalid input syntax for type bigint: "11111111-1111-4111-8111-111111111111"`), "document_id"),
			[]string{"document and user ids", "TextIDs: true"},
			"event_id", nil,
		},
		"a time that is a number": {
			where(refused("22P02", `invalid input syntax for type bigint: "2025"`), "created_at"),
			[]string{"timestamptz", "WithColumns"},
			`"-"`, nil,
		},
		"a name that SQL accepts only in quotes": {
			whereGiven(refused("428C9", `cannot insert a non-DEFAULT value into column "createdAt"`), "createdAt"),
			[]string{`ALTER TABLE "App".document_processing_events ALTER COLUMN "createdAt" DROP`},
			"", append(columns(docevents.Columns{CreatedAt: "createdAt"}), docevents.WithSchema("App")),
		},
		"no partition": {
			everything(noPartition("created_at")),
			[]string{"make a partition", "partitioned.sql"},
			"no event of type", columns(docevents.Columns{Extra: []string{"tenant"}}),
		},
		"one event for each document": {
			repeated(duplicate("document_id"), "document_id"),
			[]string{`drop the constraint "x"`},
			"", nil,
		},
		"a trigger that stores one row for each document": {
			func(rows []map[string]any) *answer {
				return &answer{status: 409, code: "23505", text: `duplicate key value violates unique constraint "documents_pkey"`, details: fmt.Sprintf("Key (id)=(%s) already exists.", rows[0]["document_id"])}
			},
			[]string{`"documents_pkey"`, "ON CONFLICT DO NOTHING"},
			"", nil,
		},
		"no unique key": {
			func(rows []map[string]any) *answer { return rolledBack(len(rows)) },
			[]string{"nothing makes the column id unique", "ALTER TABLE public." + name + " ADD PRIMARY KEY (id)"},
			"", nil,
		},
		"no unique key, and a trigger that discards a type": {
			func(rows []map[string]any) *answer {
				return rolledBack(len(slices.DeleteFunc(rows, func(row map[string]any) bool { return row["event_type"] == "completed" })))
			},
			[]string{"nothing makes the column id unique"},
			"", nil,
		},
		"a trigger that discards every row": {
			func([]map[string]any) *answer { return rolledBack(0) },
			[]string{"discards every event", "trigger"},
			"", nil,
		},
		"nothing makes the id unique": {
			everything(noUnique),
			[]string{"nothing makes the id unique", "UNIQUE or the primary key"},
			"", columns(docevents.Columns{ID: "event_id"}),
		},
		"an INSERT rule on the table": {
			everything(refused("0A000", "INSERT with ON CONFLICT clause cannot be used with table that has INSERT or UPDATE rules")),
			[]string{"replace the rule", "trigger"},
			"compare the table", nil,
		},
		"a missing column": {
			without(refused("PGRST204", "Could not find the 'metadata' column of 'document_processing_events' in the schema cache"), "metadata"),
			[]string{"add the column", "'metadata'", "WithColumns", "NOTIFY pgrst"},
			"", columns(docevents.Columns{Extra: []string{"metadata"}}),
		},
		"a column that only PostgREST's cache has": {
			without(refused("42703", `column "stage" of relation "document_processing_events" does not exist`), "stage"),
			[]string{"add the column", `"stage"`, "WithColumns"},
			"", nil,
		},
		"a trigger that writes to a table that is gone": {
			everything(&answer{status: 404, code: "42P01", text: `relation "public.audit_log" does not exist`}),
			[]string{"a trigger", "public.audit_log"},
			"sql/013", nil,
		},
		"a trigger that may not write": {
			everything(&answer{status: 403, code: "42501", text: "permission denied for table audit_log"}),
			[]string{"a trigger", "SECURITY DEFINER", "audit_log"},
			"", nil,
		},
		"a host that can't be reached": {
			func([]map[string]any) *answer {
				return &answer{err: &net.OpError{Op: "dial", Net: "tcp", Err: errReset}}
			},
			[]string{"check SUPABASE_URL and the network", "dial tcp"},
			"", nil,
		},
		"a mock without a responder": {
			func([]map[string]any) *answer { return &answer{err: httpmock.NoResponderFound} },
			[]string{"add a responder", "no responder found"},
			"no answer came", nil,
		},
		"a refused key":          {everything(&answer{status: 401, code: "PGRST301", text: "No suitable key or wrong key type"}), []string{"check the key", "HTTP 401 PGRST301"}, "", nil},
		"a role that is missing": {everything(&answer{status: 401, code: "22023", text: `role "nobody_here" does not exist`}), []string{"check the key"}, "no event of type", nil},
		"a missing table":        {everything(&answer{status: 404, code: "PGRST205", text: "Could not find the table 'public.x' in the schema cache"}), []string{"run sql/013_create_processing_events_table.sql", "PGRST205"}, "", nil},
		"a missing INSERT grant": {everything(&answer{status: 403, code: "42501", text: "permission denied for table " + name}), []string{"GRANT SELECT, INSERT, DELETE ON public." + name + " TO service_role"}, "", nil},
	} {
		t.Run(title, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _ := newClient(t, test.table, test.opts...)
				checkSays(t, c, test.want, test.not)
			})
		})
	}
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
		"a statement timeout":              {answer{status: 500, code: "57014", text: "canceling statement due to statement timeout"}, []string{"57014"}},
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

// A server that ignores the header Accept stores the rows of a rehearsal. Check must
// delete them.
func TestCheckDeletesItsRows(t *testing.T) {
	for name, test := range map[string]struct {
		columns    docevents.Columns
		definition string // PostgREST's description of the table
		refuse     bool   // the DELETE is refused
		want       []string
	}{
		"a unique id":                  {docevents.Columns{}, "{}", false, []string{"instead of rolling them back", "Accept"}},
		"no document":                  {docevents.Columns{DocumentID: "-", CreatedAt: "at"}, "{}", false, []string{"instead of rolling them back", "Accept"}},
		"an id that is a number":       {docevents.Columns{}, `{"properties": {"id": {"format": "int64"}}}`, false, []string{"instead of rolling them back", "column id"}},
		"no id and no document":        {docevents.Columns{DocumentID: "-"}, `{"properties": {"id": {"format": "int64"}}}`, false, []string{"instead of rolling them back", "delete them yourself: it inserted 18 rows", "column id"}},
		"no id and an id that is text": {docevents.Columns{TextIDs: true}, `{"properties": {"id": {"format": "int64"}}}`, false, []string{"instead of rolling them back", "delete them yourself: it inserted 18 rows", "column id"}},
		"rows that can't be deleted":   {docevents.Columns{}, "{}", true, []string{"instead of rolling them back", "delete: ", "GRANT SELECT, INSERT, DELETE"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var rows []map[string]any
				var deletes []url.Values
				c, _ := newClient(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
					switch {
					case req.Method == http.MethodGet:
						return described(everything(nil), test.definition).RoundTrip(req)
					case req.Method == http.MethodPost:
						if err := json.NewDecoder(req.Body).Decode(&rows); err != nil {
							return nil, err
						}
						return (&answer{}).response(req), nil
					case test.refuse:
						return (&answer{status: 403, code: "42501", text: "permission denied for table document_processing_events"}).response(req), nil
					}
					deletes = append(deletes, req.URL.Query())
					return (&answer{status: http.StatusNoContent, header: map[string]string{"Content-Range": "*/5"}}).response(req), nil
				}), docevents.WithColumns(test.columns))
				checkSays(t, c, test.want, "no answer came")
				if test.refuse {
					return
				}
				key := "id"
				if rows[0]["id"] == nil {
					key = "document_id"
				}
				if id, _ := rows[0][key].(string); len(id) < 36 { // the app's rows may have the same values
					for _, d := range deletes {
						if got := d.Get("created_at"); len(d) != 1 || got != "lt.-infinity" {
							t.Errorf("DELETE ?%s, want none of rows that may be the app's", d.Encode())
						}
					}
					return
				}
				var values []string
				for _, row := range rows {
					values = append(values, fmt.Sprint(row[key]))
				}
				want := url.Values{key: {"in.(" + strings.Join(values, ",") + ")"}}
				if got := deletes[0].Encode(); got != want.Encode() {
					t.Errorf("DELETE ?%s, want %s", got, want.Encode())
				}
			})
		})
	}
}

// Check must delete its rows even if the server refuses the first insert and stores
// a later one.
func TestCheckDeletesRowsAfterARefusal(t *testing.T) {
	for name, refusal := range map[string]*answer{
		"a refusal of one type":         refused("23514", `new row for relation "x" violates check constraint "x_event_type_check"`),
		"a refusal of a column's value": refused("22P02", `invalid input syntax for type bigint: "x"`),
	} {
		t.Run(name, func(t *testing.T) {
			inserts, came, deletes := 0, 0, 0
			c, _ := newClient(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
				if req.Method != http.MethodPost {
					deletes++
					return (&answer{status: http.StatusNoContent, header: map[string]string{"Content-Range": "*/1"}}).response(req), nil
				}
				if inserts++; inserts == 1 {
					return refusal.response(req), nil
				}
				came++
				return (&answer{}).response(req), nil
			}))
			if err := c.Check(t.Context()); err == nil || strings.Count(err.Error(), "instead of rolling them back") != 1 {
				t.Error(err)
			}
			if came == 0 || deletes < came {
				t.Errorf("%d rehearsals came in, %d deletes", came, deletes)
			}
		})
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
	notNull := func(column string) *answer {
		return refused("23502", fmt.Sprintf("null value in column %q of relation \"x\" violates not-null constraint", column))
	}
	for name, test := range map[string]struct {
		table http.RoundTripper
		want  []string
		opts  []docevents.Option
	}{
		"a duration": {
			described(required(notNull("duration_ms"), nil, "duration_ms"), `{"required": ["duration_ms"], "properties": {}}`),
			[]string{"fields=Duration"},
			nil,
		},
		"two fields": {
			described(required(notNull("error_message"), nil, "error_message"), `{"required": ["error_message", "stage"], "properties": {}}`),
			[]string{"fields=ErrorMessage, Stage"},
			nil,
		},
		"a trigger that discards some rows": {
			inserts(func([]map[string]any) *answer { return rolledBack(2) }),
			[]string{"discards some of the events"},
			nil,
		},
		"a trigger that discards one of two types": { // PostgREST would store a single row
			inserts(func(rows []map[string]any) *answer {
				stored := map[any]bool{}
				for _, row := range rows {
					if row["event_type"] != "begun" {
						stored[row["id"]] = true
					}
				}
				if len(stored) == 1 {
					return &answer{status: http.StatusCreated}
				}
				return rolledBack(len(stored))
			}),
			[]string{"discards some of the events"},
			[]docevents.Option{docevents.WithEventTypes(docevents.EventTypes{Started: []docevents.EventType{"begun"}, Completed: []docevents.EventType{"done"}})},
		},
		"a trigger that keeps the first event of each document": { // PostgREST would store a single row
			inserts(func(rows []map[string]any) *answer {
				stored := map[any]bool{}
				for _, row := range rows {
					stored[row["document_id"]] = true
				}
				if len(stored) == 1 {
					return &answer{status: http.StatusCreated}
				}
				return rolledBack(len(stored))
			}),
			[]string{"discards some of the events"},
			nil,
		},
		"document and user": {
			described(everything(nil), `{"required": ["document_id", "user_id"], "properties": {}}`),
			[]string{"fields=DocumentID, UserID"},
			[]docevents.Option{docevents.WithColumns(docevents.Columns{})},
		},
		"the primary key of a partition": {
			repeatedRow(&answer{status: 409, code: "23505", text: `duplicate key value violates unique constraint "x_p20261101_pkey"`}),
			[]string{"make the id the primary key"},
			nil,
		},
		"the migration's table": {described(everything(nil), `{"required": ["document_id", "user_id"], "properties": {}}`), nil, nil},
		"a key that isn't the primary one": {
			repeatedRow(&answer{status: 409, code: "23505", text: `duplicate key value violates unique constraint "x"`, details: "Key (id)=(x) already exists."}),
			[]string{"make the id the primary key"},
			nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, o := newClient(t, test.table, test.opts...)
				checkSays(t, c, nil, "")
				synctest.Wait()
				lines := o.logged()
				if len(lines) != min(len(test.want), 1) {
					t.Fatalf("logged %v", lines)
				}
				for _, text := range test.want {
					if !strings.Contains(lines[0].text, text) || lines[0].level != slog.LevelWarn {
						t.Errorf("logged %v, want %q", lines, text)
					}
				}
			})
		})
	}
}

// repeatedRow refuses an insert with a copy of a row.
func repeatedRow(a *answer) inserts {
	return func(rows []map[string]any) *answer {
		ids := map[any]bool{}
		for _, row := range rows {
			if ids[row["id"]] {
				return a
			}
			ids[row["id"]] = true
		}
		return nil
	}
}

// described adds PostgREST's description of the table and of others.
func described(table inserts, definition string) http.RoundTripper {
	return roundTripFunc(func(req *http.Request) (*http.Response, error) {
		if req.Method != http.MethodGet || req.URL.Path != "/rest/v1/" {
			return table.RoundTrip(req)
		}
		return (&answer{status: 200, body: `{"swagger": "2.0", "paths": {"/": [1, {"definitions": {}}]}, "definitions": {"a": {"properties": {"document_processing_events": {}}},
			"document_processing_events": ` + definition + `, "z": {}}}`}).response(req), nil
	})
}

// PostgREST's description lets Check find more than a rehearsal does.
func TestCheckReadsTheDescription(t *testing.T) {
	const name = "document_processing_events"
	for title, test := range map[string]struct {
		table      inserts
		definition string
		want       []string
		not        string
		opts       []docevents.Option
	}{
		"an interval": {
			everything(nil), `{"properties": {"duration_ms": {"format": "interval"}}}`,
			[]string{"the type of the column duration_ms can't hold Event.Duration", "ALTER TABLE public." + name + " ALTER COLUMN duration_ms TYPE integer USING"},
			"", nil,
		},
		"a date": {
			everything(nil), `{"properties": {"created_at": {"format": "date"}}}`,
			[]string{"the type of the column created_at can't hold Event.CreatedAt", "ALTER TABLE public." + name + " ALTER COLUMN created_at TYPE timestamptz"},
			"", nil,
		},
		"a time of day": {
			everything(nil), `{"properties": {"created_at": {"format": "time without time zone"}}}`,
			[]string{"the type of the column created_at", "name another column as CreatedAt"},
			`"-"`, nil,
		},
		"a document id that is a number": {
			everything(nil), `{"properties": {"document_id": {"format": "int64"}}}`,
			[]string{"the type of the column document_id can't hold Event.DocumentID", "TextIDs: true"},
			"event_id", nil,
		},
		"a number, described by an older PostgREST": {
			notText("tenant_id", refused("23502", `null value in column "tenant_id" of relation "x" violates not-null constraint`), nil, refused("22P02", `invalid input syntax for type bigint: "x"`)),
			`{"required": ["id", "tenant_id"], "properties": {"id": {"format": "bigint"}, "tenant_id": {"format": "bigint"}}}`,
			[]string{"the type of the column id can't hold Event.ID"},
			"",
			[]docevents.Option{docevents.WithColumns(docevents.Columns{Extra: []string{"tenant_id"}})},
		},
		"a duration, described by an older PostgREST": {everything(nil), `{"properties": {"duration_ms": {"format": "smallint"}}}`, nil, "", nil},
		"an id that is too short, and a declared column that takes no NULL": {
			required(refused("23502", `null value in column "tags" of relation "x" violates not-null constraint`), refused("22001", "value too long for type character varying(20)"), "tags"),
			`{"required": ["id", "tags"], "properties": {"id": {"format": "character varying", "maxLength": 20}, "tags": {"format": "text[]"}}}`,
			[]string{"character varying(20)"},
			"",
			[]docevents.Option{docevents.WithColumns(docevents.Columns{Extra: []string{"tags"}})},
		},
		"a declared column with a default, whose CHECK rejects other values": {
			func(rows []map[string]any) *answer {
				if _, given := rows[0]["origin"]; given {
					return refused("23514", `new row for relation "x" violates check constraint "x_origin_check"`)
				}
				return rolledBack(len(rows))
			}, `{"required": ["id", "origin"], "properties": {"origin": {"format": "text", "default": "api"}}}`,
			[]string{"nothing makes the column id unique"},
			"",
			[]docevents.Option{docevents.WithColumns(docevents.Columns{Extra: []string{"origin"}})},
		},
		"a declared column for a time of day": {
			func(rows []map[string]any) *answer {
				if at, _ := rows[0]["opens"].(string); strings.Contains(at, "T") {
					return refused("22007", `invalid input syntax for type time: "x"`)
				}
				return rolledBack(len(rows))
			}, `{"required": ["id", "opens"], "properties": {"opens": {"format": "time without time zone"}}}`,
			[]string{"nothing makes the column id unique"},
			"",
			[]docevents.Option{docevents.WithColumns(docevents.Columns{Extra: []string{"opens"}})},
		},
		"a document id that is too short": {
			everything(nil), `{"properties": {"document_id": {"format": "character varying", "maxLength": 10}}}`,
			[]string{"the type of the column document_id"},
			"", nil,
		},
		"a stage that is a number": {
			everything(nil), `{"properties": {"stage": {"format": "int32"}}}`,
			[]string{"the type of the column stage", `"-"`, "Extra"},
			"event_id", nil,
		},
		"all at once": {
			func(rows []map[string]any) *answer {
				for _, missing := range []string{"tenant_id", "job_id"} {
					if rows[0][missing] == nil {
						return refused("23502", fmt.Sprintf("null value in column %q of relation %q violates not-null constraint", missing, name))
					}
				}
				return where(refused("23514", `new row for relation "x" violates check constraint "x_event_type_check"`), "event_type", "failed")(rows)
			}, `{"required": ["id"], "properties": {"tenant_id": {"format": "uuid"}, "job_id": {"format": "text"}, "created_at": {"format": "date"}, "user_id": {"format": "int64"}}}`,
			[]string{`"tenant_id"`, `"job_id"`, `no event of type "failed"`, "column created_at", "column user_id"},
			"", nil,
		},
		"a generated column that needs a stage": {
			func(rows []map[string]any) *answer {
				if _, given := rows[0]["step"]; given {
					return refused("428C9", `cannot insert a non-DEFAULT value into column "step"`)
				}
				return required(refused("23502", `null value in column "step" of relation "x" violates not-null constraint`), nil, "stage")(rows)
			}, `{"required": ["id", "step"], "properties": {"step": {"format": "text"}}}`,
			nil, "", nil,
		},
		"a CHECK of types, behind a column that a trigger fills from the stage": {
			required(refused("23502", `null value in column "step" of relation "x" violates not-null constraint`), refused("23514", `new row for relation "x" violates check constraint "x_event_type_check"`), "stage"),
			`{"required": ["id", "step"], "properties": {"step": {"format": "text"}}}`,
			[]string{`the CHECK "x_event_type_check" lacks the type`},
			`"step"`, nil,
		},
		"a generated column that is always NULL": {
			func(rows []map[string]any) *answer {
				if _, given := rows[0]["step"]; given {
					return refused("428C9", `cannot insert a non-DEFAULT value into column "step"`)
				}
				return refused("23502", `null value in column "step" of relation "x" violates not-null constraint`)
			}, `{"required": ["id", "step"], "properties": {"step": {"format": "text"}}}`,
			[]string{`"step"`, "23502"},
			"", nil,
		},
		"a NOT NULL column that the view doesn't let the app fill": {
			func(rows []map[string]any) *answer {
				if _, given := rows[0]["step"]; given {
					return refused("0A000", `cannot insert into column "step" of view "x"`)
				}
				return refused("23502", `null value in column "step" of relation "x_base" violates not-null constraint`)
			}, `{"properties": {"step": {"format": "text"}}}`,
			[]string{"23502", "0A000"},
			"", nil,
		},
		"a column that nobody fills, behind a declared column that takes no NULL": {
			required(refused("23502", `null value in column "tenant_id" of relation "x" violates not-null constraint`), refused("23502", `null value in column "job_id" of relation "x" violates not-null constraint`), "tenant_id"),
			`{"required": ["tenant_id"], "properties": {"tenant_id": {"format": "int64"}, "job_id": {}}}`,
			[]string{`"job_id"`, "nothing fills that column"},
			`"tenant_id"`,
			[]docevents.Option{docevents.WithColumns(docevents.Columns{Extra: []string{"tenant_id"}})},
		},
		"a type that the CHECK lacks, behind a stage that takes no NULL": {
			required(refused("23502", `null value in column "stage" of relation "x" violates not-null constraint`), refused("23514", `new row for relation "x" violates check constraint "x_event_type_check"`), "stage"),
			`{"required": ["stage"], "properties": {"stage": {}}}`,
			[]string{`the CHECK "x_event_type_check" lacks the type`},
			"", nil,
		},
		"a foreign key that may be NULL": {
			func(rows []map[string]any) *answer {
				if rows[0]["user_id"] != nil {
					return &answer{status: 409, code: "23503", text: `insert or update on table "x" violates foreign key constraint "fk"`}
				}
				return rolledBack(len(rows))
			},
			`{"required": ["document_id"], "properties": {"user_id": {}}}`,
			[]string{"nothing makes the column id unique"},
			"",
			[]docevents.Option{docevents.WithColumns(docevents.Columns{})},
		},
		"a column that a view hides": {
			everything(refused("23502", `null value in column "org_id" of relation "base" violates not-null constraint`)),
			`{"properties": {"stage": {}}}`,
			[]string{`"org_id"`, "nothing fills that column"},
			"", nil,
		},
		"a column of a table that a trigger writes to": {
			everything(refused("23502", `null value in column "org_id" of relation "audit" violates not-null constraint`)),
			`{"required": ["id"], "properties": {"stage": {}}}`,
			nil, "", nil,
		},
		"a timestamp": {everything(nil), `{"properties": {"created_at": {"format": "timestamp without time zone"}}}`, nil, "", nil},
		"a column of Extra with an enum type": {
			func(rows []map[string]any) *answer {
				switch plan := rows[0]["plan"]; {
				case plan == nil:
					return refused("23502", `null value in column "plan" of relation "x" violates not-null constraint`)
				case plan != "free":
					return refused("22P02", `invalid input value for enum plan: "x"`)
				}
				return rolledBack(len(rows))
			}, `{"properties": {"plan": {"enum": ["free"]}}}`,
			[]string{"nothing makes the column id unique"},
			"",
			[]docevents.Option{docevents.WithColumns(docevents.Columns{Extra: []string{"plan"}})},
		},
		"an enum type for the event type, with Open": {
			func(rows []map[string]any) *answer {
				if rows[0]["event_type"] != "queued" {
					return refused("22P02", `invalid input value for enum kind: "x"`)
				}
				return rolledBack(len(rows))
			}, `{"properties": {"event_type": {"enum": ["queued", "done"]}}}`,
			[]string{"nothing makes the column id unique"},
			"no event of type",
			[]docevents.Option{docevents.WithEventTypes(docevents.EventTypes{Open: true})},
		},
		"an enum without any type, behind a value that Check makes up": {
			notText("tenant_id", refused("23502", `null value in column "tenant_id" of relation "x" violates not-null constraint`), nil, refused("22P02", `invalid input value for enum kind: "x"`)),
			`{"required": ["tenant_id"], "properties": {"tenant_id": {"format": "int64"}}}`,
			[]string{"no event of type"},
			"",
			[]docevents.Option{docevents.WithColumns(docevents.Columns{Extra: []string{"tenant_id"}})},
		},
		"a column that nobody fills, behind the last type, which is too long": {
			func(rows []map[string]any) *answer {
				if a := where(refused("22001", "value too long for type character varying(5)"), "event_type", "failed")(rows); a != nil {
					return a
				}
				return required(refused("23502", `null value in column "org_id" of relation "x" violates not-null constraint`), nil, "org_id")(rows)
			}, `{"required": ["org_id"], "properties": {"org_id": {"format": "uuid"}}}`,
			[]string{`"org_id"`, "nothing fills that column", `no event of type "failed":`},
			"", nil,
		},
		"a column that nobody fills, behind a type that is too long": {
			func(rows []map[string]any) *answer {
				if a := where(refused("22001", "value too long for type character varying(16)"), "event_type", "processing_started")(rows); a != nil {
					return a
				}
				return required(refused("23502", `null value in column "org_id" of relation "x" violates not-null constraint`), nil, "org_id")(rows)
			}, `{"required": ["org_id"], "properties": {"org_id": {"format": "uuid"}}}`,
			[]string{`"org_id"`, "nothing fills that column", `no event of type "processing_started":`},
			"", nil,
		},
		"an id that is a number without a default": {
			everything(refused("23502", `null value in column "id" of relation "x" violates not-null constraint`)),
			`{"required": ["id"], "properties": {"id": {"format": "int64"}}}`,
			[]string{"the type of the column id can't hold Event.ID"},
			"23502", nil,
		},
		"the Table Editor's id": {
			whereGiven(refused("428C9", `cannot insert a non-DEFAULT value into column "id"`), "id"), `{"required": ["id"], "properties": {"id": {"format": "int64"}}}`,
			[]string{"the type of the column id can't hold Event.ID", `Columns{ID: "event_id"}`, "ALTER TABLE public." + name + " ADD COLUMN event_id uuid", "make id itself a uuid"},
			"428C9", nil,
		},
		"an id in the key of a partitioned table": {
			where(refused("22P02", `invalid input syntax for type bigint: "x"`), "id"),
			`{"required": ["id"], "properties": {"id": {"format": "int64", "description": "Note:\nThis is a Primary Key.<pk/>"}, "created_at": {"description": "Note:\nThis is a Primary Key.<pk/>"}}}`,
			[]string{"the type of the column id can't hold", "(id, created_at)"},
			"UNIQUE", nil,
		},
		"an id of a view": {
			where(refused("22P02", `invalid input syntax for type bigint: "x"`), "id"), `{"properties": {"id": {"format": "int64"}}}`,
			[]string{"name the table beneath the view"},
			"ALTER TABLE", nil,
		},
	} {
		t.Run(title, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _ := newClient(t, described(test.table, test.definition), test.opts...)
				checkSays(t, c, test.want, test.not)
			})
		})
	}
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

// If ctx ends during a retry, Check returns the server's earlier answer.
func TestCheckReturnsTheEarlierAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inserts := 0
		c, _ := newClient(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
			if req.Method == http.MethodGet {
				return undescribed.response(req), nil
			}
			if inserts++; inserts > 1 {
				<-req.Context().Done()
				return nil, req.Context().Err()
			}
			return (&answer{status: 401, code: "PGRST303", text: "JWT issued at future"}).response(req), nil
		}))
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if err := c.Check(ctx); err == nil || !strings.Contains(err.Error(), "PGRST303") || inserts != 2 {
			t.Errorf("%v after %d inserts", err, inserts)
		}
	})
}

// If ctx ends while Check looks for the reason for a refusal, its error contains
// the refusal.
func TestCheckReturnsTheRefusalThatItExamines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inserts := 0
		c, _ := newClient(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
			if req.Method == http.MethodGet {
				return undescribed.response(req), nil
			}
			if inserts++; inserts > 3 {
				<-req.Context().Done()
				return nil, req.Context().Err()
			}
			return refused("23514", `new row for relation "x" violates check constraint "x_event_type_check"`).response(req), nil
		}))
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		err := c.Check(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "x_event_type_check") || strings.Contains(err.Error(), "SUPABASE_URL") {
			t.Errorf("got %v, want ctx's error and the refusal", err)
		}
	})
}

// If the server can't answer for a moment while Check tries each type alone, Check must
// not take this for consent to the type.
func TestCheckWithAServerThatIsOverloadedForAMoment(t *testing.T) {
	for name, overloaded := range map[string]*answer{
		"a gateway":          {status: 503},
		"a limit of a rate":  {status: 429},
		"PostgREST's pool":   {status: 504, code: "PGRST003", text: "Timed out acquiring connection from connection pool."},
		"a statement's time": {status: 500, code: "57014", text: "canceling statement due to statement timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			lacksFailed := where(refused("23514", `new row for relation "x" violates check constraint "valid_kind"`), "event_type", "failed")
			c, _ := newClient(t, inserts(func(rows []map[string]any) *answer {
				if rows[0]["event_type"] == "failed" {
					return overloaded
				}
				return lacksFailed(rows)
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
	for name, start := range map[string]string{"no answer": "", "an answer that stops": `{"paths": {}, "definitions": {"a": `} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _ := newClient(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
					if start == "" && req.Method == http.MethodGet {
						<-req.Context().Done()
					}
					if err := req.Context().Err(); err != nil {
						return nil, err
					}
					if req.Method != http.MethodGet {
						return everything(nil).RoundTrip(req)
					}
					body := io.MultiReader(strings.NewReader(start), untilDone{req.Context()})
					return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(body)}, nil
				}))
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				if err := c.Check(ctx); err != nil {
					t.Error(err)
				}
			})
		})
	}
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
