package localstack_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
	"github.com/jackc/pgx/v5"

	"github.com/docevents/docevents-go/integration/localstack"
)

// exchange is an entry of testdata/cases.json or cases-more.json: a request and the
// recorded answer of PostgREST 14.17.
type exchange struct {
	Case struct {
		Name   string
		Schema []string // SQL that changes the migration's table
		Before []string
		Method string
		Path   string
		Prefer []string
		Auth   string
		Body   any
		Raw    string
		After  string
	}
	Answer struct {
		Status  int
		Headers map[string]string
		Body    any
	}
	After string
}

// TestCases sends the recorded requests to the stand-in and compares its answers with
// the recorded ones. If POSTGREST_BIN names a real PostgREST, that server gets the
// requests. TestDescription does the same for the description of tables.
func TestCases(t *testing.T) {
	stack := localstack.Shared(t)
	if !stack.Ours() {
		t.Skip("the cases recreate the schema, which only a stack of this process allows")
	}
	t.Cleanup(func() { freshSchema(t, stack) })
	for file, want := range map[string]int{"cases.json": 55, "cases-more.json": 29} {
		text, err := os.ReadFile("testdata/" + file)
		if err != nil {
			t.Fatal(err)
		}
		var exchanges []exchange
		if err := json.Unmarshal(text, &exchanges); err != nil {
			t.Fatal(err)
		}
		if len(exchanges) != want {
			t.Errorf("%s: got %d exchanges, want the %d that were recorded", file, len(exchanges), want)
		}
		for _, x := range exchanges {
			t.Run(x.Case.Name, func(t *testing.T) { replay(t, stack, x) })
		}
	}
}

func replay(t *testing.T, stack *localstack.Stack, x exchange) {
	freshSchema(t, stack)
	execute(t, stack, "GRANT ALL ON document_processing_events TO anon, authenticated, service_role")
	execute(t, stack, x.Case.Schema...)
	execute(t, stack, x.Case.Before...)
	if err := stack.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}

	resp, err := http.DefaultClient.Do(x.request(t, stack))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}

	if resp.StatusCode != x.Answer.Status {
		t.Errorf("status %d, want %d: %s", resp.StatusCode, x.Answer.Status, got)
	}
	for name, want := range x.Answer.Headers {
		// The details contain generated values, whose length varies.
		if name == "content-length" && hasNewValues(x.Answer.Body) {
			continue
		}
		if got := strings.Join(resp.Header.Values(name), ", "); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	// These headers must be absent if the recording lacks them.
	for _, name := range []string{"Content-Range", "Content-Type", "Preference-Applied", "Proxy-Status", "Www-Authenticate"} {
		if _, want := x.Answer.Headers[strings.ToLower(name)]; !want && resp.Header.Get(name) != "" {
			t.Errorf("unexpected %s: %q", name, resp.Header.Get(name))
		}
	}
	compareBody(t, got, x.Answer.Body)
	if got := query(t, stack, x.Case.After); got != x.After {
		t.Errorf("%s: %s, want %s", x.Case.After, got, x.After)
	}
}

// request builds the recorded request.
func (x exchange) request(t *testing.T, stack *localstack.Stack) *http.Request {
	t.Helper()
	var body []byte
	switch {
	case x.Case.Raw != "":
		body = []byte(x.Case.Raw)
	case x.Case.Method == http.MethodPost:
		var err error
		if body, err = json.Marshal(expand(x.Case.Body)); err != nil {
			t.Fatal(err)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), x.Case.Method, stack.URL+"/rest/v1/"+x.Case.Path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, prefer := range x.Case.Prefer {
		req.Header.Add("Prefer", prefer)
	}
	if x.Case.Auth != "" {
		req.Header.Set("Authorization", "Bearer "+bearer(t, stack, x.Case.Auth))
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req
}

// bearer returns the token for a case's auth.
func bearer(t *testing.T, stack *localstack.Stack, auth string) string {
	t.Helper()
	role, secret := auth, stack.JWTSecret
	switch auth {
	case "not-a-jwt":
		return auth
	case "wrong-signature":
		role, secret = "service_role", "another secret of at least 32 bytes"
	case "unknown-role":
		role = "nobody_here"
	}
	return sign(t, secret, jwt.MapClaims{"role": role})
}

func sign(t *testing.T, secret string, claims jwt.MapClaims) string {
	t.Helper()
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// expand replaces the abbreviations "repeat" and "repeat_with_ids_from_0" in a case.
func expand(v any) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = expand(v[i])
		}
	case map[string]any:
		if text, ok := v["repeat"].(string); ok {
			return strings.Repeat(text, int(v["times"].(float64)))
		}
		if n, ok := v["repeat_with_ids_from_0"].(float64); ok {
			rows := make([]any, int(n))
			for i := range rows {
				row := map[string]any{}
				for name, value := range v["row"].(map[string]any) {
					row[name] = value
				}
				id := row["id"].(string)
				row["id"] = fmt.Sprintf("%s%012d", id[:len(id)-12], i)
				rows[i] = row
			}
			return rows
		}
		for name := range v {
			v[name] = expand(v[name])
		}
	}
	return v
}

// newValues matches error details that contain a generated id and time, which
// differ in every run.
var newValues = regexp.MustCompile(`^Failing row contains \([0-9a-f-]{36}, null, .*\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?\+00\)\.$`)

func hasNewValues(body any) bool {
	object, _ := body.(map[string]any)
	details, _ := object["details"].(string)
	return newValues.MatchString(details) && !strings.Contains(details, "aaaaaaaa-")
}

func compareBody(t *testing.T, text []byte, want any) {
	t.Helper()
	if want == nil {
		if len(text) > 0 {
			t.Errorf("body %s, want none", text)
		}
		return
	}
	var got any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatalf("body %s: %v", text, err)
	}
	if short, ok := want.(map[string]any); ok && short["array_of"] != nil {
		rows, _ := got.([]any)
		if float64(len(rows)) != short["array_of"] {
			t.Fatalf("%d rows, want %v", len(rows), short["array_of"])
		}
		if !reflect.DeepEqual(rows[0], short["first"]) {
			t.Errorf("the first row is %v, want %v", rows[0], short["first"])
		}
		return
	}
	if hasNewValues(want) && hasNewValues(got) {
		want.(map[string]any)["details"] = got.(map[string]any)["details"]
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("body %v, want %v", got, want)
	}
}

// freshSchema recreates the schema with only the migrations' empty table and
// functions.
func freshSchema(t *testing.T, stack *localstack.Stack) {
	t.Helper()
	execute(t, stack,
		"DROP SCHEMA public CASCADE",
		"CREATE SCHEMA public",
		"GRANT USAGE ON SCHEMA public TO anon, authenticated, service_role",
		"ALTER ROLE service_role RESET ALL")
	if err := stack.Migrate(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
}

func execute(t *testing.T, stack *localstack.Stack, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		// t.Context is canceled before a cleanup runs.
		if _, err := stack.Pool().Exec(context.WithoutCancel(t.Context()), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// query returns the result's rows in the format of psql -At.
func query(t *testing.T, stack *localstack.Stack, sql string) string {
	t.Helper()
	rows, _ := stack.Pool().Query(t.Context(), sql, pgx.QueryExecModeSimpleProtocol) // CollectRows returns its error
	lines, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
		return string(bytes.Join(row.RawValues(), []byte("|"))), nil
	})
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return strings.Join(lines, "\n")
}
