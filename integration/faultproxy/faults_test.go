package faultproxy_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
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

// TestFaults checks faults of the first request of a client that records one event.
// TestClassify of package rest lists the statuses and codes of each kind.
func TestFaults(t *testing.T) {
	fixture := newFixture(t)
	for kind, tt := range map[string]struct {
		requests int64
		log      []string
		faults   []faultproxy.Fault
	}{
		"the client doesn't notice": {1, nil, []faultproxy.Fault{
			{},
			faultproxy.Trickle(100 * time.Microsecond),
			faultproxy.HeaderLost("Prefer"),
			faultproxy.Text(201, "null").Committed(),
			faultproxy.Garbage(201, 10<<20).Committed(),
		}},
		"the client logs it and retries": {2, []string{"insert failed, trying again", "delivering again"}, []faultproxy.Fault{
			faultproxy.RequestLost(),
			faultproxy.AnswerLost(),
			faultproxy.AnswerCut(faultproxy.CutHeader),
			faultproxy.AnswerCut(faultproxy.CutBody),
			faultproxy.Page(403).Committed(),
			faultproxy.Page(502),
			faultproxy.Text(400, ""),
			faultproxy.Text(403, `{"message":"request blocked"}`),
			faultproxy.Text(429, ""),
			faultproxy.Text(500, "null").Committed(),
			faultproxy.Text(500, `"a string"`),
			faultproxy.Text(500, `{"code":500,"message":{"not":"a string"},"hint":[]}`),
			faultproxy.Garbage(502, 10<<20).Committed(),
			faultproxy.Refusal(409, "23503", `violates foreign key constraint "fk"`),
			faultproxy.Refusal(500, "40P01", "deadlock detected"),
			faultproxy.Refusal(500, "57014", "canceling statement due to statement timeout"),
			faultproxy.Refusal(503, "PGRST001", "Database client error. Retrying the connection.").Committed(),
			faultproxy.Refusal(400, "PGRST102", "Empty or invalid json"),
			faultproxy.Refusal(400, "rate_limit_exceeded", "a gateway's own"),
		}},
		// The client logs a misconfiguration only after 5 s. This one passes before.
		"the client is misconfigured": {2, nil, []faultproxy.Fault{
			faultproxy.Text(401, `{"message":"Invalid API key"}`),
			faultproxy.Page(404),
			faultproxy.Page(540).Committed(),
			faultproxy.Page(201).Committed(),
			faultproxy.Text(200, "ok"), // some other service
			faultproxy.Text(204, "").Committed(),
			faultproxy.Text(304, ""),
			faultproxy.Refusal(403, "42501", "permission denied for table t"),
			faultproxy.Refusal(404, "PGRST205", "Could not find the table"),
		}},
	} {
		for _, f := range tt.faults {
			t.Run(kind+"/"+f.Name, func(t *testing.T) {
				t.Parallel()
				b := fixture.open(t)
				b.proxy.Deal(faultproxy.Script(f))
				b.record("a")
				b.flush()
				b.close(nil)
				b.wantStats(docevents.Stats{Recorded: 1, Delivered: 1, Requests: tt.requests, Retries: tt.requests - 1})
				b.wantStored("a")
				b.wantLines(tt.log...)
				if len(tt.log) > 0 {
					b.wantAnswer(b.Lines()[0].Err, f.Answer)
				}
			})
		}
	}
}

// chosen is the stage of the row that a fault affects.
const chosen = "chosen"

// TestNoAnswerInTime checks requests whose answer doesn't come within the request
// timeout. On a slow machine further requests may time out, so the test doesn't
// count requests.
func TestNoAnswerInTime(t *testing.T) {
	fixture := newFixture(t)
	for _, f := range []faultproxy.Fault{
		faultproxy.Stall(),
		faultproxy.Stall().Committed(),
		faultproxy.Trickle(100 * time.Millisecond),
	} {
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			b := fixture.open(t, docevents.WithRequestTimeout(time.Second))
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

// TestBadRow checks that the client drops a row that the server rejects, after another
// row has been stored. In some cases the row's first request has another fault. If the
// row may be stored after that fault, the drop's error must match ErrOutcomeUnknown.
func TestBadRow(t *testing.T) {
	fixture := newFixture(t)
	check := faultproxy.Refusal(400, "23514", "violates check constraint")
	for _, tt := range []struct {
		first   faultproxy.Fault
		refusal faultproxy.Fault
		unknown bool
		stored  []string
	}{
		{faultproxy.Fault{}, check, false, nil},
		{faultproxy.Fault{}, faultproxy.Refusal(400, "22P02", "invalid input syntax"), false, nil},
		{faultproxy.Fault{}, faultproxy.Refusal(409, "23505", `violates unique constraint "one_per_document"`), false, nil},
		{faultproxy.Fault{}, faultproxy.Refusal(400, "P0001", "raised by a trigger"), false, nil},
		{faultproxy.AnswerLost(), check, true, []string{chosen}},
		{faultproxy.AnswerCut(faultproxy.CutBody), check, true, []string{chosen}},
		{faultproxy.Page(502).Committed(), check, true, []string{chosen}},
		{faultproxy.RequestLost(), check, true, nil},
		{faultproxy.Page(403), check, false, nil},
		{faultproxy.Refusal(500, "40001", "could not serialize access"), check, false, nil},
	} {
		t.Run(tt.first.Name+"/"+tt.refusal.Name, func(t *testing.T) {
			t.Parallel()
			b := fixture.open(t)
			refuse := faultproxy.ForRow(chosen, tt.refusal, faultproxy.Pass)
			var refused atomic.Bool
			b.proxy.Deal(func(r *faultproxy.Request) faultproxy.Fault {
				if r.Number == 0 && tt.first.Name != "" {
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
			b.wantAnswer(b.wantDrop(chosen, docevents.Rejected, tt.unknown), tt.refusal.Answer)
		})
	}
}

func TestRefusedConnections(t *testing.T) {
	b := newFixture(t).open(t)
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

// TestOneRow checks faults that affect one row of a request with nine rows.
func TestOneRow(t *testing.T) {
	stages := []string{"b1", "b2", "b3", "b4", "b5", chosen, "b7", "b8", "b9"}
	others := append([]string{"first"}, slices.DeleteFunc(slices.Clone(stages), func(s string) bool { return s == chosen })...)
	all := append([]string{chosen}, others...)
	recorded := int64(len(all))
	fixture := newFixture(t)

	for _, first := range []faultproxy.Fault{{}, faultproxy.Page(502).Committed()} {
		t.Run("rejected row/"+first.Name, func(t *testing.T) {
			t.Parallel()
			b := fixture.open(t, docevents.WithMaxInFlight(1))
			f := faultproxy.Refusal(400, "23514", "violates check constraint")
			rejected := faultproxy.ForRow(chosen, f, faultproxy.Pass)
			answerLost := first.Name != ""
			b.batch(func(r *faultproxy.Request) faultproxy.Fault {
				if r.Number == 0 && answerLost {
					return first
				}
				return rejected(r)
			}, stages...)
			b.flush()
			b.close(nil)
			b.wantCounts(docevents.Stats{Recorded: recorded, Delivered: recorded - 1, Dropped: docevents.Drops{Rejected: 1}})
			if answerLost {
				b.wantStored(all...)
			} else {
				b.wantStored(others...)
			}
			b.wantAnswer(b.wantDrop(chosen, docevents.Rejected, answerLost), f.Answer)
		})
	}
	for _, tt := range []struct {
		fault   faultproxy.Fault
		unknown bool
		stored  []string
	}{
		{faultproxy.Page(403), false, others},
		{faultproxy.RequestLost(), true, others},
		{faultproxy.AnswerLost(), true, all},
	} {
		t.Run(tt.fault.Name, func(t *testing.T) {
			t.Parallel()
			b := fixture.open(t, docevents.WithMaxInFlight(1))
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
	fixture := newFixture(t)
	for _, name := range slices.Sorted(maps.Keys(plans)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := fixture.open(t, docevents.WithMaxInFlight(1))
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
		{faultproxy.HeaderLost("Prefer"), 0, true}, // the answer has no count
		{faultproxy.RequestLost(), old, true},      // the client can't know that it was lost
		{faultproxy.AnswerLost(), 0, true},
		{faultproxy.AnswerCut(faultproxy.CutHeader), 0, true},
		{faultproxy.Refusal(500, "57014", "statement timeout"), old, false},
		{faultproxy.Text(504, "").Committed(), 0, true},
		{faultproxy.Text(200, "null").Committed(), 0, true}, // the answer has neither ids nor a count
	} {
		for way, opts := range map[string][]docevents.Option{"at once": nil, "in steps": {docevents.WithPurgeBatch(100)}} {
			t.Run(way+"/"+tt.fault.Name, func(t *testing.T) {
				t.Parallel()
				b := newFixture(t).open(t, opts...)
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
	random := names(faultproxy.Random(1, 0.25, a, c), 1000)
	if !slices.Equal(random, names(faultproxy.Random(1, 0.25, a, c), 1000)) || slices.Equal(random, names(faultproxy.Random(2, 0.25, a, c), 1000)) {
		t.Error("Random: not the same with the same seed, or the same with another")
	}
	if n := len(slices.DeleteFunc(random, func(name string) bool { return name == "" })); n < 200 || n > 300 { // 250 expected, with a standard deviation of 14
		t.Errorf("Random: %d faults in 1,000 requests, want a quarter", n)
	}
}
