package main

import (
	"context"
	"errors"
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

	"github.com/google/uuid"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/examples/internal/exampletest"
	"github.com/docevents/docevents-go/examples/internal/project"
	"github.com/docevents/docevents-go/integration/localstack"
)

func TestMain(m *testing.M) { localstack.Main(m) }

const wantCounts = "recorded 12, delivered 12, dropped 0, purged 3"

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
		`invoice-2041\.pdf +completed +summarize +1\.84s +-\n`,
		`minutes\.md +upload_started +- +- +-\n`,
		`scan-0007\.tiff +failed +extract +12\.3s +tesseract: page 3: image too small`,
	} {
		if !regexp.MustCompile(want).MatchString(got.Stdout) {
			t.Errorf("the output has no %q:\n%s", want, got.Stdout)
		}
	}
	if strings.Contains(got.Stdout, "handbook-2019.pdf") {
		t.Errorf("the old document is still in the table:\n%s", got.Stdout)
	}
	checkEmpty(t, tmp)
}

// On somebody's project every row that was there before stays, however old.
func testProject(t *testing.T, program string) {
	stack := localstack.Shared(t)
	p := &project.Project{URL: stack.URL, Key: stack.ServiceRoleKey}
	for _, test := range []struct {
		name string
		age  time.Duration // of the row that was there before
	}{
		{"with young rows", 29 * 24 * time.Hour},
		{"with old rows", 400 * 24 * time.Hour},
	} {
		t.Run(test.name, func(t *testing.T) {
			theirs := uuid.NewString()
			client, err := p.Connect(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			client.Record(docevents.Event{
				DocumentID: theirs, UserID: theirs, Type: docevents.Completed, CreatedAt: time.Now().Add(-test.age),
			})
			if err := client.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(program)
			cmd.Env = exampletest.Environ("SUPABASE_URL="+stack.URL, "SUPABASE_SERVICE_ROLE_KEY="+stack.ServiceRoleKey)
			got := exampletest.Run(t, cmd)
			if got.LastLine() != wantCounts || got.Code != 0 {
				t.Errorf("exit code %d, last line %q, want 0 and %q\n%s", got.Code, got.LastLine(), wantCounts, got.Stderr)
			}
			if n, err := p.Count(t.Context(), map[string]string{"user_id": theirs}); n != 1 || err != nil {
				t.Errorf("of the row that was there before %d are left (%v)", n, err)
			}
			user := regexp.MustCompile(`DELETE FROM \S+ WHERE user_id = '(\S+)'`).FindStringSubmatch(got.Stdout)
			if user == nil {
				t.Fatalf("the output doesn't say how to delete the rows:\n%s", got.Stdout)
			}
			if n, err := p.Count(t.Context(), map[string]string{"user_id": user[1]}); n != 9 || err != nil {
				t.Errorf("of the program's own rows %d are left (%v), want 9", n, err)
			}
		})
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
		{name: "forgetful", handler: forgetful, want: "12 events were delivered, but the table had 0"},
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
	err = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("exit code %d (%v), want 130", code, err)
	}
	checkEmpty(t, tmp)
}

// TestInterruptWhileDelivering interrupts run where it waits for the server.
func TestInterruptWhileDelivering(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); r.Method == http.MethodPost && len(body) > len("[]\n") {
			cancel()
			<-ended
			return
		}
		forgetful(w, r)
	}))
	defer server.Close()
	defer close(ended)
	t.Setenv("SUPABASE_URL", server.URL)
	t.Setenv("SUPABASE_SERVICE_ROLE_KEY", "sb_secret_x")
	if err := run(ctx, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
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
	if r.Method == http.MethodPost {
		answer(http.StatusCreated, "")(w, r)
	} else {
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

func TestCheck(t *testing.T) {
	good := tally{docevents.Stats{Recorded: 12, Delivered: 12}, 12, 3, 9}
	if err := good.check(); err != nil {
		t.Errorf("good counts: %v", err)
	}
	for name, t2 := range map[string]tally{
		"a lost event":        {docevents.Stats{Recorded: 12, Delivered: 11}, 11, 3, 8},
		"an event not stored": {docevents.Stats{Recorded: 12, Delivered: 12}, 11, 3, 8},
		"purged too few":      {docevents.Stats{Recorded: 12, Delivered: 12}, 12, 2, 10},
		"purged another's":    {docevents.Stats{Recorded: 12, Delivered: 12}, 12, 4, 9},
		"left too many":       {docevents.Stats{Recorded: 12, Delivered: 12}, 12, 3, 10},
	} {
		if t2.check() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestPlanPurge(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Date(2026, 6, 15, 12, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		name   string
		oldest time.Time
		byDays bool
	}{
		{"empty table", time.Time{}, true},
		{"young rows", now.Add(-29 * day), true},
		{"a row that is about to grow old", now.Add(-30*day + time.Minute), false},
		{"old rows", now.Add(-31 * day), false},
		{"very old rows", time.Unix(0, 0), false},
	} {
		plan := planPurge(test.oldest, now)
		cutoff := plan.cutoff
		if cutoff.IsZero() {
			cutoff = now.Add(-30 * day)
		}
		if plan.cutoff.IsZero() != test.byDays {
			t.Errorf("%s: cutoff %v", test.name, plan.cutoff)
		}
		if !test.oldest.IsZero() && test.oldest.Before(cutoff) {
			t.Errorf("%s: the row of %v would be purged: cutoff %v", test.name, test.oldest, cutoff)
		}
		if last := plan.longAgo.Add(time.Minute); !last.Before(cutoff) {
			t.Errorf("%s: the planted rows of %v would stay: cutoff %v", test.name, last, cutoff)
		}
	}
}

func TestDocuments(t *testing.T) {
	total := 0
	kinds := make(map[docevents.EventType]bool)
	for _, d := range newDocuments(time.Now()) {
		total += len(d.events)
		old := 0
		for _, e := range d.events {
			kinds[e.Type] = true
			if !e.CreatedAt.IsZero() {
				old++
			}
		}
		if old != 0 && old != oldEvents {
			t.Errorf("%s has %d old events, want %d or none", d.name, old, oldEvents)
		}
	}
	if total != 12 || len(kinds) != 4 {
		t.Errorf("%d events of %d types, want 12 of 4", total, len(kinds))
	}
}
