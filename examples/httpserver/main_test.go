//go:build darwin || linux

package main

import (
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/docevents/docevents-go/examples/internal/exampletest"
	"github.com/docevents/docevents-go/examples/internal/servetest"
	"github.com/docevents/docevents-go/integration/localstack"
)

func TestMain(m *testing.M) { localstack.Main(m) }

// TestProgram runs the program as a user would.
func TestProgram(t *testing.T) {
	stack := localstack.Shared(t)
	program := exampletest.Build(t)
	for _, test := range []struct {
		name  string
		f     func(*testing.T, *localstack.Stack, string)
		locks bool
	}{
		{name: "uploads", f: testUploads},
		{name: "SIGTERM", f: testSIGTERM, locks: true},
		{name: "grace ends", f: testGraceEnds},
		{name: "events lost", f: testEventsLost, locks: true},
		{name: "with a stack of its own", f: testOwnStack},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.locks && !stack.Ours() {
				t.Skip("it locks the table: not on a project of somebody else's")
			}
			test.f(t, stack, program)
		})
	}
}

// start starts the program on the shared stack.
func start(t *testing.T, stack *localstack.Stack, program string, args ...string) *servetest.Program {
	t.Helper()
	cmd := exec.Command(program, append([]string{"-addr", "127.0.0.1:0"}, args...)...)
	cmd.Env = exampletest.Environ("SUPABASE_URL="+stack.URL, "SUPABASE_SERVICE_ROLE_KEY="+stack.ServiceRoleKey)
	return servetest.Listen(t, cmd)
}

// history returns a document's events in order, as type, stage and message.
func history(t *testing.T, stack *localstack.Stack, id string) []string {
	t.Helper()
	rows, err := stack.Pool().Query(t.Context(), "SELECT concat_ws(' ', event_type, stage, error_message) "+
		"FROM document_processing_events WHERE document_id = $1 ORDER BY created_at, id", id)
	if err != nil {
		t.Fatal(err)
	}
	events, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return events
}

var processed = []string{"upload_started", "processing_started count", "completed count", "completed"}

func checkHistory(t *testing.T, stack *localstack.Stack, id string, want []string) {
	t.Helper()
	if got := history(t, stack, id); !slices.Equal(got, want) {
		t.Errorf("document %s has the events %q, want %q", id, got, want)
	}
}

func testOwnStack(t *testing.T, _ *localstack.Stack, program string) {
	cmd := exec.Command(program, "-addr", "127.0.0.1:0")
	cmd.Env = exampletest.Environ()
	server := servetest.Listen(t, cmd)
	if printed := server.Try(2); !strings.HasPrefix(printed[0], `{"id":"`) || !strings.Contains(printed[1], `"docevents": {`) {
		t.Errorf("its own lines print %q", printed)
	}
	server.Signal(syscall.SIGTERM)
	if outcome := server.Wait(); outcome.Code != 0 || outcome.LastLine() != "recorded 4, delivered 4, dropped 0" {
		t.Errorf("got %+v", outcome)
	}
}
