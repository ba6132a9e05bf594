// Package exampletest runs the example programs as a user would: in a process of
// their own, with arguments, an environment, output, signals and an exit code.
package exampletest

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/docevents/docevents-go/integration/localstack"
)

// programEnv makes a test binary the program that it tests.
const programEnv = "DOCEVENTS_TEST_PROGRAM"

// Main runs a package's tests as [localstack.Main] does, and in the processes
// that they start the program:
//
//	func TestMain(m *testing.M) { exampletest.Main(m, main) }
func Main(m *testing.M, program func()) {
	if os.Getenv(programEnv) == "" {
		localstack.Main(m)
	}
	program()
	os.Exit(0)
}

// Command is the program, with nothing in its environment that names a Supabase
// project.
func Command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "SUPABASE_") })
	cmd.Env = append(cmd.Env, programEnv+"=1")
	return cmd
}

// CommandOn is the program on a project.
func CommandOn(url, key string, args ...string) *exec.Cmd {
	cmd := Command(args...)
	cmd.Env = append(cmd.Env, "SUPABASE_URL="+url, "SUPABASE_SECRET_KEY="+key)
	return cmd
}

// An Outcome is what a user sees of a program that has ended.
type Outcome struct {
	Stdout, Stderr string
	Code           int // -1: ended by a signal
}

// LastLine returns the last line of the standard output.
func (o Outcome) LastLine() string {
	lines := strings.Split(strings.TrimRight(o.Stdout, "\n"), "\n")
	return lines[len(lines)-1]
}

// Run runs the command to its end.
func Run(t testing.TB, cmd *exec.Cmd) Outcome {
	t.Helper()
	return Start(t, cmd).Wait()
}

// A Program is one that runs.
type Program struct {
	URL string // where it listens, if it was started by Listen

	t      testing.TB
	cmd    *exec.Cmd
	out    *bufio.Scanner
	stdout strings.Builder // what was read of it
	stderr bytes.Buffer
}

// Listen starts a program and waits until it says where it listens.
func Listen(t testing.TB, cmd *exec.Cmd) *Program {
	t.Helper()
	const line = "listening on "
	p := Start(t, cmd)
	p.URL = strings.TrimPrefix(p.WaitForLine(line), line)
	return p
}

// Start starts a program. Where the test ends before it, it is killed.
func Start(t testing.TB, cmd *exec.Cmd) *Program {
	t.Helper()
	p := &Program{t: t, cmd: cmd}
	cmd.Stderr = &p.stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewScanner(pipe)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill() // it may have just ended
			_ = cmd.Wait()
		}
	})
	return p
}

// WaitForLine reads the standard output up to a line that begins so, and
// returns it.
func (p *Program) WaitForLine(prefix string) string {
	p.t.Helper()
	for p.out.Scan() {
		p.stdout.WriteString(p.out.Text() + "\n")
		if strings.HasPrefix(p.out.Text(), prefix) {
			return p.out.Text()
		}
	}
	p.t.Fatalf("the program ended without a line %q: %+v", prefix, p.Wait())
	return ""
}

// Printed is the standard output up to the line that was waited for.
func (p *Program) Printed() string { return p.stdout.String() }

// Try runs the n lines that a program prints to be tried with, at the root of
// the repository as a reader would, and returns what they print.
func (p *Program) Try(n int) (printed []string) {
	p.t.Helper()
	if _, err := exec.LookPath("curl"); err != nil && os.Getenv("CI") == "" {
		p.t.Skip(err)
	}
	root, err := filepath.Abs(".")
	for ; err == nil; root = filepath.Dir(root) {
		if _, missing := os.Stat(filepath.Join(root, "go.work")); missing == nil {
			break
		} else if root == filepath.Dir(root) {
			err = missing
		}
	}
	if err != nil {
		p.t.Fatal(err)
	}
	p.WaitForLine("to try it:")
	for range n {
		line := p.WaitForLine("  ")
		cmd := exec.Command("/bin/sh", "-c", line)
		cmd.Dir = root
		out, err := cmd.Output()
		if err != nil {
			p.t.Errorf("%s: %v", line, err)
		}
		printed = append(printed, string(out))
	}
	return printed
}

// Signal sends a signal.
func (p *Program) Signal(sig os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

// Wait waits for the program's end.
func (p *Program) Wait() Outcome {
	p.t.Helper()
	for p.out.Scan() {
		p.stdout.WriteString(p.out.Text() + "\n")
	}
	_ = p.cmd.Wait() // the exit code says it
	return Outcome{p.stdout.String(), p.stderr.String(), p.cmd.ProcessState.ExitCode()}
}

// Request sends a request and returns the answer.
func Request(t testing.TB, method, url, body string) (status int, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}

// History returns a document's events in order, each as type, stage and message.
func History(t testing.TB, stack *localstack.Stack, document string) []string {
	t.Helper()
	rows, err := stack.Pool().Query(t.Context(), "SELECT concat_ws(' ', event_type, stage, error_message) "+
		"FROM document_processing_events WHERE document_id = $1 ORDER BY created_at, id", document)
	if err != nil {
		t.Fatal(err)
	}
	events, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return events
}
