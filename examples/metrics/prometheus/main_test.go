package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/doceventstest"
	"github.com/docevents/docevents-go/integration/localstack"
)

func TestMain(m *testing.M) { localstack.Main(m) }

func TestProgram(t *testing.T) {
	stack := localstack.Shared(t)
	t.Setenv("SUPABASE_URL", stack.URL)
	t.Setenv("SUPABASE_SECRET_KEYS", "")
	t.Setenv("SUPABASE_SECRET_KEY", stack.ServiceRoleKey)
	ctx, stop := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, "127.0.0.1:0", in)
		in.Close()
	}()
	line, _ := bufio.NewReader(out).ReadString('\n')
	_, url, listens := strings.Cut(strings.TrimSpace(line), "listening on ")
	if !listens {
		t.Fatal(<-ended)
	}
	go io.Copy(io.Discard, out)
	for range 3 {
		resp, err := http.Post(url+"/documents", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	text := get(t, url+"/metrics")
	for deadline := time.Now().Add(time.Minute); strings.Contains(text, "\ndocevents_health_timestamp_seconds 0\n") && time.Now().Before(deadline); {
		text = get(t, url+"/metrics")
	}
	for _, line := range []string{"docevents_recorded_total 3", "docevents_healthy 1", "docevents_documents_stuck 0"} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("there is no %s in %s", line, text)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestWatch checks that the metrics have the values of the last check, and keep them
// if a check fails. Before the first check, docevents_healthy is missing: 0 would be an
// alert.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewPedanticRegistry()
		now := time.Now()
		var v verdict
		registry.MustRegister(&v)
		var health docevents.Health
		failed := errors.New("no table")
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex // guards health and failed
		go v.watch(ctx, time.Minute, func(context.Context) (docevents.Health, error) {
			mu.Lock()
			defer mu.Unlock()
			return health, failed
		})
		answer := func(h docevents.Health, err error) {
			mu.Lock()
			defer mu.Unlock()
			health, failed = h, err
		}
		gauges := func(want ...float64) {
			t.Helper()
			synctest.Wait()
			families, err := registry.Gather() // by name
			if err != nil {
				t.Fatal(err)
			}
			var got []float64
			for _, f := range families {
				got = append(got, f.Metric[0].Gauge.GetValue())
			}
			if !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		}
		gauges(0) // only the time of the last check
		answer(docevents.Health{OK: true, UnderWay: 3, At: now}, nil)
		time.Sleep(time.Minute)
		at := float64(now.Unix())
		gauges(0, 0, 3, at, 1, 0)
		answer(docevents.Health{FailureRate: 0.5, Stuck: 2, UnderWay: 4, LastCompleted: now, At: now.Add(time.Minute)}, nil)
		time.Sleep(time.Minute)
		gauges(0.5, 2, 4, at+60, 0, at)
		answer(docevents.Health{}, errors.New("no table"))
		time.Sleep(time.Minute)
		gauges(0.5, 2, 4, at+60, 0, at)
		cancel()
		if problems, err := testutil.GatherAndLint(registry); len(problems) > 0 || err != nil {
			t.Errorf("%v, %v", problems, err)
		}
	})
}

// TestCollector checks that each count is exported under its name. All counts are
// different here.
func TestCollector(t *testing.T) {
	c := collector{func() docevents.Stats {
		return docevents.Stats{
			Recorded: 1, Delivered: 2, Pending: 3, PendingBytes: 4, Requests: 5, Retries: 6, Unreported: 7,
			Dropped:  docevents.Drops{Invalid: 8, QueueFull: 9, Rejected: 10, Closed: 11, Abandoned: 12, Filtered: 15},
			Replayed: 13, Kept: 14,
		}
	}}
	const want = `
# HELP docevents_delivered_total Events stored, confirmed by the server.
# TYPE docevents_delivered_total counter
docevents_delivered_total 2
# HELP docevents_dropped_total Events dropped, by reason.
# TYPE docevents_dropped_total counter
docevents_dropped_total{reason="abandoned"} 12
docevents_dropped_total{reason="closed"} 11
docevents_dropped_total{reason="filtered"} 15
docevents_dropped_total{reason="invalid"} 8
docevents_dropped_total{reason="queue_full"} 9
docevents_dropped_total{reason="rejected"} 10
# HELP docevents_kept_total Events that Close left in the spool.
# TYPE docevents_kept_total counter
docevents_kept_total 14
# HELP docevents_pending Events queued or in flight.
# TYPE docevents_pending gauge
docevents_pending 3
# HELP docevents_pending_bytes Bytes of the pending events, as counted for the queue's limit.
# TYPE docevents_pending_bytes gauge
docevents_pending_bytes 4
# HELP docevents_recorded_total Events recorded.
# TYPE docevents_recorded_total counter
docevents_recorded_total 1
# HELP docevents_replayed_total Events from the spools of earlier processes that were queued.
# TYPE docevents_replayed_total counter
docevents_replayed_total 13
# HELP docevents_requests_total Inserts sent.
# TYPE docevents_requests_total counter
docevents_requests_total 5
# HELP docevents_retries_total Inserts sent with events that had been sent before.
# TYPE docevents_retries_total counter
docevents_retries_total 6
# HELP docevents_unreported_total Dropped events for which the drop handler was not called.
# TYPE docevents_unreported_total counter
docevents_unreported_total 7
`
	if err := testutil.CollectAndCompare(c, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	problems, err := testutil.CollectAndLint(c)
	if len(problems) > 0 || err != nil {
		t.Errorf("%v, %v", problems, err)
	}
	if err := prometheus.NewPedanticRegistry().Register(c); err != nil {
		t.Error(err)
	}
}

// TestScrape checks that a scrape returns the client's current counts.
func TestScrape(t *testing.T) {
	server := doceventstest.NewServer(t)
	client := server.Client()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{client.Stats})
	h := handler(client, registry)
	scrape := func(want ...string) {
		t.Helper()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		for _, line := range want {
			if !strings.Contains(w.Body.String(), line+"\n") {
				t.Errorf("there is no %s in %s", line, w.Body)
			}
		}
	}
	scrape("docevents_recorded_total 0", "docevents_pending 0")
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/documents", nil))
	client.Record(docevents.Event{DocumentID: "no UUID", UserID: docevents.SystemUser, Type: docevents.Completed})
	client.Record(docevents.Event{DocumentID: uuid.NewString(), UserID: docevents.SystemUser, Type: docevents.Completed})
	if err := client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	scrape("docevents_recorded_total 3", "docevents_delivered_total 2", `docevents_dropped_total{reason="invalid"} 1`, "docevents_pending 0")
}
