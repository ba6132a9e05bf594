package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docevents/docevents-go/examples/internal/exampletest"
	"github.com/docevents/docevents-go/integration/localstack"
)

func TestMain(m *testing.M) { localstack.Main(m) }

func TestParseAge(t *testing.T) {
	const day = 24 * time.Hour
	for s, want := range map[string]time.Duration{
		"1h": time.Hour, "12h": 12 * time.Hour, "30d": 30 * day, "030d": 30 * day, "2w": 14 * day, "36500d": 36500 * day,
		"": 0, "30": 0, "d": 0, "0d": 0, "-1d": 0, "+1d": 0, "1.5d": 0, " 1d": 0, "1d ": 0, "1 d": 0, "1m": 0, "1y": 0,
		"30D": 0, "1d12h": 0, "1_0d": 0, "0x1d": 0, "106752d": 0, "9223372036854775807w": 0, "99999999999999999999d": 0,
	} {
		got, err := parseAge(s)
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %s, %v; want %s", s, got, err, want)
		}
	}
}

// A table is one of the shared stack's, and what the program's environment says
// of it.
type table struct {
	*testing.T
	stack *localstack.Stack
	name  string
}

func newTable(t *testing.T) *table {
	t.Helper()
	stack := localstack.Shared(t)
	for _, name := range []string{"SUPABASE_URL", "SUPABASE_SECRET_KEYS", "SUPABASE_SECRET_KEY", "SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_SERVICE_KEY"} {
		t.Setenv(name, "")
	}
	t.Setenv("SUPABASE_URL", stack.URL)
	t.Setenv("SUPABASE_SERVICE_ROLE_KEY", stack.ServiceRoleKey)
	return &table{T: t, stack: stack, name: stack.Table(t)}
}

func (t *table) exec(sql string) {
	t.Helper()
	if _, err := t.stack.Pool().Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

// plant inserts n rows that were created so long ago, a second apart.
func (t *table) plant(n int, ago string) {
	t.Helper()
	t.exec(fmt.Sprintf(`INSERT INTO %s (document_id, user_id, event_type, created_at)
		SELECT gen_random_uuid(), gen_random_uuid(), 'completed', now() - interval '%s' - i * interval '1 second'
		FROM generate_series(1, %d) AS i`, t.name, ago, n))
}

func (t *table) count() (n int64) {
	t.Helper()
	if err := t.stack.Pool().QueryRow(t.Context(), "SELECT count(*) FROM "+t.name).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func (t *table) wantCount(want int64) {
	t.Helper()
	if got := t.count(); got != want {
		t.Errorf("%d rows are left, want %d", got, want)
	}
}

// onDelete makes a trigger.
func (t *table) onDelete(when, body string) {
	t.Helper()
	function := "on_delete_" + strings.ToLower(rand.Text()[:12])
	t.exec("CREATE FUNCTION " + function + "() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN " + body + " RETURN NULL; END $$;" +
		"CREATE TRIGGER on_delete AFTER DELETE ON " + t.name + " " + when + " EXECUTE FUNCTION " + function + "()")
	t.Cleanup(func() {
		// The test's own context has ended.
		if _, err := t.stack.Pool().Exec(context.Background(), "DROP FUNCTION "+function+" CASCADE"); err != nil {
			t.Error(err)
		}
	})
}

// slow makes each step take a moment.
func (t *table) slow() {
	t.Helper()
	t.onDelete("FOR EACH STATEMENT", "PERFORM pg_sleep(0.3);")
}

// purge runs the program in this process.
func (t *table) purge(wantCode int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code := run(t.Context(), append([]string{"-table", t.name}, args...), &out, &errs)
	t.check(code, wantCode, out.String(), errs.String())
	return out.String(), errs.String()
}

func (t *table) check(code, wantCode int, stdout, stderr string) {
	t.Helper()
	if code != wantCode {
		t.Errorf("exit code %d, want %d; %s%s", code, wantCode, stdout, stderr)
	}
	if strings.Contains(stdout+stderr, t.stack.ServiceRoleKey) || strings.Contains(stdout+stderr, "created_at=") {
		t.Errorf("it prints a key or a query: %s%s", stdout, stderr)
	}
}

// json runs the program with -json and returns what it says.
func (t *table) json(wantCode int, args ...string) result {
	t.Helper()
	stdout, _ := t.purge(wantCode, append(args, "-json")...)
	return t.decode(stdout)
}

func (t *table) decode(stdout string) (r result) {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(stdout))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&r); err != nil {
		t.Fatalf("%v: %s", err, stdout)
	}
	if strings.Count(stdout, "\n") != 1 || !strings.HasSuffix(stdout, "}\n") {
		t.Errorf("not one line of JSON: %s", stdout)
	}
	return r
}

func TestPurge(tt *testing.T) {
	t := newTable(tt)
	t.plant(2500, "31 days")
	t.plant(300, "29 days")
	r := t.json(exitDone, "-older-than", "30d", "-dry-run")
	if r.Outcome != "counted" || !r.DryRun || r.Due != 2500 || r.Deleted != 0 || !r.Exact {
		t.Errorf("%+v", r)
	}
	if out, _ := t.purge(exitDone, "-older-than", "30d", "-dry-run"); !strings.HasPrefix(out, "purge: counted: would delete 2500 rows created before 20") {
		t.Error(out)
	}
	t.wantCount(2800)

	before := time.Now()
	r = t.json(exitDone, "-older-than", "30d", "-batch", "1000")
	if r.Outcome != "done" || r.DryRun || r.Deleted != 2500 || !r.Exact || r.Error != "" || r.Seconds <= 0 {
		t.Errorf("%+v", r)
	}
	if age := before.Sub(r.Cutoff); age < 30*24*time.Hour-time.Minute || age > 30*24*time.Hour {
		t.Errorf("the cutoff is %s ago", age)
	}
	t.wantCount(300)

	t.plant(20, "3 hours")
	t.plant(10, "1 hour")
	out, errs := t.purge(exitDone, "-older-than", "2h")
	if !regexp.MustCompile(`^purge: done: deleted 320 rows created before \S+Z, in \d+\.\d s \(\d+/s\)\n$`).MatchString(out) || errs != "" {
		t.Errorf("%s%s", out, errs)
	}
	if r = t.json(exitDone, "-older-than", "2h"); r.Outcome != "done" || r.Deleted != 0 {
		t.Errorf("nothing is left to do: %+v", r)
	}
	t.wantCount(10)
}

func TestUsage(tt *testing.T) {
	t := newTable(tt)
	t.plant(5, "31 days")
	for args, want := range map[string]string{
		"":                                  "-older-than is missing",
		"-older-than 30":                    "it has to end in h, d or w",
		"-older-than 30d now":               `no argument is expected beside the flags: "now"`,
		"-older-than 30d -timeout -1s":      "can't be negative",
		"-older-than 30d -batch 0":          "WithPurgeBatch",
		"-older-than 30d -table a/b":        "WithTable",
		"-older-than 30d -color":            "not defined: -color",
		"-older-than 30d -timeout tomorrow": "invalid value",
	} {
		if out, errs := t.purge(exitUsage, strings.Fields(args)...); !strings.Contains(errs, want) || out != "" {
			t.Errorf("%s: %s%s, want %q", args, out, errs, want)
		}
	}
	if _, errs := t.purge(exitDone, "-h"); !strings.Contains(errs, "as 12h, 30d, 2w") {
		t.Error(errs)
	}
	for _, tt := range []struct{ url, key, want string }{
		{"", "", "set SUPABASE_URL and SUPABASE_SECRET_KEYS"},
		{"", t.stack.ServiceRoleKey, "SUPABASE_URL is not set"},
		{t.stack.URL, "", "SUPABASE_SERVICE_ROLE_KEY"},
		{t.stack.URL, t.stack.AnonKey, "not a service-role key"},
	} {
		t.Setenv("SUPABASE_URL", tt.url)
		t.Setenv("SUPABASE_SERVICE_ROLE_KEY", tt.key)
		if out, errs := t.purge(exitUsage, "-older-than", "30d"); !strings.Contains(errs, tt.want) || out != "" {
			t.Errorf("%s%s, want %q", out, errs, tt.want)
		}
	}
	t.wantCount(5)
}

func TestFails(tt *testing.T) {
	t := newTable(tt)
	t.plant(5, "31 days")
	for _, args := range [][]string{{"-older-than", "30d"}, {"-older-than", "30d", "-dry-run"}} {
		if r := t.json(exitFailed, append(args, "-table", "no_such_table")...); r.Outcome != "failed" || !strings.Contains(r.Error, "013_create_processing_events_table.sql") {
			t.Errorf("%+v", r)
		}
	}
	for _, dry := range []string{"", "-dry-run"} {
		if r := t.json(exitFailed, strings.Fields("-older-than 30d -schema elsewhere "+dry)...); !strings.Contains(r.Error, "expose the schema elsewhere") {
			t.Errorf("%+v", r)
		}
	}
	t.Setenv("SUPABASE_URL", "http://127.0.0.1:1")
	if r := t.json(exitFailed, "-older-than", "30d"); !strings.Contains(r.Error, "check SUPABASE_URL") {
		t.Errorf("%+v", r)
	}
	t.wantCount(5)

	// After some steps, a row that can't be deleted.
	t.Setenv("SUPABASE_URL", t.stack.URL)
	t.onDelete("FOR EACH ROW WHEN (OLD.stage = 'kept')", "RAISE EXCEPTION 'this one is kept';")
	t.exec("UPDATE " + t.name + " SET stage = 'kept' WHERE id = (SELECT id FROM " + t.name + " ORDER BY created_at OFFSET 3 LIMIT 1)")
	out, errs := t.purge(exitFailed, "-older-than", "30d", "-batch", "2")
	if !strings.HasPrefix(out, "purge: failed: deleted 2 rows ") || !strings.Contains(errs, "P0001") || strings.Contains(errs, "this one is kept") {
		t.Errorf("%s%s", out, errs)
	}
	t.wantCount(3)
}

// TestTimeout: the step that is under way when the time is up is finished and
// counted.
func TestTimeout(tt *testing.T) {
	t := newTable(tt)
	t.plant(100, "31 days")
	t.slow()
	r := t.json(exitStopped, "-older-than", "30d", "-batch", "10", "-timeout", "1s")
	if r.Outcome != "stopped" || !r.Exact || r.Error != "stopped by -timeout 1s" || r.Deleted%10 != 0 {
		t.Errorf("%+v", r)
	}
	t.wantCount(100 - r.Deleted)
	if r.Deleted == 100 {
		t.Error("it was not stopped")
	}
}

func TestSignals(t *testing.T) {
	program := exampletest.Build(t)
	for _, sig := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(tt *testing.T) {
			t := newTable(tt)
			t.plant(1000, "31 days")
			t.slow()
			cmd := exec.Command(program, "-older-than", "30d", "-batch", "10", "-progress", "10ms", "-json", "-table", t.name)
			cmd.Env = exampletest.Environ("SUPABASE_URL="+t.stack.URL, "SUPABASE_SECRET_KEY="+t.stack.SecretKey)
			stderr, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			var stdout bytes.Buffer
			cmd.Stdout = &stdout
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Process.Kill()
			// In the third step, say.
			seen := ""
			buffer := make([]byte, 1<<10)
			for !strings.Contains(seen, "purge: 20 rows so far") {
				n, err := stderr.Read(buffer)
				if seen += string(buffer[:n]); err != nil {
					t.Fatalf("%v: %s", err, seen)
				}
			}
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			rest, _ := io.ReadAll(stderr)
			_ = cmd.Wait()
			t.check(cmd.ProcessState.ExitCode(), exitStopped, stdout.String(), seen+string(rest))
			r := t.decode(stdout.String())
			if r.Outcome != "stopped" || !r.Exact || r.Deleted < 20 || r.Error != "stopped by "+sig.String() {
				t.Errorf("%+v", r)
			}
			t.wantCount(1000 - r.Deleted)
		})
	}
}

// TestLostAnswer: the answer to a step is lost, its rows are gone all the same.
func TestLostAnswer(tt *testing.T) {
	t := newTable(tt)
	t.plant(100, "31 days")
	upstream, err := url.Parse(t.stack.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(upstream)
	var deletes atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodDelete && deletes.Add(1) == 3 { // the first is Check's
			proxy.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
		proxy.ServeHTTP(w, r)
	}))
	defer server.Close()
	t.Setenv("SUPABASE_URL", server.URL)
	r := t.json(exitIncomplete, "-older-than", "30d", "-batch", "10")
	if r.Outcome != "incomplete" || r.Exact || r.Deleted != 90 {
		t.Errorf("%+v", r)
	}
	t.wantCount(0)

	deletes.Store(0)
	t.plant(100, "31 days")
	if out, errs := t.purge(exitIncomplete, "-older-than", "30d", "-batch", "10"); !strings.HasPrefix(out, "purge: incomplete: deleted at least 90 rows") || !strings.Contains(errs, "count incomplete") {
		t.Errorf("%s%s", out, errs)
	}
}

// TestOutage: the server goes away for good, and -timeout ends the tries.
func TestOutage(tt *testing.T) {
	t := newTable(tt)
	var requests atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if requests.Add(1) > 2 { // Check's
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Range", "*/0")
		w.WriteHeader(http.StatusCreated)
	}))
	defer server.Close()
	t.Setenv("SUPABASE_URL", server.URL)
	r := t.json(exitStopped, "-older-than", "30d", "-timeout", "500ms")
	if want := "stopped by -timeout 500ms; the last request had failed: HTTP 503 Service Unavailable"; r.Error != want {
		t.Errorf("%+v, want %s", r, want)
	}
}

// TestDryRunEstimates: a count that takes too long is replaced by the
// planner's.
func TestDryRunEstimates(tt *testing.T) {
	t := newTable(tt)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("Prefer") {
		case "count=exact":
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprint(w, `{"code":"57014","message":"canceling statement due to statement timeout"}`)
		case "count=planned":
			w.Header().Set("Content-Range", "0-0/123456789")
			w.WriteHeader(http.StatusPartialContent)
			fmt.Fprint(w, `[{"id":"x"}]`)
		default: // Check's
			w.Header().Set("Content-Range", "*/0")
			w.WriteHeader(http.StatusCreated)
		}
	}))
	defer server.Close()
	t.Setenv("SUPABASE_URL", server.URL+"/rest/v1/")
	if out, _ := t.purge(exitDone, "-older-than", "30d", "-dry-run"); !strings.Contains(out, "would delete about 123456789 rows") {
		t.Error(out)
	}
	if r := t.json(exitDone, "-older-than", "30d", "-dry-run"); r.Due != 123456789 || r.Exact {
		t.Errorf("%+v", r)
	}
}

// slowServer answers a DELETE after a while.
type slowServer struct{ takes time.Duration }

func (s slowServer) RoundTrip(req *http.Request) (*http.Response, error) {
	select {
	case <-time.After(s.takes):
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
	return &http.Response{StatusCode: 204, Header: http.Header{"Content-Range": {"*/1000"}}, Body: http.NoBody, Request: req}, nil
}

func TestMeterFinishesAStep(t *testing.T) {
	for _, tt := range []struct {
		method       string
		takes, after time.Duration
		rows         int64
	}{
		{"DELETE", 8 * time.Second, 8 * time.Second, 1000},
		{"DELETE", time.Hour, time.Second + stepGrace, 0},
		{"GET", 8 * time.Second, time.Second, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			m := &meter{base: slowServer{tt.takes}}
			req, err := http.NewRequestWithContext(ctx, tt.method, "http://localhost", nil)
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			resp, err := m.RoundTrip(req)
			if err == nil {
				resp.Body.Close()
			}
			if (err == nil) != (tt.rows > 0) || m.rows.Load() != tt.rows || time.Since(start) != tt.after {
				t.Errorf("%+v: %v, %d rows, after %s", tt, err, m.rows.Load(), time.Since(start))
			}
			if m.failure() != "" {
				t.Errorf("a request that was stopped is no failure: %q", m.failure())
			}
		})
	}
}

func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		m := &meter{base: slowServer{100 * time.Millisecond}}
		stop := m.report(&out, 5*time.Second)
		for range 99 { // 9.9 s
			req, _ := http.NewRequestWithContext(t.Context(), "DELETE", "http://localhost", nil)
			if resp, err := m.RoundTrip(req); err != nil {
				t.Fatal(err)
			} else {
				resp.Body.Close()
			}
		}
		m.base = broken{}
		req, _ := http.NewRequestWithContext(t.Context(), "DELETE", "http://localhost", nil)
		if _, err := m.RoundTrip(req); err == nil {
			t.Fatal("no error")
		}
		time.Sleep(time.Second)
		stop()
		time.Sleep(time.Minute)
		want := "purge: 49000 rows so far, 9800/s\npurge: 99000 rows so far, 9900/s, trying again: connection refused\n"
		if got := out.String(); got != want && got != strings.Replace(want, "49000 rows so far, 9800/s", "50000 rows so far, 10000/s", 1) {
			t.Errorf("%swant\n%s", got, want)
		}
		m.report(&out, 0)()
	})
}

type broken struct{}

func (broken) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("connection refused")
}

// TestReadme: its commands are ones that the program understands, and its table
// of exit codes is this program's.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	commands := regexp.MustCompile(`purge( -[a-z][^\n"'|;&#>]*)`).FindAllStringSubmatch(string(text), -1)
	lists := regexp.MustCompile(`args: \[(".*")\]`).FindAllStringSubmatch(string(text), -1)
	for _, list := range lists {
		commands = append(commands, []string{"", strings.NewReplacer(`"`, "", ",", "").Replace(list[1])})
	}
	if len(commands) < 5 || len(lists) != 1 {
		t.Fatalf("%d commands, %d of them lists", len(commands), len(lists))
	}
	for _, command := range commands {
		args := strings.Fields(strings.ReplaceAll(command[1], "`", " "))
		if _, err := parse(args, io.Discard); err != nil {
			t.Errorf("%q: %v", args, err)
		}
	}
	source, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	for code := exitDone; code <= exitIncomplete; code++ {
		meaning := regexp.MustCompile(fmt.Sprintf(`(?m)^//\t%d  (\w+)`, code)).FindSubmatch(source)
		if meaning == nil || !regexp.MustCompile(fmt.Sprintf(`(?m)^\| %d \| %s`, code, meaning[1])).Match(text) {
			t.Errorf("exit code %d is not described the same in README.md and in main.go: %s", code, meaning)
		}
	}
}
