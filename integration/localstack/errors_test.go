package localstack_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/docevents/docevents-go/integration/internal/observe"
	"github.com/docevents/docevents-go/integration/localstack"
)

// testSingleObjects checks requests that accept only a single object: a statement
// that doesn't return exactly one row runs and is then rolled back. PostgREST tests
// this in SingularSpec.hs.
func testSingleObjects(t *testing.T, stack *localstack.Stack) {
	execute(t, stack,
		"CREATE SEQUENCE fired",
		"GRANT ALL ON SEQUENCE fired TO service_role",
		`CREATE FUNCTION after_insert() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			PERFORM nextval('public.fired');
			IF NEW.name = 'refused' THEN RAISE 'not this one'; END IF;
			RETURN NEW; END $$`,
		"CREATE TRIGGER after_insert AFTER INSERT ON things FOR EACH ROW EXECUTE FUNCTION after_insert()")
	tests := []struct {
		name, method, path, prefer, body string
		status                           int
		want                             string // part of the body
		fired                            string // the number of rows for which the trigger ran
		stored                           string // the ids above 5
	}{
		{"two rows", "POST", "things", "return=minimal", `[{"id":6},{"id":7}]`, 406, "The result contains 2 rows", "2", ""},
		{"two new rows and a duplicate", "POST", "things", "return=minimal,resolution=ignore-duplicates", `[{"id":1},{"id":6},{"id":7}]`, 406, "The result contains 2 rows", "2", ""},
		{"two rows, representation", "POST", "things", "return=representation", `[{"id":6},{"id":7}]`, 406, "PGRST116", "2", ""},
		{"no row", "POST", "things?columns=id", "return=minimal", `[]`, 406, "The result contains 0 rows", "0", ""},
		{"a trigger rejects a row", "POST", "things", "", `[{"id":6,"name":"x"},{"id":7,"name":"refused"}]`, 400, "not this one", "2", ""},
		{"a foreign key rejects a row", "POST", "things", "", `[{"id":6,"parent":1},{"id":7,"parent":99}]`, 409, "23503", "1", ""},
		{"one row", "POST", "things", "return=minimal", `[{"id":6}]`, 201, "", "1", "6"},
		{"one row, representation", "POST", "things?select=id", "return=representation", `[{"id":6}]`, 201, `{"id":6}`, "1", "6"},
		{"read one", "GET", "things?select=id&id=eq.1", "", "", 200, `{"id":1}`, "0", ""},
		{"read all", "GET", "things", "", "", 406, "The result contains 5 rows", "0", ""},
		{"delete two", "DELETE", "parents?id=gt.7", "", "", 406, "The result contains 2 rows", "0", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			execute(t, stack, "ALTER SEQUENCE fired RESTART")
			r := call(t, stack, tt.method, tt.path, tt.body, "Prefer", tt.prefer, "Accept", "application/vnd.pgrst.object+json")
			if r.status != tt.status || !strings.Contains(r.body, tt.want) {
				t.Errorf("%d %s, want %d %s", r.status, r.body, tt.status, tt.want)
			}
			if kind := r.header.Get("Content-Type"); r.status < 300 && r.body != "" && kind != "application/vnd.pgrst.object+json; charset=utf-8" {
				t.Errorf("Content-Type %s", kind)
			}
			if got := query(t, stack, "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM fired"); got != tt.fired {
				t.Errorf("the trigger fired %s times, want %s", got, tt.fired)
			}
			if got := query(t, stack, "SELECT coalesce(string_agg(id::text, ' '), '') FROM things WHERE id > 5"); got != tt.stored {
				t.Errorf("stored %q, want %q", got, tt.stored)
			}
			execute(t, stack, "DELETE FROM things WHERE id > 5")
		})
	}
	if got := query(t, stack, "SELECT count(*) FROM parents"); got != "9" {
		t.Errorf("%s parents are left, want 9", got)
	}
	execute(t, stack, "DROP TRIGGER after_insert ON things", "DROP SEQUENCE fired")
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

// testHints checks the table that the hint suggests for an unknown table.
func testHints(t *testing.T, stack *localstack.Stack) {
	for path, want := range map[string]string{
		"thing":                      `"Perhaps you meant the table 'public.things'"`,
		"PARENTS":                    `null`,
		"document_processing_event":  `"Perhaps you meant the table 'public.document_processing_events'"`,
		"documents":                  `null`,
		"document-processing-events": `"Perhaps you meant the table 'public.document_processing_events'"`,
	} {
		r := call(t, stack, "GET", path, "")
		if r.code() != "PGRST205" || !strings.Contains(r.body, `"hint":`+want+`,`) {
			t.Errorf("%s: %s, want the hint %s", path, r.body, want)
		}
	}
}

// testConfig checks PostgREST's options that can be set in the database, with values
// that Supabase doesn't use.
func testConfig(t *testing.T, stack *localstack.Stack) {
	us := "Bearer " + sign(t, stack.JWTSecret, jwt.MapClaims{"role": "service_role", "aud": "us"})
	tests := []struct {
		option, value, authorization string
		status                       int
		code, authenticate           string
	}{
		{"jwt_aud", "them", us, 401, "PGRST303", `Bearer error="invalid_token", error_description="JWT not in audience"`},
		{"jwt_aud", "us", us, 200, "", ""},
		{"jwt_secret", "", us, 500, "PGRST300", ""},
		{"db_anon_role", "", "", 401, "PGRST302", "Bearer"},
		{"db_anon_role", "", us, 200, "", ""},
		{"openapi_mode", "follow-privileges", us, 200, "", ""},
	}
	for _, tt := range tests {
		option := "ALTER ROLE authenticator SET pgrst." + tt.option
		execute(t, stack, option+" = '"+tt.value+"'", "NOTIFY pgrst, 'reload config'")
		ask := func() reply { return call(t, stack, "GET", "", "", "Authorization", tt.authorization) }
		observe.Await(t, tt.option+" = "+tt.value, func() bool { return ask().status == tt.status })
		if r := ask(); r.code() != tt.code || r.header.Get("Www-Authenticate") != tt.authenticate {
			t.Errorf("%s = %q: %d %s %s", tt.option, tt.value, r.status, r.body, r.header)
		}
		execute(t, stack, strings.Replace(option, " SET ", " RESET ", 1), "NOTIFY pgrst, 'reload config'")
	}
	observe.Await(t, "the options are reset", func() bool {
		return call(t, stack, "GET", "", "", "Authorization", us).status == 200 &&
			call(t, stack, "GET", "", "", "Authorization", "").status == 200
	})
}
