package localstack_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/docevents/docevents-go/integration/internal/observe"
	"github.com/docevents/docevents-go/integration/localstack"
)

// TestSchemaCache checks that requests can use new tables and columns only after a
// reload of the schema cache.
func TestSchemaCache(t *testing.T) {
	stack := localstack.Own(t, localstack.Options{})
	execute(t, stack, "CREATE TABLE late (a int)", "GRANT ALL ON late TO service_role")
	if r := call(t, stack, "POST", "late", `{"a":1}`); r.status != 404 || r.code() != "PGRST205" {
		t.Errorf("a new table before the reload: %d %s", r.status, r.body)
	}
	execute(t, stack, "NOTIFY pgrst, 'reload schema'")
	observe.Await(t, "the table is known", func() bool { return call(t, stack, "POST", "late", `{"a":1}`).status == 201 })

	execute(t, stack, "ALTER TABLE late ADD b int")
	if r := call(t, stack, "POST", "late", `{"a":1,"b":2}`); r.status != 400 || r.code() != "PGRST204" {
		t.Errorf("a new column before the reload: %d %s", r.status, r.body)
	}
	if err := stack.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := call(t, stack, "POST", "late", `{"a":1,"b":2}`); r.status != 201 {
		t.Errorf("a new column after the reload: %d %s", r.status, r.body)
	}

	execute(t, stack, "DROP TABLE late")
	if r := call(t, stack, "GET", "late", ""); r.status != 404 || r.code() != "42P01" {
		t.Errorf("a dropped table before the reload: %d %s", r.status, r.body)
	}
}

// TestRoleSettings checks each role's session, which it reads through a view: the
// statement timeout, the role and the claims.
func TestRoleSettings(t *testing.T) {
	stack := localstack.Own(t, localstack.Options{StatementTimeout: 7 * time.Second})
	execute(t, stack,
		"CREATE VIEW session AS SELECT current_setting('statement_timeout') AS timeout, current_user::text AS who, "+
			"current_setting('request.jwt.claims')::json->>'role' AS claimed",
		"GRANT SELECT ON session TO anon, authenticated, service_role")
	if err := stack.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	session := func(role string) string {
		t.Helper()
		return call(t, stack, "GET", "session", "", "Authorization",
			"Bearer "+sign(t, stack.JWTSecret, jwt.MapClaims{"role": role})).body
	}
	for role, timeout := range map[string]string{"service_role": "7s", "authenticated": "8s", "anon": "3s"} {
		want := fmt.Sprintf(`[{"timeout":%q,"who":%q,"claimed":%q}]`, timeout, role, role)
		if got := session(role); got != want {
			t.Errorf("%s: %s, want %s", role, got, want)
		}
	}
	execute(t, stack, "ALTER ROLE service_role SET statement_timeout = '5s'")
	if got := session("service_role"); !strings.Contains(got, `"7s"`) {
		t.Errorf("before the reload: %s", got)
	}
	execute(t, stack, "NOTIFY pgrst, 'reload config'")
	observe.Await(t, "the new setting applies", func() bool { return strings.Contains(session("service_role"), `"5s"`) })
}

func TestKeys(t *testing.T) {
	stack := localstack.Shared(t)
	if !stack.Ours() {
		t.Skip("Supabase's API gateway rejects requests without a key")
	}
	table := stack.Table(t)
	user := sign(t, stack.JWTSecret, jwt.MapClaims{"role": "authenticated"})
	at := func(claim string, fromNow time.Duration) string {
		return sign(t, stack.JWTSecret, jwt.MapClaims{"role": "service_role", claim: time.Now().Add(fromNow).Unix()})
	}
	foreign := sign(t, strings.Repeat("x", 32), jwt.MapClaims{"role": "service_role"})
	unsigned, err := jwt.New(jwt.SigningMethodNone).SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	other, err := jwt.New(jwt.SigningMethodHS512).SignedString([]byte(stack.JWTSecret))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, apikey, authorization string
		status                      int
		code                        string
	}{
		{"service key in both", stack.ServiceRoleKey, "Bearer " + stack.ServiceRoleKey, 200, ""},
		{"service key in apikey", stack.ServiceRoleKey, "", 200, ""},
		{"service key in Authorization", "", "Bearer " + stack.ServiceRoleKey, 200, ""},
		{"the scheme in lower case", "", "bearer " + stack.ServiceRoleKey, 200, ""},
		{"secret key in apikey", stack.SecretKey, "", 200, ""},
		{"secret key in both", stack.SecretKey, "Bearer " + stack.SecretKey, 401, "PGRST301"},
		{"secret key in Authorization", "", "Bearer " + stack.SecretKey, 401, "PGRST301"},
		{"anon key", stack.AnonKey, "", 401, "42501"},
		{"no key", "", "", 401, "42501"},
		{"another scheme", "", "Basic " + stack.ServiceRoleKey, 401, "42501"},
		{"Authorization wins", stack.SecretKey, "Bearer " + user, 403, "42501"},
		{"an unknown apikey", "sb_secret_wrong", "Bearer " + stack.ServiceRoleKey, 401, ""},
		{"a JWT with another signature as apikey", foreign, "", 401, ""},
		{"expired key", at("exp", -time.Hour), "", 401, "PGRST303"},
		{"key that expired 10 s ago", at("exp", -10*time.Second), "", 200, ""}, // PostgREST allows 30 s
		{"key for the future", at("nbf", time.Hour), "", 401, "PGRST303"},
		{"key from the future", at("iat", time.Hour), "", 401, "PGRST303"},
		{"unsigned token", "", "Bearer " + unsigned, 401, "PGRST301"},
		{"token with another algorithm", "", "Bearer " + other, 401, "PGRST301"},
		{"token that is not base64", "", "Bearer a.b.c", 401, "PGRST301"},
		{"empty token", "", "Bearer ", 401, "PGRST301"},
		{"a token without a role is anon", "", "Bearer " + sign(t, stack.JWTSecret, jwt.MapClaims{}), 401, "42501"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := call(t, stack, "GET", table, "", "apikey", tt.apikey, "Authorization", tt.authorization)
			if r.status != tt.status || r.code() != tt.code {
				t.Errorf("%d %s, want %d %s", r.status, r.body, tt.status, tt.code)
			}
		})
	}
}

// TestStandIn tests the stand-in's answers to requests that are not among the recorded
// cases. It expects errors for features that only a real PostgREST has.
func TestStandIn(t *testing.T) {
	stack := localstack.Own(t, localstack.Options{PostgREST: localstack.StandIn})
	execute(t, stack,
		"CREATE TABLE numbered (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, name text)",
		`CREATE TABLE things (id int PRIMARY KEY, name text DEFAULT 'unnamed', seen bool)`,
		"INSERT INTO things (id, name, seen) VALUES (1, 'a', true), (2, 'b', false), (3, 'c,(d)', NULL), (4, 'e\"f', true), (5, NULL, NULL)",
		"GRANT ALL ON things, numbered TO service_role",
		"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO service_role")
	if err := stack.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		f    func(*testing.T, *localstack.Stack)
	}{
		{"reads", testReads},
		{"inserts", testInserts},
		{"rejected requests", testRejected},
		{"functions", testFunctions},
		{"views", testViews},
		{"raised errors", testRaised},
	} {
		t.Run(test.name, func(t *testing.T) { test.f(t, stack) })
	}
}

func testReads(t *testing.T, stack *localstack.Stack) {
	tests := []struct {
		query string
		want  string // the ids, or the code of the error
	}{
		{"", "1 2 3 4 5"},
		{"id=eq.2", "2"},
		{"id=gt.2&id=lte.4", "3 4"},
		{"id=in.(1,3,9)", "1 3"},
		{"id=in.()", ""},
		{"seen=is.null", "3 5"},
		{"select=%22id%22", "1 2 3 4 5"},
		{"name=eq.%27%3B%20DROP%20TABLE%20things%3B--", ""},
		{"and=(id.gte.2,id.lt.4)", "2 3"},
		{"order=id.desc", "5 4 3 2 1"},
		{"order=seen.desc.nullslast,id.asc", "1 4 2 3 5"},
		{"limit=2&offset=1", "2 3"},
		{"limit=0", ""},
		{"limit=-1", "PGRST103"},
		{"id=lt", "PGRST100"},
		{"id=what.1", "PGRST100"},
		{"id=in.1", "PGRST100"},
		{`name=in.("a,b")`, "PGRST100"}, // PostgREST supports this
		{"name=is.true", "PGRST100"},
		{"and=id.eq.1", "PGRST100"},
		{"order=id.up", "PGRST100"},
		{"select=id,numbered(*)", "PGRST100"}, // PostgREST supports this
		{"select=nope", "42703"},
		{"select=id::nope", "42704"},
		{"select=id::text;", "PGRST100"},
		{"select=id:name", "PGRST100"}, // PostgREST supports this
		{"id=eq.x", "22P02"},
		{"id=eq.%zz", "PGRST100"},
		{"id=neq.2", "PGRST100"}, // PostgREST supports this
	}
	for _, tt := range tests {
		path := "things?" + tt.query
		if !strings.Contains(path, "select=") {
			path += "&select=id"
		}
		r := call(t, stack, "GET", path, "")
		got := r.code()
		if r.status == 200 {
			got = strings.NewReplacer(`[{"id":`, "", "}, \n {\"id\":", " ", "}]", "", "[]", "").Replace(r.body)
		}
		if got != tt.want {
			t.Errorf("%s: %s (%d %s), want %s", tt.query, got, r.status, r.body, tt.want)
		}
	}

	ranges := []struct {
		query  string
		status int
		want   string
	}{
		{"", 200, "0-4/5"},
		{"limit=2", 206, "0-1/5"},
		{"limit=2&offset=4", 206, "4-4/5"},
		{"id=gt.100", 200, "*/0"},
		{"offset=5", 206, "*/5"},
		{"offset=6", 416, "*/5"},
	}
	for _, tt := range ranges {
		r := call(t, stack, "GET", "things?"+tt.query, "", "Prefer", "count=exact")
		if got := r.header.Get("Content-Range"); r.status != tt.status || got != tt.want {
			t.Errorf("%s: %d %s, want %d %s", tt.query, r.status, got, tt.status, tt.want)
		}
	}
}

func testInserts(t *testing.T, stack *localstack.Stack) {
	tests := []struct {
		name, path, prefer, body string
		status                   int
		code                     string
		want                     string // the stored rows above 5, as id:name
	}{
		{"keys in another order", "things", "", `[{"id":6,"name":"x"}, {"name":"y","id":7}]`, 201, "", "6:x 7:y"},
		{"escaped and repeated keys", "things", "", `{"\u0069d":6,"name":"x","name":"y"}`, 201, "", "6:y"},
		{"nested values", "things", "", "[\n {\"id\": 6, \"name\": {\"a\": [1, \"}]\\\"\"]}} ]\n", 201, "", `6:{"a": [1, "}]\""]}`},
		{"a row that isn't an object", "things", "", `[{"id":6},7]`, 400, "PGRST102", ""},
		{"a number inserts nothing", "things", "", `7`, 201, "", ""},
		{"an empty body", "things", "", ``, 400, "PGRST102", ""},
		{"more than one value", "things", "", `{"id":6}{"id":7}`, 400, "PGRST102", ""},
		{"columns select the keys", "things?columns=id", "", `[{"id":6,"name":"x"},{"nope":1,"id":7}]`, 201, "", "6:unnamed 7:unnamed"},
		{"columns without a value are null", "things?columns=id,name", "", `[{"id":6}]`, 201, "", "6:"},
		{"columns without a value get their default", "things?columns=id,name", "missing=default", `[{"id":6},{"id":7,"name":"x"}]`, 201, "", "6:unnamed 7:x"},
		{"an object gets its defaults", "things?columns=id,name", "missing=default", `{"id":6}`, 201, "", "6:unnamed"},
		{"an identity column without a value gets the next number", "numbered?columns=id,name", "missing=default,resolution=ignore-duplicates", `[{"name":"x"},{"name":"y"},{"id":9,"name":"z"}]`, 201, "", ""},
		{"columns and broken JSON", "things?columns=id", "", `[{`, 400, "22P02", ""},
		{"duplicates within an insert are ignored", "things", "resolution=ignore-duplicates", `[{"id":6,"name":"x"},{"id":6,"name":"y"}]`, 201, "", "6:x"},
		{"merging new and existing rows", "things", "resolution=merge-duplicates", `[{"id":1,"name":"a"},{"id":6,"name":"x"}]`, 201, "", "6:x"},
		{"a conflict target without an index", "things?on_conflict=name", "resolution=merge-duplicates", `{"id":6,"name":"x"}`, 400, "42P10", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := call(t, stack, "POST", tt.path, tt.body, "Prefer", tt.prefer)
			if r.status != tt.status || r.code() != tt.code {
				t.Errorf("%d %s, want %d %s", r.status, r.body, tt.status, tt.code)
			}
			got := query(t, stack, "SELECT coalesce(string_agg(id || ':' || coalesce(name, ''), ' ' ORDER BY id), '') FROM things WHERE id > 5")
			if got != tt.want {
				t.Errorf("stored %s, want %s", got, tt.want)
			}
			execute(t, stack, "DELETE FROM things WHERE id > 5")
		})
	}
	// The sequence also advances for a row that has a value.
	if got := query(t, stack, "SELECT string_agg(id || ':' || name, ' ' ORDER BY id) FROM numbered"); got != "1:x 2:y 9:z" {
		t.Errorf("stored %s", got)
	}
}

func testRejected(t *testing.T, stack *localstack.Stack) {
	tests := []struct {
		name, method, path string
		headers            []string
		status             int
		code               string
	}{
		{"a schema that is not exposed", "GET", "things", []string{"Accept-Profile", "secret"}, 406, "PGRST106"},
		{"a write to a schema that is not exposed", "DELETE", "things?id=eq.0", []string{"Content-Profile", "secret"}, 406, "PGRST106"},
		{"another media type", "POST", "things", []string{"Content-Type", "text/csv"}, 400, "PGRST102"},
		{"an unknown preference", "DELETE", "things?id=eq.0", []string{"Prefer", "handling=strict, odd"}, 400, "PGRST122"},
		{"an unknown preference without strict handling", "DELETE", "things?id=eq.0", []string{"Prefer", "odd"}, 204, ""},
		{"an unsupported method", "PUT", "things", nil, 405, "PGRST117"},
		{"an invalid path", "GET", "things/1", nil, 404, "PGRST125"},
		{"a description of another media type", "GET", "", []string{"Accept", "text/csv"}, 406, "PGRST107"},
		{"a write to the root", "POST", "", nil, 405, "PGRST117"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := call(t, stack, tt.method, tt.path, "", tt.headers...)
			if r.status != tt.status || r.code() != tt.code {
				t.Errorf("%d %s, want %d %s", r.status, r.body, tt.status, tt.code)
			}
		})
	}
	const hint = `"hint":"Perhaps you meant the table 'public.things'"`
	if r := call(t, stack, "GET", "thing", ""); r.status != 404 || !strings.Contains(r.body, hint) {
		t.Errorf("a misspelt table: %d %s, want %s", r.status, r.body, hint)
	}
	resp, err := http.Get(stack.URL + "/elsewhere")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 404 {
		t.Errorf("outside /rest/v1/: %s", resp.Status)
	}
}

func testFunctions(t *testing.T, stack *localstack.Stack) {
	execute(t, stack,
		"CREATE FUNCTION plus(a int, b int DEFAULT 1) RETURNS int LANGUAGE sql IMMUTABLE RETURN a + b",
		"CREATE FUNCTION plus(a text, c text) RETURNS text LANGUAGE sql IMMUTABLE RETURN a || c",
		"CREATE FUNCTION now_null() RETURNS json LANGUAGE sql RETURN NULL::json",
		"CREATE FUNCTION writes() RETURNS int LANGUAGE sql AS 'CREATE TABLE written (); SELECT 1'",
		"GRANT CREATE ON SCHEMA public TO service_role")
	if err := stack.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, method, path, body string
		status                   int
		want                     string // the body, or the error's code
	}{
		{"a default", "POST", "rpc/plus", `{"a":2}`, 200, "3"},
		{"all arguments, in any order", "POST", "rpc/plus", `{"b":2,"a":2}`, 200, "4"},
		{"arguments in the query string", "GET", "rpc/plus?b=2&a=2", "", 200, "4"},
		{"the overload with these arguments", "GET", "rpc/plus?a=2&c=x", "", 200, `"2x"`},
		{"a missing argument", "POST", "rpc/plus", `{"b":2}`, 404, "PGRST202"},
		{"an unknown argument", "POST", "rpc/plus", `{"a":2,"d":2}`, 404, "PGRST202"},
		{"an argument of the wrong type", "GET", "rpc/plus?a=x", "", 400, "22P02"},
		{"no arguments and a null result", "POST", "rpc/now_null", "", 200, "null"},
		{"GET can't write", "GET", "rpc/writes", "", 405, "25006"},
		{"POST can write", "POST", "rpc/writes", "", 200, "1"},
		{"a body that isn't an object", "POST", "rpc/plus", "x", 400, "PGRST102"},
		{"an unsupported method", "DELETE", "rpc/plus?a=1", "", 405, "PGRST101"},
		{"an invalid path", "GET", "rpc/plus/1", "", 404, "PGRST125"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := call(t, stack, tt.method, tt.path, tt.body)
			if got := cmp.Or(r.code(), r.body); r.status != tt.status || got != tt.want {
				t.Errorf("%d %s, want %d %s", r.status, r.body, tt.status, tt.want)
			}
		})
	}
}

// testViews inserts a row twice into each view. If a view shows its table's primary
// key, PostgREST adds ON CONFLICT to the INSERT. PostgreSQL accepts ON CONFLICT for an
// updatable view, and rejects it for a view with an INSTEAD OF trigger.
func testViews(t *testing.T, stack *localstack.Stack) {
	const columns = "document_id AS doc, user_id, event_type FROM document_processing_events"
	execute(t, stack,
		"CREATE VIEW plain AS SELECT id AS event_id, "+columns,
		"CREATE VIEW again AS SELECT event_id AS id, doc AS document_id, user_id, event_type FROM plain",
		"CREATE VIEW keyless AS SELECT "+columns,
		"CREATE VIEW triggered AS SELECT * FROM document_processing_events",
		"CREATE VIEW computed AS SELECT id::text::uuid AS id, document_id, user_id, event_type FROM document_processing_events",
		`CREATE FUNCTION store() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			INSERT INTO document_processing_events (id, document_id, user_id, event_type)
			VALUES (NEW.id, NEW.document_id, NEW.user_id, NEW.event_type) ON CONFLICT DO NOTHING;
			RETURN NEW; END $$`,
		"CREATE TRIGGER store INSTEAD OF INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION store()",
		"CREATE TRIGGER store INSTEAD OF INSERT ON computed FOR EACH ROW EXECUTE FUNCTION store()",
		"GRANT ALL ON plain, again, keyless, triggered, computed TO service_role")
	if err := stack.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	renamed := strings.NewReplacer(`"id"`, `"event_id"`, `"document_id"`, `"doc"`).Replace
	tests := []struct {
		view, row    string
		first, again string // status and code
	}{
		{"plain", renamed(event(1)), "201 ", "201 "},
		{"again", event(1), "201 ", "201 "}, // stored through plain
		{"keyless", strings.Replace(renamed(event(1)), `"event_id":"00000000-0000-4000-8000-000000000001",`, "", 1), "201 ", "201 "},
		{"triggered", event(2), "400 42P10", "400 42P10"},
		{"computed", event(3), "201 ", "201 "},
	}
	for _, tt := range tests {
		for _, want := range []string{tt.first, tt.again} {
			r := call(t, stack, "POST", tt.view, tt.row, "Prefer", "resolution=ignore-duplicates")
			if got := fmt.Sprint(r.status, " ", r.code()); got != want {
				t.Errorf("%s: %s %s, want %s", tt.view, got, r.body, want)
			}
		}
	}
	if got := query(t, stack, "SELECT count(*) FROM document_processing_events"); got != "4" { // keyless stored two
		t.Errorf("%s rows, want 4", got)
	}
}

// testRaised checks the answers to errors raised by triggers.
func testRaised(t *testing.T, stack *localstack.Stack) {
	execute(t, stack,
		"CREATE TABLE raises (sql text)",
		`CREATE FUNCTION raise() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN EXECUTE NEW.sql; RETURN NEW; END $$`,
		"CREATE TRIGGER raise BEFORE INSERT ON raises FOR EACH ROW EXECUTE FUNCTION raise()",
		"GRANT ALL ON raises TO service_role")
	if err := stack.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	const full = `{"code":"T1","details":"d","hint":"h","message":"m"}`
	tests := []struct {
		raise  string
		status int
		want   string // part of the body
	}{
		{`RAISE 'not this one'`, 400, `{"code":"P0001","details":null,"hint":null,"message":"not this one"}`},
		{`RAISE SQLSTATE '40001' USING MESSAGE = 'again'`, 500, `"40001"`}, // 16.2 answers this; 14.17 retries without end
		{`RAISE SQLSTATE 'PT418'`, 418, `"PT418"`},
		{`RAISE SQLSTATE 'PGRST' USING MESSAGE = '` + full + `', DETAIL = '{"status":418,"headers":{"x-teapot":"yes"}}'`, 418, full},
		{`RAISE SQLSTATE 'PGRST' USING MESSAGE = '{"code":"T1","message":"m"}', DETAIL = '{"status":402,"headers":{}}'`, 402, `{"code":"T1","details":null,"hint":null,"message":"m"}`},
		{`RAISE SQLSTATE 'PGRST' USING MESSAGE = '` + full + `'`, 500, `"details":"DETAIL is missing in the RAISE statement"`},
		{`RAISE SQLSTATE 'PGRST' USING MESSAGE = '` + full + `', DETAIL = '{"status":418}'`, 500, `"details":"Invalid JSON value for DETAIL: '{\"status\":418}'"`},
		{`RAISE SQLSTATE 'PGRST' USING MESSAGE = '{"code":"T1"}', DETAIL = '{"status":418,"headers":{}}'`, 500, `"PGRST121"`},
	}
	for _, tt := range tests {
		body, err := json.Marshal(map[string]string{"sql": "DO $x$ BEGIN " + tt.raise + "; END $x$"})
		if err != nil {
			t.Fatal(err)
		}
		r := call(t, stack, "POST", "raises", string(body))
		if r.status != tt.status || !strings.Contains(r.body, tt.want) {
			t.Errorf("%s: %d %s, want %d %s", tt.raise, r.status, r.body, tt.status, tt.want)
		}
		if teapot := r.header.Get("X-Teapot"); (teapot == "yes") != strings.Contains(tt.raise, "teapot") {
			t.Errorf("%s: X-Teapot: %q", tt.raise, teapot)
		}
	}
}
