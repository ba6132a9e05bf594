// Package exampletest runs the example programs as a user would: built, with
// arguments, an environment, output and an exit code.
package exampletest

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Build builds the program in the test's folder and returns its path.
func Build(t testing.TB) string {
	t.Helper()
	// The test cache goes by what the test itself links and looks at: main isn't
	// linked, so that a result would outlive a change of it.
	sources, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, source := range sources {
		if _, err := os.Stat(source); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(t.TempDir(), "program")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return program
}

// Environ returns the environment without what names a Supabase project, and
// with these settings, each NAME=value.
func Environ(settings ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "SUPABASE_") })
	return append(env, settings...)
}

// An Outcome is what a user sees of a program that has ended.
type Outcome struct {
	Stdout, Stderr string
	Code           int // -1: ended by a signal
}

// Run runs the command to its end.
func Run(t testing.TB, cmd *exec.Cmd) Outcome {
	t.Helper()
	return Start(t, cmd)()
}

// Start starts the command and returns what waits for its end.
func Start(t testing.TB, cmd *exec.Cmd) (wait func() Outcome) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() Outcome {
		t.Helper()
		err := cmd.Wait()
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return Outcome{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
	}
}

// LastLine returns the last line of the standard output.
func (o Outcome) LastLine() string {
	lines := strings.Split(strings.TrimRight(o.Stdout, "\n"), "\n")
	return lines[len(lines)-1]
}
