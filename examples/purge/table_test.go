package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/docevents/docevents-go/integration/localstack"
)

// A table is one of the shared stack's, and what the program's environment says
// of it.
type table struct {
	*testing.T
	stack *localstack.Stack
	name  string
}

func newTable(t *testing.T) *table {
	t.Helper()
	stack := localstack.Shared(t)
	for _, name := range []string{"SUPABASE_URL", "SUPABASE_SECRET_KEYS", "SUPABASE_SECRET_KEY", "SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_SERVICE_KEY"} {
		t.Setenv(name, "")
	}
	t.Setenv("SUPABASE_URL", stack.URL)
	t.Setenv("SUPABASE_SERVICE_ROLE_KEY", stack.ServiceRoleKey)
	return &table{T: t, stack: stack, name: stack.Table(t)}
}

func (t *table) exec(sql string) {
	t.Helper()
	if _, err := t.stack.Pool().Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

// plant inserts n rows that were created so long ago, a second apart.
func (t *table) plant(n int, ago string) {
	t.Helper()
	t.exec(fmt.Sprintf(`INSERT INTO %s (document_id, user_id, event_type, created_at)
		SELECT gen_random_uuid(), gen_random_uuid(), 'completed', now() - interval '%s' - i * interval '1 second'
		FROM generate_series(1, %d) AS i`, t.name, ago, n))
}

func (t *table) count() (n int64) {
	t.Helper()
	if err := t.stack.Pool().QueryRow(t.Context(), "SELECT count(*) FROM "+t.name).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func (t *table) wantCount(want int64) {
	t.Helper()
	if got := t.count(); got != want {
		t.Errorf("%d rows are left, want %d", got, want)
	}
}

// onDelete makes a trigger.
func (t *table) onDelete(when, body string) {
	t.Helper()
	function := "on_delete_" + strings.ToLower(rand.Text()[:12])
	t.exec("CREATE FUNCTION " + function + "() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN " + body + " RETURN NULL; END $$;" +
		"CREATE TRIGGER on_delete AFTER DELETE ON " + t.name + " " + when + " EXECUTE FUNCTION " + function + "()")
	t.Cleanup(func() {
		// The test's own context has ended.
		if _, err := t.stack.Pool().Exec(context.Background(), "DROP FUNCTION "+function+" CASCADE"); err != nil {
			t.Error(err)
		}
	})
}

// slow makes each step take a moment.
func (t *table) slow() {
	t.Helper()
	t.onDelete("FOR EACH STATEMENT", "PERFORM pg_sleep(0.3);")
}

// purge runs the program in this process.
func (t *table) purge(wantCode int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code := run(t.Context(), append([]string{"-table", t.name}, args...), &out, &errs)
	t.check(code, wantCode, out.String(), errs.String())
	return out.String(), errs.String()
}

func (t *table) check(code, wantCode int, stdout, stderr string) {
	t.Helper()
	if code != wantCode {
		t.Errorf("exit code %d, want %d; %s%s", code, wantCode, stdout, stderr)
	}
	if strings.Contains(stdout+stderr, t.stack.ServiceRoleKey) || strings.Contains(stdout+stderr, "created_at=") {
		t.Errorf("it prints a key or a query: %s%s", stdout, stderr)
	}
}

// json runs the program with -json and returns what it says.
func (t *table) json(wantCode int, args ...string) result {
	t.Helper()
	stdout, _ := t.purge(wantCode, append(args, "-json")...)
	return t.decode(stdout)
}

func (t *table) decode(stdout string) (r result) {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(stdout))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&r); err != nil {
		t.Fatalf("%v: %s", err, stdout)
	}
	if strings.Count(stdout, "\n") != 1 || !strings.HasSuffix(stdout, "}\n") {
		t.Errorf("not one line of JSON: %s", stdout)
	}
	return r
}
