package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/examples/internal/exampletest"
	"github.com/docevents/docevents-go/integration/localstack"
)

// The interrupt comes while the third of five documents is under way: its
// pdftotext is one that never ends.
func testInterrupt(t *testing.T) {
	stack := localstack.Shared(t)
	root := tree(t, "1.txt", "2.txt", "4.txt", "5.txt")
	if err := os.WriteFile(filepath.Join(root, "3.pdf"), []byte(onePage), 0o600); err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	begun := filepath.Join(bin, "begun")
	never := filepath.Join(bin, "never")
	for _, pipe := range []string{begun, never} {
		if out, err := exec.Command("mkfifo", pipe).CombinedOutput(); err != nil {
			t.Skipf("mkfifo: %v: %s", err, out)
		}
	}
	script := fmt.Sprintf("#!/bin/sh\necho begun >'%s'\nexec cat '%s'\n", begun, never)
	if err := os.WriteFile(filepath.Join(bin, "pdftotext"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exampletest.CommandOn(stack.URL, stack.ServiceRoleKey, "-workers", "1", root)
	cmd.Env = append(cmd.Env, "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	program := exampletest.Start(t, cmd)
	go func() {
		if _, err := os.ReadFile(begun); err == nil { // waits for the script to write
			_ = cmd.Process.Signal(os.Interrupt)
		}
	}()
	got := program.Wait()
	if got.Code != 130 {
		t.Errorf("exit code %d, want 130\n%s", got.Code, got.Stderr)
	}
	checkStored(t, stack, got, counts{
		docevents.UploadStarted: 3, docevents.ProcessingStarted: 3 + 2, docevents.Completed: 3 * 2, docevents.Failed: 2,
	})
	for _, want := range []string{"Documents: 3 of 5 ", " 2  not begun: interrupted", " 1  extract: interrupted  3.pdf"} {
		if !strings.Contains(got.Stdout, want) {
			t.Errorf("the summary has no %q:\n%s", want, got.Stdout)
		}
	}
}

// fake is a project that answers as if all were well, but for the inserts with
// rows in them.
func fake(t *testing.T, insert http.HandlerFunc) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch {
		case strings.HasSuffix(r.Header.Get("Accept"), "object+json"): // Check's rehearsal: a copy of a row doesn't count
			w.WriteHeader(http.StatusNotAcceptable)
			_, _ = fmt.Fprintf(w, `{"code":"PGRST116","details":"The result contains %d rows"}`, strings.Count(string(body), `"id":`)-1)
		case r.Method == http.MethodPost && strings.Contains(string(body), "document_id"):
			insert(w, r)
		case r.Method == http.MethodPost:
			w.WriteHeader(http.StatusCreated)
		default:
			w.Header().Set("Content-Range", "*/0")
			_, _ = io.WriteString(w, "[]")
		}
	}))
	t.Cleanup(server.Close)
	return server
}

// The second interrupt comes while the first waits for a server that doesn't
// answer.
func testSecondInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan struct{}, 100)
	server := fake(t, func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		select { // the process's death ends the request, if nothing else does
		case <-r.Context().Done():
		case <-ctx.Done():
		}
	})
	defer cancel()
	cmd := exampletest.CommandOn(server.URL, "sb_secret_x", tree(t, "1.txt"))
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-asked
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "Interrupted") {
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Error(err)
			}
		}
	}
	_ = cmd.Wait()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGINT {
		t.Errorf("got %s, want to be killed by the second interrupt", cmd.ProcessState)
	}
}

// A slow server is waited for, after an interrupt not for long.
func TestDeliver(t *testing.T) {
	const slow = 4 * interruptTimeout
	for _, test := range []struct {
		name      string
		interrupt bool
		took      time.Duration
		ok        bool
		notes     string
	}{
		{"at the end", false, slow, true, "Waiting for 1 events to be delivered, for up to 1m0s. Ctrl-C gives up.\n"},
		{"after an interrupt", true, interruptTimeout, false, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				client, err := docevents.New("https://example.supabase.co", "sb_secret_x",
					docevents.WithTransport(slowServer(slow)), docevents.WithSlog(slog.New(slog.DiscardHandler)))
				if err != nil {
					t.Fatal(err)
				}
				client.Record(docevents.Event{DocumentID: docevents.SystemUser, UserID: docevents.SystemUser, Type: docevents.Completed})
				if test.interrupt {
					cancel()
				}
				var notes strings.Builder
				start := time.Now()
				err = deliver(ctx, client, &notes)
				if took := time.Since(start); took != test.took || (err == nil) != test.ok {
					t.Errorf("took %s, %v, want %s", took, err, test.took)
				}
				if notes.String() != test.notes {
					t.Errorf("said %q, want %q", notes.String(), test.notes)
				}
			})
		})
	}
}

// slowServer takes so long to accept a row.
type slowServer time.Duration

func (s slowServer) RoundTrip(r *http.Request) (*http.Response, error) {
	select {
	case <-time.After(time.Duration(s)):
		return &http.Response{StatusCode: http.StatusCreated, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}
