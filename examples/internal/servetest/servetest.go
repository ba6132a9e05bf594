// Package servetest runs the example programs that go on until a signal, as a
// user would.
package servetest

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docevents/docevents-go/examples/internal/exampletest"
)

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
func (p *Program) Wait() exampletest.Outcome {
	p.t.Helper()
	for p.out.Scan() {
		p.stdout.WriteString(p.out.Text() + "\n")
	}
	_ = p.cmd.Wait() // the exit code says it
	return exampletest.Outcome{Stdout: p.stdout.String(), Stderr: p.stderr.String(), Code: p.cmd.ProcessState.ExitCode()}
}
