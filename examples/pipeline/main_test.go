package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

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
	t.Run("with a page", func(t *testing.T) { testPage(t, program) })
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

func testBrokenProject(t *testing.T, program string) {
	for _, test := range []struct {
		name, want string
		insert     http.HandlerFunc
	}{
		{"refuses rows", "1700 events were lost: {Invalid:0 QueueFull:0 Rejected:0 Closed:0 Abandoned:1700}", func(w http.ResponseWriter, _ *http.Request) {
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

func testArguments(t *testing.T, program string) {
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
		got := exampletest.Run(t, exec.Command(program, test.args...))
		if got.Code != test.code || !strings.Contains(got.Stderr, test.want) || got.Stdout != "" {
			t.Errorf("%q: exit code %d, want %d and %q:\n%s", test.args, got.Code, test.code, test.want, got.Stderr)
		}
	}
}
