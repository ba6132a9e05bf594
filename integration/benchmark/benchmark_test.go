package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/integration/localstack"
)

// TestMain makes the test program a worker if the benchmark has started it as one.
func TestMain(m *testing.M) {
	if isWorker() {
		workerMain()
	}
	localstack.Main(m)
}

// front forwards requests to a server. It counts the inserts, the connections that carried
// an insert, and all connections: net/http may open a connection that carries nothing.
type front struct {
	*httptest.Server
	mu        sync.Mutex // guards the fields below
	inserts   int
	inserting map[string]bool // the clients' addresses of the connections that carried an insert
	opened    int
}

func newFront(t *testing.T, server string) *front {
	t.Helper()
	to, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	f := &front{inserting: map[string]bool{}}
	proxy := httputil.NewSingleHostReverseProxy(to)
	f.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			f.mu.Lock()
			f.inserts++
			f.inserting[r.RemoteAddr] = true
			f.mu.Unlock()
		}
		proxy.ServeHTTP(w, r)
	}))
	f.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.opened++
		}
	}
	f.Start()
	t.Cleanup(f.Close)
	return f
}

// take returns the counts and resets them.
func (f *front) take() (inserts, inserting, opened int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	inserts, inserting, opened = f.inserts, len(f.inserting), f.opened
	f.inserts, f.opened = 0, 0
	clear(f.inserting)
	return inserts, inserting, opened
}

// TestVariantsOnAServer runs small loads on a real server. Each variant must store all
// events. Its counts of connections and requests must be equal to those of the server.
func TestVariantsOnAServer(t *testing.T) {
	stack := localstack.Shared(t)
	server := newFront(t, stack.URL)
	target := &target{URL: server.URL, Key: stack.ServiceRoleKey, DatabaseURL: stack.DatabaseURL, Table: stack.Table(t)}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	run := &runner{options: options{limit: time.Minute}, target: target, notes: t.Output(), program: program}
	for _, l := range []load{burstOf(40), crowdOf(8, 40), {Name: "steady", Kind: steady, Events: 40, Goroutines: 1, Rate: 1000}} {
		p := &plan{}
		p.add(l, variantNames...)
		if l.Kind == steady || l.Goroutines > 1 {
			p.keepVariants([]string{variantDocevents, variantNaive})
		}
		for variant, why := range run.prepare(t.Context(), p) {
			t.Logf("%s: %s", variant, why)
		}
		for _, c := range p.cells {
			t.Run(l.Name+"/"+c.Variant, func(t *testing.T) {
				c.MaxBatch = 15 // so that the last batch is not full
				server.take()
				s, err := run.measure(t.Context(), c)
				if err != nil {
					t.Fatal(err)
				}
				if s.Stored != 40 || s.Errors != 0 || s.Ended != "" || s.Error != "" {
					t.Errorf("got %d of 40 rows, %d errors, ended %q: %s", s.Stored, s.Errors, s.Ended, s.Error)
				}
				if s.Elapsed <= 0 || s.PeakBytes < 1<<20 || s.CPUSeconds <= 0 {
					t.Errorf("not measured: %+v", s)
				}
				hasCalls := c.Variant != variantBulk && c.Variant != variantCopy
				if (s.Call.Max > 0) != hasCalls || s.Call.P50 > s.Call.P99 || s.Call.P99 > s.Call.Max {
					t.Errorf("calls of Record: %+v", s.Call)
				}
				inserts, inserting, opened := server.take()
				if c.Variant == variantCopy {
					inserts, inserting, opened = inserts+1, inserting+1, opened+1 // COPY's connection to the database
				}
				if s.Requests != inserts || s.Connections < inserting || s.Connections > opened {
					t.Errorf("got %d requests on %d connections, the server saw %d on %d of %d", s.Requests, s.Connections, inserts, inserting, opened)
				}
			})
		}
	}
	var rows int
	if err := stack.Pool().QueryRow(t.Context(), "SELECT count(*) FROM "+target.Table).Scan(&rows); err != nil || rows != 0 {
		t.Errorf("%d rows are left behind (%v)", rows, err)
	}
}

func TestIdleOnAServer(t *testing.T) {
	stack := localstack.Shared(t)
	o := options{limit: time.Minute}
	t.Setenv("SUPABASE_URL", stack.URL)
	t.Setenv("SUPABASE_SERVICE_ROLE_KEY", stack.ServiceRoleKey)
	t.Setenv("DATABASE_URL", stack.DatabaseURL)
	target, err := openTarget(t.Context(), o, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	defer target.close()
	target.Table = stack.Table(t)
	p := &plan{mode: "test", rounds: 2}
	p.add(idleWith(2*warmups+4), variantNames...)
	p.keepVariants([]string{variantDocevents, variantNaive, variantBulk, variantCopy})
	r, err := p.measure(t.Context(), target, o, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range r.Cells {
		for _, s := range c.Samples {
			if s.ToRow.P50 <= 0 || s.Bare.P50 <= 0 || s.Stored != c.Load.Events {
				t.Errorf("%s: %+v", c.Variant, s)
			}
		}
	}
	var b strings.Builder
	if err := r.print(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{variantDocevents, variantNaive, variantBulk, variantCopy, "medians of 2", r.Machine.PostgreSQL} {
		if !strings.Contains(b.String(), want) || want == "" {
			t.Errorf("no %q in the report:\n%s", want, b.String())
		}
	}
}

// TestCrash checks that a crash of a worker is an error, except for naive Go. That
// variant crashes under great loads, so its crash is a result.
func TestCrash(t *testing.T) {
	stack := localstack.Shared(t)
	program := filepath.Join(t.TempDir(), "worker")
	script := "#!/bin/sh\necho 'FATAL: JavaScript heap out of memory' >&2\nexit 134\n"
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	target := &target{URL: stack.URL, Key: stack.ServiceRoleKey, Table: stack.Table(t)}
	run := &runner{options: options{limit: time.Minute}, target: target, notes: t.Output(), program: program}
	s, err := run.measure(t.Context(), &cell{Variant: variantNaive, Load: burstOf(10)})
	if err != nil || s.Ended != "out of memory" || s.Stored != 0 || s.Elapsed <= 0 {
		t.Errorf("got %+v, %v", s, err)
	}
	if _, err := run.measure(t.Context(), &cell{Variant: variantDocevents, Load: burstOf(10)}); err == nil || !strings.Contains(err.Error(), "heap") {
		t.Errorf("got %v, want the worker's message", err)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestBulkSendsTheSame checks that the variant bulk limit sends the same requests as
// docevents.
func TestBulkSendsTheSame(t *testing.T) {
	type request struct {
		query, prefer string
		keys          []string
	}
	var got []request
	capture := roundTripper(func(r *http.Request) (*http.Response, error) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		var rows []map[string]any
		if err := json.Unmarshal(body, &rows); err != nil {
			return nil, err
		}
		prefer := strings.Split(strings.Join(r.Header.Values("Prefer"), ","), ",")
		slices.Sort(prefer)
		query, err := url.QueryUnescape(r.URL.RawQuery)
		if err != nil {
			return nil, err
		}
		got = append(got, request{query, strings.Join(prefer, ","), slices.Sorted(maps.Keys(rows[0]))})
		return &http.Response{StatusCode: http.StatusCreated, Body: http.NoBody, Request: r}, nil
	})
	s := &spec{URL: "http://localhost:1", Key: "service", Table: docevents.DefaultTable, User: uuid.New(), MaxInFlight: 1, MaxBatch: 1}
	client, err := docevents.New(s.URL, s.Key, docevents.WithTransport(capture))
	if err != nil {
		t.Fatal(err)
	}
	client.Record(eventAt(s.User, 0))
	if err := client.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := newBulk(s, capture).one(t.Context(), eventAt(s.User, 0)); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].query != got[1].query || got[0].prefer != got[1].prefer || !slices.Equal(got[0].keys, got[1].keys) {
		t.Errorf("docevents and bulk differ: %+v", got)
	}
}

func TestRecordAll(t *testing.T) {
	user := uuid.New()
	for _, l := range []load{burstOf(10), crowdOf(3, 10), crowdOf(64, 10)} {
		var mu sync.Mutex
		seen := map[string]int{}
		calls := recordAll(t.Context(), user, l, func(e docevents.Event) {
			mu.Lock()
			defer mu.Unlock()
			seen[fmt.Sprint(e)]++
		})
		want := map[string]int{}
		for i := range l.Events {
			want[fmt.Sprint(eventAt(user, i))]++
		}
		if !maps.Equal(seen, want) || len(calls) != l.Events {
			t.Errorf("%s: got %d calls with %v", l.Name, len(calls), seen)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var at []time.Duration
		recordAll(t.Context(), user, load{Kind: steady, Events: 3, Goroutines: 1, Rate: 4}, func(docevents.Event) {
			at = append(at, time.Since(start))
		})
		if want := []time.Duration{0, 250 * time.Millisecond, 500 * time.Millisecond}; !slices.Equal(at, want) {
			t.Errorf("recorded at %v, want %v", at, want)
		}
		calls := recordAll(t.Context(), user, burstOf(2), func(docevents.Event) { time.Sleep(time.Second) })
		if !slices.Equal(calls, []time.Duration{time.Second, time.Second}) {
			t.Errorf("calls took %v", calls)
		}
	})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	recordAll(ended, user, burstOf(1), func(docevents.Event) { t.Error("recorded after the limit") })
}

// TestDelay checks that bytes arrive complete, in order and with the delay.
func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &delayProxy{each: 30 * time.Millisecond}
		near, from := net.Pipe()
		to, far := net.Pipe()
		var passing sync.WaitGroup
		passing.Go(func() { p.pass(to, from) })
		start := time.Now()
		go func() {
			for _, piece := range []string{"first ", "second"} {
				_, _ = near.Write([]byte(piece))
				time.Sleep(10 * time.Millisecond)
			}
			near.Close()
		}()
		buffer := make([]byte, 16)
		for i, want := range []string{"first ", "second"} {
			n, err := far.Read(buffer)
			if err != nil || string(buffer[:n]) != want {
				t.Errorf("got %q, %v, want %q", buffer[:n], err, want)
			}
			if got, want := time.Since(start), p.each+time.Duration(i)*10*time.Millisecond; got != want {
				t.Errorf("the bytes arrived after %s, want %s", got, want)
			}
		}
		if _, err := far.Read(buffer); !errors.Is(err, io.EOF) {
			t.Errorf("after the end: %v", err)
		}
		passing.Wait()
	})
}

// TestPrepare checks that variants that can't be measured are left out, with the reason.
func TestPrepare(t *testing.T) {
	for want, target := range map[string]*target{
		"DATABASE_URL": {},
		"-rtt":         {DatabaseURL: "postgres://", delay: &delayProxy{}},
		"":             {DatabaseURL: "postgres://"},
	} {
		p := &plan{}
		p.add(burstOf(1), variantDocevents, variantCopy)
		missing := (&runner{target: target, notes: io.Discard}).prepare(t.Context(), p)
		if left := len(p.cells) == 1; left != (want != "") || !strings.Contains(missing[variantCopy], want) || (missing[variantCopy] == "") != (want == "") {
			t.Errorf("%q: %d cells are left, missing %q", want, len(p.cells), missing)
		}
	}
}

func TestDelayProxy(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	}))
	defer server.Close()
	p, err := startDelayProxy(server.URL, time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	sent := bytes.Repeat([]byte("0123456789"), 50_000)
	resp, err := http.Post(p.url, "text/plain", bytes.NewReader(sent))
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("got %d bytes of %d, %v", len(got), len(sent), err)
	}
	if err := p.close(); err != nil {
		t.Error(err)
	}
	if _, err := startDelayProxy("https://localhost:1", time.Millisecond); err == nil {
		t.Error("got a proxy for an https server, which it can't delay")
	}
}
