package docevents_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// nullID is what a rehearsal is refused for where all is well.
var nullID = refused("23502", `null value in column "id" of relation "document_processing_events" violates not-null constraint`)

func TestCheckRehearses(t *testing.T) {
	w := &wire{}
	c, o := newClient(t, roundTripFunc(w.answer(http.StatusNoContent, "", "Content-Range", "*/0")))
	if err := c.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	sent := w.all()
	if len(sent) != 2 || sent[0].method != "POST" || sent[1].method != "DELETE" {
		t.Fatalf("sent %+v", sent)
	}
	if got := sent[0].header.Values("Prefer"); !slices.Equal(got, []string{"return=minimal", "resolution=ignore-duplicates"}) {
		t.Errorf("Prefer: %q", got)
	}
	if got := sent[1].url.RawQuery; got != "created_at=lt.-infinity" {
		t.Errorf("DELETE ?%s", got)
	}
	rows := sent[0].rows(t)
	var types []any
	for _, row := range rows {
		types = append(types, row["event_type"])
		if row["id"] != nil {
			if row["duration_ms"] != nil || row["error_message"] != nil || row["stage"] != nil {
				t.Errorf("%v: an event may leave these out", row)
			}
			if _, err := uuid.Parse(row["id"].(string)); err != nil {
				t.Error(err)
			}
		}
		if at, err := time.Parse(time.RFC3339, row["created_at"].(string)); err != nil || time.Since(at).Abs() > time.Minute {
			t.Errorf("%v: not of now", row)
		}
	}
	if want := []any{"upload_started", "processing_started", "completed", "failed"}; len(rows) != 5 || !slices.Equal(types[:4], want) || rows[3]["id"] == nil || rows[4]["id"] != nil {
		t.Errorf("sent %v", rows)
	}
	if rows[4]["duration_ms"] != 1.0 || rows[4]["error_message"] == nil {
		t.Errorf("%v: the types of these aren't tried", rows[4])
	}
	checkStats(t, c, &docevents.Stats{})
	if lines := o.logged(); len(lines) != 0 {
		t.Errorf("logged %v", lines)
	}
}

// A rehearsal is refused as a table would refuse it: by the row.
type inserts func(rows []map[string]any) *answer

func (f inserts) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method != http.MethodPost {
		return (&answer{status: http.StatusNoContent, header: map[string]string{"Content-Range": "*/0"}}).response(req), nil
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	var rows []map[string]any
	if err := json.Unmarshal(body, &rows); err != nil {
		return nil, err
	}
	a := f(rows)
	if a == nil {
		a = nullID
	}
	if a.err != nil {
		return nil, a.err
	}
	return a.response(req), nil
}

// everything is refused in the same way.
func everything(a *answer) inserts { return func([]map[string]any) *answer { return a } }

// where refuses an insert with a row in which a column has one of these values.
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

// unless refuses an insert with a row in which a column has a value and another
// has none.
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

// required refuses an insert whose rows lack a column, and one whose don't as
// another answer says.
func required(lacking, given *answer, column string) inserts {
	return func(rows []map[string]any) *answer {
		if rows[0][column] == nil {
			return lacking
		}
		return given
	}
}

// What a rehearsal finds, in the words of PostgreSQL 15 behind PostgREST 14.17.
func TestCheckFindings(t *testing.T) {
	columns := func(c docevents.Columns) []docevents.Option { return []docevents.Option{docevents.WithColumns(c)} }
	const name = "document_processing_events"
	notNull := func(column, relation string) *answer {
		return refused("23502", fmt.Sprintf("null value in column %q of relation %q violates not-null constraint", column, relation))
	}
	violates := func(constraint string) *answer {
		return refused("23514", fmt.Sprintf("new row for relation %q violates check constraint %q", name, constraint))
	}
	for title, test := range map[string]struct {
		table inserts
		want  []string // of the error; none: no error
		not   string
		opts  []docevents.Option
	}{
		"all is well":                      {everything(nil), nil, "", nil},
		"a partition":                      {everything(notNull("id", "p2026")), nil, "", nil},
		"in German":                        {everything(refused("23502", "NULL-Wert in Spalte »id« von Relation »p2026« verletzt Not-Null-Constraint")), nil, "", nil},
		"in French":                        {everything(refused("23502", "une valeur NULL viole la contrainte NOT NULL de la colonne « id » dans la relation « p2026 »")), nil, "", nil},
		"in Japanese, the table first":     {everything(refused("23502", `リレーション"`+name+`"の列"id"のNULL値が非NULL制約に違反しています`)), nil, "", nil},
		"an id of another name":            {everything(notNull("event_id", name)), nil, "", columns(docevents.Columns{ID: "event_id"})},
		"a foreign key":                    {everything(&answer{status: 409, code: "23503", text: `insert or update on table "x" violates foreign key constraint "fk"`}), nil, "", nil},
		"another unique constraint":        {everything(&answer{status: 409, code: "23505", text: `duplicate key value violates unique constraint "x"`}), nil, "", nil},
		"an exclusion constraint":          {everything(&answer{status: 400, code: "23P01", text: "conflicting key value"}), nil, "", nil},
		"a trigger that raises":            {everything(refused("P0001", "no")), nil, "", nil},
		"a view WITH CHECK OPTION":         {everything(refused("44000", "new row violates check option")), nil, "", nil},
		"a declared column takes no NULL":  {everything(notNull("tenant_id", name)), nil, "", columns(docevents.Columns{Extra: []string{"tenant_id"}})},
		"the stage takes no NULL":          {everything(notNull("stage", name)), nil, "", nil},
		"a CHECK on the stage":             {everything(violates(name + "_stage_check")), nil, "", nil},
		"a CHECK on a declared column":     {everything(violates(name + "_tenant_check")), nil, "", columns(docevents.Columns{Extra: []string{"tenant"}})},
		"such a CHECK of one's own name":   {everything(violates("has_tenant")), nil, "", columns(docevents.Columns{Extra: []string{"tenant"}})},
		"a failure needs its message":      {unless(violates(name+"_check"), "event_type", "failed", "error_message"), nil, "", nil},
		"an end needs its duration":        {unless(violates(name+"_check"), "event_type", "completed", "duration_ms"), nil, "", nil},
		"a declared column, not of text":   {required(notNull("pages", name), refused("22P02", "invalid input syntax for type integer"), "pages"), nil, "", columns(docevents.Columns{Extra: []string{"pages"}})},
		"a declared column of an enum":     {required(notNull("plan", name), refused("22P02", "invalid input value for enum plan"), "plan"), nil, "", columns(docevents.Columns{Extra: []string{"plan"}})},
		"the table decides about types":    {everything(violates(name + "_event_type_check")), nil, "", []docevents.Option{docevents.WithEventTypes(docevents.EventTypes{Open: true})}},
		"an enum decides about types":      {everything(refused("22P02", `invalid input value for enum kind: "completed"`)), nil, "", []docevents.Option{docevents.WithEventTypes(docevents.EventTypes{Open: true})}},
		"no types at all":                  {everything(nil), nil, "", columns(docevents.Columns{Type: "-"})},
		"an Extra that is a required word": {everything(notNull("tenant_id", name)), []string{"the column tenant_id takes no NULL, and nobody fills it", "DEFAULT", "trigger", "Extra"}, "", columns(docevents.Columns{Extra: []string{"tenant"}})},

		"a NOT NULL column that nobody fills": {
			everything(notNull("tenant_id", name)),
			[]string{"the column tenant_id takes no NULL, and nobody fills it", "DEFAULT", "trigger", "Extra", "23502"},
			"", nil,
		},
		"behind a declared column that takes no NULL": {
			required(notNull("tenant_id", name), notNull("job_id", name), "tenant_id"),
			[]string{"the column job_id takes no NULL, and nobody fills it"},
			"", columns(docevents.Columns{Extra: []string{"tenant_id"}}),
		},
		"behind a stage that takes no NULL": {
			required(notNull("stage", name), violates(name+"_event_type_check"), "stage"),
			[]string{"no event of type"},
			"", nil,
		},
		"a domain that takes no NULL": {
			everything(refused("23502", "domain tenant does not allow null values")),
			[]string{"the column of that domain takes no NULL", "DEFAULT", "domain tenant"},
			"the column  takes", nil,
		},
		"a CHECK on a column that nobody fills": {
			everything(violates("has_tenant")),
			[]string{`no event of type "upload_started", "processing_started", "completed", "failed"`, "fill the column that it is about from Event.Extra", "has_tenant"},
			"", nil,
		},
		"a CHECK whose name has that of another column in a word": {
			where(violates("valid_kind"), "event_type", "completed"),
			[]string{`no event of type "completed":`},
			"", columns(docevents.Columns{ID: "event_id", Extra: []string{"id"}}),
		},
		"a CHECK where there are no types": {
			everything(violates("has_tenant")),
			[]string{"fill the column that it is about from Event.Extra"},
			"", columns(docevents.Columns{Type: "-"}),
		},
		"a default that fails": {
			everything(refused("22012", "division by zero")),
			[]string{"insert: HTTP 400 22012: division by zero"},
			"another type", nil,
		},
		"a type that is too long": {
			where(refused("22001", "value too long for type character varying(16)"), "event_type", "processing_started"),
			[]string{`no event of type "processing_started":`, "character varying(16)"},
			"UUID", nil,
		},
		"a name that SQL takes in quotes alone": {
			everything(notNull("durationMs", name)),
			[]string{`ALTER TABLE "App".document_processing_events ALTER COLUMN "durationMs" DROP NOT NULL`},
			"", append(columns(docevents.Columns{Duration: "durationMs"}), docevents.WithSchema("App")),
		},
		"a duration that takes no NULL": {
			everything(notNull("duration_ms", name)),
			[]string{"ALTER TABLE public." + name + " ALTER COLUMN duration_ms DROP NOT NULL"},
			"nobody fills it", nil,
		},
		"a type that the CHECK lacks": {
			where(violates(name+"_event_type_check"), "event_type", "retried", "queued"),
			[]string{`no event of type "queued", "retried"`, "WithEventTypes", "sql/optional/event_types.sql", "23514"},
			"completed",
			[]docevents.Option{docevents.WithEventTypes(docevents.EventTypes{Arrived: []docevents.EventType{"queued"}, Completed: []docevents.EventType{"completed"}, Notes: []docevents.EventType{"retried"}})},
		},
		"types under another name": {
			where(violates(name+"_kind_check"), "kind", "failed"),
			[]string{`no event of type "failed"`},
			"completed", columns(docevents.Columns{Type: "kind"}),
		},
		"a type that the enum lacks": {
			where(refused("22P02", `invalid input value for enum kind: "failed"`), "event_type", "failed"),
			[]string{`no event of type "failed":`, "enum", "WithEventTypes"},
			`"completed"`, nil,
		},
		"the same in Russian": {
			where(refused("22P02", `неверное значение для перечисления kind: "failed"`), "event_type", "failed"),
			[]string{`no event of type "failed":`, "WithEventTypes"},
			`"completed"`, nil,
		},
		"the Table Editor's id": {
			where(refused("22P02", `invalid input syntax for type bigint: "aaaaaaaa-0000-4000-8000-000000000001"`), "id"),
			[]string{"the column id doesn't take the UUID", "bigint", `Columns{ID: "event_id"}`, "ADD COLUMN event_id uuid", "make id itself a uuid"},
			"another type", nil,
		},
		"an id generated always": {
			everything(refused("428C9", `cannot insert a non-DEFAULT value into column "id"`)),
			[]string{"the column id doesn't take the UUID", `Columns{ID: "event_id"}`},
			"", nil,
		},
		"a time generated always": {
			everything(refused("428C9", `cannot insert a non-DEFAULT value into column "stage"`)),
			[]string{"the column stage is generated", `"-"`},
			"bigint", nil,
		},
		"document ids that are numbers": {
			everything(refused("22P02", `invalid input syntax for type bigint: "11111111-1111-4111-8111-111111111111"`)),
			[]string{"a column is of another type", `"-"`, "Extra"},
			"event_id", nil,
		},
		"no partition": {
			everything(refused("23514", `no partition of relation "document_processing_events" found for row`)),
			[]string{"no partition takes the events of now", "partitioned.sql"},
			"WithEventTypes", nil,
		},
		"no partition, in Spanish": {
			everything(&answer{status: 400, code: "23514", text: "no se encontró una partición de «" + name + "» para el registro", details: "La llave de particionamiento de la fila que falla contiene (created_at) = (2031-01-02)."}),
			[]string{"no partition takes the events of now"},
			"WithEventTypes", nil,
		},
		"nothing makes the id unique": {
			everything(refused("42P10", "there is no unique or exclusion constraint matching the ON CONFLICT specification")),
			[]string{"ALTER TABLE public." + name + " ADD UNIQUE (event_id)"},
			"", columns(docevents.Columns{ID: "event_id"}),
		},
		"a missing column": {
			everything(refused("PGRST204", "Could not find the 'metadata' column of 'document_processing_events' in the schema cache")),
			[]string{"add the column", "'metadata'", "WithColumns", "NOTIFY pgrst"},
			"", columns(docevents.Columns{Extra: []string{"metadata"}}),
		},
		"a column gone behind PostgREST's back": {
			everything(refused("42703", `column "stage" of relation "document_processing_events" does not exist`)),
			[]string{"add the column", `"stage"`, "WithColumns"},
			"", nil,
		},
		"a host that can't be reached": {
			func([]map[string]any) *answer {
				return &answer{err: &net.OpError{Op: "dial", Net: "tcp", Err: errReset}}
			},
			[]string{"check SUPABASE_URL and the network", "dial tcp"},
			"", nil,
		},
		"a refused key":          {everything(&answer{status: 401, code: "PGRST301", text: "No suitable key"}), []string{"check the key", "HTTP 401 PGRST301"}, "", nil},
		"a role that isn't":      {everything(&answer{status: 401, code: "22023", text: `role "nobody_here" does not exist`}), []string{"check the key"}, "another type", nil},
		"a missing table":        {everything(&answer{status: 404, code: "PGRST205", text: "Could not find the table"}), []string{"run sql/013_create_processing_events_table.sql", "PGRST205"}, "", nil},
		"a missing INSERT grant": {everything(&answer{status: 403, code: "42501", text: "permission denied for table " + name}), []string{"GRANT SELECT, INSERT, DELETE ON public." + name + " TO service_role"}, "", nil},
		"another role":           {everything(&answer{status: 403, code: "42501", text: "new row violates row-level security policy"}), []string{"use the service-role (secret) key"}, "", nil},
		"a hidden schema":        {everything(&answer{status: 406, code: "PGRST106", text: "Invalid schema"}), []string{"expose the schema public"}, "", nil},
		"a paused project":       {everything(&answer{status: 540}), []string{"paused"}, "", nil},
		"another website":        {everything(&answer{status: 200, body: "<!doctype html>"}), []string{"check SUPABASE_URL"}, "", nil},
	} {
		t.Run(title, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _ := newClient(t, test.table, test.opts...)
				checkSays(t, c, test.want, test.not)
			})
		})
	}
}

// checkSays checks Check: that its error says each of want once, that there is
// none where there is nothing to be said, and that it repeats nothing secret.
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
			t.Errorf("%v: says %q", err, text)
		}
	}
}

// checkOnce leaves Check no time to ask again, as it does for 5 s.
func checkOnce(t *testing.T, c *docevents.Client) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	return c.Check(ctx)
}

func TestCheckOfTheDelete(t *testing.T) {
	for name, test := range map[string]struct {
		answer answer
		want   []string
	}{
		"a missing grant":                  {answer{status: 403, code: "42501", text: "permission denied for table x"}, []string{"delete: ", "GRANT SELECT, INSERT, DELETE"}},
		"a statement's end":                {answer{status: 500, code: "57014", text: "canceling statement"}, []string{"57014"}},
		"a gateway drops Prefer, no count": {answer{status: 204}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _ := newClient(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
					if req.Method == http.MethodPost {
						return nullID.response(req), nil
					}
					return test.answer.response(req), nil
				}))
				checkSays(t, c, test.want, "")
			})
		})
	}
}

// Where nothing refuses a rehearsal, it must not stay.
func TestCheckTakesItsRowsOut(t *testing.T) {
	for name, test := range map[string]struct {
		columns docevents.Columns
		refuse  bool // the DELETE
		want    []string
		last    func(row map[string]any) url.Values // the second DELETE
	}{
		"nothing makes the id unique": {
			docevents.Columns{},
			false,
			[]string{"nothing makes the column id unique", "ALTER TABLE public.document_processing_events ADD PRIMARY KEY (id)", "deleted again"},
			func(row map[string]any) url.Values {
				return url.Values{"created_at": {"eq." + row["created_at"].(string)}, "document_id": {"eq." + row["document_id"].(string)}}
			},
		},
		"no document": {
			docevents.Columns{DocumentID: "-", CreatedAt: "at"},
			false,
			[]string{"nothing makes the column id unique"},
			func(row map[string]any) url.Values {
				return url.Values{"at": {"eq." + row["at"].(string)}, "id": {"is.null"}}
			},
		},
		"UNIQUE, but not NOT NULL": {
			docevents.Columns{ID: "event_id"},
			false, nil,
			func(row map[string]any) url.Values {
				return url.Values{"created_at": {"eq." + row["created_at"].(string)}, "document_id": {"eq." + row["document_id"].(string)}}
			},
		},
		"and they can't be": {docevents.Columns{}, true, []string{"couldn't be deleted again", "GRANT SELECT, INSERT, DELETE"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var rows []map[string]any
				var deletes []url.Values
				c, _ := newClient(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
					switch {
					case req.Method == http.MethodPost:
						if err := json.NewDecoder(req.Body).Decode(&rows); err != nil {
							return nil, err
						}
						return (&answer{}).response(req), nil
					case test.refuse:
						return (&answer{status: 403, code: "42501", text: "permission denied"}).response(req), nil
					}
					deletes = append(deletes, req.URL.Query())
					return (&answer{status: http.StatusNoContent, header: map[string]string{"Content-Range": "*/4"}}).response(req), nil
				}), docevents.WithColumns(test.columns))
				checkSays(t, c, test.want, "no answer came")
				if test.refuse {
					return
				}
				if len(rows) != 5 || len(deletes) < 2 {
					t.Fatalf("rows %v, deletes %v", rows, deletes)
				}
				id := "id"
				if test.columns.ID != "" {
					id = test.columns.ID
				}
				var ids []string
				for _, row := range rows[:4] {
					ids = append(ids, row[id].(string))
				}
				if got, want := deletes[0].Encode(), (url.Values{id: {"in.(" + strings.Join(ids, ",") + ")"}}).Encode(); got != want {
					t.Errorf("DELETE ?%s, want %s", got, want)
				}
				if got, want := deletes[1].Encode(), test.last(rows[4]).Encode(); got != want {
					t.Errorf("DELETE ?%s, want %s", got, want)
				}
			})
		})
	}
}

// Nor must a rehearsal that Check sends to find out what an earlier one was
// refused for.
func TestCheckTakesLaterRowsOut(t *testing.T) {
	for name, refusal := range map[string]*answer{
		"of one type":   refused("23514", `violates check constraint "x_event_type_check"`),
		"without an id": refused("22P02", "invalid input syntax for type bigint"),
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
			if err := c.Check(t.Context()); err == nil {
				t.Error("no finding")
			}
			if came == 0 || deletes < came {
				t.Errorf("%d rehearsals came in, %d deletes", came, deletes)
			}
		})
	}
}

// Check asks again while an answer may pass by itself: for 5 s, and within ctx.
func TestCheckWaits(t *testing.T) {
	clocks := &answer{status: 401, code: "PGRST303", text: "JWT issued at future"}
	for name, test := range map[string]struct {
		answer  *answer
		passes  time.Duration // how long the answer is given
		within  time.Duration // ctx's; 0: none
		good    bool
		longest time.Duration
	}{
		"a clock that is behind":      {clocks, 2 * time.Second, 0, true, 5 * time.Second},
		"a schema that reloads":       {refused("PGRST204", "Could not find the 'stage' column"), time.Second, 0, true, 5 * time.Second},
		"a key that is wrong":         {clocks, time.Hour, 0, false, 5 * time.Second},
		"a context that ends":         {clocks, time.Hour, time.Second, false, time.Second},
		"a server that is overloaded": {&answer{status: 503}, time.Second, 0, false, 0},
		"a table that lacks a type":   {refused("23514", "violates check constraint"), time.Second, 0, false, 0},
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

// Where ctx ends under a later request, what the server has said is told.
func TestCheckTellsTheAnswer(t *testing.T) {
	for _, first := range []*answer{
		{status: 401, code: "PGRST303", text: "JWT issued at future"},
		{status: 400, code: "23514", text: "violates check constraint"},
	} {
		t.Run(first.code, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				requests := 0
				c, _ := newClient(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
					if requests++; requests > 1 {
						<-req.Context().Done()
						return nil, req.Context().Err()
					}
					return first.response(req), nil
				}))
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				if err := c.Check(ctx); err == nil || !strings.Contains(err.Error(), first.code) || requests != 2 {
					t.Errorf("%v after %d requests", err, requests)
				}
			})
		})
	}
}

func TestCheckBoundsEachAnswer(t *testing.T) {
	for _, stalled := range []string{http.MethodPost, http.MethodDelete} {
		synctest.Test(t, func(t *testing.T) {
			c, _ := newClient(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
				if req.Method == stalled {
					<-req.Context().Done()
					return nil, req.Context().Err()
				}
				return nullID.response(req), nil
			}), docevents.WithRequestTimeout(7*time.Second))
			start := time.Now()
			err := c.Check(t.Context())
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 7*time.Second {
				t.Errorf("%s: %v after %s, want ctx's error after 7s", stalled, err, time.Since(start))
			}
		})
	}
}
