package docevents_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docevents/docevents-go"
)

// These tests have rows at fault: the server, or a gateway in front of it, refuses
// them and stores others.

func TestBadRowsAreDropped(t *testing.T) {
	for name, test := range map[string]struct{ events, every int }{
		"one in 1,000":             {1000, 1000},
		"one in 100 of 5,000":      {5000, 100},
		"every other row of 1,000": {1000, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &server{answer: answerBad(refusal, time.Millisecond)}
				c, o := newClient(t, s)
				for i := range test.events {
					c.Record(event([]string{"bad", "fine"}[min(1, (i+test.every/2)%test.every)]))
				}
				others := drain(t, c)
				bad := int64(test.events / test.every)
				n := int64(test.events) + others
				checkStats(t, c, &docevents.Stats{Recorded: n, Delivered: n - bad, Dropped: docevents.Drops{Rejected: bad}})
				checkReported(t, c, o)
				checkLost(t, o)
				for _, d := range o.lost() {
					if e, ok := errors.AsType[*docevents.Error](d.err); !ok || e.Code != "23514" || errors.Is(d.err, docevents.ErrOutcomeUnknown) {
						t.Fatalf("dropped with %v", d.err)
					}
				}
				checkQuiet(t, o)
			})
		})
	}
}

// If k of n rows are bad, they cost at most 2 k log2(n) + 10 requests. The test
// tries every set of bad rows in a small batch, and random and regular sets in
// large ones.
func TestSplittingIsBounded(t *testing.T) {
	check := func(t *testing.T, n int, bad map[int]bool) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			var release atomic.Bool
			s := &server{answer: func(r *request) *answer {
				if !release.Load() { // refuse everything until the n rows wait in one batch
					return &answer{delay: 10 * time.Millisecond, stored: true}
				}
				return answerBad(refusal, time.Millisecond)(r)
			}}
			c, o := newClient(t, s, docevents.WithMaxInFlight(1), docevents.WithMaxBatch(max(n, 1)))
			c.Record(event("first"))
			synctest.Wait()
			for i := range n {
				c.Record(event(map[bool]string{true: "bad", false: "fine"}[bad[i]]))
			}
			release.Store(true)
			others := drain(t, c)
			k, all := int64(len(bad)), int64(n)+1+others
			checkStats(t, c, &docevents.Stats{Recorded: all, Delivered: all - k, Dropped: docevents.Drops{Rejected: k}})
			checkLost(t, o)
			log2 := 0
			for 1<<log2 < n {
				log2++
			}
			if got, bound := s.sent()-1-int(others), 2*int(k)*log2+10; got > bound {
				t.Errorf("%d of %d rows are bad: %d requests, want at most %d", k, n, got, bound)
			}
		})
	}
	every := func(n, gap int) map[int]bool {
		bad := map[int]bool{}
		for i := 0; i < n; i += gap {
			bad[i] = true
		}
		return bad
	}
	for n := 1; n <= 5; n++ {
		for set := range 1 << n {
			bad := map[int]bool{}
			for i := range n {
				if set>>i&1 == 1 {
					bad[i] = true
				}
			}
			check(t, n, bad)
		}
	}
	rnd, large := rand.New(rand.NewPCG(1, 1)), 1000
	sets := []map[int]bool{every(large, 2), every(large, 3), every(large, 33)}
	if !isLong() {
		large = 100
		sets = []map[int]bool{every(large, 2), every(large, 9)}
	}
	for range 10 {
		bad := map[int]bool{}
		for range 1 << rnd.IntN(7) {
			bad[rnd.IntN(large)] = true
		}
		sets = append(sets, bad)
	}
	for _, bad := range sets {
		check(t, large, bad)
	}
}

// named contains answers whose details name the bad row.
var named = map[string]answer{
	"a CHECK": {status: 400, code: "23514", text: "refused", names: failingRow},
	"a CHECK, in German": {status: 400, code: "23514", text: "refused", names: func(r *wireRow) string {
		return strings.Replace(failingRow(r), "Failing row contains", "Fehlgeschlagene Zeile enthält", 1)
	}},
	"another unique key": {status: 409, code: "23505", text: "refused", names: func(r *wireRow) string {
		return "Key (document_id, stage)=(" + r.DocumentID + ", bad) already exists."
	}},
	"stored before": {status: 409, code: "23505", text: "refused", names: func(r *wireRow) string { return "Key (id)=(" + r.ID + ") already exists." }},
	"stored before, in German": {status: 409, code: "23505", text: "refused", names: func(r *wireRow) string {
		return "Schlüssel »(id)=(" + r.ID + ")« existiert bereits."
	}},
}

// A bad row that the answer names costs two requests: the batch that is rejected,
// and the row alone. The rest of its batch is not split.
func TestNamedRowsCostTwoRequests(t *testing.T) {
	for name, a := range named {
		for _, k := range []int{1, 10, 50} {
			t.Run(fmt.Sprintf("%s/%d of 500", name, k), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := &server{discard: true, answer: answerBad(a, 5*time.Millisecond)}
					c, o := newClient(t, s, docevents.WithMaxInFlight(2))
					c.Record(event("first")) // the 500 events wait for its answer, so they share one batch
					for i := range 500 {
						e := event([]string{"bad", "fine"}[min(1, i%(500/k))])
						e.DocumentID = fmt.Sprintf("22222222-2222-4222-8222-%012d", i)
						c.Record(e)
					}
					time.Sleep(30 * time.Millisecond)
					others := drain(t, c)
					if got := int(c.Stats().Requests) - 1 - int(others); got > 2*k+10 {
						t.Errorf("%d requests for %d bad rows", got, k)
					}
					all, rejected := 501+others, int64(k)
					if strings.HasPrefix(name, "stored before") {
						rejected = 0
					}
					checkStats(t, c, &docevents.Stats{Recorded: all, Delivered: all - rejected, Dropped: docevents.Drops{Rejected: rejected}})
					checkLost(t, o)
					for _, d := range o.lost() {
						if strings.Contains(fmt.Sprintf("%+v %#v", d.err, d.err), "secret") {
							t.Errorf("the details are in %v", d.err)
						}
					}
				})
			})
		}
	}
}

// The rows that an answer names are sent again after the shortest wait, and the rest
// of the batch at once.
func TestNamedRowsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: answerBad(named["a CHECK"], 5*time.Millisecond)}
		c, _ := newClient(t, s)
		c.Record(event("first")) // the others wait for it
		for i := range 10 {
			c.Record(event([]string{"bad", "fine"}[min(i, 1)]))
		}
		time.Sleep(time.Second)
		all := s.all()
		if len(all) < 4 {
			t.Fatalf("%d requests, want four: the first row, the batch, the rest, the row that is named", len(all))
		}
		if rest := all[2].at.Sub(all[1].at) - 5*time.Millisecond; len(all[2].rows) != 9 || rest != 0 {
			t.Errorf("%d rows were sent again after %s, want nine at once", len(all[2].rows), rest)
		}
		if wait := all[3].at.Sub(all[1].at) - 5*time.Millisecond; len(all[3].rows) != 1 || wait < 100*time.Millisecond || wait > 200*time.Millisecond {
			t.Errorf("%d rows were sent again after %s, want the named one after 100 to 200 ms", len(all[3].rows), wait)
		}
		closeNow(t, c)
	})
}

// Nothing is recorded after a batch with bad rows. The rest of the batch is
// stored soon, and is evidence enough to drop the rows that the answers name.
func TestNamedRowsOfTheLastBatch(t *testing.T) {
	for _, test := range []struct {
		delay time.Duration // the time until an answer
		bad   int
	}{
		{2 * time.Millisecond, 1},
		{2 * time.Millisecond, 10},
		{2 * time.Millisecond, 100},
		{8 * time.Millisecond, 10},
		{8 * time.Millisecond, 100},
	} {
		for _, inFlight := range []int{1, 4} {
			t.Run(fmt.Sprintf("%d bad rows/%s/%d in flight", test.bad, test.delay, inFlight), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := &server{discard: true, answer: func(r *request) *answer {
						if r.number == 0 {
							return &answer{delay: 20 * time.Millisecond, stored: true}
						}
						return answerBad(named["a CHECK"], test.delay)(r)
					}}
					c, _ := newClient(t, s, docevents.WithMaxInFlight(inFlight))
					c.Record(event("first"))
					synctest.Wait()
					for i := range 1000 {
						c.Record(event([]string{"bad", "fine"}[min(1, i%(1000/test.bad))]))
					}
					time.Sleep(5 * time.Second)
					checkStats(t, c, &docevents.Stats{Recorded: 1001, Delivered: int64(1001 - test.bad), Dropped: docevents.Drops{Rejected: int64(test.bad)}})
					if got := s.sent() - 1; got > 5*test.bad/2+10 {
						t.Errorf("%d requests, want at most %d", got, 5*test.bad/2+10)
					}
				})
			})
		}
	}
}

// If the last events include bad ones, Flush doesn't wait for further events, whose
// storing would be evidence.
func TestFlushDropsBadRows(t *testing.T) {
	for name, a := range map[string]answer{"named": named["a CHECK"], "unnamed": refusal} {
		for _, bad := range []int{1, 4, 20} {
			t.Run(fmt.Sprintf("%d bad rows, %s", bad, name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c, _ := newClient(t, &server{discard: true, answer: answerBad(a, 20*time.Millisecond)})
					for i := range 500 {
						c.Record(event([]string{"bad", "fine"}[min(1, i%(500/bad))]))
					}
					ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
					defer cancel()
					if err := c.Flush(ctx); err != nil {
						t.Error(err)
					}
					want := int64(bad)
					checkStats(t, c, &docevents.Stats{Recorded: 500, Delivered: 500 - want, Dropped: docevents.Drops{Rejected: want}})
				})
			})
		}
	}
}

// Bad rows are dropped even if other events are rare, and cost few requests until
// then.
func TestBadRowsAmongFewEvents(t *testing.T) {
	for _, bad := range []int{1, 2, 10} {
		for _, pause := range []time.Duration{time.Second, 10 * time.Second, time.Minute} {
			t.Run(fmt.Sprintf("%d bad rows, an event each %s", bad, pause), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := &server{discard: true, answer: answerBad(refusal, 5*time.Millisecond)}
					c, o := newClient(t, s)
					for range bad {
						c.Record(event("bad"))
					}
					for range 5 {
						c.Record(event("fine"))
						time.Sleep(pause)
					}
					checkStats(t, c, &docevents.Stats{Recorded: int64(bad) + 5, Delivered: 5, Dropped: docevents.Drops{Rejected: int64(bad)}})
					checkLost(t, o)
					if got := s.sent(); got > 6*bad+30 {
						t.Errorf("%d requests for %d bad rows", got, bad)
					}
				})
			})
		}
	}
}

// A batch with many bad rows is split until each of them is found, although other events
// are few and the answers refer to no row. The retries don't delay the other events.
func TestManyBadRowsInABatch(t *testing.T) {
	for _, inFlight := range []int{2, 4} {
		for _, pause := range []time.Duration{100 * time.Millisecond, time.Second} {
			t.Run(fmt.Sprintf("%d in flight, an event each %s", inFlight, pause), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := &server{discard: true}
					var slowest time.Duration // of the events that are recorded later
					s.answer = func(r *request) *answer {
						s.mu.Lock()
						defer s.mu.Unlock()
						if *r.rows[0].Stage == "other" {
							slowest = max(slowest, r.waited())
						}
						return answerBad(refusal, 20*time.Millisecond)(r)
					}
					c, o := newClient(t, s, docevents.WithMaxInFlight(inFlight))
					c.Record(event("fine")) // is sent at once, so the next rows form a batch
					for i := range 500 {
						c.Record(event([]string{"bad", "fine"}[min(1, i%10)]))
					}
					time.Sleep(30 * time.Millisecond) // the batch is in flight
					others := int64(time.Minute / pause)
					for range others {
						c.Record(event("other"))
						time.Sleep(pause)
					}
					time.Sleep(time.Second)
					s.mu.Lock()
					defer s.mu.Unlock()
					if slowest > 50*time.Millisecond {
						t.Errorf("an event waited %s", slowest)
					}
					checkStats(t, c, &docevents.Stats{Recorded: 501 + others, Delivered: 451 + others, Dropped: docevents.Drops{Rejected: 50}})
					checkLost(t, o)
				})
			})
		}
	}
}

// If the id is UNIQUE but not the primary key, the server rejects a batch that has
// an event twice. Only a row that is rejected alone is known to be stored. Both
// copies count as delivered, and no row that isn't stored does.
func TestIDThatIsNotThePrimaryKey(t *testing.T) {
	for _, in := range []string{"one batch", "two batches"} {
		t.Run(in, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &server{}
				s.answer = func(r *request) *answer {
					s.mu.Lock()
					defer s.mu.Unlock()
					ids := map[string]bool{}
					for _, row := range r.rows {
						if _, stored := s.rows[row.ID]; stored || ids[row.ID] {
							return &answer{status: 409, code: "23505", text: `duplicate key value violates unique constraint "events_id_key"`, details: "Key (id)=(" + row.ID + ") already exists."}
						}
						ids[row.ID] = true
					}
					return &answer{delay: 10 * time.Millisecond, stored: true}
				}
				c, o := newClient(t, s)
				c.Record(event("first")) // the other events wait for its answer
				twice := event("twice")
				twice.ID = "aaaaaaaa-0000-4000-8000-000000000001"
				c.Record(twice)
				if in == "two batches" {
					time.Sleep(time.Second)
				}
				for i := range 9 {
					c.Record(event(fmt.Sprint(i)))
				}
				c.Record(twice)
				time.Sleep(time.Second)
				if n := len(s.stages()); n != 11 || s.stages()["twice"] != 1 {
					t.Errorf("%d of 11 events are stored: %v", n, s.stages())
				}
				checkStats(t, c, &docevents.Stats{Recorded: 12, Delivered: 12})
				if len(o.lost()) > 0 {
					t.Errorf("lost %v", o.lost())
				}
			})
		})
	}
}

// If the details of an answer name a wrong row, no row or all rows, storing the
// events takes longer, but none is lost.
func TestMisleadingDetails(t *testing.T) {
	for name, details := range map[string]func(r *request) string{
		"two rows":      func(r *request) string { return failingRow(&r.rows[0]) + failingRow(&r.rows[len(r.rows)-1]) },
		"the first row": func(r *request) string { return failingRow(&r.rows[0]) },
		"a user of all rows": func(r *request) string {
			return "Key (user_id)=(" + r.rows[0].UserID + ") is not present in table \"users\"."
		},
		"an unknown id":            func(*request) string { return "Key (id)=(99999999-9999-4999-8999-999999999999) already exists." },
		"a key of several columns": func(r *request) string { return "Key (tenant, document_id)=(a, b, " + r.rows[0].DocumentID + ")" },
		"an empty key":             func(*request) string { return "Key ()=()" },
		"an empty row":             func(*request) string { return "Failing row contains ()." },
	} {
		for _, code := range []string{"23514", "23503", "22P02"} {
			t.Run(name+"/"+code, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := &server{answer: func(r *request) *answer {
						if r.bad() >= 0 {
							return &answer{delay: time.Millisecond, status: 400, code: code, text: "refused", details: details(r)}
						}
						return &answer{delay: time.Millisecond, stored: true}
					}}
					c, o := newClient(t, s)
					for i := range 103 {
						c.Record(event(map[bool]string{true: "bad", false: "fine"}[i%40 == 20]))
					}
					others := drain(t, c)
					checkStats(t, c, &docevents.Stats{Recorded: 103 + others, Delivered: 100 + others, Dropped: docevents.Drops{Rejected: 3}})
					checkLost(t, o)
					for _, r := range s.all() {
						if len(r.rows) == 0 {
							t.Error("a request of no rows")
						}
					}
				})
			})
		}
	}
}

// A row is dropped only if other rows were stored between its failures, because
// otherwise the server may be at fault. The second rejection drops a row, and so
// does the tenth failure of another kind after the first.
func TestLoneRowWaitsForEvidence(t *testing.T) {
	for name, test := range map[string]struct {
		answer answer
		others int64 // how many events are stored before the row is dropped
	}{
		"reset":        {answer{err: errReset}, 10},
		"a firewall":   {answer{status: 403, body: "<html>"}, 10},
		"refused data": {refusal, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &server{answer: answerBad(test.answer, 0)}
				c, o := newClient(t, s)
				c.Record(event("bad"))
				time.Sleep(3 * time.Hour)
				checkStats(t, c, &docevents.Stats{Recorded: 1, Pending: 1})
				for i := range int64(12) {
					c.Record(event("fine"))
					time.Sleep(time.Minute)
					if got := c.Stats(); got.Delivered != i+1 || (got.Dropped.Rejected > 0) != (i+1 >= test.others) {
						t.Errorf("%+v, want it dropped after %d others", got, test.others)
					}
				}
				checkLost(t, o)
				checkReported(t, c, o)
			})
		})
	}
}

// A gateway in front of the server refuses one row of a batch. That row is found,
// retried while others are stored, and dropped. No other row is lost.
func TestSuspectInABatch(t *testing.T) {
	for name, dislike := range map[string]answer{
		"a gateway answers 502 and HTML":      {status: 502, body: "<html>blocked</html>", header: map[string]string{"Content-Type": "text/html"}},
		"a firewall resets the connection":    {err: errReset},
		"the answer is lost after the commit": {err: errReset, stored: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &server{answer: answerBad(dislike, 2*time.Millisecond)}
				c, o := newClient(t, s)
				for i := range 1001 {
					c.Record(event([]string{"bad", "fine"}[min(1, (i+500)%1001)]))
				}
				for range 1000 {
					time.Sleep(200 * time.Millisecond)
					c.Record(event("fine"))
				}
				if err := c.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				checkStats(t, c, &docevents.Stats{Recorded: 2001, Delivered: 2000, Dropped: docevents.Drops{Rejected: 1}})
				checkLost(t, o)
				if err := o.lost()[0].err; !errors.Is(err, docevents.ErrOutcomeUnknown) || !strings.Contains(err.Error(), "10 failures while other events were stored") {
					t.Errorf("dropped with %v", err)
				}
				if got := s.stages()["fine"]; got != 2000 {
					t.Errorf("%d others stored", got)
				}
				if got := s.sent(); got > 1000+50 {
					t.Errorf("%d requests", got)
				}
				checkQuiet(t, o)
			})
		})
	}
}

// A row that refers to a missing row is not lost if that row comes later, although
// the client stores other rows in the meantime. The same is true of many such rows.
func TestForeignKeyThatComesLate(t *testing.T) {
	for name, test := range map[string]struct {
		rows  int
		names func(*wireRow) string
		late  time.Duration
	}{
		"one row":            {1, nil, 15 * time.Second},
		"many rows":          {200, nil, 20 * time.Second},
		"many rows of a key": {200, func(r *wireRow) string { return "Key (document_id)=(" + r.DocumentID + ") is not present." }, 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				missing := answerBad(answer{status: 409, code: "23503", text: "violates foreign key constraint", names: test.names}, 5*time.Millisecond)
				s := &server{discard: true, answer: func(r *request) *answer {
					if time.Since(begin) < test.late {
						return missing(r)
					}
					return &answer{delay: 5 * time.Millisecond}
				}}
				c, o := newClient(t, s)
				for range test.rows {
					e := event("bad")
					e.DocumentID = "33333333-3333-4333-8333-333333333333"
					c.Record(e)
					c.Record(event("fine"))
				}
				for range 600 { // for a minute
					c.Record(event("fine"))
					time.Sleep(100 * time.Millisecond)
				}
				all := int64(2*test.rows + 600)
				checkStats(t, c, &docevents.Stats{Recorded: all, Delivered: all})
				if lost := o.lost(); len(lost) > 0 {
					t.Errorf("%d lost: %v", len(lost), lost[0].err)
				}
				_ = c.Close(t.Context())
			})
		})
	}
}

func TestTableLockedLongerThanTheStatementTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		s := &server{discard: true, answer: func(*request) *answer {
			if time.Since(begin) < 20*time.Minute {
				return &answer{delay: 8 * time.Second, status: 500, code: "57014", text: "canceling statement due to statement timeout"}
			}
			return &answer{delay: time.Millisecond}
		}}
		c, _ := newClient(t, s)
		for range 5000 {
			c.Record(event("a"))
		}
		time.Sleep(20 * time.Minute)
		checkStats(t, c, &docevents.Stats{Recorded: 5000, Pending: 5000})
		if err := c.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		checkStats(t, c, &docevents.Stats{Recorded: 5000, Delivered: 5000})
	})
}

func TestTooMuchAtOnce(t *testing.T) {
	for name, a := range map[string]answer{
		"413":               {status: 413, body: "too large"},
		"statement timeout": {status: 500, code: "57014", text: "canceling statement due to statement timeout"},
		"damaged body":      {status: 400, code: "PGRST102", text: "Empty or invalid json"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &server{discard: true, answer: func(r *request) *answer {
					if len(r.rows) > 100 {
						return &a
					}
					return nil
				}}
				c, _ := newClient(t, s)
				for range 5000 {
					c.Record(event("a"))
				}
				if err := c.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
				checkStats(t, c, &docevents.Stats{Recorded: 5000, Delivered: 5000})
			})
		})
	}
}

// If a gateway removes the Prefer header, the server refuses a row that is sent
// again, because it has the row already.
func TestStoredBeforeIsDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		s.answer = func(r *request) *answer {
			s.mu.Lock()
			defer s.mu.Unlock()
			for _, row := range r.rows {
				if _, known := s.rows[row.ID]; known {
					return &answer{status: 409, code: "23505", text: `duplicate key value violates unique constraint "document_processing_events_pkey"`}
				}
			}
			if r.number == 0 {
				return &answer{stored: true, err: errReset}
			}
			return &answer{delay: 100 * time.Millisecond, stored: true}
		}
		c, _ := newClient(t, s)
		for i := range 50 {
			c.Record(event(fmt.Sprint(i)))
		}
		if err := c.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		checkStats(t, c, &docevents.Stats{Recorded: 50, Delivered: 50})
		if len(s.stages()) != 50 {
			t.Errorf("%d stored", len(s.stages()))
		}
	})
}

// A trigger inserts into another table, whose key has the same column name as the
// event's id. If the trigger violates that key, the event is not stored, so it doesn't
// count as delivered.
func TestDuplicateKeyOfAnotherTable(t *testing.T) {
	for name, key := range map[string]func(*wireRow) string{
		"a sequence that lags behind":  func(*wireRow) string { return "5" },
		"one row for each document":    func(row *wireRow) string { return row.DocumentID },
		"the id is a part of that key": func(row *wireRow) string { return "7, " + row.DocumentID },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &server{answer: answerBad(answer{
					status: 409, code: "23505", text: `duplicate key value violates unique constraint "audit_pkey"`,
					names: func(row *wireRow) string {
						columns := []string{"(id)", "(tenant, id)"}[strings.Count(key(row), ",")]
						return "Key " + columns + "=(" + key(row) + ") already exists."
					},
				}, time.Millisecond)}
				c, o := newClient(t, s)
				for i := range 100 {
					c.Record(event([]string{"bad", "fine"}[min(1, (i+50)%100)]))
				}
				others := drain(t, c)
				checkStats(t, c, &docevents.Stats{Recorded: 100 + others, Delivered: 99 + others, Dropped: docevents.Drops{Rejected: 1}})
				checkLost(t, o)
			})
		})
	}
}

// A slow server rejects each batch that has a bad row, and doesn't name the row. Close
// still delivers the others, although the server stores nothing for many seconds.
func TestCloseFindsBadRowsOnASlowServer(t *testing.T) {
	for _, delay := range []time.Duration{20 * time.Millisecond, 200 * time.Millisecond, time.Second, 4 * time.Second} {
		for _, bad := range []int{10, 50} {
			t.Run(fmt.Sprintf("%s/%d bad rows", delay, bad), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := &server{discard: true, answer: answerBad(refusal, delay)}
					c, o := newClient(t, s)
					for i := range 1000 {
						c.Record(event([]string{"bad", "fine"}[min(1, (i+5)%(1000/bad))]))
					}
					ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
					defer cancel()
					err := c.Close(ctx)
					if got := c.Stats(); got.Delivered != int64(1000-bad) {
						t.Errorf("%+v: %v", got, err)
					}
					for _, d := range o.lost() {
						if d.event.Stage != "bad" {
							t.Fatalf("lost %q: %s, %v", d.event.Stage, d.reason, d.err)
						}
					}
					if got, most := s.sent(), 2*bad*10+5*bad+10; got > most {
						t.Errorf("%d requests, want at most %d", got, most)
					}
				})
			})
		}
	}
}

// Bad rows at the head of every batch, or before all other rows, block nothing,
// since probes are drawn at random.
func TestBadRowsAtTheHead(t *testing.T) {
	for name, test := range map[string]struct {
		answer answer
		bad    func(i int) bool // reports whether row i of 1,000 is bad
		wait   time.Duration    // the time until most of the others are stored
		most   int
	}{
		"the head of every batch is rejected":    {refusal, func(i int) bool { return i%100 == 1 }, time.Minute, 990}, // the very first event is sent alone
		"the head of every batch causes a reset": {answer{err: errReset}, func(i int) bool { return i%100 == 1 }, time.Minute, 990},
		"the first 500 rows cause resets":        {answer{err: errReset}, func(i int) bool { return i < 500 }, 30 * time.Minute, 250},
	} {
		t.Run(name, func(t *testing.T) {
			repeats := 10 // probes are drawn at random
			if !isLong() {
				repeats = 3
			}
			for range repeats {
				synctest.Test(t, func(t *testing.T) {
					s := &server{answer: answerBad(test.answer, time.Millisecond)}
					c, o := newClient(t, s, docevents.WithMaxBatch(100), docevents.WithMaxInFlight(1+3*rand.IntN(2)))
					for i := range 1000 {
						c.Record(event(map[bool]string{true: "bad", false: "fine"}[test.bad(i)]))
					}
					time.Sleep(test.wait)
					if got := s.stages()["fine"]; got < test.most {
						t.Errorf("%d others stored within %s, want %d", got, test.wait, test.most)
					}
					closeNow(t, c)
					for _, d := range o.lost() {
						if d.event.Stage == "fine" && d.reason != docevents.Abandoned {
							t.Errorf("lost %q: %v", d.event.Stage, d.err)
						}
					}
				})
			}
		})
	}
}

// If the server always refuses some rows and never the others, no other row is lost
// or waits for long.
func TestBadRowsDelayNoOthers(t *testing.T) {
	const ms = time.Millisecond
	reset, firewall := answer{err: errReset}, answer{status: 403, body: "<html>blocked</html>"}
	for name, test := range map[string]struct {
		pause  time.Duration // between two events
		every  int           // one event of this many is bad
		delay  time.Duration // the time that a request takes
		answer answer
		most   time.Duration // the longest wait of another event
	}{
		"a firewall refuses one in 100":           {2 * ms, 100, 20 * ms, firewall, time.Second},
		"a firewall, slow requests, one in 100":   {2 * ms, 100, 40 * ms, firewall, 2 * time.Second},
		"a firewall, slower requests, one in 200": {2 * ms, 200, 60 * ms, firewall, 3 * time.Second},
		"a firewall refuses one in 20":            {10 * ms, 20, 5 * ms, firewall, time.Second},
		"a firewall that answers 406":             {10 * ms, 20, 5 * ms, answer{status: 406}, time.Second},
		"the connection is reset for one in 100":  {2 * ms, 100, 5 * ms, reset, time.Second},
		"the document of one in 20 was deleted":   {10 * ms, 20, 5 * ms, answer{status: 409, code: "23503"}, time.Second},
		"a trigger misses a function, one in 100": {100 * ms, 100, 5 * ms, answer{status: 404, code: "42883"}, time.Second},
		"a firewall, few events, one in five":     {10 * time.Second, 5, 5 * ms, firewall, 2 * time.Second},
		"a trigger, few events, one in five":      {10 * time.Second, 5, 5 * ms, answer{status: 404, code: "42P01"}, 2 * time.Second},
		"resets, an event a second, one in five":  {time.Second, 5, 5 * ms, reset, 2 * time.Second},
		"refused data, one in 20":                 {10 * ms, 20, 5 * ms, refusal, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				events := 60_000
				if !isLong() {
					events = 3000
				}
				events = min(events, int(time.Hour/test.pause))
				var slowest time.Duration
				s := &server{discard: true}
				s.answer = func(r *request) *answer {
					s.mu.Lock()
					defer s.mu.Unlock()
					if r.bad() < 0 {
						slowest = max(slowest, r.waited())
					}
					return answerBad(test.answer, test.delay)(r)
				}
				c, o := newClient(t, s)
				for i := range events {
					c.Record(event([]string{"bad", "fine"}[min(1, (i+test.every/2)%test.every)]))
					time.Sleep(test.pause)
				}
				closeNow(t, c)
				s.mu.Lock()
				defer s.mu.Unlock()
				if slowest > test.most {
					t.Errorf("an event waited %s for others, want %s at most", slowest, test.most)
				}
				checkStats(t, c, nil)
				for _, d := range o.lost() {
					if d.event.Stage == "fine" && d.reason != docevents.Abandoned {
						t.Errorf("lost %q: %s", d.event.Stage, d.reason)
					}
				}
			})
		})
	}
}

// Rows whose requests take a long time to fail don't use all requests in flight. Otherwise
// the other rows, which the server stores in 5 ms, would wait for minutes.
func TestSlowSuspectsDelayNoOthers(t *testing.T) {
	for name, bad := range map[string]answer{
		"a statement timeout": {status: 500, code: "57014", delay: 8 * time.Second},
		"a lock":              {status: 500, code: "55P03", delay: 8 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const perSecond, every = 100, 2000 // one bad row every 20 s
				seconds := 300
				if !isLong() {
					seconds = 120
				}
				late := 0
				s := &server{discard: true}
				s.answer = func(r *request) *answer {
					s.mu.Lock()
					defer s.mu.Unlock()
					if r.bad() < 0 && r.waited() > 10*time.Second {
						late += len(r.rows)
					}
					return answerBad(bad, 5*time.Millisecond)(r)
				}
				c, _ := newClient(t, s)
				for i := range seconds * perSecond {
					c.Record(event([]string{"bad", "fine"}[min(1, (i+every/2)%every)]))
					time.Sleep(time.Second / perSecond)
				}
				pending := c.Stats().Pending
				closeNow(t, c)
				if late > 60 || pending > 60 {
					t.Errorf("%d events waited for more than 10 s, %d are pending", late, pending)
				}
			})
		})
	}
}

// The table refuses every row for two seconds, once or twice, under a load with one
// bad row in 100. No row is lost that was refused only in these seconds.
func TestTableBreaksUnderBadRows(t *testing.T) {
	seeds := uint64(20)
	if !isLong() {
		seeds = 1
	}
	broken := named["a CHECK"]
	broken.code = "23502"
	for _, breaks := range []int{1, 2} {
		for _, isNamed := range []bool{false, true} {
			for seed := range seeds {
				t.Run(fmt.Sprintf("%d breaks/named %t/seed %d", breaks, isNamed, seed), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						rnd := rand.New(rand.NewPCG(seed, 9))
						begin := time.Now()
						isBroken := func() bool {
							at := time.Since(begin)
							return at > time.Second && at < 3*time.Second || breaks == 2 && at > 4*time.Second && at < 6*time.Second
						}
						s := &server{discard: true}
						s.answer = func(r *request) *answer {
							s.mu.Lock()
							delay := time.Duration(5+rnd.IntN(45)) * time.Millisecond
							until := time.Duration(rnd.IntN(int(delay)))
							s.mu.Unlock()
							time.Sleep(until) // the request reads the table at some time before its answer
							a := broken
							if !isNamed {
								a.names = nil
							}
							if isBroken() {
								if isNamed {
									a.details = failingRow(&r.rows[0])
								}
								a.delay = delay - until
								return &a
							}
							return answerBad(a, delay-until)(r)
						}
						c, o := newClient(t, s)
						for i := range 7000 {
							c.Record(event([]string{"bad", "fine"}[min(1, (i+50)%100)]))
							time.Sleep(time.Millisecond)
						}
						others := drain(t, c)
						checkStats(t, c, &docevents.Stats{Recorded: 7000 + others, Delivered: 6930 + others, Dropped: docevents.Drops{Rejected: 70}})
						checkLost(t, o)
					})
				})
			}
		}
	}
}

// The table starts to reject every row while two requests are in flight. It stores the
// row of the second request, and rejects the rows of the first. The stored row is no
// evidence against the others, even if no other row is pending. (If the first request has
// a single row, that row is dropped: Flush would otherwise wait for each bad row.)
func TestTableBreaksBetweenTwoAnswers(t *testing.T) {
	for _, rows := range []int{2, 3} {
		for _, isNamed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d rows/named %t", rows, isNamed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					begin := time.Now()
					s := &server{answer: func(r *request) *answer {
						switch {
						case r.has("first"):
							return &answer{delay: 10 * time.Millisecond, stored: true}
						case r.has("last"), time.Since(begin) > 10*time.Second:
							return nil
						}
						a := refusal
						a.delay = 100 * time.Millisecond
						if isNamed {
							a.details = failingRow(&r.rows[0])
						}
						return &a
					}}
					c, o := newClient(t, s)
					c.Record(event("first"))
					for range rows {
						c.Record(event("fine"))
					}
					time.Sleep(80 * time.Millisecond)
					c.Record(event("last"))
					time.Sleep(time.Minute)
					checkStats(t, c, &docevents.Stats{Recorded: int64(rows) + 2, Delivered: int64(rows) + 2})
					checkLost(t, o)
				})
			})
		}
	}
}

// The table starts to reject every row while the client looks for the bad row of the
// last batch. The half of the batch that is stored is no evidence against the others,
// since they are rejected for another reason now, even if the code is the same.
func TestTableBreaksDuringTheSearch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		s := &server{answer: func(r *request) *answer {
			switch {
			case r.bad() >= 0 && len(r.rows) > 2:
				return &answer{status: 400, code: "23514", text: `new row for relation "t" violates check constraint "known"`, delay: 5 * time.Millisecond}
			case (r.bad() >= 0 || len(r.rows) == 1) && r.number > 0 && time.Since(begin) < 10*time.Second:
				return &answer{status: 400, code: "23514", text: `new row for relation "t" violates check constraint "new"`, delay: 10 * time.Millisecond}
			}
			return &answer{stored: true, delay: 5 * time.Millisecond}
		}}
		c, o := newClient(t, s)
		for _, stage := range []string{"first", "bad", "fine", "fine", "fine"} {
			c.Record(event(stage))
		}
		time.Sleep(time.Minute)
		checkStats(t, c, &docevents.Stats{Recorded: 5, Delivered: 5})
		checkLost(t, o)
	})
}

// Thousands of rows wait because they refer to rows that are missing for a minute.
// No other row waits for long.
func TestMissingKeysOfManyRows(t *testing.T) {
	for _, inFlight := range []int{1, 4} {
		for _, isNamed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d in flight/named %t", inFlight, isNamed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					missing := answer{status: 409, code: "23503", text: "violates foreign key constraint"}
					if isNamed {
						missing.names = func(r *wireRow) string { return "Key (document_id)=(" + r.DocumentID + ") is not present." }
					}
					begin := time.Now()
					var slowest time.Duration
					s := &server{discard: true}
					s.answer = func(r *request) *answer {
						if time.Since(begin) < time.Minute && r.bad() >= 0 {
							return answerBad(missing, 20*time.Millisecond)(r)
						}
						s.mu.Lock()
						defer s.mu.Unlock()
						if r.bad() < 0 {
							slowest = max(slowest, r.waited())
						}
						return &answer{delay: 20 * time.Millisecond}
					}
					c, o := newClient(t, s, docevents.WithMaxInFlight(inFlight))
					late := 20_000
					if !isLong() {
						late = 500
					}
					for i := range late {
						e := event("bad")
						e.DocumentID = fmt.Sprintf("33333333-3333-4333-8333-%012d", i%10)
						c.Record(e)
					}
					for range 2000 {
						c.Record(event("fine"))
						time.Sleep(50 * time.Millisecond)
					}
					closeNow(t, c)
					if slowest > 2*time.Minute {
						t.Errorf("an event waited %s: %+v", slowest, c.Stats())
					}
					for _, d := range o.lost() {
						if d.event.Stage == "fine" && d.reason != docevents.Abandoned {
							t.Errorf("lost %q: %s", d.event.Stage, d.reason)
						}
					}
				})
			})
		}
	}
}

// The answers name one row of a batch after another, slowly and with no other
// traffic, so that the retry lane's breaker opens. Its probes are the other rows,
// not the ones that were named.
func TestManyNamedRowsDelayNoOthers(t *testing.T) {
	for _, bad := range []int{8, 20, 50} {
		t.Run(fmt.Sprint(bad), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := refusal
				a.names = failingRow
				c, _ := newClient(t, &server{answer: answerBad(a, 100*time.Millisecond)})
				c.Record(event("first"))
				time.Sleep(time.Millisecond)
				for i := range 1000 {
					c.Record(event([]string{"bad", "fine"}[min(1, i%(1000/bad))]))
				}
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				if err := c.Close(ctx); err != nil {
					t.Error(err)
				}
				checkStats(t, c, &docevents.Stats{Recorded: 1001, Delivered: 1001 - int64(bad), Dropped: docevents.Drops{Rejected: int64(bad)}})
			})
		})
	}
}
