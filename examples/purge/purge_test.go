package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/docevents/docevents-go/examples/internal/exampletest"
)

func TestPurge(tt *testing.T) {
	t := newTable(tt)
	t.plant(2500, "31 days")
	t.plant(300, "29 days")
	r := t.json(exitDone, "-older-than", "30d", "-dry-run")
	if r.Outcome != "counted" || !r.DryRun || r.Due != 2500 || r.Deleted != 0 || !r.Exact {
		t.Errorf("%+v", r)
	}
	if out, _ := t.purge(exitDone, "-older-than", "30d", "-dry-run"); !strings.HasPrefix(out, "purge: counted: would delete 2500 rows created before 20") || strings.Contains(out, "/s") {
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
	for _, sig := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(tt *testing.T) {
			t := newTable(tt)
			t.plant(1000, "31 days")
			t.slow()
			cmd := exampletest.CommandOn(t.stack.URL, t.stack.SecretKey,
				"-older-than", "30d", "-batch", "10", "-progress", "10ms", "-json", "-table", t.name)
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
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1) > 3 { // Check's
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		answerCheck(w, r)
	}))
	defer server.Close()
	t.Setenv("SUPABASE_URL", server.URL)
	r := t.json(exitStopped, "-older-than", "30d", "-timeout", "500ms")
	if want := "stopped by -timeout 500ms; the last request had failed: HTTP 503 Service Unavailable"; r.Error != want {
		t.Errorf("%+v, want %s", r, want)
	}
}

// answerCheck answers Check's GET, its rehearsal, of which a copy of a row doesn't
// count, and its DELETE.
func answerCheck(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		body, _ := io.ReadAll(r.Body)
		w.WriteHeader(http.StatusNotAcceptable)
		fmt.Fprintf(w, `{"code":"PGRST116","details":"The result contains %d rows"}`, strings.Count(string(body), `"id":`)-1)
		return
	}
	w.Header().Set("Content-Range", "*/0")
	w.WriteHeader(http.StatusNoContent)
}
