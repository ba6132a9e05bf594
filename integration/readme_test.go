// Package integration_test tests the statements, programs, commands and links of
// the project's pages.
package integration_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docevents/docevents-go/integration/localstack"
)

func TestMain(m *testing.M) { localstack.Main(m) }

// A block is a piece of code on a page.
type block struct {
	page     string // from the root of the repository
	line     int
	language string
	text     string
}

func (b block) String() string { return fmt.Sprintf("%s:%d", b.page, b.line) }

// pages returns the project's pages. It skips pages of installed npm packages.
func pages(t *testing.T) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() == ".git" || d.Name() == "testdata"):
			return filepath.SkipDir
		case strings.HasSuffix(path, ".md"):
			found = append(found, path)
		}
		return nil
	})
	if err != nil || len(found) < 2 {
		t.Fatalf("pages %v: %v", found, err)
	}
	return found
}

// blocks returns the pages' blocks of code in one language.
func blocks(t *testing.T, language string) []block {
	t.Helper()
	var found []block
	for _, page := range pages(t) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		var in *block
		for i, line := range strings.Split(string(text), "\n") {
			mark, isMark := strings.CutPrefix(strings.TrimSpace(line), "```")
			switch {
			case isMark && in == nil:
				in = &block{page: page, line: i + 1, language: mark}
			case isMark:
				if in.language == language {
					found = append(found, *in)
				}
				in = nil
			case in != nil:
				in.text += line + "\n"
			}
		}
		if in != nil {
			t.Errorf("%s: a block of code has no end", in)
		}
	}
	return found
}

// pieces returns the blocks of one page that contain a text.
func pieces(t *testing.T, page, language, with string) []block {
	t.Helper()
	return slices.DeleteFunc(blocks(t, language), func(b block) bool {
		return b.page != filepath.Join("..", page) || !strings.Contains(b.text, with)
	})
}

// runProgram runs a program unchanged and checks that its output contains want.
func runProgram(t *testing.T, b block, stack *localstack.Stack, want string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(file, []byte(b.text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "run", file)
	cmd.Env = append(os.Environ(), "SUPABASE_SECRET_KEYS=", "SUPABASE_SECRET_KEY=",
		"SUPABASE_URL="+stack.URL, "SUPABASE_SERVICE_ROLE_KEY="+stack.ServiceRoleKey)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), want) {
		t.Errorf("%s: %v\n%s", b, err, out)
	}
}

// TestProgram checks that the program in the first 30 lines of README.md stores its
// event.
func TestProgram(t *testing.T) {
	stack := localstack.Shared(t)
	programs := pieces(t, "README.md", "go", "package main")
	if len(programs) != 2 || programs[0].line+strings.Count(programs[0].text, "\n") > 30 {
		t.Fatalf("%v: want two programs, the first of them within 30 lines", programs)
	}
	runProgram(t, programs[0], stack, "stored 1 events, error: <nil>\n")
	var stage string
	var ms int
	err := stack.Pool().QueryRow(t.Context(),
		"select stage, duration_ms from document_processing_events where document_id = '0198a5e2-0000-7000-8000-000000000001'").Scan(&stage, &ms)
	if err != nil || stage != "ocr" || ms != 1840 {
		t.Errorf("stored %q, %d ms: %v", stage, ms, err)
	}
}

// TestProgramOfYourTable runs README.md's program and command for another table on
// the table of docs/your-table.md.
func TestProgramOfYourTable(t *testing.T) {
	stack := localstack.Shared(t)
	table := pieces(t, "docs/your-table.md", "sql", "CREATE TABLE public.job_events")
	programs := pieces(t, "README.md", "go", `"job_events"`)
	config := pieces(t, "README.md", "json", `"job_events"`)
	if len(table) != 1 || len(programs) != 1 || len(config) != 1 {
		t.Fatalf("%d tables, %d programs, %d files", len(table), len(programs), len(config))
	}
	t.Cleanup(func() {
		if _, err := stack.Pool().Exec(context.Background(), "DROP TABLE IF EXISTS public.job_events"); err != nil {
			t.Error(err)
		}
	})
	if _, err := stack.Pool().Exec(t.Context(), table[0].text); err != nil {
		t.Fatal(err)
	}
	if err := stack.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	runProgram(t, programs[0], stack, "<nil> <nil>\n")
	var words, tenant string
	err := stack.Pool().QueryRow(t.Context(),
		"select string_agg(status, ' ' order by created_at, id), min(tenant_id::text) from job_events").Scan(&words, &tenant)
	if err != nil || words != "running done" || tenant != "0198a5e2-0000-7000-8000-0000000000bb" {
		t.Errorf("stored %q of tenant %s: %v", words, tenant, err)
	}

	shell := newShell(t)
	if err := os.WriteFile(filepath.Join(shell.app, "job_events.json"), []byte(config[0].text), 0o600); err != nil {
		t.Fatal(err)
	}
	shell.run(t, "docevents check -config job_events.json")
}

// snippetFrame declares the names that the pages use in snippets without declaring them.
const snippetFrame = `package snippets

import (
	"context"
	"database/sql"
	"errors"
	"log"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/dashboard"
	"github.com/docevents/docevents-go/doceventstest"
	"github.com/pressly/goose/v3"
)

var (
	_ goose.Provider
	_ = errors.Is
	_ = log.Print
	_ = time.Now
	_ = dashboard.Handler

	isAdmin   func(*http.Request) bool
	doc, user string
	took      time.Duration
	stepErr   error
	ocr       func(document string) error
	_ *doceventstest.Server
	_ *testing.T
)
`

// TestSnippets compiles the pages' Go code, except complete programs. It puts
// statements into a function with the variables that a reader would have.
func TestSnippets(t *testing.T) {
	source := snippetFrame
	for i, b := range blocks(t, "go") {
		switch {
		case strings.Contains(b.text, "package main"):
		case strings.HasPrefix(b.text, "func "), strings.HasPrefix(b.text, "type "):
			source += fmt.Sprintf("\n//line %s:%d\n%s", b.page, b.line+1, b.text)
		default:
			source += fmt.Sprintf(`
func snippet%d(ctx context.Context, client *docevents.Client, db *sql.DB, server *http.Server, workers *sync.WaitGroup, err error) {
	{ // so that the snippet can declare these names
//line %s:%d
%s	_, _ = client, err
	}
}
`, i, b.page, b.line+1, b.text)
		}
	}
	file := filepath.Join(t.TempDir(), "snippets.go")
	if err := os.WriteFile(file, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "build", "-o", os.DevNull, file).CombinedOutput(); err != nil {
		t.Errorf("go build: %v\n%s", err, out)
	}
}

// TestSQL runs the pages' blocks of SQL, each in a transaction that is rolled back.
// Package sqltest runs the blocks of sql/README.md, which need the SQL files.
func TestSQL(t *testing.T) {
	stack := localstack.Shared(t)
	for _, b := range blocks(t, "sql") {
		if strings.HasPrefix(b.page, "../sql/") {
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		tx, err := stack.Pool().Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(ctx, b.text); err != nil {
			t.Errorf("%s: %v", b, err)
		}
		if err := tx.Rollback(ctx); err != nil {
			t.Fatal(err)
		}
		cancel()
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestQueries checks that docs/observability.md lists the questions of queries.sql.
func TestQueries(t *testing.T) {
	page := read(t, "../docs/observability.md")
	questions := regexp.MustCompile(`(?m)^-- (\d\. .*)$`).FindAllStringSubmatch(read(t, "../sql/optional/queries.sql"), -1)
	if len(questions) != 6 {
		t.Errorf("found %q", questions)
	}
	for _, question := range questions {
		if !strings.Contains(page, "\n"+question[1]+"\n") {
			t.Errorf("docs/observability.md lacks the question %q", question[1])
		}
	}
}
