//go:build darwin || linux

package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/docevents/docevents-go/integration/localstack"
)

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
func testSIGTERM(t *testing.T, stack *localstack.Stack) {
	server := start(t, stack, "-workers", "1")
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
func testGraceEnds(t *testing.T, stack *localstack.Stack) {
	server := start(t, stack, "-grace", "4s")
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
func testEventsLost(t *testing.T, stack *localstack.Stack) {
	server := start(t, stack, "-grace", "1s")
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
