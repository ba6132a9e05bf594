// Package cmdtest tests the command docevents on the local stack. It runs the command
// as a user does, with arguments, environment variables and signals, and checks what
// it prints and its exit code.
package cmdtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/docevents/docevents-go/integration/localstack"
)

func TestMain(m *testing.M) {
	defer os.RemoveAll(binDir)
	localstack.Main(m)
}

var binDir = filepath.Join(os.TempDir(), "docevents-cmdtest-"+strings.ToLower(rand.Text()[:12]))

// binary installs the command once and returns its path. GOWORK is off, because users
// who install a version have no workspace.
var binary = sync.OnceValues(func() (string, error) {
	cmd := exec.Command("go", "install", "./cmd/docevents")
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "GOBIN="+binDir, "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go install: %w: %s", err, out)
	}
	return filepath.Join(binDir, "docevents"), nil
})

// A program runs the command on a project.
type program struct {
	*testing.T
	stack    *localstack.Stack
	url, key string
}

func newProgram(t *testing.T) *program {
	t.Helper()
	stack := localstack.Shared(t)
	return &program{t, stack, stack.URL, stack.ServiceRoleKey}
}

// on returns a program for another project.
func (p *program) on(url, key string) *program { return &program{p.T, p.stack, url, key} }

func (p *program) command(args ...string) *exec.Cmd {
	p.Helper()
	path, err := binary()
	if err != nil {
		p.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "SUPABASE_") })
	if p.url != "" {
		cmd.Env = append(cmd.Env, "SUPABASE_URL="+p.url)
	}
	if p.key != "" {
		cmd.Env = append(cmd.Env, "SUPABASE_SERVICE_ROLE_KEY="+p.key)
	}
	return cmd
}

// run runs the command and checks its exit code.
func (p *program) run(wantCode int, args ...string) (stdout, stderr string) {
	p.Helper()
	cmd := p.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run() // check checks the exit code
	p.check(cmd, wantCode, out.String(), errs.String())
	return out.String(), errs.String()
}

// check checks the exit code, and that the output has no key, no query and no
// escape sequence.
func (p *program) check(cmd *exec.Cmd, wantCode int, stdout, stderr string) {
	p.Helper()
	all := stdout + stderr
	if code := cmd.ProcessState.ExitCode(); code != wantCode {
		p.Errorf("%q: exit code %d, want %d\n%s", cmd.Args[1:], code, wantCode, all)
	}
	if p.key != "" && strings.Contains(all, p.key) || strings.Contains(all, "created_at=") || strings.Contains(all, "\x1b") {
		p.Errorf("%q prints a key, a query or an escape sequence: %q", cmd.Args[1:], all)
	}
}

// wants runs the command, which must print all of want.
func (p *program) wants(wantCode int, args []string, want ...string) {
	p.Helper()
	stdout, stderr := p.run(wantCode, args...)
	for _, w := range want {
		if !strings.Contains(stdout+stderr, w) {
			p.Errorf("%q doesn't print %q:\n%s%s", args, w, stdout, stderr)
		}
	}
	if wantCode == 2 && args[0] != "check" && stdout != "" {
		p.Errorf("%q prints an error to standard output: %s", args, stdout)
	}
}

// json runs the command with -json and decodes its output, which must be one line.
func (p *program) json(wantCode int, v any, args ...string) {
	p.Helper()
	stdout, _ := p.run(wantCode, append(args, "-json")...)
	if strings.Count(stdout, "\n") != 1 {
		p.Errorf("%q: not one line: %s", args, stdout)
	}
	if err := json.Unmarshal([]byte(stdout), v); err != nil {
		p.Errorf("%q: %v: %s", args, err, stdout)
	}
}

func (p *program) exec(sql string) {
	p.Helper()
	if _, err := p.stack.Pool().Exec(p.Context(), sql); err != nil {
		p.Fatal(err)
	}
}

// create creates a table with a new name and returns the name. %s in the SQL stands
// for the name.
func (p *program) create(sql string) string {
	p.Helper()
	name := "cmdtest_" + strings.ToLower(rand.Text()[:12])
	p.exec(strings.ReplaceAll(sql, "%s", name))
	p.Cleanup(func() {
		if _, err := p.stack.Pool().Exec(context.Background(), "DROP TABLE "+name+" CASCADE"); err != nil {
			p.Error(err)
		}
	})
	if err := p.stack.Reload(p.Context()); err != nil {
		p.Fatal(err)
	}
	return name
}

// steps creates a table with other column names and types, and a few documents of
// two tenants.
func (p *program) steps() (flags []string) {
	p.Helper()
	name := p.create(`CREATE TABLE %s (
			event_id uuid PRIMARY KEY DEFAULT gen_random_uuid(), doc text NOT NULL, tenant_id text, kind text NOT NULL,
			ms integer, problem text, step text, at timestamptz NOT NULL DEFAULT now());
		GRANT ALL ON %s TO service_role;
		INSERT INTO %s (doc, tenant_id, kind, ms, problem, step, at) VALUES
			('invoice 1', 'a', 'begun', NULL, NULL, NULL, now() - interval '50 minutes'),
			('invoice 1', 'a', 'done', 1840, NULL, 'ocr', now() - interval '49 minutes'),
			('invoice 1', 'a', 'done', 61000, NULL, NULL, now() - interval '48 minutes'),
			('invoice 2', 'a', 'begun', NULL, NULL, NULL, now() - interval '47 minutes'),
			('invoice 2', 'a', 'error', NULL, E'page 3 of 7:\n\x1b[31mimage too small', 'ocr', now() - interval '46 minutes'),
			('invoice 2', 'a', 'error', NULL, E'page 3 of 7:\n\x1b[31mimage too small', NULL, now() - interval '45 minutes'),
			('invoice 3', 'b', 'begun', NULL, NULL, 'ocr', now() - interval '44 minutes')`)
	return []string{
		"-table", name, "-text-ids", "-columns", "id=event_id,document_id=doc,user_id=-,event_type=kind,duration_ms=ms,error_message=problem,stage=step,created_at=at",
		"-extra", "tenant_id", "-types", "started=begun,completed=done,failed=error",
	}
}

func args(command string, flags []string, more ...string) []string {
	return slices.Concat([]string{command}, more, flags)
}
