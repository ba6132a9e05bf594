//go:build darwin || linux

package main

import (
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/google/uuid"

	"github.com/docevents/docevents-go/doceventstest"
)

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
