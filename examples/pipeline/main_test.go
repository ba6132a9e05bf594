package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/examples/internal/exampletest"
	"github.com/docevents/docevents-go/examples/internal/project"
	"github.com/docevents/docevents-go/integration/localstack"
)

func TestMain(m *testing.M) { exampletest.Main(m, main) }

// TestProgram runs the program as a user would.
func TestProgram(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"on a project": testProject, "with a stack of its own": testOwnStack, "with a page": testPage,
		"interrupted": testInterrupt, "interrupted twice": testSecondInterrupt,
		"on a project that refuses rows": testRowsRefused, "on one that forgets them": testRowsForgotten,
		"with wrong arguments": testArguments,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
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

func testProject(t *testing.T) {
	stack := localstack.Shared(t)
	got := exampletest.Run(t, exampletest.CommandOn(stack.URL, stack.ServiceRoleKey, documents(t)))
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

func testOwnStack(t *testing.T) {
	localstack.Shared(t) // skips where there is no PostgreSQL
	got := exampletest.Run(t, exampletest.Command("-workers", "1", documents(t)))
	if got.Code != 0 || !strings.Contains(got.Stdout, "recorded 1700, delivered 1700, dropped 0,") ||
		!strings.Contains(got.Stderr, "SUPABASE_URL is not set") {
		t.Errorf("exit code %d\n%s\n%s", got.Code, got.Stdout, got.Stderr)
	}
}

func testRowsRefused(t *testing.T) {
	checkBroken(t, "1700 events were lost: {Invalid:0 Filtered:0 QueueFull:0 Rejected:0 Closed:0 Abandoned:1700}", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"code":"22P02","message":"invalid input syntax"}`)
	})
}

func testRowsForgotten(t *testing.T) {
	checkBroken(t, "300 events upload_started were recorded, but the table has 0", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusCreated)
	})
}

// checkBroken runs the program on a project that answers inserts so.
func checkBroken(t *testing.T, want string, insert http.HandlerFunc) {
	t.Helper()
	got := exampletest.Run(t, exampletest.CommandOn(fake(t, insert).URL, "sb_secret_x", documents(t)))
	if got.Code != 1 || !strings.Contains(got.Stderr, want) {
		t.Errorf("exit code %d, want 1 and %q:\n%s", got.Code, want, got.Stderr)
	}
}

func testArguments(t *testing.T) {
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{nil, 2, "usage: pipeline"},
		{[]string{"a", "b"}, 2, "usage: pipeline"},
		{[]string{"-workers", "0", "."}, 2, "usage: pipeline"},
		{[]string{"-dashboard", "nowhere", "."}, 1, "missing port"},
		{[]string{filepath.Join(t.TempDir(), "missing")}, 1, "no such file or directory"},
	} {
		got := exampletest.Run(t, exampletest.Command(test.args...))
		if got.Code != test.code || !strings.Contains(got.Stderr, test.want) || got.Stdout != "" {
			t.Errorf("%q: exit code %d, want %d and %q:\n%s", test.args, got.Code, test.code, test.want, got.Stderr)
		}
	}
}
