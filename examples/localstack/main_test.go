package main

import (
	"bufio"
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

// programEnv is an environment variable that makes the test binary run the program.
const programEnv = "DOCEVENTS_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(programEnv) == "" {
		localstack.Main(m)
	}
	main()
	os.Exit(0)
}

// command returns a command that runs the program.
func command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), programEnv+"=1")
	return cmd
}

// TestProgram runs the program as its comment describes, and ends it with a signal.
func TestProgram(t *testing.T) {
	for _, sig := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) { testProgram(t, sig) })
	}
}

func testProgram(t *testing.T, sig os.Signal) {
	t.Parallel()
	localstack.Shared(t) // skips if there is no PostgreSQL
	cmd := command()
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it may have ended already
	printed := ""
	for out := bufio.NewScanner(pipe); !strings.HasSuffix(printed, "# ready\n") && out.Scan(); {
		printed += out.Text() + "\n"
	}
	values := sourced(t, printed)
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
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(folder); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is still there: %v", err)
	}
	// Every process of the stack has the folder in its command line.
	if left, err := exec.Command("pgrep", "-af", folder).Output(); err == nil {
		t.Errorf("still running: %s", left)
	}
}

// sourced returns the settings that the programs of a shell get from the printed text.
func sourced(t *testing.T, text string) map[string]string {
	t.Helper()
	env := filepath.Join(t.TempDir(), "stack.env")
	if err := os.WriteFile(env, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	names := []string{"SUPABASE_URL", "SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_ANON_KEY", "SUPABASE_SECRET_KEY", "DATABASE_URL", "JWT_SECRET"}
	args := append([]string{"-euc", `. "$0"; printenv "$@"`, env}, names...)
	sourced, err := exec.Command("/bin/sh", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s; the program printed: %s", err, sourced, text)
	}
	values := map[string]string{}
	for i, value := range strings.Split(strings.TrimSpace(string(sourced)), "\n") {
		values[names[i]] = value
	}
	return values
}

func TestProgramFails(t *testing.T) {
	t.Parallel()
	localstack.Shared(t)
	out, err := command("-addr", "192.0.2.1:1").CombinedOutput() // no machine has this address
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 || !strings.HasPrefix(string(out), "localstack: ") || strings.Count(string(out), "\n") != 1 {
		t.Errorf("%v: %s, want exit code 1 and one clear sentence", err, out)
	}
}
