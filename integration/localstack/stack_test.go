package localstack_test

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docevents/docevents-go/integration/internal/observe"
	"github.com/docevents/docevents-go/integration/localstack"
)

const tablePath = "document_processing_events"

// TestConnectionLost kills PostgreSQL while a statement waits for a lock.
func TestConnectionLost(t *testing.T) {
	stack := localstack.Own(t, localstack.Options{PostgREST: localstack.StandIn, StatementTimeout: time.Minute})
	tx, err := stack.Pool().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }() // fails, because the kill ends its session
	if _, err := tx.Exec(t.Context(), "LOCK TABLE "+tablePath); err != nil {
		t.Fatal(err)
	}
	answer := make(chan reply)
	go func() {
		r, err := tryCall(context.Background(), stack, "POST", tablePath, event(1))
		if err != nil {
			t.Error(err)
		}
		answer <- r
	}()
	awaitBlocked(t, stack, 1)
	if err := stack.KillPostgres(); err != nil {
		t.Fatal(err)
	}
	const lost = `{"code":"","details":null,"hint":null,"message":""}` // as PostgREST 14.17 and 16.2 answer
	if r := <-answer; r.status != 400 || r.body != lost {
		t.Errorf("%d %s, want 400 %s", r.status, r.body, lost)
	}
}

// TestRESTWithoutPostgres checks the REST server's answers while PostgreSQL is stopped,
// and that it answers again afterwards.
func TestRESTWithoutPostgres(t *testing.T) {
	stack := localstack.Own(t, localstack.Options{PostgREST: localstack.StandIn})
	if r := call(t, stack, "POST", tablePath, event(1)); r.status != 201 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	if err := stack.KillPostgres(); err != nil {
		t.Fatal(err)
	}
	observe.Await(t, "503 with Retry-After", func() bool { // a request on a broken connection gets 400
		r := call(t, stack, "GET", tablePath, "")
		return r.status == 503 && r.header.Get("Retry-After") != ""
	})
	// A REST server that starts without PostgreSQL has no schema cache.
	if err := stack.StopREST(); err != nil {
		t.Fatal(err)
	}
	if err := stack.StartREST(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := call(t, stack, "GET", tablePath, ""); r.status != 503 || r.code() != "PGRST002" {
		t.Errorf("a new REST server with PostgreSQL stopped: %d %s", r.status, r.body)
	}
	if err := stack.StartPostgres(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := stack.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := call(t, stack, "GET", tablePath+"?select=stage", ""); r.status != 200 || r.body != `[{"stage":null}]` {
		t.Errorf("after the start: %d %s", r.status, r.body)
	}
}

func TestRestartREST(t *testing.T) {
	stack := localstack.Own(t, localstack.Options{StatementTimeout: time.Minute})
	address := stack.URL

	// The REST server stops while a statement waits for a lock.
	release := lock(t, stack, tablePath)
	lost := make(chan error)
	go func() {
		_, err := tryCall(context.Background(), stack, "POST", tablePath, event(1))
		lost <- err
	}()
	awaitBlocked(t, stack, 1)
	if err := stack.StopREST(); err != nil {
		t.Fatal(err)
	}
	if err := <-lost; err == nil {
		t.Error("the interrupted request got an answer")
	}
	release()
	if _, err := tryCall(t.Context(), stack, "GET", tablePath, ""); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("with the REST server stopped: %v, want a refused connection", err)
	}
	if err := stack.StartREST(t.Context()); err != nil {
		t.Fatal(err)
	}
	if stack.URL != address {
		t.Errorf("the address is now %s, was %s", stack.URL, address)
	}
	if r := call(t, stack, "GET", tablePath, ""); r.status != 200 || r.body != "[]" {
		t.Errorf("after the restart: %d %s, want no row of the interrupted request", r.status, r.body)
	}
}

// TestClientGone checks that a statement goes on after its client has disconnected,
// as it does with PostgREST.
func TestClientGone(t *testing.T) {
	stack := localstack.Shared(t)
	if !stack.Ours() {
		t.Skip("the test counts the sessions of the stack's REST server")
	}
	table := stack.Table(t)
	release := lock(t, stack, table)
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, err := tryCall(ctx, stack, "POST", table, event(1))
		gone <- err
	}()
	awaitBlocked(t, stack, 1)
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	release()
	observe.Await(t, "the row is stored", func() bool {
		return query(t, stack, "SELECT count(*) FROM "+table) == "1"
	})
}

// lock takes an exclusive lock on the table until release is called.
func lock(t *testing.T, stack *localstack.Stack, table string) (release func()) {
	t.Helper()
	tx, err := stack.Pool().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "LOCK TABLE "+table+" IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// awaitBlocked waits until exactly n statements of the REST server wait for a lock.
func awaitBlocked(t *testing.T, stack *localstack.Stack, n int) {
	t.Helper()
	observe.Await(t, "a statement waits for the lock", func() bool {
		return query(t, stack, "SELECT count(*) FROM pg_stat_activity "+
			"WHERE usename = 'authenticator' AND wait_event_type = 'Lock'") == strconv.Itoa(n)
	})
}

func TestClose(t *testing.T) {
	localstack.Shared(t)
	stack, err := localstack.Start(t.Context(), localstack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	folder := folderOf(t, stack.DatabaseURL)
	pid := pidOf(t, folder, "postgres")
	if err := stack.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(folder); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is still there: %v", err)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("PostgreSQL still runs: %v", err)
	}
	if conn, err := net.Dial("tcp", strings.TrimPrefix(stack.URL, "http://")); err == nil {
		t.Error("the REST API still listens")
		conn.Close()
	}
	if err := stack.Close(); err != nil {
		t.Errorf("the second Close: %v", err)
	}
}

// folderOf returns the stack's folder from its DatabaseURL.
func folderOf(t *testing.T, databaseURL string) string {
	t.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	return u.Query().Get("host")
}

// pidOf returns the process id of a process of the stack.
func pidOf(t *testing.T, folder, name string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, name+".pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// TestWatchdog kills a program that has a stack whose PostgREST ignores signals, and
// checks that the stack's processes and folder are gone.
func TestWatchdog(t *testing.T) {
	localstack.Shared(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), orphanEnv+"=1", "POSTGREST_BIN="+os.Args[0])
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	folder := folderOf(t, strings.TrimSpace(line))
	pids := map[string]int{"PostgreSQL": pidOf(t, folder, "postgres"), "PostgREST": pidOf(t, folder, "postgrest")}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // "signal: killed"
	observe.Await(t, "the folder is gone", func() bool {
		_, err := os.Stat(folder)
		return errors.Is(err, os.ErrNotExist)
	})
	for name, pid := range pids {
		// A zombie has ended. Only its adoptive parent can remove it.
		state, err := exec.Command("ps", "-o", "stat=", "-p", strconv.Itoa(pid)).Output()
		if errors.Is(err, exec.ErrNotFound) {
			t.Fatal(err)
		}
		if err == nil && !strings.HasPrefix(string(state), "Z") {
			t.Errorf("%s still runs: %s", name, state)
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

func TestStartFails(t *testing.T) {
	localstack.Shared(t)
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	stack, err := localstack.Start(t.Context(), localstack.Options{Addr: "192.0.2.1:1"}) // an address for documentation (RFC 5737)
	if err == nil {
		stack.Close()
		t.Fatal("started on an address of another machine")
	}
	if text := err.Error(); !strings.HasPrefix(text, "localstack: ") || strings.Contains(text, "\n") {
		t.Errorf("got %q, want one line with the package's name", text)
	}
	if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
		t.Errorf("it left %v behind, %v", left, err)
	}
}

// TestPostgREST checks how the stack starts a real PostgREST and forwards requests to
// it. A fake PostgREST describes the requests that it receives.
func TestPostgREST(t *testing.T) {
	localstack.Shared(t)
	stack, err := localstack.Start(t.Context(), localstack.Options{PostgREST: os.Args[0]})
	if err != nil {
		t.Fatal(err)
	}
	defer stack.Close()
	want := `GET /things?a=eq.b%20c apikey="" authorization="Bearer ` + stack.ServiceRoleKey + `" schemas=public`
	for _, when := range []string{"after the start", "after a restart"} {
		r := call(t, stack, "GET", "things?a=eq.b%20c", "", "apikey", stack.SecretKey, "Authorization", "")
		if r.status != 200 || r.body != want {
			t.Errorf("%s: %d %s, want %s", when, r.status, r.body, want)
		}
		if err := errors.Join(stack.StopREST(), stack.StartREST(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFromEnv(t *testing.T) {
	ours := localstack.Shared(t)
	for _, name := range []string{"SUPABASE_URL", "SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_SECRET_KEY", "SUPABASE_ANON_KEY", "DATABASE_URL", "JWT_SECRET"} {
		t.Setenv(name, "")
	}
	if _, err := localstack.FromEnv(t.Context()); !errors.Is(err, localstack.ErrNoEnv) {
		t.Errorf("with nothing set: %v, want ErrNoEnv", err)
	}
	for line := range strings.Lines(ours.Settings.String()) {
		name, value, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "=")
		t.Setenv(name, value)
	}
	stack, err := localstack.FromEnv(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer stack.Close()
	if stack.Settings != ours.Settings {
		t.Errorf("settings %+v, want %+v", stack.Settings, ours.Settings)
	}
	if r := call(t, stack, "POST", stack.Table(t), event(1)); r.status != 201 {
		t.Errorf("%d %s", r.status, r.body)
	}
	if stack.Ours() {
		t.Error("a stack of the environment counts as started by this process")
	}
}
