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
	"sync"
	"syscall"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/docevents/docevents-go/doceventstest"
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
		name string
		f    func(*testing.T, *localstack.Stack, string)
	}{
		{"two drain a queue", testDrain},
		{"SIGTERM", testSIGTERM},
		{"killed", testKilled},
		{"with a stack of its own", testOwnStack},
		{"with wrong arguments", testArguments},
	} {
		t.Run(test.name, func(t *testing.T) { test.f(t, stack, program) })
	}
}

func command(stack *localstack.Stack, program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Env = exampletest.Environ("SUPABASE_URL="+stack.URL, "SUPABASE_SERVICE_ROLE_KEY="+stack.ServiceRoleKey)
	return cmd
}

// put puts a job into a queue and returns its document.
func put(t *testing.T, dir, text string) string {
	t.Helper()
	id := uuid.Must(uuid.NewV7()).String() // jobs are taken in order
	if err := os.WriteFile(filepath.Join(dir, id+".txt"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return id
}

// putPipe puts a job into a queue whose text is still to come, and returns its
// document and the file's name.
func putPipe(t *testing.T, dir string) (id, name string) {
	t.Helper()
	id = uuid.Must(uuid.NewV7()).String()
	name = filepath.Join(dir, id+".txt")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	return id, name
}

func names(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// history returns a document's events in order.
func history(t *testing.T, stack *localstack.Stack, id string) string {
	t.Helper()
	rows, err := stack.Pool().Query(t.Context(), "SELECT concat_ws(': ', event_type, error_message) "+
		"FROM document_processing_events WHERE document_id = $1 ORDER BY created_at, id", id)
	if err != nil {
		t.Fatal(err)
	}
	events, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(events, ", ")
}

const completed = "processing_started, completed"

func testDrain(t *testing.T, stack *localstack.Stack, program string) {
	dir := t.TempDir()
	want := map[string]string{}
	for range 40 {
		want[put(t, dir, "three short words")] = completed
	}
	want[put(t, dir, "")] = "processing_started, failed: the document is empty"
	want[put(t, dir, "\x00")] = "processing_started, failed: the document is not a text in UTF-8"
	if err := os.WriteFile(filepath.Join(dir, "README\x1b.md"), []byte("no job"), 0o600); err != nil {
		t.Fatal(err)
	}

	first := exampletest.Start(t, command(stack, program, "-drain", dir))
	second := exampletest.Start(t, command(stack, program, "-drain", dir))
	outcomes := []exampletest.Outcome{first(), second()}
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
func testSIGTERM(t *testing.T, stack *localstack.Stack, program string) {
	dir := t.TempDir()
	first := put(t, dir, "text")
	second, pipe := putPipe(t, dir)
	third := put(t, dir, "text")
	worker := servetest.Start(t, command(stack, program, "-workers", "1", dir))
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
func testKilled(t *testing.T, stack *localstack.Stack, program string) {
	dir := t.TempDir()
	id, pipe := putPipe(t, dir)
	worker := servetest.Start(t, command(stack, program, "-workers", "1", dir))
	w, err := os.OpenFile(pipe, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	worker.Signal(syscall.SIGKILL)
	worker.Wait()
	w.Close()

	wait := exampletest.Start(t, command(stack, program, "-drain", "-workers", "1", dir))
	if err := os.WriteFile(pipe, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if outcome := wait(); outcome.Code != 0 || outcome.LastLine() != "recorded 2, delivered 2, dropped 0" {
		t.Errorf("got %+v", outcome)
	}
	// The first beginning may have been delivered, too.
	if got := history(t, stack, id); !strings.HasSuffix(got, completed) {
		t.Errorf("the document has the events %q", got)
	}
}

func testOwnStack(t *testing.T, _ *localstack.Stack, program string) {
	dir := t.TempDir()
	put(t, dir, "text")
	cmd := exec.Command(program, "-drain", dir)
	cmd.Env = exampletest.Environ()
	if outcome := exampletest.Run(t, cmd); outcome.Code != 0 || outcome.LastLine() != "recorded 2, delivered 2, dropped 0" {
		t.Errorf("got %+v", outcome)
	}
}

func testArguments(t *testing.T, stack *localstack.Stack, program string) {
	for _, args := range [][]string{nil, {"a", "b"}, {"-workers", "0", t.TempDir()}, {"-nope", t.TempDir()}} {
		if outcome := exampletest.Run(t, command(stack, program, args...)); outcome.Code != 2 || !strings.Contains(outcome.Stderr, "usage: worker") {
			t.Errorf("%v: got %+v", args, outcome)
		}
	}
	if outcome := exampletest.Run(t, command(stack, program, "main.go")); outcome.Code != 1 || !strings.Contains(outcome.Stderr, "not a directory") {
		t.Errorf("got %+v", outcome)
	}
}

func TestQueue(t *testing.T) {
	dir := t.TempDir()
	q, err := openQueue(dir, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	next := func(want string) *job {
		t.Helper()
		j, err := q.next()
		if err != nil {
			t.Fatal(err)
		}
		if got := j; want == "" && got != nil || want != "" && (got == nil || got.document != want) {
			t.Fatalf("got %+v, want %q", got, want)
		}
		return j
	}
	next("")
	a, b := put(t, dir, "a"), put(t, dir, "b")
	first := next(a)
	second := next(b)
	next("")                                   // both are taken
	if err := first.file.Close(); err != nil { // as at the death of its process
		t.Fatal(err)
	}
	first = next(a)
	if err := first.end(true); err != nil {
		t.Error(err)
	}
	if err := second.end(false); err != nil {
		t.Error(err)
	}
	next("")
	if done, failed := names(t, q.done), names(t, q.failed); len(done) != 1 || len(failed) != 1 {
		t.Errorf("done %v, failed %v", done, failed)
	}
}

// Workers of one process share a queue as those of several do.
func TestWorkersShareAQueue(t *testing.T) {
	server := doceventstest.NewServer(t)
	client := server.Client()
	dir := t.TempDir()
	q, err := openQueue(dir, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	const jobs = 100
	for range jobs {
		put(t, dir, "text")
	}
	w := &worker{queue: q, record: client.Record, drain: true, out: io.Discard}
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			if err := w.run(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	workers.Wait()
	perDocument := map[string]int{}
	for _, e := range server.WaitFor(2 * jobs) {
		perDocument[e.DocumentID]++
	}
	if len(perDocument) != jobs {
		t.Errorf("%d documents have events, want %d", len(perDocument), jobs)
	}
	for id, n := range perDocument {
		if n != 2 {
			t.Errorf("document %s has %d events, want 2", id, n)
		}
	}
}
