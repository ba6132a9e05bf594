// Package servetest runs the example programs that listen as a user would: it
// starts them, talks to them, and sends them signals.
package servetest

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/docevents/docevents-go/examples/internal/exampletest"
)

// Listening begins the line that a program prints when it listens, with its URL.
const Listening = "listening on "

// A Server is a program that listens.
type Server struct {
	URL string

	t      testing.TB
	cmd    *exec.Cmd
	out    *bufio.Scanner
	stdout strings.Builder // what was read of it
	stderr bytes.Buffer
}

// Start starts a program and waits until it listens. Where the test ends before
// it, it is killed.
func Start(t testing.TB, cmd *exec.Cmd) *Server {
	t.Helper()
	s := &Server{t: t, cmd: cmd}
	cmd.Stderr = &s.stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.out = bufio.NewScanner(pipe)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill() // it may have just ended
			_ = cmd.Wait()
		}
	})
	s.URL = strings.TrimPrefix(s.WaitForLine(Listening), Listening)
	return s
}

// WaitForLine reads the standard output up to a line that begins so, and
// returns it.
func (s *Server) WaitForLine(prefix string) string {
	s.t.Helper()
	for s.out.Scan() {
		s.stdout.WriteString(s.out.Text() + "\n")
		if strings.HasPrefix(s.out.Text(), prefix) {
			return s.out.Text()
		}
	}
	s.t.Fatalf("the program ended without a line %q: %+v", prefix, s.Wait())
	return ""
}

// Signal sends a signal.
func (s *Server) Signal(sig os.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// Wait waits for the program's end.
func (s *Server) Wait() exampletest.Outcome {
	s.t.Helper()
	for s.out.Scan() {
		s.stdout.WriteString(s.out.Text() + "\n")
	}
	_ = s.cmd.Wait() // the exit code says it
	return exampletest.Outcome{Stdout: s.stdout.String(), Stderr: s.stderr.String(), Code: s.cmd.ProcessState.ExitCode()}
}
