//go:build darwin || linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptrace"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/docevents/docevents-go"
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

// form makes a multipart form with the file in it, as curl -F does.
func form(t *testing.T, field, name string) (body io.Reader, contentType string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	if err := w.WriteField("note", "not the file"); err != nil {
		t.Fatal(err)
	}
	part, err := w.CreateFormFile(field, filepath.Base(name))
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := part.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b, w.FormDataContentType()
}

// upload sends a document and returns its id, "" where it was refused.
func upload(ctx context.Context, url string, body io.Reader, header http.Header) (id string, status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/documents", body)
	if err != nil {
		return "", 0, err
	}
	req.Header = header
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		return "", resp.StatusCode, nil
	}
	var answer struct{ ID string }
	err = json.NewDecoder(resp.Body).Decode(&answer)
	return answer.ID, resp.StatusCode, err
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

// testUploads uploads what users upload, and ends the program with Ctrl-C.
func testUploads(t *testing.T, stack *localstack.Stack, program string) {
	server := start(t, stack, program)
	const license = "../../LICENSE"
	type expectation struct {
		id     string
		events []string
	}
	var want []expectation
	for _, contentType := range []string{"", "text/plain", "application/x-www-form-urlencoded"} { // curl's is the last
		f, err := os.Open(license)
		if err != nil {
			t.Fatal(err)
		}
		id, status, err := upload(t.Context(), server.URL, f, http.Header{"Content-Type": {contentType}})
		if id == "" || err != nil {
			t.Fatalf("%q: got %d, %v", contentType, status, err)
		}
		want = append(want, expectation{id, processed})
	}
	body, contentType := form(t, "file", license)
	id, status, err := upload(t.Context(), server.URL, body, http.Header{"Content-Type": {contentType}})
	if id == "" || err != nil {
		t.Fatalf("form: got %d, %v", status, err)
	}
	want = append(want, expectation{id, processed})
	id, status, err = upload(t.Context(), server.URL, strings.NewReader("\x7fELF\x00"), nil)
	if id == "" || err != nil {
		t.Fatalf("binary: got %d, %v", status, err)
	}
	want = append(want, expectation{id, []string{
		"upload_started", "processing_started count",
		"failed count the document is not a text in UTF-8", "failed the document is not a text in UTF-8",
	}})

	body, contentType = form(t, "other", license)
	if id, status, err = upload(t.Context(), server.URL, body, http.Header{"Content-Type": {contentType}}); status != http.StatusBadRequest {
		t.Errorf("a form without the field: got %q, %d, %v", id, status, err)
	}
	big := io.LimitReader(endless{}, maxUpload+1)
	if id, status, err = upload(t.Context(), server.URL, big, nil); status != http.StatusRequestEntityTooLarge {
		t.Errorf("a document too large: got %q, %d, %v", id, status, err)
	}

	stats := vars(t, server.URL)
	if stats.Recorded != stats.Delivered+stats.Pending || stats.Recorded < 7 {
		t.Errorf("/debug/vars has %+v", stats)
	}
	server.Signal(os.Interrupt)
	outcome := server.Wait()
	const total = 5*4 + 2*3
	line := fmt.Sprintf("recorded %d, delivered %d, dropped 0", total, total)
	if outcome.Code != 0 || outcome.LastLine() != line {
		t.Errorf("got %+v, want %s", outcome, line)
	}
	for _, w := range want {
		checkHistory(t, stack, w.id, w.events)
	}
}

// endless is text without an end.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	return copy(p, "text without an end, "), nil
}

func vars(t *testing.T, url string) docevents.Stats {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/debug/vars", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var all struct{ Docevents docevents.Stats }
	if err := json.NewDecoder(resp.Body).Decode(&all); err != nil {
		t.Fatal(err)
	}
	return all.Docevents
}

// A slowUpload is one that the server has begun to read.
type slowUpload struct {
	body *io.PipeWriter
	done chan struct{}
	id   string // when done
	err  error
}

func startSlowUpload(t *testing.T, url string) *slowUpload {
	t.Helper()
	r, w := io.Pipe()
	s := &slowUpload{body: w, done: make(chan struct{})}
	reading := make(chan struct{})
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got100Continue: func() { close(reading) }})
	go func() {
		defer close(s.done)
		s.id, _, s.err = upload(ctx, url, r, http.Header{"Expect": {"100-continue"}})
		r.CloseWithError(io.ErrClosedPipe) // a write must not wait for a reader that has gone
	}()
	select {
	case <-reading: // the handler reads the body
	case <-s.done:
		t.Fatalf("the upload ended before its body was read: %v", s.err)
	}
	if _, err := io.WriteString(w, "the first half, "); err != nil {
		t.Fatal(err)
	}
	return s
}

// lockTable keeps everything from the table until it is unlocked.
func lockTable(t *testing.T, stack *localstack.Stack) (unlock func()) {
	t.Helper()
	tx, err := stack.Pool().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "LOCK TABLE document_processing_events"); err != nil {
		t.Fatal(err)
	}
	return sync.OnceFunc(func() {
		if err := tx.Rollback(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
}

// testSIGTERM sends SIGTERM while uploads come in, one of them half sent, and
// while the table takes no events. Everything that was accepted is found there.
func testSIGTERM(t *testing.T, stack *localstack.Stack, program string) {
	server := start(t, stack, program, "-workers", "1")
	source, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}

	var mu sync.Mutex
	var accepted []string
	enough := make(chan struct{})
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for {
				id, _, err := upload(t.Context(), server.URL, bytes.NewReader(source), nil)
				if err != nil {
					return // the server takes no more
				}
				mu.Lock()
				if id != "" {
					accepted = append(accepted, id)
					if len(accepted) == 50 {
						close(enough)
					}
				}
				mu.Unlock()
			}
		})
	}
	slow := startSlowUpload(t, server.URL)
	<-enough
	unlock := lockTable(t, stack)
	defer unlock()

	server.Signal(syscall.SIGTERM)
	server.WaitForLine("shutting down")
	clients.Wait()
	if _, err := io.WriteString(slow.body, "and the second"); err != nil {
		t.Error(err)
	}
	slow.body.Close()
	<-slow.done
	if slow.id == "" || slow.err != nil {
		t.Errorf("the upload under way: got %q, %v", slow.id, slow.err)
	}
	unlock()
	outcome := server.Wait()
	if outcome.Code != 0 || !strings.HasSuffix(outcome.LastLine(), "dropped 0") {
		t.Errorf("got %+v", outcome)
	}
	for _, id := range append(accepted, slow.id) {
		checkHistory(t, stack, id, processed)
	}
	t.Logf("%d documents accepted; %s", len(accepted)+1, outcome.LastLine())
}

// testGraceEnds sends SIGTERM while an upload is half sent, and never goes on.
// The program breaks it off and records that.
func testGraceEnds(t *testing.T, stack *localstack.Stack, program string) {
	server := start(t, stack, program, "-grace", "4s")
	before := failedUploads(t, stack)
	slow := startSlowUpload(t, server.URL)
	server.Signal(syscall.SIGTERM)
	outcome := server.Wait()
	if outcome.Code != 1 || !strings.Contains(outcome.Stderr, "uploads were broken off") || outcome.LastLine() != "recorded 3, delivered 3, dropped 0" {
		t.Errorf("got %+v", outcome)
	}
	if n := failedUploads(t, stack) - before; n != 1 {
		t.Errorf("%d uploads are recorded as failed, want 1", n)
	}
	slow.body.Close() // the client waits for its body, whatever the server does
	<-slow.done
	if slow.id != "" {
		t.Errorf("the upload was accepted as %s", slow.id)
	}
}

func failedUploads(t *testing.T, stack *localstack.Stack) (n int) {
	t.Helper()
	if err := stack.Pool().QueryRow(t.Context(),
		"SELECT count(*) FROM document_processing_events WHERE event_type = 'failed' AND stage = 'upload'").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// testEventsLost ends the program while the table takes no events. It says so.
func testEventsLost(t *testing.T, stack *localstack.Stack, program string) {
	server := start(t, stack, program, "-grace", "1s")
	defer lockTable(t, stack)()
	if id, status, err := upload(t.Context(), server.URL, strings.NewReader("text"), nil); id == "" || err != nil {
		t.Fatalf("got %d, %v", status, err)
	}
	server.Signal(syscall.SIGTERM)
	outcome := server.Wait()
	if outcome.Code != 1 || !strings.Contains(outcome.Stderr, "4 events abandoned") || outcome.LastLine() != "recorded 4, delivered 0, dropped 4" {
		t.Errorf("got %+v", outcome)
	}
}

func testOwnStack(t *testing.T, _ *localstack.Stack, program string) {
	cmd := exec.Command(program, "-addr", "127.0.0.1:0")
	cmd.Env = exampletest.Environ()
	server := servetest.Listen(t, cmd)
	if id, status, err := upload(t.Context(), server.URL, strings.NewReader("text"), nil); id == "" || err != nil {
		t.Errorf("got %d, %v", status, err)
	}
	server.Signal(syscall.SIGTERM)
	if outcome := server.Wait(); outcome.Code != 0 || outcome.LastLine() != "recorded 4, delivered 4, dropped 0" {
		t.Errorf("got %+v", outcome)
	}
}

// TestDrainAborts is of a queue that takes longer than the grace: its first
// document has no end. What is left is recorded as failed.
func TestDrainAborts(t *testing.T) {
	var events []docevents.Event
	s := &service{record: func(e docevents.Event) { events = append(events, e) }, dir: t.TempDir(), queue: newQueue()}
	for _, id := range []string{"1", "2"} {
		if err := s.queue.add(document{id: id, path: filepath.Join(s.dir, id)}); err != nil {
			t.Fatal(err)
		}
	}
	first := filepath.Join(s.dir, "1")
	if err := syscall.Mkfifo(first, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "2"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	processing, abort := context.WithCancelCause(t.Context())
	defer abort(nil)
	var workers, writer sync.WaitGroup
	workers.Go(func() { s.work(processing) })
	writer.Go(func() {
		f, err := os.OpenFile(first, os.O_WRONLY, 0) // waits for the worker
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		if _, err := io.Copy(f, endless{}); !errors.Is(err, syscall.EPIPE) {
			t.Error(err)
		}
	})

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := drain(ended, s.queue, &workers, abort); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	writer.Wait()
	if len(events) != 6 {
		t.Fatalf("got %+v, want three events of each document", events)
	}
	for i := range 2 {
		for j, stage := range []string{stageCount, ""} {
			if e := events[3*i+1+j]; e.Type != docevents.Failed || e.Stage != stage || e.ErrorMessage != errShutdown.Error() {
				t.Errorf("got %+v", e)
			}
		}
	}
	if files, err := os.ReadDir(s.dir); len(files) != 0 || err != nil {
		t.Errorf("left are %v, %v", files, err)
	}
	if s.queue.enter() {
		t.Error("a closed queue lets an upload in")
	}
}

func TestQueueIsBounded(t *testing.T) {
	q := newQueue()
	for range cap(q.documents) {
		if err := q.add(document{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.add(document{}); err == nil {
		t.Error("one too many was taken")
	}
}

// An upload that is under way when the queue closes still gets in.
func TestQueueWaitsForUploads(t *testing.T) {
	q := newQueue()
	if !q.enter() {
		t.Fatal("an open queue lets nobody in")
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		q.close()
	}()
	for q.enter() { // until the other goroutine has begun to close it
		q.leave()
	}
	if err := q.add(document{id: "late"}); err != nil {
		t.Error(err)
	}
	q.leave()
	<-closed
	if d, ok := <-q.documents; !ok || d.id != "late" {
		t.Errorf("got %+v, %v", d, ok)
	}
	if _, ok := <-q.documents; ok {
		t.Error("the queue is open")
	}
}

// The stages end in their order, at shares of the grace.
func TestStages(t *testing.T) {
	start := time.Now()
	s := stages{start: start, grace: 10 * time.Second}
	for _, share := range []float64{0.4, 0.8, 1} {
		failure := errors.New("failed")
		err := s.stage(share, func(ctx context.Context) error {
			if end, _ := ctx.Deadline(); end.Sub(start).Seconds() != share*10 {
				t.Errorf("share %g ends after %s", share, end.Sub(start))
			}
			return failure
		})
		if !errors.Is(err, failure) {
			t.Errorf("got %v", err)
		}
	}
}
