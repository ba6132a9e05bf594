package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/docevents/docevents-go/examples/internal/exampletest"
	"github.com/docevents/docevents-go/integration/localstack"
)

func TestMain(m *testing.M) { exampletest.Main(m, main) }

const wantCounts = "recorded 7, delivered 7, dropped 0"

// TestProgram runs the program as a user would.
func TestProgram(t *testing.T) {
	t.Run("with a stack of its own", testOwnStack)
	t.Run("on a project", testProject)
	t.Run("on a broken project", testBrokenProject)
	t.Run("interrupted", testInterrupt)
}

func testOwnStack(t *testing.T) {
	t.Parallel()
	localstack.Shared(t) // skips where there is no PostgreSQL
	cmd := exampletest.Command()
	tmp := tempDir(t)
	cmd.Env = append(cmd.Env, "TMPDIR="+tmp)
	got := exampletest.Run(t, cmd)
	if got.LastLine() != wantCounts || got.Code != 0 {
		t.Errorf("exit code %d, last line %q, want 0 and %q\n%s", got.Code, got.LastLine(), wantCounts, got.Stderr)
	}
	for _, want := range []string{
		"SUPABASE_URL is not set",
		`DATABASE_URL='postgres://\S+'\n`,
		`  upload_started      -           0s  \n`,
		`  processing_started  ocr         0s  \n`,
		`  completed           ocr      1\.84s  \n`,
		`  completed           -         2\.1s  \n`,
		`  failed              -          12s  page 3: image too small\n`,
	} {
		if !regexp.MustCompile(want).MatchString(got.Stdout) {
			t.Errorf("the output has no %q:\n%s", want, got.Stdout)
		}
	}
	checkEmpty(t, tmp)
}

// On somebody's project the rows stay, and none of theirs is touched.
func testProject(t *testing.T) {
	t.Parallel()
	stack := localstack.Shared(t)
	count := func() (n int) {
		t.Helper()
		if err := stack.Pool().QueryRow(t.Context(), "SELECT count(*) FROM document_processing_events").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := count()
	got := exampletest.Run(t, exampletest.CommandOn(stack.URL, stack.ServiceRoleKey))
	if got.LastLine() != wantCounts || got.Code != 0 {
		t.Errorf("exit code %d, last line %q, want 0 and %q\n%s", got.Code, got.LastLine(), wantCounts, got.Stderr)
	}
	if n := count() - before; n != 7 {
		t.Errorf("%d rows more, want 7", n)
	}
}

func testBrokenProject(t *testing.T) {
	const secret = "sb_secret_x"
	noTable := answer(http.StatusNotFound, `{"code":"PGRST205","message":"Could not find the table"}`)
	badKey := answer(http.StatusUnauthorized, `{"message":"Invalid API key"}`)
	nobody := httptest.NewServer(noTable)
	nobody.Close()
	for _, test := range []struct {
		name, key, want string
		handler         http.Handler // nil: nobody listens
	}{
		{name: "no table", key: secret, handler: noTable, want: "013_create_processing_events_table.sql"},
		{name: "wrong key", key: secret, handler: badKey, want: "check the key"},
		{name: "publishable key", key: "sb_publishable_x", handler: badKey, want: "not a service-role key"},
		{name: "no key", handler: badKey, want: "SUPABASE_SERVICE_ROLE_KEY"},
		{name: "unreachable", key: secret, want: "connection refused"},
		// It stores nothing and says it did: the counts can't agree.
		{name: "forgetful", key: secret, handler: forgetful, want: "7 events were recorded, but the table has 0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel() // Check waits 5 s for something better
			url := nobody.URL
			if test.handler != nil {
				server := httptest.NewServer(test.handler)
				defer server.Close()
				url = server.URL
			}
			got := exampletest.Run(t, exampletest.CommandOn(url, test.key))
			if got.Code != 1 || !strings.Contains(got.Stderr, test.want) || strings.Count(got.Stderr, "\n") != 1 {
				t.Errorf("exit code %d, want 1 and one line that names %q:\n%s", got.Code, test.want, got.Stderr)
			}
		})
	}
}

func testInterrupt(t *testing.T) {
	t.Parallel()
	localstack.Shared(t)
	tmp := tempDir(t)
	cmd := exampletest.Command()
	cmd.Env = append(cmd.Env, "TMPDIR="+tmp)
	program := exampletest.Start(t, cmd)
	program.WaitForLine("SUPABASE_URL is not set: starting")
	program.Signal(os.Interrupt)
	if got := program.Wait(); got.Code != 1 {
		t.Errorf("%+v, want exit code 1", got)
	}
	checkEmpty(t, tmp)
}

// TestNetworkDown: it ends by itself where nobody answers any more.
func TestNetworkDown(t *testing.T) {
	ended := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(string(body), "ocr") {
			<-ended
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		forgetful(w, r)
	}))
	defer server.Close()
	defer close(ended)
	t.Setenv("SUPABASE_URL", server.URL)
	t.Setenv("SUPABASE_SERVICE_ROLE_KEY", "sb_secret_x")
	ctx, cancel := context.WithTimeout(t.Context(), time.Second) // as its own limit, but for the length
	defer cancel()
	if err := run(ctx, io.Discard); err == nil || !strings.Contains(err.Error(), "events abandoned") {
		t.Errorf("got %v, want an error that says what was abandoned", err)
	}
}

// tempDir is a folder for a local stack: PostgreSQL, which runs as another user
// where this is root, has to get there.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "quickstart-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func checkEmpty(t *testing.T, dir string) {
	t.Helper()
	if left, err := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 || err != nil {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}
