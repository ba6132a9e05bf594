package docevents_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docevents/docevents-go"
)

// checkViolation answers a request as PostgREST does when one of its rows is
// poisoned.
func checkViolation(isPoison func(*wireRow) bool) func(*request) *answer {
	return func(r *request) *answer {
		for i := range r.rows {
			if isPoison(&r.rows[i]) {
				return &answer{delay: time.Millisecond, status: 400, code: "23514", text: `new row for relation "t" violates check constraint "c"`}
			}
		}
		return &answer{delay: time.Millisecond, stored: true}
	}
}

func isPoison(r *wireRow) bool { return r.Stage != nil && strings.HasPrefix(*r.Stage, "poison") }

func TestPoisonedRows(t *testing.T) {
	for name, test := range map[string]struct{ events, every int }{
		"one in 1,000":               {1000, 1000},
		"one in every 100 of 10,000": {10_000, 100},
		"every other row of 2,000":   {2000, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &server{answer: checkViolation(isPoison)}
				c, o := newClient(t, s)
				poisoned := 0
				for i := range test.events {
					if i%test.every == test.every/2 {
						poisoned++
						c.Record(event(fmt.Sprintf("poison %d", i)))
					} else {
						c.Record(event(fmt.Sprintf("good %d", i)))
					}
				}
				others := drain(t, c)
				checkStats(t, c, &docevents.Stats{
					Recorded: int64(test.events) + others, Delivered: int64(test.events-poisoned) + others,
					Dropped: docevents.Drops{Rejected: int64(poisoned)},
				})
				checkReported(t, c, o)
				for _, d := range o.lost() {
					var e *docevents.Error
					if !strings.HasPrefix(d.event.Stage, "poison") || d.reason != docevents.Rejected ||
						!errors.As(d.err, &e) || e.Code != "23514" || errors.Is(d.err, docevents.ErrOutcomeUnknown) {
						t.Fatalf("dropped %+v", d)
					}
				}
				if got := s.sent() - int(others); got > 2*poisoned*10+test.events/1000+10 { // log2 of a batch
					t.Errorf("%d requests for %d events, %d of them bad", got, test.events, poisoned)
				}
				checkQuiet(t, o)
			})
		})
	}
}

// The bound that issue 3 sets, for every set of poisoned rows of small batches
// and for random sets of large ones.
func TestBisectingIsBounded(t *testing.T) {
	check := func(t *testing.T, n int, poisoned map[int]bool) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			var hold atomic.Bool
			hold.Store(true)
			refuse := checkViolation(isPoison)
			s := &server{answer: func(r *request) *answer {
				if hold.Load() { // until all n wait in one batch
					return &answer{delay: 10 * time.Millisecond, stored: true}
				}
				return refuse(r)
			}}
			c, o := newClient(t, s, docevents.WithMaxInFlight(1), docevents.WithMaxBatch(max(n, 1)))
			c.Record(event("first"))
			synctest.Wait()
			for i := range n {
				if poisoned[i] {
					c.Record(event(fmt.Sprintf("poison %d", i)))
				} else {
					c.Record(event(fmt.Sprintf("good %d", i)))
				}
			}
			hold.Store(false)
			others := 0
			for c.Stats().Pending > 0 { // the proof that the server takes others
				c.Record(event("good other"))
				others++
				time.Sleep(500 * time.Millisecond)
			}
			k := len(poisoned)
			checkStats(t, c, &docevents.Stats{Recorded: int64(n + 1 + others), Delivered: int64(n + 1 + others - k), Dropped: docevents.Drops{Rejected: int64(k)}})
			for _, d := range o.lost() {
				if !strings.HasPrefix(d.event.Stage, "poison") {
					t.Errorf("lost %q", d.event.Stage)
				}
			}
			log2 := 0
			for 1<<log2 < n {
				log2++
			}
			if got, bound := s.sent()-1-others, 2*k*log2+10; got > bound {
				t.Errorf("%d of %d rows poisoned (%v): %d requests, want at most %d", k, n, slices.Sorted(maps.Keys(poisoned)), got, bound)
			}
		})
	}
	for n := 1; n <= 7; n++ {
		for set := range 1 << n {
			poisoned := map[int]bool{}
			for i := range n {
				if set>>i&1 == 1 {
					poisoned[i] = true
				}
			}
			check(t, n, poisoned)
		}
	}
	seeds := 60
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		rnd := rand.New(rand.NewPCG(uint64(seed), 1))
		poisoned := map[int]bool{}
		for range 1 << rnd.IntN(11) {
			poisoned[rnd.IntN(1000)] = true
		}
		check(t, 1000, poisoned)
	}
	for _, gap := range []int{2, 3, 4, 5, 7, 8, 9, 31, 33} {
		poisoned := map[int]bool{}
		for i := 0; i < 1000; i += gap {
			poisoned[i] = true
		}
		check(t, 1000, poisoned)
	}
}

// A row that something on the way doesn't like, every time, while others pass.
func TestSuspectRow(t *testing.T) {
	for name, dislike := range map[string]answer{
		"a gateway answers 502 and HTML":      {status: 502, body: "<html>blocked</html>", header: map[string]string{"Content-Type": "text/html"}},
		"a firewall resets the connection":    {err: errReset},
		"the answer is lost after the commit": {err: errReset, stored: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &server{answer: func(r *request) *answer {
					if r.has("poison") {
						a := dislike
						a.delay = 2 * time.Millisecond
						return &a
					}
					return &answer{delay: 2 * time.Millisecond, stored: true}
				}}
				c, o := newClient(t, s)
				var worst time.Duration
				recorded := int64(0)
				record := func(stage string) {
					recorded++
					c.Record(event(stage))
				}
				for i := range 3000 { // five minutes
					if i == 100 {
						for j := range 500 {
							record(fmt.Sprintf("beside %d", j))
						}
						record("poison")
						for j := range 500 {
							record(fmt.Sprintf("behind %d", j))
						}
					}
					before := c.Stats().Delivered
					record(fmt.Sprint(i))
					start := time.Now()
					for time.Since(start) < 100*time.Millisecond {
						time.Sleep(time.Millisecond)
						if c.Stats().Delivered > before {
							worst = max(worst, time.Since(start))
							break
						}
					}
					time.Sleep(100*time.Millisecond - time.Since(start))
				}
				if err := c.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				checkStats(t, c, &docevents.Stats{Recorded: recorded, Delivered: recorded - 1, Dropped: docevents.Drops{Rejected: 1}})
				lost := o.lost()
				if len(lost) != 1 || lost[0].event.Stage != "poison" || lost[0].reason != docevents.Rejected || !errors.Is(lost[0].err, docevents.ErrOutcomeUnknown) {
					t.Fatalf("lost %+v", lost)
				}
				stages := s.stages()
				delete(stages, "poison")
				if len(stages) != int(recorded)-1 {
					t.Errorf("%d others stored, want %d", len(stages), recorded-1)
				}
				if got := c.Stats().Requests; got > 3000+200 {
					t.Errorf("%d requests", got)
				}
				checkQuiet(t, o)
			})
		})
	}
}

// Without other traffic there is no telling a bad row from a server that is
// down, so it waits.
func TestLoneRowWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(r *request) *answer {
			if r.has("poison") {
				return &answer{err: errReset}
			}
			return nil
		}}
		c, o := newClient(t, s)
		c.Record(event("poison"))
		time.Sleep(24 * time.Hour)
		checkStats(t, c, &docevents.Stats{Recorded: 1, Pending: 1})
		for i := range 40 {
			c.Record(event(fmt.Sprint(i)))
			time.Sleep(time.Minute)
		}
		checkStats(t, c, &docevents.Stats{Recorded: 41, Delivered: 40, Dropped: docevents.Drops{Rejected: 1}})
		checkReported(t, c, o)
	})
}

// A row whose foreign key is not committed yet must not be lost to a busy client.
func TestForeignKeyThatComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var committed atomic.Bool
		s := &server{answer: func(r *request) *answer {
			if r.has("early") && !committed.Load() {
				return &answer{delay: time.Millisecond, status: 409, code: "23503", text: "violates foreign key constraint"}
			}
			return &answer{delay: time.Millisecond, stored: true}
		}}
		c, _ := newClient(t, s)
		c.Record(event("early"))
		for i := range 1500 { // at 100 a second
			c.Record(event(fmt.Sprint(i)))
			time.Sleep(10 * time.Millisecond)
		}
		committed.Store(true)
		if err := c.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		checkStats(t, c, &docevents.Stats{Recorded: 1501, Delivered: 1501})
	})
}

// The row that 500 events point to is late, and others go on: so many failures
// in a row look like outages, none of which costs any of them an attempt.
func TestForeignKeyOfManyThatComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		s := &server{discard: true, answer: func(r *request) *answer {
			if i := slices.IndexFunc(r.rows, func(row wireRow) bool { return *row.Stage == "late" }); i >= 0 && time.Since(begin) < 20*time.Second {
				return &answer{delay: 5 * time.Millisecond, status: 409, code: "23503", text: "violates foreign key constraint", details: "Key (document_id)=(" + r.rows[i].DocumentID + ") is not present."}
			}
			return &answer{delay: 5 * time.Millisecond, stored: true}
		}}
		c, o := newClient(t, s)
		for range 500 {
			e := event("late")
			e.DocumentID = "33333333-3333-4333-8333-333333333333"
			c.Record(e)
			c.Record(event("a"))
		}
		for range 600 { // a minute
			c.Record(event("b"))
			time.Sleep(100 * time.Millisecond)
		}
		checkStats(t, c, &docevents.Stats{Recorded: 1600, Delivered: 1600})
		if lost := o.lost(); len(lost) > 0 {
			t.Errorf("%d lost: %v", len(lost), lost[0].err)
		}
		_ = c.Close(t.Context())
	})
}

func TestTableLockedLongerThanTheStatementTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var locked atomic.Bool
		locked.Store(true)
		s := &server{answer: func(*request) *answer {
			if locked.Load() {
				return &answer{delay: 8 * time.Second, status: 500, code: "57014", text: "canceling statement due to statement timeout"}
			}
			return &answer{delay: time.Millisecond, stored: true}
		}}
		c, o := newClient(t, s)
		for i := range 20_000 {
			c.Record(event(fmt.Sprint(i)))
		}
		time.Sleep(20 * time.Minute)
		checkStats(t, c, &docevents.Stats{Recorded: 20_000, Pending: 20_000})
		locked.Store(false)
		if err := c.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		checkStats(t, c, &docevents.Stats{Recorded: 20_000, Delivered: 20_000})
		if len(o.lost()) != 0 || len(s.stages()) != 20_000 {
			t.Errorf("%d lost, %d stored", len(o.lost()), len(s.stages()))
		}
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
				s := &server{answer: func(r *request) *answer {
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

// Where a gateway drops the Prefer header, a row that is sent again meets
// itself.
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

func TestPoisonAtTheHeadOfEveryBatch(t *testing.T) {
	for name, dislike := range map[string]answer{
		"data":    {status: 400, code: "22001", text: "value too long"},
		"passing": {err: errReset},
	} {
		yields := false
		test := func(t *testing.T) {
			s := &server{answer: func(r *request) *answer {
				if r.has("poison") {
					a := dislike
					a.delay = time.Millisecond
					return &a
				}
				return &answer{delay: time.Millisecond, stored: true}
			}}
			c, o := newClient(t, s, docevents.WithMaxBatch(100))
			for i := range 1000 {
				if i%100 == 1 { // the very first event goes alone
					c.Record(event("poison"))
				} else {
					c.Record(event(fmt.Sprint(i)))
				}
				if i == 150 && yields { // one batch fails before the others are tried
					synctest.Wait()
					time.Sleep(10 * time.Millisecond)
				}
			}
			time.Sleep(time.Minute)
			if got := len(s.stages()); got != 990 {
				t.Errorf("%d others stored within a minute, want 990", got)
			}
			for i := range 60 { // so that a bad row can be told
				c.Record(event(fmt.Sprintf("later %d", i)))
				time.Sleep(time.Minute)
			}
			checkStats(t, c, &docevents.Stats{Recorded: 1060, Delivered: 1050, Dropped: docevents.Drops{Rejected: 10}})
			checkReported(t, c, o)
		}
		t.Run(name, func(t *testing.T) {
			for i := range 30 { // what is probed is drawn by lot
				yields = i%2 == 0
				synctest.Test(t, test)
			}
		})
	}
}

// A run of such rows at the head of all that waits is not probed one by one.
func TestPoisonInARun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(r *request) *answer {
			if r.has("poison") {
				return &answer{delay: time.Millisecond, err: errReset}
			}
			return &answer{delay: time.Millisecond, stored: true}
		}}
		c, _ := newClient(t, s, docevents.WithMaxInFlight(1))
		c.Record(event("poison"))
		for range 500 {
			c.Record(event("poison"))
		}
		for i := range 499 {
			c.Record(event(fmt.Sprint(i)))
		}
		time.Sleep(30 * time.Minute)
		if got := len(s.stages()); got < 250 {
			t.Errorf("%d others stored within half an hour, want most of 499", got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_ = c.Close(ctx) // it abandons the rest
		checkStats(t, c, nil)
	})
}

// failingRow is what PostgreSQL says of a row.
func failingRow(row *wireRow) string {
	return fmt.Sprintf("Failing row contains (%s, %s, %s, completed, null, null, poison, 2026-01-02 03:04:05+00).", row.ID, row.DocumentID, row.UserID)
}

// Rows that are never taken, among others that always are: no other waits for
// long, and none is lost.
func TestBadRowsHoldUpNobody(t *testing.T) {
	reset := answer{err: errReset}
	for name, test := range map[string]struct {
		pause  time.Duration // between two events
		every  int           // one in so many is bad
		answer answer
	}{
		"a firewall dislikes one in 100":          {2 * time.Millisecond, 100, answer{status: 403, body: "<html>blocked</html>"}},
		"a firewall dislikes one in 20":           {10 * time.Millisecond, 20, answer{status: 403, body: "<html>blocked</html>"}},
		"a firewall that answers 406":             {10 * time.Millisecond, 20, answer{status: 406}},
		"the connection is reset for one in 100":  {2 * time.Millisecond, 100, reset},
		"the document of one in 20 was deleted":   {10 * time.Millisecond, 20, answer{status: 409, code: "23503", text: "violates foreign key constraint"}},
		"a trigger misses a function, one in 100": {100 * time.Millisecond, 100, answer{status: 404, code: "42883", text: "function audit(text) does not exist"}},
		"a trigger misses a table, one in 100":    {10 * time.Millisecond, 100, answer{status: 404, code: "42P01", text: `relation "audit" does not exist`}},
		"one in 20 of few, a firewall":            {10 * time.Second, 20, answer{status: 403}},
		"one in five of few, a firewall":          {10 * time.Second, 5, answer{status: 403}},
		"one in five of few, a trigger":           {10 * time.Second, 5, answer{status: 404, code: "42P01"}},
		"one in five a second, resets":            {time.Second, 5, reset},
		"refused data, one in 20":                 {10 * time.Millisecond, 20, answer{status: 400, code: "22001", text: "value too long"}},
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
				for i := range max(300, int(2*time.Minute/test.pause)) {
					stage := fmt.Sprint(i)
					if i%test.every == test.every/2 {
						stage = "poison " + stage
					}
					s.mu.Lock()
					recorded[stage] = time.Now()
					s.mu.Unlock()
					c.Record(event(stage))
					time.Sleep(test.pause)
				}
				s.mu.Lock()
				if slowest > 2*time.Second {
					t.Errorf("an event waited %s for others", slowest)
				}
				s.mu.Unlock()
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
					if got := int(c.Stats().Requests) - 1 - others; (test.doomed || test.stored) && got > 2*k+10 || got > 6*k+10 {
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

// Nothing is recorded after a batch with bad rows. The rest of the batch is
// stored soon, and is evidence enough to drop the rows that the answers name.
func TestNamedRowsOfTheLastBatch(t *testing.T) {
	for _, test := range []struct {
		delay time.Duration // of an answer
		bad   int
		skip  string
	}{
		{2 * time.Millisecond, 1, ""},
		{2 * time.Millisecond, 10, ""},
		{2 * time.Millisecond, 100, ""},
		{8 * time.Millisecond, 10, ""},
		{8 * time.Millisecond, 100, "a fault of lane.draw: it draws a batch, not a row, so that the probes are almost always bad rows"},
	} {
		for _, senders := range []int{1, 2, 4} {
			t.Run(fmt.Sprintf("%d bad rows/%s/%d senders", test.bad, test.delay, senders), func(t *testing.T) {
				if test.skip != "" {
					t.Skip(test.skip)
				}
				synctest.Test(t, func(t *testing.T) {
					s := &server{}
					s.answer = func(r *request) *answer {
						if i := slices.IndexFunc(r.rows, func(row wireRow) bool { return isPoison(&row) }); i >= 0 {
							return &answer{delay: test.delay, status: 400, code: "23514", text: "refused", details: failingRow(&r.rows[i])}
						}
						if r.number == 0 {
							return &answer{delay: 20 * time.Millisecond, stored: true}
						}
						return &answer{delay: test.delay, stored: true}
					}
					c, _ := newClient(t, s, docevents.WithMaxInFlight(senders))
					c.Record(event("first"))
					synctest.Wait()
					for i := range 1000 {
						c.Record(event([]string{"poison", "fine"}[min(1, i%(1000/test.bad))]))
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
					for _, r := range s.requests {
						if len(r.rows) == 0 {
							t.Error("a request of no rows")
						}
					}
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

// A row whose request takes long to fail (a statement timeout, a lock, a stall)
// is asked for ten times. Many such rows must not take every sender: the others
// would wait for minutes, while the server takes them in 5 ms.
func TestSlowSuspectsLeaveSendersFree(t *testing.T) {
	for name, bad := range map[string]answer{
		"a statement timeout": {status: 500, code: "57014", delay: 8 * time.Second},
		"a lock":              {status: 500, code: "55P03", delay: 8 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const perSecond, every = 100, 2000 // one row in 20 s
				var mu sync.Mutex
				late := 0
				s := &server{discard: true, answer: func(r *request) *answer {
					if r.has("bad") {
						return &bad
					}
					mu.Lock()
					defer mu.Unlock()
					for i := range r.rows {
						if at, _ := time.Parse(time.RFC3339Nano, r.rows[i].CreatedAt); time.Since(at) > 10*time.Second {
							late++
						}
					}
					return &answer{delay: 5 * time.Millisecond}
				}}
				c, _ := newClient(t, s)
				for i := range 600 * perSecond {
					c.Record(event([]string{"bad", "fine"}[min(1, (i+every/2)%every)]))
					time.Sleep(time.Second / perSecond)
				}
				if got := c.Stats().Pending; late > 60 || got > 60 {
					t.Errorf("%d events waited for more than 10 s, %d are pending", late, got)
				}
				ended, cancel := context.WithCancel(t.Context())
				cancel()
				_ = c.Close(ended)
			})
		})
	}
}
