//go:build darwin || linux

package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
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
		name string
		f    func(*testing.T, *localstack.Stack)
	}{
		{"two drain a queue", testDrain},
		{"SIGTERM", testSIGTERM},
		{"killed", testKilled},
		{"with a stack of its own", testOwnStack},
		{"with wrong arguments", testArguments},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.f(t, stack)
		})
	}
}

// command is the program on the stack.
func command(stack *localstack.Stack, args ...string) *exec.Cmd {
	return exampletest.CommandOn(stack.URL, stack.ServiceRoleKey, args...)
}

// history returns a document's events in order.
func history(t *testing.T, stack *localstack.Stack, id string) string {
	t.Helper()
	return strings.Join(exampletest.History(t, stack, id), ", ")
}

const completed = "processing_started, completed"

func testDrain(t *testing.T, stack *localstack.Stack) {
	dir := t.TempDir()
	want := map[string]string{}
	for range 40 {
		want[put(t, dir, "three short words")] = completed
	}
	want[put(t, dir, "")] = "processing_started, failed the document is empty"
	want[put(t, dir, "\x00")] = "processing_started, failed the document is not a text in UTF-8"
	if err := os.WriteFile(filepath.Join(dir, "README\x1b.md"), []byte("no job"), 0o600); err != nil {
		t.Fatal(err)
	}

	first := exampletest.Start(t, command(stack, "-drain", dir))
	second := exampletest.Start(t, command(stack, "-drain", dir))
	outcomes := []exampletest.Outcome{first.Wait(), second.Wait()}
	recorded := 0
	for _, outcome := range outcomes {
		var n, delivered int
		if _, err := fmt.Sscanf(outcome.LastLine(), "recorded %d, delivered %d, dropped 0", &n, &delivered); err != nil || n != delivered || outcome.Code != 0 {
			t.Errorf("%v: %+v", err, outcome)
		}
		recorded += n
		if n := strings.Count(outcome.Stdout, "passed over: \"README\\x1b.md\" is no file"); n != 1 {
			t.Errorf("it says %d times what it passes over: %s", n, outcome.Stdout)
		}
	}
	if recorded != 2*len(want) {
		t.Errorf("%d events are recorded, want %d", recorded, 2*len(want))
	}
	for id, events := range want {
		if got := history(t, stack, id); got != events {
			t.Errorf("document %s has the events %q, want %q", id, got, events)
		}
	}
	if left := names(t, dir); !slices.Equal(left, []string{"README\x1b.md", "done", "failed"}) {
		t.Errorf("left are %v", left)
	}
	if done, failed := names(t, filepath.Join(dir, "done")), names(t, filepath.Join(dir, "failed")); len(done) != 40 || len(failed) != 2 {
		t.Errorf("%d jobs are done, %d failed", len(done), len(failed))
	}
}

// The signal comes while the second of three jobs is under way.
func testSIGTERM(t *testing.T, stack *localstack.Stack) {
	dir := t.TempDir()
	first := put(t, dir, "text")
	second, pipe := putPipe(t, dir)
	third := put(t, dir, "text")
	worker := exampletest.Start(t, command(stack, "-workers", "1", dir))
	w, err := os.OpenFile(pipe, os.O_WRONLY, 0) // waits for the worker
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	worker.Signal(syscall.SIGTERM)
	worker.WaitForLine("finishing the jobs under way")
	if _, err := io.WriteString(w, "text"); err != nil {
		t.Error(err)
	}
	w.Close()
	if outcome := worker.Wait(); outcome.Code != 0 || outcome.LastLine() != "recorded 4, delivered 4, dropped 0" {
		t.Errorf("got %+v", outcome)
	}
	for id, events := range map[string]string{first: completed, second: completed, third: ""} {
		if got := history(t, stack, id); got != events {
			t.Errorf("document %s has the events %q, want %q", id, got, events)
		}
	}
	if left := names(t, dir); !slices.Equal(left, []string{third + ".txt", "done", "failed"}) {
		t.Errorf("left are %v", left)
	}
}

// The job of a worker that is killed is taken again.
func testKilled(t *testing.T, stack *localstack.Stack) {
	dir := t.TempDir()
	id, pipe := putPipe(t, dir)
	worker := exampletest.Start(t, command(stack, "-workers", "1", dir))
	w, err := os.OpenFile(pipe, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	worker.Signal(syscall.SIGKILL)
	worker.Wait()
	w.Close()

	worker = exampletest.Start(t, command(stack, "-drain", "-workers", "1", dir))
	if err := os.WriteFile(pipe, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if outcome := worker.Wait(); outcome.Code != 0 || outcome.LastLine() != "recorded 2, delivered 2, dropped 0" {
		t.Errorf("got %+v", outcome)
	}
	// The first beginning may have been delivered, too.
	if got := history(t, stack, id); !strings.HasSuffix(got, completed) {
		t.Errorf("the document has the events %q", got)
	}
}

func testOwnStack(t *testing.T, _ *localstack.Stack) {
	dir := t.TempDir()
	put(t, dir, "text")
	if outcome := exampletest.Run(t, exampletest.Command("-drain", dir)); outcome.Code != 0 || outcome.LastLine() != "recorded 2, delivered 2, dropped 0" {
		t.Errorf("got %+v", outcome)
	}
}

func testArguments(t *testing.T, stack *localstack.Stack) {
	for _, args := range [][]string{nil, {"a", "b"}, {"-workers", "0", t.TempDir()}, {"-nope", t.TempDir()}} {
		if outcome := exampletest.Run(t, command(stack, args...)); outcome.Code != 2 || !strings.Contains(outcome.Stderr, "usage: worker") {
			t.Errorf("%v: got %+v", args, outcome)
		}
	}
	if outcome := exampletest.Run(t, command(stack, "main.go")); outcome.Code != 1 || !strings.Contains(outcome.Stderr, "not a directory") {
		t.Errorf("got %+v", outcome)
	}
}
