package main

import (
	"bufio"
	"bytes"
	"errors"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/docevents/docevents-go/integration/localstack"
)

// build builds the program. It asks for a shared stack first, so that the tests
// are skipped where there is no PostgreSQL.
func build(t *testing.T) string {
	t.Helper()
	localstack.Shared(t)
	program := filepath.Join(t.TempDir(), "localstack")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return program
}

func TestMain(m *testing.M) { localstack.Main(m) }

// TestProgram uses the program as its comment says.
func TestProgram(t *testing.T) {
	for _, sig := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) { testProgram(t, build(t), sig) })
	}
}

func testProgram(t *testing.T, program string, sig os.Signal) {
	cmd := exec.Command(program)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill() // where the test fails before the signal
	var text strings.Builder
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "# ready" {
		text.WriteString(lines.Text() + "\n")
	}
	text.WriteString(lines.Text() + "\n")

	// A shell reads it, as it is.
	env := filepath.Join(t.TempDir(), "stack.env")
	if err := os.WriteFile(env, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	names := []string{"SUPABASE_URL", "SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_ANON_KEY", "SUPABASE_SECRET_KEY", "DATABASE_URL", "JWT_SECRET"}
	args := append([]string{"-euc", `. "$0"; for name; do eval "echo \$$name"; done`, env}, names...)
	sourced, err := exec.Command("/bin/sh", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s; the program said: %s%s", err, sourced, text.String(), stderr.String())
	}
	values := map[string]string{}
	for i, value := range strings.Split(strings.TrimSpace(string(sourced)), "\n") {
		values[names[i]] = value
	}

	req, err := http.NewRequestWithContext(t.Context(), "GET", values["SUPABASE_URL"]+"/rest/v1/document_processing_events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("apikey", values["SUPABASE_SERVICE_ROLE_KEY"])
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("the table: %s", resp.Status)
	}
	database, err := url.Parse(values["DATABASE_URL"])
	if err != nil {
		t.Fatal(err)
	}
	folder := database.Query().Get("host")
	if _, err := os.Stat(filepath.Join(folder, "postgres.pid")); err != nil {
		t.Fatal(err)
	}

	if err := cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || stderr.Len() > 0 {
		t.Errorf("%v: %s", err, &stderr)
	}
	if _, err := os.Stat(folder); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is still there: %v", err)
	}
	// Every process of the stack has the folder in its command line.
	if left, err := exec.Command("pgrep", "-af", folder).Output(); err == nil {
		t.Errorf("still running: %s", left)
	}
}

func TestProgramFails(t *testing.T) {
	cmd := exec.Command(build(t), "-addr", "192.0.2.1:1") // nobody's address
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("%v, want exit status 1", err)
	}
	if text := stderr.String(); !strings.HasPrefix(text, "localstack: ") || strings.Count(text, "\n") != 1 {
		t.Errorf("not one clear sentence: %s", text)
	}
	if stdout.Len() > 0 {
		t.Errorf("it printed %s", &stdout)
	}
}
