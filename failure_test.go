package docevents_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docevents/docevents-go"
)

// A chancy server fails by itself now and then, and refuses bad rows; it takes
// 20 ms a request and 30 us a row.
type chancy struct {
	fails float64
	named bool // its refusals name the row
	every int  // each such event is bad; 0: none
}

// run delivers 100,000 events at once and returns how many a second that was.
func (ch chancy) run(t testing.TB, c *docevents.Client, events int) float64 {
	start := time.Now()
	for i := range events {
		e := event("a")
		if ch.every > 0 && i%ch.every == 0 {
			e.Stage = "poison"
		}
		c.Record(e)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
	defer cancel()
	if err := c.Flush(ctx); err != nil {
		t.Error(err)
	}
	speed := float64(events) / time.Since(start).Seconds()
	st := c.Stats()
	bad := 0
	if ch.every > 0 {
		bad = (events + ch.every - 1) / ch.every
	}
	if st.Delivered != int64(events-bad) || st.Dropped.Rejected != int64(bad) {
		t.Errorf("%d events, %d of them bad: %+v", events, bad, st)
	}
	return speed
}

func (ch chancy) server(seed uint64) *server {
	rnd := rand.New(rand.NewPCG(seed, 2))
	s := &server{discard: true}
	s.answer = func(r *request) *answer {
		a := &answer{delay: 20*time.Millisecond + time.Duration(len(r.rows))*30*time.Microsecond, stored: true}
		s.mu.Lock()
		failed := rnd.Float64() < ch.fails
		s.mu.Unlock()
		if failed {
			return &answer{delay: a.delay, status: 502, body: "bad gateway"}
		}
		if i := slices.IndexFunc(r.rows, func(row wireRow) bool { return isPoison(&row) }); i >= 0 {
			a = &answer{delay: a.delay, status: 400, code: "23514", text: "violates check constraint"}
			if ch.named {
				a.details = failingRow(&r.rows[i])
			}
		}
		return a
	}
	return s
}

// failingRow is what PostgreSQL says of a row.
func failingRow(row *wireRow) string {
	return fmt.Sprintf("Failing row contains (%s, %s, %s, completed, null, null, poison, 2026-01-02 03:04:05+00).", row.ID, row.DocumentID, row.UserID)
}

// Some requests fail by themselves, some rows are bad: the rest is hardly
// slower for it. The bars are shares of the speed without any of it.
func TestSpeedByFailureRate(t *testing.T) {
	events := 100_000
	if testing.Short() {
		events = 20_000
	}
	speed := func(ch chancy) (s float64) {
		synctest.Test(t, func(t *testing.T) {
			c, _ := newClient(t, ch.server(1), docevents.WithDropHandler(nil))
			s = ch.run(t, c, events)
			_ = c.Close(t.Context())
		})
		return s
	}
	clean := speed(chancy{})
	for _, rate := range []float64{0, 0.01, 0.1, 0.2, 0.35} {
		failing := speed(chancy{fails: rate})
		if failing < clean*(1-rate)/2 {
			t.Errorf("%.0f %% of the requests fail: %.0f events/s, without %.0f", 100*rate, failing, clean)
		}
		named := speed(chancy{fails: rate, every: 1009, named: true})
		unnamed := speed(chancy{fails: rate, every: 1009})
		t.Logf("%2.0f %% of the requests fail: %6.0f events/s; with bad rows that are named %6.0f, not named %6.0f", 100*rate, failing, named, unnamed)
		if testing.Short() {
			continue // the last row's waits are too much of it
		}
		if named < failing/4 || unnamed < failing/10 {
			t.Errorf("%.0f %% of the requests fail: with bad rows that are named %.0f events/s, not named %.0f, without %.0f", 100*rate, named, unnamed, failing)
		}
	}
}

func TestSteadyTrafficWhileAThirdFails(t *testing.T) {
	for seed := range uint64(3) {
		synctest.Test(t, func(t *testing.T) {
			c, _ := newClient(t, chancy{fails: 0.35}.server(seed))
			most := int64(0)
			for range 60_000 {
				c.Record(event("a"))
				time.Sleep(time.Millisecond)
				most = max(most, c.Stats().Pending)
			}
			if most > 1000 {
				t.Errorf("seed %d: up to %d pending", seed, most)
			}
			_ = c.Close(t.Context())
		})
	}
}

// Half of the requests fail, one at a time: what failed is joined, or the queue
// grows for ever.
func TestHalfOfTheRequestsFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := newClient(t, chancy{fails: 0.5}.server(1), docevents.WithMaxInFlight(1))
		for range 20 * 3600 {
			c.Record(event("a"))
			time.Sleep(50 * time.Millisecond)
		}
		if s := c.Stats(); s.Pending > 200 {
			t.Errorf("at 20 events/s, %d pending after an hour, %d delivered by %d requests", s.Pending, s.Delivered, s.Requests)
		}
		_ = c.Close(t.Context())
	})
}

// Rows that are never taken, among others that always are: no other waits for
// long, and none is lost.
func TestBadRowsHoldUpNobody(t *testing.T) {
	reset := answer{err: errReset}
	for name, test := range map[string]struct {
		perSecond, every int
		answer           answer
	}{
		"a firewall dislikes one in 100":          {500, 100, answer{status: 403, body: "<html>blocked</html>"}},
		"a firewall dislikes one in 20":           {100, 20, answer{status: 403, body: "<html>blocked</html>"}},
		"a firewall that answers 406":             {100, 20, answer{status: 406}},
		"the connection is reset for one in 100":  {500, 100, reset},
		"the document of one in 20 was deleted":   {100, 20, answer{status: 409, code: "23503", text: "violates foreign key constraint"}},
		"a trigger misses a function, one in 100": {10, 100, answer{status: 404, code: "42883", text: "function audit(text) does not exist"}},
		"a trigger misses a table, one in 100":    {100, 100, answer{status: 404, code: "42P01", text: `relation "audit" does not exist`}},
		"refused data, one in 20":                 {100, 20, answer{status: 400, code: "22001", text: "value too long"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				recorded := map[string]time.Time{}
				var slowest time.Duration
				s := &server{}
				s.answer = func(r *request) *answer {
					a := &answer{delay: 5 * time.Millisecond, stored: true}
					if slices.ContainsFunc(r.rows, func(row wireRow) bool { return isPoison(&row) }) {
						bad := test.answer
						bad.delay = 5 * time.Millisecond
						return &bad
					}
					s.mu.Lock()
					defer s.mu.Unlock()
					for _, row := range r.rows {
						slowest = max(slowest, time.Since(recorded[*row.Stage]))
						delete(recorded, *row.Stage)
					}
					return a
				}
				c, o := newClient(t, s)
				for i := range 120 * test.perSecond { // two minutes
					stage := fmt.Sprint(i)
					if i%test.every == test.every/2 {
						stage = "poison " + stage
					}
					s.mu.Lock()
					recorded[stage] = time.Now()
					s.mu.Unlock()
					c.Record(event(stage))
					time.Sleep(time.Second / time.Duration(test.perSecond))
				}
				if slowest > 2*time.Second {
					t.Errorf("an event waited %s for others", slowest)
				}
				ended, cancel := context.WithCancel(t.Context())
				cancel()
				_ = c.Close(ended)
				checkStats(t, c, nil)
				for _, d := range o.lost() {
					if !strings.HasPrefix(d.event.Stage, "poison") && d.reason != docevents.Abandoned {
						t.Errorf("lost %q: %s", d.event.Stage, d.reason)
					}
				}
			})
		})
	}
}

// However long an outage was: few requests in it, and full ones after it.
func TestOutagesLeaveNoTraces(t *testing.T) {
	for _, test := range []struct {
		length time.Duration
		most   int // requests in it
	}{{10 * time.Minute, 60}, {24 * time.Hour, 4200}, {7 * 24 * time.Hour, 28_000}} {
		for name, fault := range map[string]answer{
			"down":          {err: errReset},
			"503":           {status: 503},
			"too slow":      {delay: time.Second, status: 500, code: "57014", text: "canceling statement due to statement timeout"},
			"refused data":  {status: 400, code: "22P02", text: "invalid input syntax for type bigint"},
			"a refused key": {status: 401},
		} {
			t.Run(fmt.Sprint(test.length, " ", name), func(t *testing.T) {
				if testing.Short() && test.length > 10*time.Minute {
					t.Skip("longer outages take more than a second each")
				}
				synctest.Test(t, func(t *testing.T) {
					var up atomic.Bool
					s := &server{discard: true, answer: func(*request) *answer {
						if up.Load() {
							return &answer{delay: 5 * time.Millisecond, stored: true}
						}
						a := fault
						a.delay += 5 * time.Millisecond
						return &a
					}}
					c, _ := newClient(t, s)
					const events = 100_000
					for range events {
						c.Record(event("a"))
					}
					time.Sleep(test.length)
					in := int(c.Stats().Requests)
					up.Store(true)
					if err := c.Flush(t.Context()); err != nil {
						t.Fatal(err)
					}
					after := int(c.Stats().Requests) - in
					t.Logf("%d requests in it, %d after it", in, after)
					if in > test.most || after > 110 {
						t.Errorf("%d requests in it, want at most %d; %d after it, want at most 110", in, test.most, after)
					}
					checkStats(t, c, &docevents.Stats{Recorded: events, Delivered: events})
					_ = c.Close(t.Context())
				})
			})
		}
	}
}

// What every row gets is the table's fault, whatever the code: the events wait,
// one line says so, all arrive once it is mended.
func TestTheTablesFault(t *testing.T) {
	for name, a := range map[string]answer{
		"a bigint id":                      {status: 400, code: "22P02", text: `invalid input syntax for type bigint: "11111111-1111-4111-8111-111111111111"`},
		"a column nobody fills":            {status: 400, code: "23502", text: `null value in column "tenant_id" of relation "document_processing_events" violates not-null constraint`},
		"no partition":                     {status: 400, code: "23514", text: `no partition of relation "document_processing_events" found for row`},
		"a type that the CHECK lacks":      {status: 400, code: "23514", text: `new row violates check constraint "document_processing_events_event_type_check"`},
		"a cached plan":                    {status: 400, code: "0A000", text: "cached plan must not change result type"},
		"a trigger that always raises":     {status: 400, code: "P0001", text: "not today"},
		"a unique constraint on documents": {status: 409, code: "23505", text: `duplicate key value violates unique constraint "one_per_document"`},
	} {
		for _, named := range []bool{false, true} {
			for _, events := range []int{1, 3, 1000, 5000} {
				t.Run(fmt.Sprintf("%s/named %t/%d events", name, named, events), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						mended := time.Now().Add(time.Minute)
						s := &server{answer: func(r *request) *answer {
							if time.Now().After(mended) {
								return nil
							}
							a := a
							if named {
								a.details = failingRow(&r.rows[0])
							}
							return &a
						}}
						c, o := newClient(t, s)
						for range events {
							c.Record(event("a"))
							if events < 10 {
								time.Sleep(100 * time.Millisecond)
							}
						}
						time.Sleep(2 * time.Minute)
						checkStats(t, c, &docevents.Stats{Recorded: int64(events), Delivered: int64(events)})
						if n := c.Stats().Requests; n > 60 {
							t.Errorf("%d requests", n)
						}
						loud := 0
						for _, l := range o.logged() {
							if strings.Contains(l.text, "until this is mended") {
								loud++
							}
						}
						if loud == 0 || loud > 3 { // at once, and its sums
							t.Errorf("%d loud lines in a minute", loud)
						}
						_ = c.Close(t.Context())
					})
				})
			}
		}
	}
}

// The table is fine for most: bad rows cost a request each where they are
// named, and their batch goes on whole.
func TestNamedRowsCostARequestEach(t *testing.T) {
	for name, test := range map[string]struct {
		status  int
		code    string
		details func(row *wireRow) string
		stored  bool // the row counts as delivered
		doomed  bool // it is given up at once
	}{
		"a CHECK":    {400, "23514", failingRow, false, true},
		"a NOT NULL": {400, "23502", failingRow, false, true},
		"a CHECK, in German": {400, "23514", func(r *wireRow) string {
			return strings.Replace(failingRow(r), "Failing row contains", "Fehlgeschlagene Zeile enthält", 1)
		}, false, true},
		"stored before":         {409, "23505", func(r *wireRow) string { return "Key (id)=(" + r.ID + ") already exists." }, true, false},
		"stored before, German": {409, "23505", func(r *wireRow) string { return "Schlüssel »(id)=(" + r.ID + ")« existiert bereits." }, true, false},
		"a foreign key": {409, "23503", func(r *wireRow) string {
			return "Key (document_id)=(" + r.DocumentID + ") is not present in table \"documents\"."
		}, false, false},
		"another unique key": {409, "23505", func(r *wireRow) string {
			return "Key (document_id, stage)=(" + r.DocumentID + ", poison) already exists."
		}, false, true},
	} {
		for _, k := range []int{1, 4, 10, 100} {
			t.Run(fmt.Sprintf("%s/%d of 1,000", name, k), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := &server{}
					s.answer = func(r *request) *answer {
						for i := range r.rows {
							if isPoison(&r.rows[i]) {
								return &answer{delay: 5 * time.Millisecond, status: test.status, code: test.code, text: "refused", details: test.details(&r.rows[i])}
							}
						}
						if r.number == 0 {
							return &answer{delay: 100 * time.Millisecond, stored: true}
						}
						return &answer{delay: 5 * time.Millisecond, stored: true}
					}
					c, o := newClient(t, s, docevents.WithMaxInFlight(2))
					c.Record(event("first")) // the 1,000 wait for it, so that they are one batch
					for i := range 1000 {
						e := event(fmt.Sprint(i))
						if i%(1000/k) == 0 {
							e = event("poison")
							e.DocumentID = fmt.Sprintf("22222222-2222-4222-8222-%012d", i)
						}
						c.Record(e)
					}
					others := 0
					for c.Stats().Delivered < int64(1001-k+others) || c.Stats().Pending > 0 && (test.doomed || test.stored) {
						time.Sleep(20 * time.Millisecond)
						c.Record(event("other"))
						others++
						if others > 1000 {
							t.Fatalf("%+v", c.Stats())
						}
						time.Sleep(5 * time.Millisecond)
					}
					if got := int(c.Stats().Requests) - 1 - others; (test.doomed || test.stored) && got > k+10 || got > 3*k+10 {
						t.Errorf("%d requests for %d bad rows", got, k)
					}
					if st := c.Stats(); test.stored && st.Delivered+st.Pending != st.Recorded || !test.stored && test.doomed && st.Dropped.Rejected != int64(k) {
						t.Errorf("%+v", st)
					}
					for _, d := range o.lost() {
						if d.event.Stage != "poison" {
							t.Errorf("lost %q", d.event.Stage)
						}
						if strings.Contains(fmt.Sprintf("%+v %#v", d.err, d.err), "Failing") {
							t.Errorf("the details are in %v", d.err)
						}
					}
					ended, cancel := context.WithCancel(t.Context())
					cancel()
					_ = c.Close(ended)
				})
			})
		}
	}
}

// An answer that names another row than the one that is bad, or none, or all,
// costs time, and no event.
func TestMisleadingDetails(t *testing.T) {
	for name, details := range map[string]func(r *request) string{
		"two rows": func(r *request) string { return failingRow(&r.rows[0]) + failingRow(&r.rows[len(r.rows)-1]) },
		"everybody's user": func(r *request) string {
			return "Key (user_id)=(" + r.rows[0].UserID + ") is not present in table \"users\"."
		},
		"a stranger":        func(r *request) string { return "Key (id)=(99999999-9999-4999-8999-999999999999) already exists." },
		"a composed key":    func(r *request) string { return "Key (tenant, document_id)=(a, b, " + r.rows[0].DocumentID + ")" },
		"an odd key":        func(r *request) string { return "Key ()=()" },
		"nothing in braces": func(r *request) string { return "Failing row contains ()." },
	} {
		for _, code := range []string{"23514", "23503", "22P02"} {
			t.Run(name+"/"+code, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := &server{}
					s.answer = func(r *request) *answer {
						if r.has("poison") {
							return &answer{delay: time.Millisecond, status: 400, code: code, text: "refused", details: details(r)}
						}
						return &answer{delay: time.Millisecond, stored: true}
					}
					c, o := newClient(t, s)
					for i := range 300 {
						if i%100 == 50 {
							c.Record(event("poison"))
						}
						c.Record(event("fine"))
					}
					for range 300 {
						c.Record(event("later"))
						time.Sleep(time.Second)
					}
					checkStats(t, c, &docevents.Stats{Recorded: 603, Delivered: 600, Dropped: docevents.Drops{Rejected: 3}})
					for _, d := range o.lost() {
						if d.event.Stage != "poison" {
							t.Errorf("lost %q", d.event.Stage)
						}
					}
					_ = c.Close(t.Context())
				})
			})
		}
	}
}

// A refusal of one second on a client that delivers has no victims: the table
// was remade, and its cache is stale.
func TestRefusedForAMoment(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 3))
			begin := time.Now()
			s := &server{answer: func(r *request) *answer {
				if at := time.Since(begin); at > 2*time.Second && at < 3*time.Second {
					return &answer{delay: 5 * time.Millisecond, status: 400, code: "23502", text: "null value", details: failingRow(&r.rows[0])}
				}
				return &answer{delay: 5 * time.Millisecond, stored: true}
			}}
			c, o := newClient(t, s)
			for range 1000 {
				c.Record(event("a"))
				time.Sleep(time.Duration(rnd.IntN(20)) * time.Millisecond)
			}
			if err := c.Close(t.Context()); err != nil {
				t.Error(err)
			}
			if lost := o.lost(); len(lost) > 0 {
				t.Errorf("seed %d: %d lost: %v", seed, len(lost), lost[0].err)
			}
		})
	}
}

// Rows that wait hold on to no others.
func TestWaitingRowsHoldOnToNoOthers(t *testing.T) {
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	synctest.Test(t, func(t *testing.T) {
		var held atomic.Bool
		held.Store(true)
		s := &server{discard: true, answer: func(r *request) *answer {
			for held.Load() {
				time.Sleep(10 * time.Millisecond)
			}
			if r.has("early") {
				return &answer{delay: time.Millisecond, status: 409}
			}
			return &answer{delay: time.Millisecond, stored: true}
		}}
		c, _ := newClient(t, s)
		c.Record(event(""))
		synctest.Wait()
		for range 99 {
			for i := range 1000 {
				c.Record(event([]string{"", "early"}[i/999]))
			}
		}
		held.Store(false)
		for c.Stats().Pending > 99 {
			time.Sleep(100 * time.Millisecond)
		}
		if grown := heap() - before; grown > 2<<20 {
			t.Errorf("%d rows pending, %d bytes by Stats, %d KiB on the heap", c.Stats().Pending, c.Stats().PendingBytes, grown>>10)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		_ = c.Close(ended)
	})
}

// A transport that ends its goroutine costs a retry, as one that panics does.
func TestForeignTransportEndsItsGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(r *request) *answer {
			if r.number == 0 {
				runtime.Goexit()
			}
			return nil
		}}
		c, o := newClient(t, s, docevents.WithMaxInFlight(1))
		c.Record(event("a"))
		if err := c.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		checkStats(t, c, &docevents.Stats{Recorded: 1, Delivered: 1})
		if lines := o.logged(); len(lines) == 0 || !strings.Contains(lines[0].text, "the transport ended its goroutine") {
			t.Errorf("logged %v", lines)
		}
		_ = c.Close(t.Context())
	})
}

// What is said of a row's outcome is true of that row.
func TestOutcomeUnknownIsTrue(t *testing.T) {
	for name, test := range map[string]struct {
		answers []answer // the last one for ever
		want    bool
	}{
		"never an answer":               {[]answer{{err: errReset}}, true},
		"a refusal":                     {[]answer{{status: 403, body: "<html>"}}, false},
		"a refusal after a lost answer": {[]answer{{err: errReset}, {status: 403}}, true},
		"a database's error":            {[]answer{{status: 500, code: "XX000"}}, false},
		"a gateway's":                   {[]answer{{status: 502}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := 0
				s := &server{answer: func(r *request) *answer {
					if !r.has("poison") {
						return nil
					}
					n++
					return &test.answers[min(n, len(test.answers))-1]
				}}
				c, o := newClient(t, s)
				c.Record(event("poison"))
				for range 20 {
					time.Sleep(40 * time.Second)
					c.Record(event("fine"))
				}
				lost := o.lost()
				if len(lost) != 1 || lost[0].reason != docevents.Rejected || errors.Is(lost[0].err, docevents.ErrOutcomeUnknown) != test.want {
					t.Errorf("lost %v", lost)
				}
				_ = c.Close(t.Context())
			})
		})
	}
}
