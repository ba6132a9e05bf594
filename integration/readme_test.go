// Package integration_test holds the project's pages to what they say.
package integration_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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

// pages are the project's own, without those of what is installed into it.
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

// blocks are the pages' code in one language.
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

// The program on the README's first screen is built and run as it stands.
func TestProgram(t *testing.T) {
	stack := localstack.Shared(t)
	for _, b := range blocks(t, "go") {
		if b.page != "../README.md" || !strings.Contains(b.text, "package main") {
			continue
		}
		if b.line > 10 {
			t.Errorf("%s: the program is not on the first screen", b)
		}
		file := filepath.Join(t.TempDir(), "main.go")
		if err := os.WriteFile(file, []byte(b.text), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("go", "run", file)
		cmd.Env = append(os.Environ(), "SUPABASE_SECRET_KEYS=", "SUPABASE_SECRET_KEY=",
			"SUPABASE_URL="+stack.URL, "SUPABASE_SERVICE_ROLE_KEY="+stack.ServiceRoleKey)
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "purged 0 <nil>") {
			t.Errorf("%s: %v\n%s", b, err, out)
		}
		var stage string
		var ms int
		err := stack.Pool().QueryRow(t.Context(),
			"select stage, duration_ms from document_processing_events where document_id = '0198a5e2-0000-7000-8000-000000000001'").Scan(&stage, &ms)
		if err != nil || stage != "ocr" || ms != 1840 {
			t.Errorf("%s: stored %q, %d ms: %v", b, stage, ms, err)
		}
		return
	}
	t.Error("README.md has no program")
}

// What the snippets stand in: the names that the text around them introduces.
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
	"github.com/docevents/docevents-go/doceventstest"
	"github.com/pressly/goose/v3"
)

var (
	_ goose.Provider
	_ = errors.Is
	_ = log.Print
	_ = time.Now
	_ *doceventstest.Server
	_ *testing.T
)
`

// Every other piece of Go compiles: a declaration as it is, statements in a
// function that has what a reader would have.
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
	{ // so that it may declare these names itself
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

// Every piece of the README's SQL runs, and is taken back. Those of
// sql/README.md want its files run before: see sqltest.
func TestSQL(t *testing.T) {
	stack := localstack.Shared(t)
	for _, b := range blocks(t, "sql") {
		if b.page != "../README.md" {
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

// The queries on the README's page are those of the file.
func TestQueries(t *testing.T) {
	file, err := os.ReadFile("../sql/optional/queries.sql")
	if err != nil {
		t.Fatal(err)
	}
	_, queries, found := strings.Cut(string(file), "-- 1.")
	for _, b := range blocks(t, "sql") {
		if found && b.page == "../README.md" && b.text == "-- 1."+queries {
			return
		}
	}
	t.Error("README.md doesn't have the six queries of sql/optional/queries.sql as they are there")
}

var (
	goCommand = regexp.MustCompile(`\bgo (run|test|build) (?:-\S+ )*(?:-o \S+ )?(\./\S+)`)
	link      = regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
)

// Every program that a command names is there, each with a test that runs it,
// and so is every file that a page links to.
func TestCommandsAndLinks(t *testing.T) {
	for _, b := range blocks(t, "sh") {
		for _, command := range goCommand.FindAllStringSubmatch(b.text, -1) {
			folder := filepath.Join("..", strings.TrimSuffix(command[2], "/..."))
			if _, err := os.Stat(folder); err != nil {
				t.Errorf("%s: %s: %v", b, command[0], err)
			}
			if tests, err := filepath.Glob(filepath.Join(folder, "*_test.go")); command[1] == "run" && (err != nil || len(tests) == 0) {
				t.Errorf("%s: %s has no test", b, command[0])
			}
		}
	}
	for _, page := range pages(t) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), match[1])); err != nil {
				t.Errorf("%s links to what isn't there: %v", page, err)
			}
		}
	}
}
