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
	"regexp"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/examples/internal/exampletest"
	"github.com/docevents/docevents-go/examples/internal/project"
	"github.com/docevents/docevents-go/integration/localstack"
)

func TestMain(m *testing.M) { localstack.Main(m) }

// TestProgram runs the program as a user would.
func TestProgram(t *testing.T) {
	program := exampletest.Build(t)
	t.Run("on a project", func(t *testing.T) { testProject(t, program) })
	t.Run("with a stack of its own", func(t *testing.T) { testOwnStack(t, program) })
	t.Run("interrupted", func(t *testing.T) { testInterrupt(t, program) })
	t.Run("interrupted twice", func(t *testing.T) { testSecondInterrupt(t, program) })
	t.Run("on a broken project", func(t *testing.T) { testBrokenProject(t, program) })
	t.Run("with wrong arguments", func(t *testing.T) { testArguments(t, program) })
}

// documents makes a folder of 300 files, each sixth of them broken.
func documents(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for i := range 300 {
		name, data := fmt.Sprintf("%03d.txt", i), fmt.Sprintf("Title %d\n\nand text", i)
		switch i % 6 {
		case 1:
			name, data = fmt.Sprintf("%03d.md", i), "# "+data
		case 2:
			name, data = fmt.Sprintf("%03d.html", i), "<title>Title</title>text"
		case 3:
			name, data = fmt.Sprintf("%03d.txt.gz", i), packed(t, data)
		case 4:
			name, data = fmt.Sprintf("%03d.gz", i), packed(t, data)[:15]
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// checkStored compares the rows of a run on the stack with what is wanted.
func checkStored(t *testing.T, stack *localstack.Stack, got exampletest.Outcome, want counts) {
	t.Helper()
	user := regexp.MustCompile(`DELETE FROM \S+ WHERE user_id = '(\S+)'`).FindStringSubmatch(got.Stdout)
	if user == nil {
		t.Fatalf("the output doesn't name the run:\n%s\n%s", got.Stdout, got.Stderr)
	}
	p := &project.Project{URL: stack.URL, Key: stack.ServiceRoleKey}
	stored, err := countStored(t.Context(), p, user[1])
	if err != nil {
		t.Fatal(err)
	}
	for _, eventType := range eventTypes {
		if stored[eventType] != want[eventType] {
			t.Errorf("%s: the table has %d, want %d", eventType, stored[eventType], want[eventType])
		}
	}
	if line := fmt.Sprintf("recorded %d, delivered %d, dropped 0,", want.total(), want.total()); !strings.Contains(got.Stdout, line) {
		t.Errorf("the output has no line %q:\n%s", line, got.Stdout)
	}
}

func testProject(t *testing.T, program string) {
	stack := localstack.Shared(t)
	cmd := exec.Command(program, documents(t))
	cmd.Env = exampletest.Environ("SUPABASE_URL="+stack.URL, "SUPABASE_SERVICE_ROLE_KEY="+stack.ServiceRoleKey)
	got := exampletest.Run(t, cmd)
	if got.Code != 0 {
		t.Errorf("exit code %d\n%s", got.Code, got.Stderr)
	}
	checkStored(t, stack, got, counts{
		docevents.UploadStarted: 300, docevents.ProcessingStarted: 300 + 250, docevents.Completed: 3 * 250, docevents.Failed: 2 * 50,
	})
	if !regexp.MustCompile(` 50 +extract: gzip: unexpected EOF +004\.gz\n`).MatchString(got.Stdout) {
		t.Errorf("the failures are not in the summary:\n%s", got.Stdout)
	}
	if strings.Contains(got.Stderr, "\r") {
		t.Errorf("a bar where there is no terminal: %q", got.Stderr)
	}
}

func testOwnStack(t *testing.T, program string) {
	localstack.Shared(t) // skips where there is no PostgreSQL
	cmd := exec.Command(program, "-workers", "1", documents(t))
	cmd.Env = exampletest.Environ()
	got := exampletest.Run(t, cmd)
	if got.Code != 0 || !strings.Contains(got.Stdout, "recorded 1700, delivered 1700, dropped 0,") ||
		!strings.Contains(got.Stderr, "SUPABASE_URL is not set") {
		t.Errorf("exit code %d\n%s\n%s", got.Code, got.Stdout, got.Stderr)
	}
}

// The interrupt comes while the third of five documents is under way: its
// pdftotext is one that never ends.
func testInterrupt(t *testing.T, program string) {
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
	cmd := exec.Command(program, "-workers", "1", root)
	cmd.Env = exampletest.Environ("SUPABASE_URL="+stack.URL, "SUPABASE_SERVICE_ROLE_KEY="+stack.ServiceRoleKey,
		"PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	wait := exampletest.Start(t, cmd)
	go func() {
		if _, err := os.ReadFile(begun); err == nil { // waits for the script to write
			_ = cmd.Process.Signal(os.Interrupt)
		}
	}()
	got := wait()
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
		case strings.Contains(string(body), `"id":null`): // of Check
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"code":"23502","message":"null value in column \"id\" of relation \"document_processing_events\" violates not-null constraint"}`)
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
func testSecondInterrupt(t *testing.T, program string) {
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
	cmd := exec.Command(program, tree(t, "1.txt"))
	cmd.Env = exampletest.Environ("SUPABASE_URL="+server.URL, "SUPABASE_SECRET_KEY=sb_secret_x")
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

func testBrokenProject(t *testing.T, program string) {
	for _, test := range []struct {
		name, want string
		insert     http.HandlerFunc
	}{
		{"refuses rows", "1700 events were lost: {Invalid:0 QueueFull:0 Rejected:1700 Closed:0 Abandoned:0}", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"code":"22P02","message":"invalid input syntax"}`)
		}},
		{"forgets rows", "300 events upload_started were recorded, but the table has 0", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusCreated)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			cmd := exec.Command(program, documents(t))
			cmd.Env = exampletest.Environ("SUPABASE_URL="+fake(t, test.insert).URL, "SUPABASE_SECRET_KEY=sb_secret_x")
			got := exampletest.Run(t, cmd)
			if got.Code != 1 || !strings.Contains(got.Stderr, test.want) {
				t.Errorf("exit code %d, want 1 and %q:\n%s", got.Code, test.want, got.Stderr)
			}
		})
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

func testArguments(t *testing.T, program string) {
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{nil, 2, "usage: pipeline"},
		{[]string{"a", "b"}, 2, "usage: pipeline"},
		{[]string{"-workers", "0", "."}, 2, "usage: pipeline"},
		{[]string{filepath.Join(t.TempDir(), "missing")}, 1, "no such file or directory"},
	} {
		got := exampletest.Run(t, exec.Command(program, test.args...))
		if got.Code != test.code || !strings.Contains(got.Stderr, test.want) || got.Stdout != "" {
			t.Errorf("%q: exit code %d, want %d and %q:\n%s", test.args, got.Code, test.code, test.want, got.Stderr)
		}
	}
}
