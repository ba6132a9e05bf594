package docevents_test

import (
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

// longestWait returns a function that returns how long an event with the stage waited at
// most until it was sent. Requests with other events don't count.
func longestWait(s *server, stage string) func() time.Duration {
	var longest atomic.Int64
	next := s.answer
	s.answer = func(r *request) *answer {
		for _, row := range r.rows {
			if *row.Stage != stage {
				return next(r)
			}
		}
		longest.Store(max(longest.Load(), int64(r.waited())))
		return next(r)
	}
	return func() time.Duration { return time.Duration(longest.Load()) }
}

// If k of n rows are bad, they cost at most 2 k log2(n) + 10 requests. The test
// tries every set of bad rows in a small batch, and random and regular sets in
// a large one.
func TestSplittingIsBounded(t *testing.T) {
	check := func(n int, isBad func(i int) bool) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			var release atomic.Bool
			s := &server{discard: true, answer: func(r *request) *answer {
				if !release.Load() { // the n rows wait for this answer, so they share one batch
					return &answer{delay: 10 * time.Millisecond, stored: true}
				}
				return answerBad(refusal, time.Millisecond)(r)
			}}
			c, o := newClient(t, s, docevents.WithMaxInFlight(1), docevents.WithMaxBatch(n))
			c.Record(event("first"))
			synctest.Wait()
			recordMixed(c, n, isBad)
			release.Store(true)
			others := drain(t, c)
			k, log2 := 0, 0
			for i := range n {
				if isBad(i) {
					k++
				}
			}
			for 1<<log2 < n {
				log2++
			}
			checkRejected(t, c, o, int64(n)+1+others, int64(k))
			if got, bound := s.sent()-1-int(others), 2*k*log2+10; got > bound {
				t.Errorf("%d of %d rows are bad: %d requests, want at most %d", k, n, got, bound)
			}
		})
	}
	for n := 1; n <= 4; n++ {
		for set := range 1 << n {
			check(n, func(i int) bool { return set>>i&1 == 1 })
		}
	}
	const large = 100
	for _, every := range []int{2, 3, 9, 33} {
		check(large, oneIn(every, 0))
	}
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 10 {
		bad := map[int]bool{}
		for range 1 << rnd.IntN(7) {
			bad[rnd.IntN(large)] = true
		}
		check(large, func(i int) bool { return bad[i] })
	}
}

// named contains answers whose details name the bad row.
var named = map[string]answer{
	"a CHECK": {status: 400, code: "23514", text: "refused", names: failingRow},
	"another unique key": {status: 409, code: "23505", text: "refused", names: func(r *wireRow) string {
		return "Key (document_id, stage)=(" + r.DocumentID + ", bad) already exists."
	}},
	"stored before": {status: 409, code: "23505", text: "refused", names: func(r *wireRow) string { return "Key (id)=(" + r.ID + ") already exists." }},
}

// A bad row that the answer names costs two requests: the batch that is rejected,
// and the row alone. The rest of its batch is not split.
func TestNamedRowsCostTwoRequests(t *testing.T) {
	for name, a := range named {
		for _, k := range []int{1, 50} {
			inBubble(t, fmt.Sprintf("%s/%d of 500", name, k), func(t *testing.T) {
				s := &server{discard: true, answer: answerBad(a, 5*time.Millisecond)}
				c, o := newClient(t, s, docevents.WithMaxInFlight(2))
				c.Record(event("first")) // the 500 events wait for its answer, so they share one batch
				for i := range 500 {
					e := event(fineOrBad(i%(500/k) == 0))
					e.DocumentID = fmt.Sprintf("22222222-2222-4222-8222-%012d", i)
					c.Record(e)
				}
				time.Sleep(30 * time.Millisecond)
				others := drain(t, c)
				if got := s.sent() - 1 - int(others); got > 2*k+10 {
					t.Errorf("%d requests for %d bad rows", got, k)
				}
				rejected := int64(k)
				if name == "stored before" {
					rejected = 0
				}
				checkRejected(t, c, o, 501+others, rejected)
				for _, d := range o.lost() {
					if strings.Contains(fmt.Sprintf("%+v %#v", d.err, d.err), "secret") {
						t.Errorf("the details are in %v", d.err)
					}
				}
			})
		}
	}
}

// The rows that an answer names are sent again after the shortest wait, and the rest
// of the batch at once.
func TestNamedRowsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const delay = 5 * time.Millisecond
		s := &server{answer: answerBad(named["a CHECK"], delay)}
		c, _ := newClient(t, s)
		c.Record(event("first")) // the others wait for it
		recordMixed(c, 10, oneIn(10, 0))
		time.Sleep(time.Second)
		all := s.all()
		if len(all) < 4 {
			t.Fatalf("%d requests, want four: the first row, the batch, the rest, the row that is named", len(all))
		}
		answered := all[1].at.Add(delay)
		if rest := all[2].at.Sub(answered); len(all[2].rows) != 9 || rest != 0 {
			t.Errorf("%d rows were sent again after %s, want nine at once", len(all[2].rows), rest)
		}
		if wait := all[3].at.Sub(answered); len(all[3].rows) != 1 || wait < 100*time.Millisecond || wait > 200*time.Millisecond {
			t.Errorf("%d rows were sent again after %s, want the named one after 100 to 200 ms", len(all[3].rows), wait)
		}
		closeNow(t, c)
	})
}

// The answers name one row of a batch after another, slowly and with no other
// traffic, so that the retry lane's breaker opens. Its probes are the other rows,
// not the ones that were named.
func TestManyNamedRowsDelayNoOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, o := newClient(t, &server{discard: true, answer: answerBad(named["a CHECK"], 100*time.Millisecond)})
		c.Record(event("first"))
		time.Sleep(time.Millisecond)
		recordMixed(c, 1000, oneIn(20, 0))
		if err := within(20*time.Second, c.Close); err != nil {
			t.Error(err)
		}
		checkRejected(t, c, o, 1001, 50)
	})
}

// If the last events include bad ones, Flush doesn't wait for further events, whose
// storing would be evidence. A row that the answer names costs few requests.
func TestFlushDropsBadRows(t *testing.T) {
	for name, a := range map[string]answer{"named": named["a CHECK"], "unnamed": refusal} {
		for _, bad := range []int{1, 20} {
			for _, inFlight := range []int{1, 4} {
				inBubble(t, fmt.Sprintf("%d bad rows, %s, %d in flight", bad, name, inFlight), func(t *testing.T) {
					s := &server{discard: true, answer: answerBad(a, 10*time.Millisecond)}
					c, o := newClient(t, s, docevents.WithMaxInFlight(inFlight))
					recordMixed(c, 500, oneIn(500/bad, 0))
					if err := within(3*time.Second, c.Flush); err != nil {
						t.Error(err)
					}
					checkRejected(t, c, o, 500, int64(bad))
					if got, most := s.sent(), 5*bad/2+10; name == "named" && got > most {
						t.Errorf("%d requests, want at most %d", got, most)
					}
					closeNow(t, c)
				})
			}
		}
	}
}

// Bad rows are dropped even if other events are rare, and cost few requests until
// then.
func TestBadRowsAmongFewEvents(t *testing.T) {
	for _, bad := range []int{1, 10} {
		for _, pause := range []time.Duration{time.Second, time.Minute} {
			inBubble(t, fmt.Sprintf("%d bad rows, an event each %s", bad, pause), func(t *testing.T) {
				s := &server{discard: true, answer: answerBad(refusal, 5*time.Millisecond)}
				c, o := newClient(t, s)
				recordMany(c, bad, "bad")
				for range 5 {
					c.Record(event("fine"))
					time.Sleep(pause)
				}
				checkRejected(t, c, o, int64(bad)+5, int64(bad))
				checkReported(t, c, o)
				checkQuiet(t, o)
				for _, d := range o.lost() {
					if answerIn(d.err).Code != refusal.code || errors.Is(d.err, docevents.ErrOutcomeUnknown) {
						t.Errorf("dropped with %v", d.err)
					}
				}
				if got := s.sent(); got > 6*bad+30 {
					t.Errorf("%d requests for %d bad rows", got, bad)
				}
			})
		}
	}
}

// A batch with many bad rows is split until each of them is found, although other events
// are few and the answers refer to no row. The retries don't delay the other events.
func TestManyBadRowsInABatch(t *testing.T) {
	for pause, inFlight := range map[time.Duration]int{100 * time.Millisecond: 2, time.Second: 4} {
		inBubble(t, fmt.Sprintf("%d in flight, an event each %s", inFlight, pause), func(t *testing.T) {
			s := &server{discard: true, answer: answerBad(refusal, 20*time.Millisecond)}
			longest := longestWait(s, "other")
			c, o := newClient(t, s, docevents.WithMaxInFlight(inFlight))
			c.Record(event("fine")) // is sent at once, so the next rows form a batch
			recordMixed(c, 500, oneIn(10, 0))
			time.Sleep(30 * time.Millisecond) // the batch is in flight
			others := int64(time.Minute / pause)
			for range others {
				c.Record(event("other"))
				time.Sleep(pause)
			}
			time.Sleep(time.Second)
			if longest() > 50*time.Millisecond {
				t.Errorf("an event waited %s", longest())
			}
			checkRejected(t, c, o, 501+others, 50)
		})
	}
}

// If the id is UNIQUE but not the primary key, the server rejects a batch that has
// an event twice. Only a row that is rejected alone is known to be stored. Both
// copies count as delivered, and no row that isn't stored does.
func TestIDThatIsNotThePrimaryKey(t *testing.T) {
	for in, pause := range map[string]time.Duration{"one batch": 0, "two batches": time.Second} {
		inBubble(t, in, func(t *testing.T) {
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
			time.Sleep(pause)
			for i := range 9 {
				c.Record(event(fmt.Sprint(i)))
			}
			c.Record(twice)
			time.Sleep(time.Second)
			if n := len(s.stages()); n != 11 || s.stages()["twice"] != 1 {
				t.Errorf("%d of 11 events are stored: %v", n, s.stages())
			}
			checkRejected(t, c, o, 12, 0)
		})
	}
}

// If the details of an answer name a wrong row, no row or all rows, storing the
// events takes longer, but none is lost.
func TestMisleadingDetails(t *testing.T) {
	for name, details := range map[string]func(r *request) string{
		"two rows":           func(r *request) string { return failingRow(&r.rows[0]) + failingRow(&r.rows[len(r.rows)-1]) },
		"the first row":      func(r *request) string { return failingRow(&r.rows[0]) },
		"a user of all rows": func(r *request) string { return "Key (user_id)=(" + r.rows[0].UserID + ") is not present." },
		"an unknown id":      func(*request) string { return "Key (id)=(99999999-9999-4999-8999-999999999999) already exists." },
	} {
		for _, code := range []string{"23514", "23503"} {
			inBubble(t, name+"/"+code, func(t *testing.T) {
				s := &server{answer: func(r *request) *answer {
					if r.bad() >= 0 {
						return &answer{delay: time.Millisecond, status: 400, code: code, text: "refused", details: details(r)}
					}
					return &answer{delay: time.Millisecond, stored: true}
				}}
				c, o := newClient(t, s)
				recordMixed(c, 103, oneIn(40, 20))
				others := drain(t, c)
				checkRejected(t, c, o, 103+others, 3)
				for _, r := range s.all() {
					if len(r.rows) == 0 {
						t.Error("a request of no rows")
					}
				}
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
		inBubble(t, name, func(t *testing.T) {
			c, o := newClient(t, &server{answer: answerBad(test.answer, 0)})
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
	}
}

// A gateway in front of the server refuses one row of a batch. That row is found,
// retried while others are stored, and dropped. No other row is lost.
func TestSuspectInABatch(t *testing.T) {
	for name, dislike := range map[string]answer{
		"a gateway answers 502 and HTML":      {status: 502, body: "<html>blocked</html>"},
		"the answer is lost after the commit": {err: errReset, stored: true},
	} {
		inBubble(t, name, func(t *testing.T) {
			s := &server{answer: answerBad(dislike, 2*time.Millisecond)}
			c, o := newClient(t, s)
			recordMixed(c, 501, oneIn(501, 250))
			for range 300 {
				time.Sleep(500 * time.Millisecond)
				c.Record(event("fine"))
			}
			if err := c.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			checkRejected(t, c, o, 801, 1)
			if err := o.lost()[0].err; !errors.Is(err, docevents.ErrOutcomeUnknown) || !strings.Contains(err.Error(), "10 failures while other events were stored") {
				t.Errorf("dropped with %v", err)
			}
			if got := s.stages()["fine"]; got != 800 {
				t.Errorf("%d others stored", got)
			}
			if got := s.sent(); got > 300+50 {
				t.Errorf("%d requests", got)
			}
			checkQuiet(t, o)
		})
	}
}

// A row that refers to a missing row is not lost if that row comes later, although
// the client stores other rows in the meantime. The same is true of many such rows.
func TestForeignKeyThatComesLate(t *testing.T) {
	for name, test := range map[string]struct {
		rows  int
		names func(*wireRow) string
	}{
		"one row":            {1, nil},
		"many rows":          {200, nil},
		"many rows of a key": {200, func(r *wireRow) string { return "Key (document_id)=(" + r.DocumentID + ") is not present." }},
	} {
		inBubble(t, name, func(t *testing.T) {
			begin := time.Now()
			missing := answerBad(answer{status: 409, code: "23503", text: "violates foreign key constraint", names: test.names}, 5*time.Millisecond)
			c, o := newClient(t, &server{discard: true, answer: func(r *request) *answer {
				if time.Since(begin) < 15*time.Second {
					return missing(r)
				}
				return &answer{delay: 5 * time.Millisecond}
			}})
			recordMixed(c, 2*test.rows, oneIn(2, 0))
			for range 600 { // for a minute
				c.Record(event("fine"))
				time.Sleep(100 * time.Millisecond)
			}
			checkRejected(t, c, o, int64(2*test.rows+600), 0)
			_ = c.Close(t.Context())
		})
	}
}

func TestTooMuchAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := newClient(t, &server{discard: true, answer: func(r *request) *answer {
			if len(r.rows) > 10 {
				return &answer{status: 413}
			}
			return nil
		}})
		recordMany(c, 1000, "a")
		flush(t, c)
		checkStats(t, c, &docevents.Stats{Recorded: 1000, Delivered: 1000})
	})
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
		flush(t, c)
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
		"a sequence that lags behind":  func(*wireRow) string { return "(id)=(5)" },
		"one row for each document":    func(row *wireRow) string { return "(id)=(" + row.DocumentID + ")" },
		"the id is a part of that key": func(row *wireRow) string { return "(tenant, id)=(7, " + row.DocumentID + ")" },
	} {
		inBubble(t, name, func(t *testing.T) {
			c, o := newClient(t, &server{discard: true, answer: answerBad(answer{
				status: 409, code: "23505", text: `duplicate key value violates unique constraint "audit_pkey"`,
				names: func(row *wireRow) string { return "Key " + key(row) + " already exists." },
			}, time.Millisecond)})
			recordMixed(c, 100, oneIn(100, 50))
			others := drain(t, c)
			checkRejected(t, c, o, 100+others, 1)
		})
	}
}

// A slow server rejects each batch that has a bad row, and doesn't name the row. Close
// still delivers the others, although the server stores nothing for many seconds.
func TestCloseFindsBadRowsOnASlowServer(t *testing.T) {
	for delay, bad := range map[time.Duration]int{20 * time.Millisecond: 50, 200 * time.Millisecond: 10, time.Second: 10, 4 * time.Second: 50} {
		inBubble(t, fmt.Sprintf("%s/%d bad rows", delay, bad), func(t *testing.T) {
			s := &server{discard: true, answer: answerBad(refusal, delay)}
			c, o := newClient(t, s)
			recordMixed(c, 1000, oneIn(1000/bad, 1000/bad-5))
			err := within(time.Hour, c.Close)
			if got := c.Stats(); got.Delivered != int64(1000-bad) {
				t.Errorf("%+v: %v", got, err)
			}
			checkOnlyBadLost(t, o)
			if got, most := s.sent(), 2*bad*10+5*bad+10; got > most {
				t.Errorf("%d requests, want at most %d", got, most)
			}
		})
	}
}

// Bad rows at the head of every batch, or before all other rows, block nothing,
// since probes are drawn at random.
func TestBadRowsAtTheHead(t *testing.T) {
	const repeats = 3 // because probes are drawn at random
	for name, test := range map[string]struct {
		answer answer
		bad    func(i int) bool // reports whether row i of 1,000 is bad
		wait   time.Duration    // the time until most of the others are stored
		most   int
	}{
		"the head of every batch is rejected":    {refusal, oneIn(100, 1), time.Minute, 990}, // the very first event is sent alone
		"the head of every batch causes a reset": {answer{err: errReset}, oneIn(100, 1), time.Minute, 990},
		"the first 500 rows cause resets":        {answer{err: errReset}, func(i int) bool { return i < 500 }, 30 * time.Minute, 250},
	} {
		for i := range repeats {
			inBubble(t, fmt.Sprint(name, "/", i), func(t *testing.T) {
				s := &server{answer: answerBad(test.answer, time.Millisecond)}
				c, o := newClient(t, s, docevents.WithMaxBatch(100), docevents.WithMaxInFlight(1+3*rand.IntN(2)))
				recordMixed(c, 1000, test.bad)
				time.Sleep(test.wait)
				if got := s.stages()["fine"]; got < test.most {
					t.Errorf("%d others stored within %s, want %d", got, test.wait, test.most)
				}
				checkLost(t, o)
				closeNow(t, c)
			})
		}
	}
}

// If the server always refuses some rows and never the others, no other row is lost
// or waits for long.
func TestBadRowsDelayNoOthers(t *testing.T) {
	const ms = time.Millisecond
	reset, firewall := answer{err: errReset}, answer{status: 403, body: "<html>blocked</html>"}
	events := 2000
	if isLong() {
		events = 60_000
	}
	for name, test := range map[string]struct {
		pause  time.Duration // between two events
		every  int           // one event of this many is bad
		delay  time.Duration // the time that a request takes
		answer answer
		most   time.Duration // the longest wait of another event
	}{
		"a firewall refuses one in 100":           {2 * ms, 100, 20 * ms, firewall, time.Second},
		"a firewall, slower requests, one in 200": {2 * ms, 200, 60 * ms, firewall, 3 * time.Second},
		"the connection is reset for one in 100":  {2 * ms, 100, 5 * ms, reset, time.Second},
		"the document of one in 20 was deleted":   {10 * ms, 20, 5 * ms, answer{status: 409, code: "23503"}, time.Second},
		"a trigger misses a function, one in 100": {100 * ms, 100, 5 * ms, answer{status: 404, code: "42883"}, time.Second},
		"a firewall, few events, one in five":     {10 * time.Second, 5, 5 * ms, firewall, 2 * time.Second},
		"resets, an event a second, one in five":  {time.Second, 5, 5 * ms, reset, 2 * time.Second},
		"refused data, one in 20":                 {10 * ms, 20, 5 * ms, refusal, time.Second},
	} {
		inBubble(t, name, func(t *testing.T) {
			s := &server{discard: true, answer: answerBad(test.answer, test.delay)}
			longest := longestWait(s, "fine")
			c, o := newClient(t, s)
			for i := range min(events, int(time.Hour/test.pause)) {
				c.Record(event(fineOrBad(i%test.every == test.every/2)))
				time.Sleep(test.pause)
			}
			if longest() > test.most {
				t.Errorf("an event waited %s for others, want %s at most", longest(), test.most)
			}
			checkStats(t, c, nil)
			checkLost(t, o)
			closeNow(t, c)
		})
	}
}

// Rows whose requests take a long time to fail don't use all requests in flight. Otherwise
// the other rows, which the server stores in 5 ms, would wait for minutes.
func TestSlowSuspectsDelayNoOthers(t *testing.T) {
	for name, code := range map[string]string{"a statement timeout": "57014", "a lock": "55P03"} {
		inBubble(t, name, func(t *testing.T) {
			const perSecond, every = 25, 500 // one bad row every 20 s
			late := 0
			s := &server{discard: true}
			s.answer = func(r *request) *answer {
				s.mu.Lock()
				defer s.mu.Unlock()
				if r.bad() < 0 && r.waited() > 10*time.Second {
					late += len(r.rows)
				}
				return answerBad(answer{status: 500, code: code, delay: 8 * time.Second}, 5*time.Millisecond)(r)
			}
			c, _ := newClient(t, s)
			for i := range 120 * perSecond {
				c.Record(event(fineOrBad(i%every == every/2)))
				time.Sleep(time.Second / perSecond)
			}
			if pending := c.Stats().Pending; late > 15 || pending > 20 {
				t.Errorf("%d events waited for more than 10 s, %d are pending", late, pending)
			}
			closeNow(t, c)
		})
	}
}

// With one request in flight, failed rows and new events take turns, so neither waits
// for all of the other.
func TestLanesTakeTurnsWithOneRequestInFlight(t *testing.T) {
	inBubble(t, "new events", func(t *testing.T) {
		longest, sent, answerTo := time.Duration(0), map[string]bool{}, answerBad(answer{err: errReset, delay: time.Second}, 5*time.Millisecond)
		s := &server{answer: func(r *request) *answer {
			if !sent[r.rows[0].ID] {
				longest = max(longest, r.waited())
			}
			for _, row := range r.rows {
				sent[row.ID] = true
			}
			return answerTo(r)
		}}
		c, _ := newClient(t, s, docevents.WithMaxInFlight(1))
		for i := range 2000 { // for 200 s; the retries of the 50 bad rows take longer
			c.Record(event(fineOrBad(i%40 == 20)))
			time.Sleep(100 * time.Millisecond)
		}
		closeNow(t, c)
		if longest > 4*time.Second {
			t.Errorf("a new event waited for %s until it was sent", longest)
		}
	})
	inBubble(t, "failed rows", func(t *testing.T) {
		s := &server{discard: true}
		s.answer = func(r *request) *answer {
			a := &answer{delay: 20 * time.Millisecond}
			if r.number%5 == 0 {
				a.status = 502
			}
			return a
		}
		c, _ := newClient(t, s, docevents.WithMaxInFlight(1), docevents.WithMaxBatch(10))
		most := int64(0)
		for range 10_000 { // a request stores ten events in the time in which five are recorded, unless it fails
			c.Record(event("fine"))
			time.Sleep(4 * time.Millisecond)
			most = max(most, c.Stats().Pending)
		}
		if most > 200 {
			t.Errorf("up to %d events were pending", most)
		}
		closeNow(t, c)
	})
}

// The table refuses every row for two seconds, once or twice, under a load with one
// bad row in 100. No row is lost that was refused only in these seconds.
func TestTableBreaksUnderBadRows(t *testing.T) {
	seeds := uint64(1)
	if isLong() {
		seeds = 20
	}
	for _, breaks := range []int{1, 2} {
		for _, isNamed := range []bool{false, true} {
			for seed := range seeds {
				inBubble(t, fmt.Sprintf("%d breaks/named %t/seed %d", breaks, isNamed, seed), func(t *testing.T) {
					rnd, begin := rand.New(rand.NewPCG(seed, 9)), time.Now()
					s := &server{discard: true}
					s.answer = func(r *request) *answer {
						s.mu.Lock()
						delay := time.Duration(5+rnd.IntN(45)) * time.Millisecond
						until := time.Duration(rnd.IntN(int(delay)))
						s.mu.Unlock()
						time.Sleep(until) // the request reads the table at some time before its answer
						a := answer{status: 400, code: "23502", text: "refused"}
						if isNamed {
							a.names = failingRow
						}
						at := time.Since(begin)
						if at > time.Second && at < 3*time.Second || breaks == 2 && at > 4*time.Second && at < 6*time.Second {
							if isNamed {
								a.details = failingRow(&r.rows[0])
							}
							a.delay = delay - until
							return &a
						}
						return answerBad(a, delay-until)(r)
					}
					c, o := newClient(t, s)
					for i := range 7000 { // for 7 s
						c.Record(event(fineOrBad(i%100 == 50)))
						time.Sleep(time.Millisecond)
					}
					others := drain(t, c)
					checkRejected(t, c, o, 7000+others, 70)
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
			inBubble(t, fmt.Sprintf("%d rows/named %t", rows, isNamed), func(t *testing.T) {
				begin := time.Now()
				c, o := newClient(t, &server{answer: func(r *request) *answer {
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
				}})
				c.Record(event("first"))
				recordMany(c, rows, "fine")
				time.Sleep(80 * time.Millisecond)
				c.Record(event("last"))
				time.Sleep(time.Minute)
				checkRejected(t, c, o, int64(rows)+2, 0)
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
		violates := func(check string, delay time.Duration) *answer {
			return &answer{status: 400, code: "23514", text: `new row for relation "t" violates check constraint "` + check + `"`, delay: delay}
		}
		c, o := newClient(t, &server{answer: func(r *request) *answer {
			switch {
			case r.bad() >= 0 && len(r.rows) > 2:
				return violates("known", 5*time.Millisecond)
			case (r.bad() >= 0 || len(r.rows) == 1) && r.number > 0 && time.Since(begin) < 10*time.Second:
				return violates("new", 10*time.Millisecond)
			}
			return &answer{stored: true, delay: 5 * time.Millisecond}
		}})
		recordMixed(c, 5, oneIn(5, 1))
		time.Sleep(time.Minute)
		checkRejected(t, c, o, 5, 0)
	})
}

// Many rows wait because they refer to rows that are missing for a minute. No other row
// waits for long.
func TestMissingKeysOfManyRows(t *testing.T) {
	for _, inFlight := range []int{1, 4} {
		for _, isNamed := range []bool{false, true} {
			inBubble(t, fmt.Sprintf("%d in flight/named %t", inFlight, isNamed), func(t *testing.T) {
				missing := answer{status: 409, code: "23503", text: "violates foreign key constraint"}
				if isNamed {
					missing.names = func(r *wireRow) string { return "Key (document_id)=(" + r.DocumentID + ") is not present." }
				}
				begin := time.Now()
				s := &server{discard: true, answer: func(r *request) *answer {
					if time.Since(begin) < time.Minute {
						return answerBad(missing, 20*time.Millisecond)(r)
					}
					return &answer{delay: 20 * time.Millisecond}
				}}
				longest := longestWait(s, "fine")
				c, _ := newClient(t, s, docevents.WithMaxInFlight(inFlight))
				for i := range 300 {
					e := event("bad")
					e.DocumentID = fmt.Sprintf("33333333-3333-4333-8333-%012d", i%10)
					c.Record(e)
				}
				for range 1000 {
					c.Record(event("fine"))
					time.Sleep(100 * time.Millisecond)
				}
				if longest() > 20*time.Second {
					t.Errorf("an event waited %s: %+v", longest(), c.Stats())
				}
				checkStats(t, c, &docevents.Stats{Recorded: 1300, Delivered: 1300})
			})
		}
	}
}
