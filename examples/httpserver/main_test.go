//go:build darwin || linux

package main

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/docevents/docevents-go/examples/internal/exampletest"
	"github.com/docevents/docevents-go/integration/localstack"
)

func TestMain(m *testing.M) { exampletest.Main(m, main) }

// TestProgram runs the program as a user would.
func TestProgram(t *testing.T) {
	stack := localstack.Shared(t)
	for _, test := range []struct {
		name  string
		f     func(*testing.T, *localstack.Stack)
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
			if !test.locks {
				t.Parallel()
			}
			test.f(t, stack)
		})
	}
}

// start starts the program on the shared stack.
func start(t *testing.T, stack *localstack.Stack, args ...string) *exampletest.Program {
	t.Helper()
	args = append([]string{"-addr", "127.0.0.1:0"}, args...)
	return exampletest.Listen(t, exampletest.CommandOn(stack.URL, stack.ServiceRoleKey, args...))
}

var processed = []string{"upload_started", "processing_started count", "completed count", "completed"}

func checkHistory(t *testing.T, stack *localstack.Stack, id string, want []string) {
	t.Helper()
	if got := exampletest.History(t, stack, id); !slices.Equal(got, want) {
		t.Errorf("document %s has the events %q, want %q", id, got, want)
	}
}

func testOwnStack(t *testing.T, _ *localstack.Stack) {
	server := exampletest.Listen(t, exampletest.Command("-addr", "127.0.0.1:0"))
	if printed := server.Try(2); !strings.HasPrefix(printed[0], `{"id":"`) || !strings.Contains(printed[1], `"docevents": {`) {
		t.Errorf("its own lines print %q", printed)
	}
	server.Signal(syscall.SIGTERM)
	if outcome := server.Wait(); outcome.Code != 0 || outcome.LastLine() != "recorded 4, delivered 4, dropped 0" {
		t.Errorf("got %+v", outcome)
	}
}
