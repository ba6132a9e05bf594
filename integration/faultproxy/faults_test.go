package faultproxy_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/integration/faultproxy"
	"github.com/docevents/docevents-go/integration/internal/observe"
)

// Faults by the way in which the client must handle them. The tests cause each
// fault for the first request of a client that records one event.
var (
	// The client doesn't notice the fault. One request is enough.
	harmless = []faultproxy.Fault{
		{},
		faultproxy.Trickle(100 * time.Microsecond),
		faultproxy.HeaderLost("Prefer"),
		faultproxy.Text(201, "null").Committed(),
		faultproxy.Garbage(201, 10<<20).Committed(),
	}

	// The client logs the failure and retries.
	passing = []faultproxy.Fault{
		faultproxy.RequestLost(),
		faultproxy.AnswerLost(),
		faultproxy.AnswerCut(faultproxy.CutHeader),
		faultproxy.AnswerCut(faultproxy.CutBody),

		faultproxy.Page(403),
		faultproxy.Page(403).Committed(),
		faultproxy.Page(500),
		faultproxy.Page(502),
		faultproxy.Page(502).Committed(),
		faultproxy.Text(400, ""),
		faultproxy.Text(403, `{"message":"request blocked"}`),
		faultproxy.Text(408, ""),
		faultproxy.Text(409, ""),
		faultproxy.Text(413, ""),
		faultproxy.Text(429, ""),
		faultproxy.Text(500, ""),
		faultproxy.Text(500, "null"),
		faultproxy.Text(500, "null").Committed(),
		faultproxy.Text(500, "[]"),
		faultproxy.Text(500, `"a string"`),
		faultproxy.Text(500, `{"code":500,"message":{"not":"a string"},"hint":[]}`),
		faultproxy.Text(502, ""),
		faultproxy.Text(503, ""),
		faultproxy.Text(503, "").Committed(),
		faultproxy.Text(504, "").Committed(),
		faultproxy.Garbage(500, 10<<20),
		faultproxy.Garbage(502, 10<<20).Committed(),

		faultproxy.Refusal(503, "08006", "connection failure"),
		faultproxy.Refusal(409, "23503", `violates foreign key constraint "fk"`),
		faultproxy.Refusal(500, "40001", "could not serialize access"),
		faultproxy.Refusal(500, "40P01", "deadlock detected"),
		faultproxy.Refusal(503, "53300", "too many connections"),
		faultproxy.Refusal(500, "53400", "configuration limit exceeded"),
		faultproxy.Refusal(500, "55P03", "could not obtain lock"),
		faultproxy.Refusal(500, "57014", "canceling statement due to statement timeout"),
		faultproxy.Refusal(503, "57P01", "terminating connection due to administrator command"),
		faultproxy.Refusal(500, "57P03", "the database system is starting up"),
		faultproxy.Refusal(500, "58030", "could not write"),
		faultproxy.Refusal(500, "XX000", "internal error"),
		faultproxy.Refusal(503, "PGRST000", "Database connection error. Retrying the connection."),
		faultproxy.Refusal(503, "PGRST001", "Database client error. Retrying the connection.").Committed(),
		faultproxy.Refusal(503, "PGRST002", "Could not query the database for the schema cache. Retrying."),
		faultproxy.Refusal(504, "PGRST003", "Timed out acquiring connection from connection pool."),
		faultproxy.Refusal(400, "PGRST102", "Empty or invalid json"),
		faultproxy.Refusal(500, "PGRSTX00", "of a group that doesn't exist"),
		faultproxy.Refusal(503, "PT503", "raised by a function"),
		faultproxy.Refusal(400, "ABCDE", "an unknown class"),
		faultproxy.Refusal(400, "rate_limit_exceeded", "a gateway's own"),
	}

	// The fault may last until somebody fixes the configuration. Here it passes
	// after one request: the client keeps the event and retries, without a log
	// line.
	configuration = []faultproxy.Fault{
		faultproxy.Text(401, `{"message":"Invalid API key"}`),
		faultproxy.Page(401),
		faultproxy.Page(404),
		faultproxy.Refusal(401, "PGRST301", "No suitable key or wrong key type"),
		faultproxy.Refusal(401, "PGRST303", "JWT expired"),
		faultproxy.Refusal(401, "22023", `role "service_role" does not exist`),
		faultproxy.Refusal(401, "42501", "permission denied"),
		faultproxy.Text(402, ""),
		faultproxy.Refusal(405, "25006", "cannot execute INSERT in a read-only transaction"),
		faultproxy.Refusal(406, "PGRST106", "Invalid schema: other"),
		faultproxy.Page(540),
		faultproxy.Page(540).Committed(),
		faultproxy.Page(200),
		faultproxy.Page(201).Committed(),
		faultproxy.Text(200, "ok"), // some other service
		faultproxy.Text(200, "").Committed(),
		faultproxy.Text(204, "").Committed(),
		faultproxy.Refusal(300, "PGRST203", "Could not choose the best candidate function"),
		faultproxy.Text(304, ""),
		faultproxy.Refusal(400, "0A000", "feature not supported"),
		faultproxy.Refusal(403, "28000", "invalid authorization"),
		faultproxy.Refusal(403, "28P01", "invalid password"),
		faultproxy.Refusal(400, "3D000", "no such database"),
		faultproxy.Refusal(400, "3F000", "no such schema"),
		faultproxy.Refusal(403, "42501", "permission denied for table t"),
		faultproxy.Refusal(400, "42703", `column "stage" does not exist`),
		faultproxy.Refusal(404, "42P01", `relation "t" does not exist`),
		faultproxy.Refusal(500, "42P17", "infinite recursion detected in policy"),
		faultproxy.Refusal(500, "55000", `cannot insert into view "t"`),
		faultproxy.Refusal(400, "PGRST100", "failed to parse"),
		faultproxy.Refusal(405, "PGRST117", "Unsupported HTTP method"),
		faultproxy.Refusal(400, "PGRST122", "Invalid preferences"),
		faultproxy.Refusal(404, "PGRST125", "Invalid path"),
		faultproxy.Refusal(400, "PGRST200", "no relationship"),
		faultproxy.Refusal(404, "PGRST202", "no function"),
		faultproxy.Refusal(400, "PGRST204", "Could not find the 'stage' column"),
		faultproxy.Refusal(404, "PGRST205", "Could not find the table"),
		faultproxy.Refusal(500, "PGRST300", "Server lacks JWT secret"),
		faultproxy.Refusal(403, "PGRST302", "Anonymous access is disabled"),
	}

	// The server rejects the row's data. The client drops the event after another
	// row has been stored, and the drop has the server's answer.
	data = []faultproxy.Fault{
		faultproxy.Refusal(500, "21000", "cardinality violation"),
		faultproxy.Refusal(400, "22001", "value too long"),
		faultproxy.Refusal(400, "22003", "out of range"),
		faultproxy.Refusal(400, "22023", "invalid parameter value"),
		faultproxy.Refusal(400, "22P02", "invalid input syntax"),
		faultproxy.Refusal(400, "23502", "null value violates not-null constraint"),
		faultproxy.Refusal(409, "23505", `violates unique constraint "one_per_document"`),
		faultproxy.Refusal(400, "23514", `violates check constraint "event_type_check"`),
		faultproxy.Refusal(400, "23P01", "conflicting key value violates exclusion constraint"),
		faultproxy.Refusal(500, "27000", "triggered data change violation"),
		faultproxy.Refusal(400, "44000", "violates check option for view"),
		faultproxy.Refusal(500, "54000", "index row size exceeds maximum"),
		faultproxy.Refusal(400, "P0001", "raised by a trigger"),
	}
)

// chosen is the stage of the row that a fault affects.
const chosen = "chosen"

func TestHarmless(t *testing.T) {
	stage := newStage(t)
	for _, f := range harmless {
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			b := stage.open(t)
			b.proxy.Deal(faultproxy.Script(f))
			b.record("a")
			b.flush()
			b.close(nil)
			b.wantStats(docevents.Stats{Recorded: 1, Delivered: 1, Requests: 1})
			b.wantStored("a")
			if lines := b.Lines(); len(lines) > 0 {
				t.Errorf("log: %v", lines)
			}
		})
	}
}

func TestPassing(t *testing.T) {
	stage := newStage(t)
	for _, f := range passing {
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			b := stage.open(t)
			b.proxy.Deal(faultproxy.Script(f))
			b.record("a")
			b.flush()
			b.close(nil)
			b.wantStats(docevents.Stats{Recorded: 1, Delivered: 1, Requests: 2, Retries: 1})
			b.wantStored("a")
			b.wantLines("insert failed, trying again", "delivering again")
			b.wantAnswer(b.Lines()[0].Err, f.Answer)
		})
	}
}

// TestNoAnswerInTime checks requests whose answer doesn't come within the request
// timeout. On a slow machine further requests may time out, so the test doesn't
// count requests.
func TestNoAnswerInTime(t *testing.T) {
	stage := newStage(t)
	for _, f := range []faultproxy.Fault{
		faultproxy.Stall(),
		faultproxy.Stall().Committed(),
		faultproxy.Trickle(100 * time.Millisecond),
	} {
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			b := stage.open(t, docevents.WithRequestTimeout(time.Second))
			b.proxy.Deal(faultproxy.Script(f))
			b.record("a")
			b.flush()
			b.close(nil)
			b.wantCounts(docevents.Stats{Recorded: 1, Delivered: 1})
			b.wantStored("a")
			if err := b.Lines()[0].Err; !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the first line's error: %v", err)
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	stage := newStage(t)
	for header, want := range map[string]time.Duration{
		"":                                   0,
		"0":                                  0,
		"-5":                                 0,
		"soon":                               0,
		"1":                                  time.Second,
		"Thu, 01 Jan 1970 00:00:00 GMT":      0,
		"Fri, 31 Dec 9999 23:59:59 GMT":      time.Minute,
		"86400":                              time.Minute,
		"9999999999999999999999999999999999": time.Minute,
	} {
		for _, status := range []int{429, 503} {
			f := faultproxy.Text(status, "", "Retry-After", header)
			t.Run(f.Name, func(t *testing.T) {
				t.Parallel()
				b := stage.open(t)
				arrivals := make(chan time.Time, 2)
				b.proxy.Deal(func(r *faultproxy.Request) faultproxy.Fault {
					arrivals <- time.Now()
					return faultproxy.Script(f)(r)
				})
				b.record("a")
				if want < time.Minute {
					b.flush()
					// A slow machine can only make the pause longer.
					first, second := <-arrivals, <-arrivals
					if pause := second.Sub(first); pause < want {
						t.Errorf("the next request came after %s, want at least %s", pause, want)
					}
				} else {
					observe.Await(t, "the refusal", func() bool { return len(b.Lines()) > 0 })
					b.wantCounts(docevents.Stats{Recorded: 1, Pending: 1})
				}
				b.close(nil) // Close retries at once
				b.wantStats(docevents.Stats{Recorded: 1, Delivered: 1, Requests: 2, Retries: 1})
				b.wantStored("a")
				var e *docevents.Error
				if err := b.Lines()[0].Err; !errors.As(err, &e) || e.RetryAfter != want {
					t.Errorf("RetryAfter %s, want %s", e.RetryAfter, want)
				}
			})
		}
	}
}

func TestConfiguration(t *testing.T) {
	stage := newStage(t)
	for _, f := range configuration {
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			b := stage.open(t)
			b.proxy.Deal(faultproxy.Script(f))
			b.wantKept()
		})
	}
}

// wantKept checks that the client keeps an event while it is misconfigured, and then
// stores it.
func (b *bench) wantKept() {
	b.t.Helper()
	b.record("a")
	b.flush()
	b.close(nil)
	b.wantStats(docevents.Stats{Recorded: 1, Delivered: 1, Requests: 2, Retries: 1})
	b.wantStored("a")
	b.wantLines()
}

// TestRedirect checks that the client handles a redirect as a misconfiguration and
// doesn't follow it, because the other host would see the key.
func TestRedirect(t *testing.T) {
	stage := newStage(t)
	var hits atomic.Int32
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		hits.Add(1)
		w.WriteHeader(http.StatusCreated)
	}))
	defer elsewhere.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		f := faultproxy.Redirect(status, elsewhere.URL+"/rest/v1/stolen")
		t.Run(f.Name, func(t *testing.T) {
			b := stage.open(t)
			b.proxy.Deal(faultproxy.Script(f))
			b.wantKept()
		})
	}
	if n := hits.Load(); n > 0 {
		t.Errorf("%d requests followed the redirect", n)
	}
}

func TestData(t *testing.T) {
	stage := newStage(t)
	for _, f := range data {
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			b := stage.open(t)
			b.proxy.Deal(faultproxy.ForRow(chosen, f, faultproxy.Pass))
			b.record(chosen)
			observe.Await(t, "the refusal", func() bool { return len(b.Lines()) > 0 })
			b.record("b") // shows the client that the server stores other rows
			b.flush()
			b.close(nil)
			b.wantCounts(docevents.Stats{Recorded: 2, Delivered: 1, Dropped: docevents.Drops{Rejected: 1}})
			b.wantStored("b")
			b.wantAnswer(b.wantDrop(chosen, docevents.Rejected, false), f.Answer)
		})
	}
}

// TestDataAfterFault checks a row that is rejected after a first request with
// another fault. If the outcome of the first request is unknown, the row may be
// stored, and the drop's error is ErrOutcomeUnknown.
func TestDataAfterFault(t *testing.T) {
	stage := newStage(t)
	refusal := faultproxy.Refusal(400, "23514", "violates check constraint")
	for _, tt := range []struct {
		first   faultproxy.Fault
		unknown bool
		stored  []string
	}{
		{faultproxy.AnswerLost(), true, []string{chosen}},
		{faultproxy.AnswerCut(faultproxy.CutHeader), true, []string{chosen}},
		{faultproxy.AnswerCut(faultproxy.CutBody), true, []string{chosen}},
		{faultproxy.Page(502).Committed(), true, []string{chosen}},
		{faultproxy.Text(503, "").Committed(), true, []string{chosen}},
		{faultproxy.Refusal(503, "PGRST001", "Database client error.").Committed(), true, []string{chosen}},
		{faultproxy.RequestLost(), true, nil},
		{faultproxy.Page(403), false, nil},
		{faultproxy.Refusal(503, "57P01", "terminating connection"), true, nil},
		{faultproxy.Refusal(503, "53300", "too many connections"), false, nil},
		{faultproxy.Refusal(500, "40001", "could not serialize access"), false, nil},
		{faultproxy.Refusal(500, "57014", "statement timeout"), false, nil},
		{faultproxy.Refusal(503, "PGRST002", "no schema cache"), true, nil}, // an error of PGRST0xx, the group about connections
	} {
		t.Run(tt.first.Name, func(t *testing.T) {
			t.Parallel()
			b := stage.open(t)
			refuse := faultproxy.ForRow(chosen, refusal, faultproxy.Pass)
			var refused atomic.Bool
			b.proxy.Deal(func(r *faultproxy.Request) faultproxy.Fault {
				if r.Number == 0 {
					return tt.first
				}
				refused.Store(true)
				return refuse(r)
			})
			b.record(chosen)
			observe.Await(t, "the refusal", refused.Load)
			observe.Await(t, "the next attempt", func() bool { return b.client.Stats().Requests > 2 })
			b.record("b") // shows the client that the server stores other rows
			b.flush()
			b.close(nil)
			b.wantCounts(docevents.Stats{Recorded: 2, Delivered: 1, Dropped: docevents.Drops{Rejected: 1}})
			b.wantStored(append(tt.stored, "b")...)
			b.wantAnswer(b.wantDrop(chosen, docevents.Rejected, tt.unknown), refusal.Answer)
		})
	}
}

// TestDuplicateWithoutPrefer retries an event that is already stored, through a
// gateway that removes the header Prefer. The server rejects the duplicate id,
// which tells the client that the event is stored.
func TestDuplicateWithoutPrefer(t *testing.T) {
	b := newStage(t).open(t)
	b.proxy.Deal(faultproxy.Script(faultproxy.AnswerLost(), faultproxy.HeaderLost("Prefer")))
	b.record("a")
	b.flush()
	b.close(nil)
	b.wantStats(docevents.Stats{Recorded: 1, Delivered: 1, Requests: 2, Retries: 1})
	b.wantStored("a")
}

func TestRefusedConnections(t *testing.T) {
	b := newStage(t).open(t)
	address := b.proxy.URL
	b.record("before")
	b.flush()
	if err := b.proxy.Refuse(); err != nil {
		t.Fatal(err)
	}
	b.record("a")
	observe.Await(t, "the failure", func() bool { return len(b.Lines()) > 0 })
	b.wantCounts(docevents.Stats{Recorded: 2, Delivered: 1, Pending: 1})
	observe.Await(t, "a connection is refused", func() bool { return b.client.Check(t.Context()) != nil })
	if err := b.client.Check(t.Context()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("Check: %v, want a refused connection", err)
	}
	if err := b.proxy.Accept(); err != nil {
		t.Fatal(err)
	}
	if b.proxy.URL != address {
		t.Errorf("the address is now %s, was %s", b.proxy.URL, address)
	}
	b.flush()
	b.close(nil)
	b.wantCounts(docevents.Stats{Recorded: 2, Delivered: 2})
	b.wantStored("before", "a")
}

// TestNoServer checks a proxy whose server is gone: the client gets no answer.
func TestNoServer(t *testing.T) {
	stage := newStage(t)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	proxy, err := faultproxy.Start(gone.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()
	b := stage.through(t, proxy)
	b.record("a")
	observe.Await(t, "the failure", func() bool { return len(b.Lines()) > 0 })
	var e *docevents.Error
	if err := b.Lines()[0].Err; errors.As(err, &e) {
		t.Errorf("an answer: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := b.client.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close: %v", err)
	}
	b.wantCounts(docevents.Stats{Recorded: 1, Dropped: docevents.Drops{Abandoned: 1}})
	b.wantDrop("a", docevents.Abandoned, true)
}

// TestOneRow checks faults that affect one row of a request with nine rows.
func TestOneRow(t *testing.T) {
	stages := []string{"b1", "b2", "b3", "b4", "b5", chosen, "b7", "b8", "b9"}
	others := append([]string{"first"}, slices.DeleteFunc(slices.Clone(stages), func(s string) bool { return s == chosen })...)
	all := append([]string{chosen}, others...)
	recorded := int64(len(all))
	stage := newStage(t)

	t.Run("rejected row", func(t *testing.T) {
		t.Parallel()
		b := stage.open(t, docevents.WithMaxInFlight(1))
		f := faultproxy.Refusal(400, "23514", "violates check constraint")
		b.batch(faultproxy.ForRow(chosen, f, faultproxy.Pass), stages...)
		b.flush()
		b.close(nil)
		b.wantCounts(docevents.Stats{Recorded: recorded, Delivered: recorded - 1, Dropped: docevents.Drops{Rejected: 1}})
		b.wantStored(others...)
		b.wantAnswer(b.wantDrop(chosen, docevents.Rejected, false), f.Answer)
	})
	t.Run("rejected row after a lost answer", func(t *testing.T) {
		t.Parallel()
		b := stage.open(t, docevents.WithMaxInFlight(1))
		f := faultproxy.Refusal(400, "23514", "violates check constraint")
		rejected := faultproxy.ForRow(chosen, f, faultproxy.Pass)
		b.batch(func(r *faultproxy.Request) faultproxy.Fault {
			if r.Number == 0 {
				return faultproxy.Page(502).Committed()
			}
			return rejected(r)
		}, stages...)
		b.flush()
		b.close(nil)
		b.wantCounts(docevents.Stats{Recorded: recorded, Delivered: recorded - 1, Dropped: docevents.Drops{Rejected: 1}})
		b.wantStored(all...)
		b.wantAnswer(b.wantDrop(chosen, docevents.Rejected, true), f.Answer)
	})
	for _, tt := range []struct {
		fault   faultproxy.Fault
		unknown bool
		stored  []string
	}{
		{faultproxy.Page(403), false, others},
		{faultproxy.RequestLost(), true, others},
		{faultproxy.Page(502).Committed(), true, all},
		{faultproxy.AnswerLost(), true, all},
	} {
		t.Run(tt.fault.Name, func(t *testing.T) {
			t.Parallel()
			b := stage.open(t, docevents.WithMaxInFlight(1))
			b.batch(faultproxy.ForRow(chosen, tt.fault, faultproxy.Pass), stages...)
			observe.Await(t, "the others are stored", func() bool { return b.client.Stats().Delivered == recorded-1 })
			b.wantCounts(docevents.Stats{Recorded: recorded, Delivered: recorded - 1, Pending: 1})
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			if err := b.client.Close(ctx); err == nil || !strings.Contains(err.Error(), "1 events abandoned") {
				t.Errorf("Close: %v", err)
			}
			b.wantCounts(docevents.Stats{Recorded: recorded, Delivered: recorded - 1, Dropped: docevents.Drops{Abandoned: 1}})
			b.wantStored(tt.stored...)
			b.wantDrop(chosen, docevents.Abandoned, tt.unknown)
		})
	}
}

// TestBatch checks faults that affect a request with nine rows.
func TestBatch(t *testing.T) {
	stages := []string{"b1", "b2", "b3", "b4", "b5", "b6", "b7", "b8", "b9"}
	all := append([]string{"first"}, stages...)
	recorded := int64(len(all))
	tooLarge := func(f faultproxy.Fault) faultproxy.Plan {
		return func(r *faultproxy.Request) faultproxy.Fault {
			if strings.Count(string(r.Body), `"document_id"`) > 2 {
				return f
			}
			return faultproxy.Fault{}
		}
	}
	plans := map[string]faultproxy.Plan{
		"too large":         tooLarge(faultproxy.Page(413)),
		"statement timeout": tooLarge(faultproxy.Refusal(500, "57014", "statement timeout")),
		"damaged":           tooLarge(faultproxy.Refusal(400, "PGRST102", "Empty or invalid json")),
		// The client finds the stored rows by retrying them one by one.
		"answer lost, then without Prefer": func(r *faultproxy.Request) faultproxy.Fault {
			if r.Number == 0 {
				return faultproxy.AnswerLost()
			}
			return faultproxy.HeaderLost("Prefer")
		},
	}
	for _, f := range []faultproxy.Fault{
		faultproxy.RequestLost(),
		faultproxy.AnswerLost(),
		faultproxy.AnswerCut(faultproxy.CutBody),
		faultproxy.Page(502).Committed(),
		faultproxy.Text(429, ""),
		faultproxy.Refusal(500, "40P01", "deadlock detected"),
		faultproxy.Refusal(503, "PGRST001", "Database client error. Retrying the connection.").Committed(),
	} {
		plans[f.Name] = faultproxy.Script(f)
	}
	stage := newStage(t)
	for _, name := range slices.Sorted(maps.Keys(plans)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := stage.open(t, docevents.WithMaxInFlight(1))
			b.batch(plans[name], stages...)
			b.flush()
			b.close(nil)
			b.wantCounts(docevents.Stats{Recorded: recorded, Delivered: recorded})
			b.wantStored(all...)
		})
	}
}

// TestPurge checks faults of a purge's first DELETE. The purge goes on, and its
// count is exact unless the error is ErrCountIncomplete.
func TestPurge(t *testing.T) {
	const old = 7
	for _, tt := range []struct {
		fault     faultproxy.Fault
		count     int64
		uncertain bool
	}{
		{faultproxy.Fault{Name: "none"}, old, false},
		{faultproxy.Trickle(100 * time.Microsecond), old, false},
		{faultproxy.HeaderLost("Prefer"), 0, true}, // the answer has no count
		{faultproxy.RequestLost(), old, true},      // the client can't know that it was lost
		{faultproxy.AnswerLost(), 0, true},
		{faultproxy.AnswerCut(faultproxy.CutHeader), 0, true},
		{faultproxy.Page(502).Committed(), 0, true},
		{faultproxy.Text(503, "", "Retry-After", "1"), old, true},
		{faultproxy.Refusal(503, "53300", "too many connections"), old, false},
		{faultproxy.Refusal(500, "57014", "statement timeout"), old, false},
		{faultproxy.Text(504, "").Committed(), 0, true},
		{faultproxy.Text(200, "null").Committed(), 0, true}, // the answer has neither ids nor a count
		{faultproxy.Text(200, "").Committed(), 0, true},
	} {
		for way, opts := range map[string][]docevents.Option{"at once": nil, "in steps": {docevents.WithPurgeBatch(100)}} {
			t.Run(way+"/"+tt.fault.Name, func(t *testing.T) {
				t.Parallel()
				b := newStage(t).open(t, opts...)
				day := time.Now().Add(-24 * time.Hour)
				for i := range old {
					e := b.event(fmt.Sprint("old ", i))
					e.CreatedAt = day.Add(-time.Hour)
					b.client.Record(e)
				}
				b.record("new")
				b.flush()
				var dealt atomic.Bool
				b.proxy.Deal(func(r *faultproxy.Request) faultproxy.Fault {
					if r.Method == http.MethodDelete && dealt.CompareAndSwap(false, true) {
						return tt.fault
					}
					return faultproxy.Fault{}
				})
				n, err := b.client.PurgeBefore(t.Context(), day)
				if n != tt.count || errors.Is(err, docevents.ErrCountIncomplete) != tt.uncertain || err != nil && !tt.uncertain {
					t.Errorf("purged %d, %v; want %d, uncertain %t", n, err, tt.count, tt.uncertain)
				}
				b.wantStored("new")
				b.close(nil)
			})
		}
	}
}

func TestPlans(t *testing.T) {
	a, c := faultproxy.RequestLost(), faultproxy.AnswerLost()
	names := func(p faultproxy.Plan, n int) (got []string) {
		for i := range n {
			got = append(got, p(&faultproxy.Request{Number: i, Body: []byte(fmt.Sprint("row ", i))}).Name)
		}
		return got
	}
	if got, want := names(faultproxy.Script(a, c), 4), []string{a.Name, c.Name, "", ""}; !slices.Equal(got, want) {
		t.Errorf("Script: %q", got)
	}
	if got, want := names(faultproxy.ForRow("row 2", c, faultproxy.Always(a)), 4), []string{a.Name, a.Name, c.Name, a.Name}; !slices.Equal(got, want) {
		t.Errorf("ForRow: %q", got)
	}
	const n = 10_000
	once, again := names(faultproxy.Random(1, 0.25, a, c), n), names(faultproxy.Random(1, 0.25, a, c), n)
	if !slices.Equal(once, again) {
		t.Error("Random: not the same with the same seed")
	}
	if slices.Equal(once, names(faultproxy.Random(2, 0.25, a, c), n)) {
		t.Error("Random: the same with another seed")
	}
	count := map[string]int{}
	for _, name := range once {
		count[name]++
	}
	for _, name := range []string{a.Name, c.Name} { // 1,250 expected, with a standard deviation of 33
		if got := count[name]; got < 1000 || got > 1500 {
			t.Errorf("Random: %q %d times of %d", name, got, n)
		}
	}
}
