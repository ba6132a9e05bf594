package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/docevents/docevents-go/examples/internal/exampletest"
	"github.com/docevents/docevents-go/integration/localstack"
)

func TestMain(m *testing.M) { localstack.Main(m) }

const wantCounts = "recorded 7, delivered 7, dropped 0"

// TestProgram runs the program as a user would.
func TestProgram(t *testing.T) {
	program := exampletest.Build(t)
	t.Run("with a stack of its own", func(t *testing.T) { testOwnStack(t, program) })
	t.Run("on a project", func(t *testing.T) { testProject(t, program) })
	t.Run("on a broken project", func(t *testing.T) { testBrokenProject(t, program) })
	t.Run("interrupted", func(t *testing.T) { testInterrupt(t, program) })
}

func testOwnStack(t *testing.T, program string) {
	localstack.Shared(t) // skips where there is no PostgreSQL
	cmd := exec.Command(program)
	tmp := tempDir(t)
	cmd.Env = exampletest.Environ("TMPDIR=" + tmp)
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
func testProject(t *testing.T, program string) {
	stack := localstack.Shared(t)
	count := func() (n int) {
		t.Helper()
		if err := stack.Pool().QueryRow(t.Context(), "SELECT count(*) FROM document_processing_events").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := count()
	cmd := exec.Command(program)
	cmd.Env = exampletest.Environ("SUPABASE_URL="+stack.URL, "SUPABASE_SERVICE_ROLE_KEY="+stack.ServiceRoleKey)
	got := exampletest.Run(t, cmd)
	if got.LastLine() != wantCounts || got.Code != 0 {
		t.Errorf("exit code %d, last line %q, want 0 and %q\n%s", got.Code, got.LastLine(), wantCounts, got.Stderr)
	}
	if n := count() - before; n != 7 {
		t.Errorf("%d rows more, want 7", n)
	}
}

func testBrokenProject(t *testing.T, program string) {
	noTable := answer(http.StatusNotFound, `{"code":"PGRST205","message":"Could not find the table"}`)
	badKey := answer(http.StatusUnauthorized, `{"message":"Invalid API key"}`)
	nobody := httptest.NewServer(noTable)
	nobody.Close()
	for _, test := range []struct {
		name, key, want string
		handler         http.Handler // nil: nobody listens
	}{
		{name: "no table", handler: noTable, want: "013_create_processing_events_table.sql"},
		{name: "wrong key", handler: badKey, want: "check the key"},
		{name: "publishable key", key: "sb_publishable_x", handler: badKey, want: "not a service-role key"},
		{name: "no key", key: "-", handler: badKey, want: "SUPABASE_SERVICE_ROLE_KEY"},
		{name: "unreachable", want: "connection refused"},
		// It stores nothing and says it did: the counts can't agree.
		{name: "forgetful", handler: forgetful, want: "7 events were recorded, but the table has 0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			url := nobody.URL
			if test.handler != nil {
				server := httptest.NewServer(test.handler)
				defer server.Close()
				url = server.URL
			}
			settings := []string{"SUPABASE_URL=" + url}
			switch test.key {
			case "":
				settings = append(settings, "SUPABASE_SECRET_KEY=sb_secret_x")
			case "-":
			default:
				settings = append(settings, "SUPABASE_SECRET_KEY="+test.key)
			}
			cmd := exec.Command(program)
			cmd.Env = exampletest.Environ(settings...)
			got := exampletest.Run(t, cmd)
			if got.Code != 1 || !strings.Contains(got.Stderr, test.want) || strings.Count(got.Stderr, "\n") != 1 {
				t.Errorf("exit code %d, want 1 and one line that names %q:\n%s", got.Code, test.want, got.Stderr)
			}
		})
	}
}

func testInterrupt(t *testing.T, program string) {
	localstack.Shared(t)
	tmp := tempDir(t)
	cmd := exec.Command(program)
	cmd.Env = exampletest.Environ("TMPDIR=" + tmp)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// The first line of the output is about the start of the stack.
	if _, err := stdout.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
	if _, err := io.Copy(io.Discard, stdout); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("%v, want exit code 1", err)
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

func answer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// forgetful accepts everything and has nothing.
var forgetful = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Range", "*/0")
	switch body, _ := io.ReadAll(r.Body); {
	case strings.Contains(string(body), `"id":null`): // of Check
		answer(http.StatusBadRequest, `{"code":"23502","message":"null value in column \"id\" of relation \"document_processing_events\" violates not-null constraint"}`)(w, r)
	case r.Method == http.MethodPost:
		answer(http.StatusCreated, "")(w, r)
	default:
		answer(http.StatusOK, "[]")(w, r)
	}
})

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
