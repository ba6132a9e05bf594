package cmdtest

import (
	"bytes"
	"crypto/rand"
	"fmt"
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
	"time"
)

// A purged is a table that has only the columns that a purge needs, under other
// names, and with numbers as ids.
type purged struct {
	*program
	name string
}

func newPurged(t *testing.T) *purged {
	t.Helper()
	p := newProgram(t)
	return &purged{p, p.create("CREATE TABLE %s (number bigserial PRIMARY KEY, at timestamptz NOT NULL); CREATE INDEX ON %s (at); GRANT ALL ON %s TO service_role")}
}

// plant inserts n rows of the given age, one second apart.
func (p *purged) plant(n int, age string) {
	p.Helper()
	p.exec(fmt.Sprintf("INSERT INTO %s (at) SELECT now() - interval '%s' - i * interval '1 second' FROM generate_series(1, %d) i", p.name, age, n))
}

func (p *purged) wantLeft(want int64) {
	p.Helper()
	var n int64
	if err := p.stack.Pool().QueryRow(p.Context(), "SELECT count(*) FROM "+p.name).Scan(&n); err != nil || n != want {
		p.Errorf("%d rows are left, %v, want %d", n, err, want)
	}
}

// onDelete creates a trigger on DELETE.
func (p *purged) onDelete(when, body string) {
	p.Helper()
	function := "on_delete_" + strings.ToLower(rand.Text()[:12])
	p.exec("CREATE FUNCTION " + function + "() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN " + body + " RETURN NULL; END $$;" +
		"CREATE TRIGGER on_delete AFTER DELETE ON " + p.name + " " + when + " EXECUTE FUNCTION " + function + "()")
}

func (p *purged) slow() { p.onDelete("FOR EACH STATEMENT", "PERFORM pg_sleep(0.3);") }

func (p *purged) args(more ...string) []string {
	return append([]string{"purge", "-older-than", "30d", "-table", p.name, "-columns", "id=number,created_at=at", "-timeout", "20s"}, more...)
}

type result struct {
	Outcome, Error string
	Cutoff         time.Time
	Deleted, Due   int64
	Exact          bool
}

func (p *purged) result(wantCode int, more ...string) (r result) {
	p.Helper()
	p.json(wantCode, &r, p.args(more...)...)
	return r
}

func TestPurge(t *testing.T) {
	p := newPurged(t)
	p.plant(2500, "31 days")
	p.plant(300, "29 days")
	if r := p.result(0, "-dry-run"); r.Outcome != "counted" || r.Due != 2500 || r.Deleted != 0 || !r.Exact {
		t.Errorf("%+v", r)
	}
	if out, errs := p.run(0, p.args("-dry-run")...); !strings.HasPrefix(out, "counted: would delete 2500 rows created before 20") || errs != "" {
		t.Errorf("%s%s", out, errs)
	}
	p.wantLeft(2800)

	out, errs := p.run(0, p.args("-batch", "1000")...)
	if !regexp.MustCompile(`^done: deleted 2500 rows created before \S+Z, in \d+\.\d s \(\d+ rows/s\)\n$`).MatchString(out) || errs != "" {
		t.Errorf("%q %q", out, errs)
	}
	p.wantLeft(300)
	r := p.result(0)
	if age := time.Since(r.Cutoff); r.Outcome != "done" || r.Deleted != 0 || age < 30*24*time.Hour || age > 30*24*time.Hour+time.Minute {
		t.Errorf("%+v", r)
	}
	p.wantLeft(300)
}

// TestPurgeStops checks that a purge which -timeout or a signal stops still finishes
// and counts the step in flight.
func TestPurgeStops(t *testing.T) {
	t.Parallel()
	p := newPurged(t)
	p.plant(1000, "31 days")
	p.slow()
	r := p.result(3, "-batch", "10", "-timeout", "1s")
	if r.Outcome != "stopped" || !r.Exact || r.Error != "stopped by -timeout 1s" || r.Deleted == 0 {
		t.Errorf("%+v", r)
	}
	left := 1000 - r.Deleted
	p.wantLeft(left)
	for _, sig := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		var started atomic.Int64
		proxy := p.proxy(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodDelete {
				started.Add(1)
			}
			next.ServeHTTP(w, r)
		})
		cmd := p.on(proxy, p.key).command(p.args("-batch", "10")...)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for started.Load() < 3 && cmd.ProcessState == nil {
			time.Sleep(10 * time.Millisecond)
		}
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		p.check(cmd, 3, stdout.String(), stderr.String())
		var deleted int64
		if _, err := fmt.Sscanf(stdout.String(), "stopped: deleted %d rows", &deleted); err != nil || deleted < 20 || stderr.String() != "docevents purge: stopped by "+sig.String()+"\n" {
			t.Errorf("%s%s", stdout.String(), stderr.String())
		}
		left -= deleted
		p.wantLeft(left)
	}
}

// proxy starts a server in front of the stack.
func (p *purged) proxy(handle func(next http.Handler, w http.ResponseWriter, r *http.Request)) string {
	upstream, err := url.Parse(p.stack.URL)
	if err != nil {
		p.Fatal(err)
	}
	next := httputil.NewSingleHostReverseProxy(upstream)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handle(next, w, r) }))
	p.Cleanup(server.Close)
	return server.URL
}

// TestPurgeLosesAnAnswer checks that the rows of a step are deleted but not counted
// if the answer is lost.
func TestPurgeLosesAnAnswer(t *testing.T) {
	p := newPurged(t)
	p.plant(100, "31 days")
	var deletes atomic.Int64
	p.url = p.proxy(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodDelete && deletes.Add(1) == 2 {
			next.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
		next.ServeHTTP(w, r)
	})
	out, errs := p.run(4, p.args("-batch", "10")...)
	if !strings.HasPrefix(out, "incomplete: deleted at least 90 rows") || !strings.Contains(errs, "count incomplete") || !strings.Contains(errs, "note: purge failed, trying again") {
		t.Errorf("%s%s", out, errs)
	}
	p.wantLeft(0)
}

func TestPurgeFails(t *testing.T) {
	p := newPurged(t)
	p.plant(5, "31 days")
	for name, test := range map[string]struct {
		p    *program
		args []string
		want string
	}{
		"no table":         {p.program, []string{"purge", "-older-than", "30d", "-table", "no_such_table"}, "docevents sql table prints 013_create"},
		"dry run":          {p.program, []string{"purge", "-older-than", "30d", "-table", "no_such_table", "-dry-run"}, "docevents sql table prints 013_create"},
		"no column":        {p.program, []string{"purge", "-older-than", "30d", "-table", p.name}, "-columns"},
		"wrong key":        {p.on(p.url, "sb_secret_nonsense"), p.args(), "check the key"},
		"no network":       {p.on("http://127.0.0.1:1", p.key), p.args(), "no answer from SUPABASE_URL: check it and the network: dial tcp"},
		"not even a count": {p.on("http://127.0.0.1:1", p.key), p.args("-dry-run"), "failed: the rows could not be counted"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // the command retries for 5 s
			(&program{t, test.p.stack, test.p.url, test.p.key}).wants(1, test.args, test.want, "failed: ")
		})
	}
	t.Run("after a step", func(t *testing.T) {
		p := &purged{&program{t, p.stack, p.url, p.key}, p.name}
		p.onDelete("FOR EACH ROW WHEN (OLD.number = 3)", "RAISE EXCEPTION 'this one is kept';")
		out, errs := p.run(1, p.args("-batch", "2")...)
		if !strings.HasPrefix(out, "failed: deleted 2 rows ") || !strings.Contains(errs, "P0001") || strings.Contains(errs, "this one is kept") {
			t.Errorf("%s%s", out, errs)
		}
		p.wantLeft(3)
	})
}

// TestPurgeOutage checks that a purge waits for an unavailable server until -timeout.
func TestPurgeOutage(t *testing.T) {
	p := newPurged(t)
	p.url = p.proxy(func(_ http.Handler, w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	r := p.result(3, "-timeout", "500ms")
	if want := "stopped by -timeout 500ms; the last request had failed: HTTP 503 Service Unavailable"; r.Error != want {
		t.Errorf("%+v, want %s", r, want)
	}
}

// TestDryRunEstimates checks that a dry run prints the planner's estimate if
// counting takes too long, and that it sends only GET requests.
func TestDryRunEstimates(t *testing.T) {
	p := newPurged(t)
	p.url = p.proxy(func(_ http.Handler, w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method != http.MethodGet:
			t.Errorf("the dry run sends a %s", r.Method)
		case r.Header.Get("Prefer") == "count=exact":
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprint(w, `{"code":"57014","message":"canceling statement due to statement timeout"}`)
		default:
			w.Header().Set("Content-Range", "0-0/123456789")
			w.WriteHeader(http.StatusPartialContent)
			fmt.Fprint(w, `[{"id":"x"}]`)
		}
	})
	if out, _ := p.run(0, p.args("-dry-run")...); !strings.HasPrefix(out, "counted: would delete about 123456789 rows") {
		t.Error(out)
	}
	if r := p.result(0, "-dry-run"); r.Due != 123456789 || r.Exact {
		t.Errorf("%+v", r)
	}
}

// TestPurgeOnATerminal checks that a purge shows a progress line on a terminal.
func TestPurgeOnATerminal(t *testing.T) {
	t.Parallel()
	script, err := exec.LookPath("script")
	if err != nil {
		t.Skip(err)
	}
	p := newPurged(t)
	p.plant(40, "31 days")
	p.slow()
	inner := p.command(p.args("-batch", "10")...)
	cmd := exec.Command(script, "-qec", strings.Join(inner.Args, " "), os.DevNull)
	cmd.Env = inner.Env
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("\r\x1b[K10 rows deleted, ")) || !regexp.MustCompile(`\r\x1b\[Kdone: deleted 40 rows .*\r\n$`).Match(out) {
		t.Errorf("%v: %q", err, out)
	}
}
