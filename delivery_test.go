package docevents_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docevents/docevents-go"
)

func TestGroupCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(*request) *answer { return &answer{delay: 10 * time.Millisecond, stored: true} }}
		c, _ := newClient(t, s)
		c.Record(event("first"))
		synctest.Wait()
		if got := s.sent(); got != 1 {
			t.Fatalf("an event on an idle client: %d requests, want 1 at once", got)
		}
		for range 500 {
			c.Record(event("second"))
		}
		synctest.Wait()
		if got := s.sent(); got != 1 {
			t.Errorf("%d requests while the first is young and no batch is full, want 1", got)
		}
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		if got := s.sent(); got != 2 || len(s.requests[1].rows) != 500 {
			t.Errorf("%d requests, want the 500 events in the second", got)
		}
		if err := c.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		checkStats(t, c, &docevents.Stats{Recorded: 501, Delivered: 501})
	})
}

func TestSlowRequestIsJoinedByAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(*request) *answer { return &answer{delay: time.Second, stored: true} }}
		c, _ := newClient(t, s)
		for range 10 {
			c.Record(event("a"))
			time.Sleep(20 * time.Millisecond)
		}
		if got := s.sent(); got != 4 {
			t.Errorf("%d requests within 200 ms, want one per 50 ms and at most 4 at once", got)
		}
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestBurstFillsBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(*request) *answer { return &answer{delay: 20 * time.Millisecond, stored: true} }}
		c, _ := newClient(t, s)
		const events = 100_000
		for range events {
			c.Record(event("a"))
		}
		if err := c.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		checkStats(t, c, &docevents.Stats{Recorded: events, Delivered: events})
		if got := s.sent(); got > events/1000+5 {
			t.Errorf("%d requests for %d events", got, events)
		}
		if s.most != docevents.DefaultMaxInFlight {
			t.Errorf("%d requests at once, want %d", s.most, docevents.DefaultMaxInFlight)
		}
		if got := s.stages()["a"]; got != events {
			t.Errorf("%d rows stored, want %d", got, events)
		}
	})
}

func TestBatchHasABoundOnText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(*request) *answer { return &answer{delay: time.Millisecond, stored: true} }}
		c, _ := newClient(t, s)
		for range 100 {
			e := event("a")
			e.ErrorMessage = strings.Repeat("m", 60<<10)
			c.Record(e)
		}
		if err := c.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, r := range s.requests {
			if len(r.rows) > 17 {
				t.Errorf("a request of %d rows of 60 KiB, more than 1 MiB", len(r.rows))
			}
		}
	})
}

// Every event has its own name here, so that a double shows.
func TestAnswerLostAfterCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(r *request) *answer {
			a := &answer{delay: 5 * time.Millisecond, stored: true}
			if r.number%5 == 0 {
				a.err = errReset
			}
			return a
		}}
		c, o := newClient(t, s, docevents.WithMaxBatch(100))
		const events = 20_000
		for i := range events {
			c.Record(event(fmt.Sprint(i)))
		}
		if err := c.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		checkStats(t, c, &docevents.Stats{Recorded: events, Delivered: events})
		stages := s.stages()
		if len(stages) != events || len(s.rows) != events {
			t.Errorf("%d rows of %d events, want %d of each", len(s.rows), len(stages), events)
		}
		if got := c.Stats().Retries; got == 0 {
			t.Error("no retries: the test tests nothing")
		}
		if d := o.lost(); len(d) != 0 {
			t.Errorf("%d drops", len(d))
		}
	})
}

func TestOutageOfTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var up atomic.Bool
		s := &server{answer: func(*request) *answer {
			if !up.Load() {
				return &answer{delay: time.Millisecond, err: errReset}
			}
			return &answer{delay: time.Millisecond, stored: true}
		}}
		c, o := newClient(t, s)
		const events = docevents.DefaultQueueEvents
		for i := range events {
			c.Record(event(fmt.Sprint(i)))
		}
		time.Sleep(10 * time.Minute)
		outage := s.sent()
		if outage > 60 {
			t.Errorf("%d requests in the outage, want at most 60", outage)
		}
		if st := c.Stats(); st.PendingBytes > docevents.DefaultQueueBytes || st.Pending != events {
			t.Errorf("%+v", st)
		}
		up.Store(true)
		s.most = 0 // nothing is under way
		start := time.Now()
		if err := c.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s.most != docevents.DefaultMaxInFlight {
			t.Errorf("after recovery %d requests at once, want %d", s.most, docevents.DefaultMaxInFlight)
		}
		if took := time.Since(start); took > 31*time.Second {
			t.Errorf("delivered %s after recovery, want the probe's wait at most", took)
		}
		if got := s.sent() - outage; got > events/docevents.DefaultMaxBatch+3*outage { // a probe cuts its batch in three
			t.Errorf("%d requests after recovery, want full batches", got)
		}
		checkStats(t, c, &docevents.Stats{Recorded: events, Delivered: events})
		if len(s.stages()) != events {
			t.Errorf("%d stored", len(s.stages()))
		}
		infos := linesAt(o, slog.LevelInfo)
		if len(infos) != 1 || !strings.Contains(infos[0].text, "delivering again") {
			t.Errorf("recovery lines: %v", infos)
		}
		checkQuiet(t, o)
	})
}

func TestDownForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(*request) *answer { return &answer{err: errReset} }}
		const room = 5000
		c, o := newClient(t, s, docevents.WithQueueLimits(room, 64<<20))
		for range 10 { // slowly enough for the handler
			for range room / 5 {
				c.Record(event("a"))
			}
			time.Sleep(40 * time.Second)
		}
		checkStats(t, c, &docevents.Stats{Recorded: 2 * room, Pending: room, Dropped: docevents.Drops{QueueFull: room}})
		checkQuiet(t, o)

		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		start := time.Now()
		err := c.Close(ctx)
		if took := time.Since(start); took < 5*time.Second || took > 6*time.Second {
			t.Errorf("Close took %s, want ctx's 5 s and a second at most", took)
		}
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(fmt.Sprint(err), "5000 events abandoned") {
			t.Errorf("Close: %v", err)
		}
		checkStats(t, c, &docevents.Stats{Recorded: 2 * room, Dropped: docevents.Drops{QueueFull: room, Abandoned: room}})
		checkReported(t, c, o)
		inDoubt, sent := 0, map[string]bool{}
		for _, r := range s.requests {
			for _, row := range r.rows {
				sent[row.ID] = true
			}
		}
		for _, d := range o.lost() {
			if d.reason == docevents.Abandoned && errors.Is(d.err, docevents.ErrOutcomeUnknown) {
				inDoubt++
			}
		}
		if inDoubt != len(sent) || inDoubt == 0 || inDoubt == room {
			t.Errorf("the outcome of %d rows is said to be unknown, and %d of %d were sent", inDoubt, len(sent), room)
		}
	})
}

func TestConfigurationError(t *testing.T) {
	for name, test := range map[string]struct {
		answer answer
		remedy string
	}{
		"401":           {answer{status: 401, code: "PGRST301", text: "No suitable key or wrong key type"}, "check the key"},
		"missing table": {answer{status: 404, code: "PGRST205", text: "Could not find the table 'public.document_processing_events' in the schema cache"}, "sql/013_create_processing_events_table.sql"},
		"missing grant": {answer{status: 403, code: "42501", text: "permission denied for table document_processing_events"}, "GRANT SELECT, INSERT, DELETE ON public.document_processing_events TO service_role"},
		"paused":        {answer{status: 540}, "paused"},
		"redirect":      {answer{status: 302, header: map[string]string{"Location": "http://elsewhere.test/"}}, "check SUPABASE_URL"},
		"a web page":    {answer{status: 200, body: "<!doctype html><title>hi</title>"}, "check SUPABASE_URL"},
	} {
		setUp := func(t *testing.T) (*docevents.Client, *observer, *server, *atomic.Bool) {
			var mended atomic.Bool
			s := &server{answer: func(*request) *answer {
				if mended.Load() {
					return nil
				}
				a := test.answer
				return &a
			}}
			c, o := newClient(t, s)
			for range 2500 {
				c.Record(event("a"))
			}
			synctest.Wait()
			return c, o, s, &mended
		}
		t.Run(name+"/one loud line, Flush returns once it has lasted, then Close at once", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, o, s, _ := setUp(t)
				start := time.Now()
				err := c.Flush(context.Background())
				var e *docevents.Error
				if !errors.As(err, &e) || e.Status != test.answer.status && e.Status != 201 || !strings.Contains(err.Error(), test.remedy) {
					t.Errorf("Flush: %v", err)
				}
				if took := time.Since(start); took != 5*time.Second {
					t.Errorf("Flush took %s", took)
				}
				checkStats(t, c, &docevents.Stats{Recorded: 2500, Pending: 2500})
				start = time.Now()
				err = c.Close(context.Background())
				if !errors.As(err, &e) || !strings.Contains(fmt.Sprint(err), "2500 events abandoned") {
					t.Errorf("Close: %v", err)
				}
				if took := time.Since(start); took > 0 {
					t.Errorf("Close took %s", took)
				}
				checkStats(t, c, &docevents.Stats{Recorded: 2500, Dropped: docevents.Drops{Abandoned: 2500}})
				checkReported(t, c, o)
				loud := 0
				for _, l := range linesAt(o, slog.LevelError) {
					if strings.Contains(l.text, test.remedy) && strings.Contains(l.text, "until this is mended") {
						loud++
					}
				}
				if loud < 1 || loud > 2 { // the second sums up, at Close
					t.Errorf("lines: %v", o.logged())
				}
				for _, r := range s.requests {
					if r.at.After(s.requests[0].at) && r.at.Before(start) && len(r.rows) != 1 {
						t.Errorf("a request of %d rows after the refusal, want a probe's one", len(r.rows))
					}
				}
			})
		})
		t.Run(name+"/mended", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _, s, mended := setUp(t)
				time.Sleep(5 * time.Second) // it is lasting now
				synctest.Wait()
				before := s.sent()
				if before > 12 {
					t.Errorf("%d requests within 5 s", before)
				}
				time.Sleep(15*time.Second - 1)
				if got := s.sent() - before; got > 0 {
					t.Errorf("%d requests within 15 s, want the long wait", got)
				}
				time.Sleep(5 * time.Minute)
				if got := s.sent() - before; got < 9 || got > 21 {
					t.Errorf("%d requests in five minutes, want one every 15 to 30 s", got)
				}
				mended.Store(true)
				time.Sleep(31 * time.Second)
				checkStats(t, c, &docevents.Stats{Recorded: 2500, Delivered: 2500})
				if err := c.Close(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
		t.Run(name+"/mended just before Close", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _, s, mended := setUp(t)
				mended.Store(true)
				if err := c.Close(context.Background()); err != nil {
					t.Error(err)
				}
				checkStats(t, c, &docevents.Stats{Recorded: 2500, Delivered: 2500})
				if got := s.stages()["a"]; got != 2500 {
					t.Errorf("%d rows", got)
				}
			})
		})
	}
}

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
				if err := c.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
				checkStats(t, c, &docevents.Stats{
					Recorded: int64(test.events), Delivered: int64(test.events - poisoned),
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
				if got := s.sent(); got > 2*poisoned*10+test.events/1000+10 { // log2 of a batch
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
func TestGuiltyRow(t *testing.T) {
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

// Without other traffic there is no telling a guilty row from a server that is
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

func TestFourSendersFailAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(r *request) *answer {
			if r.number < 8 {
				return &answer{delay: 10 * time.Millisecond, err: errReset}
			}
			return &answer{delay: 10 * time.Millisecond, stored: true}
		}}
		c, _ := newClient(t, s)
		for range 10_000 {
			c.Record(event("a"))
		}
		if err := c.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		checkStats(t, c, &docevents.Stats{Recorded: 10_000, Delivered: 10_000})
		// Four fail together, then a probe of one row at a time, each after a
		// longer wait: the failures of one moment are one step.
		low := []time.Duration{100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond, 1600 * time.Millisecond}
		for i, r := range s.requests[4:9] {
			if len(r.rows) != 1 {
				t.Errorf("request %d has %d rows, want a probe's one", i+4, len(r.rows))
			}
			wait := r.at.Sub(s.requests[i+3].at) - 10*time.Millisecond
			if wait < low[i] || wait > 2*low[i] {
				t.Errorf("wait %d was %s, want %s to %s", i, wait, low[i], 2*low[i])
			}
		}
	})
}

func TestFailureLateInAWait(t *testing.T) {
	for _, late := range []answer{
		{err: errReset},
		{status: 503, header: map[string]string{"Retry-After": "60"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &server{answer: func(r *request) *answer {
				switch r.number {
				case 0:
					a := late
					a.delay = 150 * time.Millisecond
					return &a
				case 1:
					return &answer{delay: 60 * time.Millisecond, err: errReset}
				}
				return &answer{delay: time.Millisecond, stored: true}
			}}
			c, _ := newClient(t, s)
			c.Record(event("a"))
			time.Sleep(55 * time.Millisecond)
			c.Record(event("b"))
			start := time.Now()
			if err := c.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took > 300*time.Millisecond {
				t.Errorf("delivered after %s: the late failure moved the wait", took)
			}
			checkStats(t, c, &docevents.Stats{Recorded: 2, Delivered: 2})
		})
	}
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
			for i := range 60 { // so that a guilty row can be told
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

// While rows wait that fail every time, a new event goes with the next probe.
func TestNewEventIsProbedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(r *request) *answer {
			if r.has("poison") {
				return &answer{err: errReset}
			}
			return nil
		}}
		c, _ := newClient(t, s)
		for range 5 {
			c.Record(event("poison"))
		}
		time.Sleep(time.Hour)
		c.Record(event("new"))
		time.Sleep(30 * time.Second)
		checkStats(t, c, &docevents.Stats{Recorded: 6, Delivered: 1, Pending: 5})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_ = c.Close(ctx) // it abandons the five
	})
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

func TestRetryAfter(t *testing.T) {
	for name, test := range map[string]struct {
		header   string
		min, max time.Duration
	}{
		"absent":                   {"", 100 * time.Millisecond, 200 * time.Millisecond},
		"zero":                     {"0", 100 * time.Millisecond, 200 * time.Millisecond},
		"seconds":                  {"7", 7 * time.Second, 7 * time.Second},
		"absurd":                   {"99999999999999999999", time.Minute, time.Minute},
		"a date":                   {"Sat, 01 Jan 2000 00:00:20 GMT", 19 * time.Second, 20 * time.Second},
		"a past date":              {"Sat, 01 Jan 1999 00:00:20 GMT", 100 * time.Millisecond, 200 * time.Millisecond},
		"unreadable":               {"soon", 100 * time.Millisecond, 200 * time.Millisecond},
		"negative":                 {"-5", 100 * time.Millisecond, 200 * time.Millisecond},
		"a date in the far future": {"Sat, 01 Jan 2050 00:00:20 GMT", time.Minute, time.Minute},
	} {
		for _, status := range []int{429, 503} {
			t.Run(fmt.Sprint(name, " ", status), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { // begins at midnight, 2000-01-01
					s := &server{answer: func(r *request) *answer {
						if r.number == 0 {
							return &answer{status: status, header: map[string]string{"Retry-After": test.header}}
						}
						return nil
					}}
					c, _ := newClient(t, s)
					c.Record(event("a"))
					start := time.Now()
					if err := c.Flush(t.Context()); err != nil {
						t.Fatal(err)
					}
					if wait := time.Since(start); wait < test.min || wait > test.max {
						t.Errorf("waited %s, want %s to %s", wait, test.min, test.max)
					}
				})
			})
		}
	}
}

func TestFlushIsABarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(r *request) *answer {
			if r.has("late") {
				return &answer{delay: time.Hour, stored: true}
			}
			return &answer{delay: time.Second, stored: true}
		}}
		c, _ := newClient(t, s, docevents.WithMaxBatch(1), docevents.WithRequestTimeout(10*time.Minute))
		c.Record(event("early"))
		c.Record(event("early"))
		done := make(chan error)
		go func() { done <- c.Flush(context.Background()) }()
		synctest.Wait()
		c.Record(event("late"))
		start := time.Now()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("Flush took %s: it waited for what came after it", took)
		}
		if got := s.stages()["early"]; got != 2 {
			t.Errorf("Flush returned with %d of 2 stored", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := c.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 events still pending") {
			t.Errorf("Flush: %v", err)
		}
		if err := c.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close: %v", err)
		}
	})
}

func TestFlushWaitsForTheHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var called atomic.Bool
		c, _ := newClient(t, &server{}, docevents.WithDropHandler(func(docevents.Event, docevents.DropReason, error) {
			time.Sleep(time.Minute)
			called.Store(true)
		}))
		c.Record(docevents.Event{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) || called.Load() {
			t.Errorf("Flush: %v", err)
		}
		if err := c.Flush(t.Context()); err != nil || !called.Load() {
			t.Errorf("Flush: %v, handler called: %v", err, called.Load())
		}
	})
}

func TestCloseGoesOnThroughAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		s := &server{answer: func(*request) *answer {
			if time.Since(start) < 90*time.Second {
				return &answer{status: 503}
			}
			return nil
		}}
		c, _ := newClient(t, s)
		for range 3000 {
			c.Record(event("a"))
		}
		time.Sleep(40 * time.Second) // the wait is long by now
		before := s.sent()
		closing := make(chan error)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
			defer cancel()
			closing <- c.Close(ctx)
		}()
		synctest.Wait()
		if got := s.sent() - before; got < 3 || got > docevents.DefaultMaxInFlight {
			t.Errorf("Close made %d attempts at once, want one of each sender", got)
		}
		if err := <-closing; err != nil {
			t.Error(err)
		}
		checkStats(t, c, &docevents.Stats{Recorded: 3000, Delivered: 3000})
	})
}

// What was under way when Close began is not the attempt that Close makes.
func TestCloseWhileARequestIsUnderWay(t *testing.T) {
	for name, test := range map[string]struct {
		answer answer
		fails  bool
	}{
		"passing":       {answer{err: errReset}, false},
		"configuration": {answer{status: 401}, false},
		"still refused": {answer{status: 401}, true}, // for the 5 s that make it lasting
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &server{answer: func(r *request) *answer {
					if r.number == 0 || test.fails {
						a := test.answer
						a.delay = time.Second
						return &a
					}
					return nil
				}}
				c, _ := newClient(t, s)
				c.Record(event("a"))
				synctest.Wait()
				start := time.Now()
				err := c.Close(context.Background())
				low, high := time.Second, time.Second // that request, and another at once
				if test.fails {
					low, high = 6*time.Second, 8*time.Second // a request takes a second
				}
				if took := time.Since(start); (err != nil) != test.fails || took < low || took > high || !s.requests[1].at.Equal(start.Add(time.Second)) {
					t.Errorf("Close: %v after %s, want %s to %s, and an attempt when the one under way had failed", err, took, low, high)
				}
			})
		})
	}
}

// The answer that comes while Close gives up still counts.
func TestCloseCountsALateAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var s server
		c, o := newClient(t, roundTripper(func(r *request) *answer {
			<-release // whatever the context says
			time.Sleep(100 * time.Millisecond)
			return &answer{stored: true}
		}, &s), docevents.WithMaxInFlight(1))
		c.Record(event("a"))
		synctest.Wait()
		c.Record(event("b"))
		ctx, cancel := context.WithCancel(t.Context())
		context.AfterFunc(ctx, func() { close(release) })
		time.AfterFunc(time.Second, cancel)
		err := c.Close(ctx)
		if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "1 events abandoned") {
			t.Errorf("Close: %v", err)
		}
		checkStats(t, c, &docevents.Stats{Recorded: 2, Delivered: 1, Dropped: docevents.Drops{Abandoned: 1}})
		checkReported(t, c, o)
	})
}

// A foreign transport that ignores its context can't hold Close up.
func TestCloseLeavesAStuckTransport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var s server
		c, o := newClient(t, roundTripper(func(*request) *answer {
			<-release
			return &answer{stored: true}
		}, &s))
		for range 10 {
			c.Record(event("a"))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		if err := c.Close(ctx); !strings.Contains(fmt.Sprint(err), "10 events abandoned") {
			t.Errorf("Close: %v", err)
		}
		if took := time.Since(start); took > 4*time.Second {
			t.Errorf("Close took %s", took)
		}
		close(release)
		synctest.Wait()
		checkStats(t, c, &docevents.Stats{Recorded: 10, Dropped: docevents.Drops{Abandoned: 10}})
		checkReported(t, c, o)
	})
}

func roundTripper(answer func(*request) *answer, s *server) *server {
	s.answer = answer
	return s
}

func TestCloseWhile64GoroutinesRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(*request) *answer { return &answer{delay: time.Millisecond, stored: true} }}
		c, o := newClient(t, s)
		var wg sync.WaitGroup
		var stop atomic.Bool
		for range 64 {
			wg.Go(func() {
				for !stop.Load() {
					c.Record(event("a"))
					time.Sleep(time.Millisecond)
				}
			})
		}
		time.Sleep(50 * time.Millisecond)
		var closers sync.WaitGroup
		for range 3 {
			closers.Go(func() {
				if err := c.Close(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		closers.Wait()
		time.Sleep(10 * time.Millisecond)
		stop.Store(true)
		wg.Wait()
		c.Record(event("after"))
		if err := c.Flush(t.Context()); err != nil {
			t.Errorf("Flush after Close: %v", err)
		}
		if err := c.Close(t.Context()); err != nil {
			t.Errorf("second Close: %v", err)
		}
		st := c.Stats()
		checkStats(t, c, nil)
		if st.Delivered != int64(len(s.rows)) || st.Dropped.Closed == 0 || st.Delivered == 0 || st.Pending != 0 {
			t.Errorf("%d rows, %+v", len(s.rows), st)
		}
		checkReported(t, c, o)
	})
}

// The queue's memory is bounded, whatever is recorded, and so are goroutines.
func TestStalledServer(t *testing.T) {
	const limit = 32 << 20
	s := &server{answer: func(*request) *answer { return &answer{delay: time.Hour} }}
	c, _ := newClient(t, s, docevents.WithQueueLimits(1_000_000, limit),
		docevents.WithDropHandler(func(docevents.Event, docevents.DropReason, error) {})) // the observer would keep them
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	goroutines := runtime.NumGoroutine()
	before := heap()
	for i := range 1_000_000 {
		e := event("a")
		if i%10_000 == 0 {
			e.ErrorMessage = strings.Repeat("x", 10<<20)
		} else if i%10 == 0 {
			e.ErrorMessage = strings.Repeat("y", 2<<10)
		}
		c.Record(e)
	}
	if grown := int64(heap() - before); grown > limit+16<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
	if got := runtime.NumGoroutine() - goroutines; got > 3*docevents.DefaultMaxInFlight+2 {
		t.Errorf("%d goroutines", got)
	}
	st := c.Stats()
	if st.PendingBytes > limit || st.PendingBytes < limit*9/10 || st.Dropped.QueueFull == 0 {
		t.Errorf("%+v", st)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	checkStats(t, c, &docevents.Stats{Recorded: 1_000_000, Dropped: docevents.Drops{QueueFull: st.Dropped.QueueFull, Abandoned: st.Pending}})
}

// synctest fails where a goroutine is left over, so the absence of Close is the
// test: an idle client has none, and one after Close neither.
func TestNoGoroutineWhenIdle(t *testing.T) {
	for _, closed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			failing := true
			s := &server{answer: func(r *request) *answer {
				if failing = failing && r.number < 3; failing {
					return &answer{err: errReset}
				}
				return checkViolation(isPoison)(r)
			}}
			c, _ := newClient(t, s, docevents.WithMaxInFlight(1))
			for range 5000 {
				c.Record(event("a"))
			}
			c.Record(event("poison"))
			c.Record(docevents.Event{})
			if err := c.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if closed {
				if err := c.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			before := time.Now()
			synctest.Wait()
			if got := time.Since(before); got != 0 {
				t.Errorf("a timer ran: %s", got)
			}
		})
	}
}

func TestForeignTransportPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(r *request) *answer {
			if r.number == 0 {
				panic("row content")
			}
			return nil
		}}
		c, o := newClient(t, s)
		c.Record(event("a"))
		if err := c.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		checkStats(t, c, &docevents.Stats{Recorded: 1, Delivered: 1})
		for _, l := range o.logged() {
			if strings.Contains(l.text, "row content") {
				t.Errorf("logged %q", l.text)
			}
		}
	})
}

// Random schedules of faults, recorders, flushes and closes. What the client
// says must be what the server has.
func TestRandomSchedules(t *testing.T) {
	seeds := 300
	if testing.Short() {
		seeds = 40
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { randomSchedule(t, uint64(seed)) })
		})
	}
}

func randomSchedule(t *testing.T, seed uint64) {
	var mu sync.Mutex
	rnd := rand.New(rand.NewPCG(seed, 2))
	roll := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return rnd.IntN(n)
	}
	faulty := roll(60) // per cent
	var calm atomic.Bool
	faults := []answer{
		{err: errReset},
		{err: errReset, stored: true},
		{stored: true, cut: true, body: "x"},
		{status: 503},
		{status: 429, header: map[string]string{"Retry-After": "2"}},
		{status: 502, body: "<html>"},
		{status: 504, stored: true},
		{status: 500, code: "57014"},
		{status: 413},
		{status: 400, code: "PGRST102"},
		{status: 401, code: "PGRST301"},
		{status: 404, code: "PGRST205"},
		{status: 302},
		{status: 403, body: "<html>"},
		{status: 500, body: "null"},
		{status: 500, code: "XX000"},
		{status: 409, code: "40001"},
		{status: 409, code: "23503"},
		{status: 400, code: "22P02"},
		{status: 409, code: "23505", text: `"x_pkey"`},
	}
	s := &server{}
	s.answer = func(r *request) *answer {
		delay := time.Duration(roll(40)) * time.Millisecond
		if !calm.Load() && roll(100) < faulty {
			a := faults[roll(len(faults))]
			a.delay = delay
			if a.code == "22P02" || a.code == "23505" && len(r.rows) > 0 {
				// These two must be true to be believed.
				return &answer{delay: delay, stored: true}
			}
			return &a
		}
		for i := range r.rows {
			if isPoison(&r.rows[i]) {
				return &answer{delay: delay, status: 400, code: "23514"}
			}
			if r.rows[i].Stage != nil && strings.HasPrefix(*r.rows[i].Stage, "guilty") {
				return &answer{delay: delay, err: errReset}
			}
		}
		return &answer{delay: delay, stored: true}
	}
	c, o := newClient(t, s,
		docevents.WithMaxBatch(1+roll(50)), docevents.WithMaxInFlight(1+roll(5)),
		docevents.WithQueueLimits(200+roll(2000), 1<<20), docevents.WithRequestTimeout(30*time.Millisecond))
	var wg sync.WaitGroup
	var number atomic.Int64
	for range 1 + roll(6) {
		wg.Go(func() {
			for range roll(400) {
				name := fmt.Sprint(number.Add(1))
				switch roll(200) {
				case 0:
					c.Record(event("guilty " + name))
				case 1, 2, 3:
					c.Record(event("poison " + name))
				case 4:
					c.Record(docevents.Event{Stage: name})
				default:
					c.Record(event(name))
				}
				if roll(10) == 0 {
					time.Sleep(time.Duration(roll(300)) * time.Millisecond)
					checkStats(t, c, nil)
				}
			}
		})
	}
	for range roll(3) {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(roll(5000))*time.Millisecond)
			defer cancel()
			_ = c.Flush(ctx) // in the middle of faults it may well fail
			checkStats(t, c, nil)
		})
	}
	early := roll(4) == 0
	closeCtx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	if early {
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(roll(5000))*time.Millisecond)
		defer cancel()
		wg.Go(func() {
			time.Sleep(time.Duration(roll(3000)) * time.Millisecond)
			_ = c.Close(ctx)
		})
	}
	wg.Wait()
	calm.Store(true)
	_ = c.Close(closeCtx)
	synctest.Wait()
	st := c.Stats()
	checkStats(t, c, nil)
	if st.Pending != 0 {
		t.Errorf("seed %d: %d pending after Close", seed, st.Pending)
	}
	checkReported(t, c, o)
	maybe := map[string]bool{}
	for _, d := range o.lost() {
		maybe[d.event.Stage] = maybe[d.event.Stage] || errors.Is(d.err, docevents.ErrOutcomeUnknown)
	}
	stored := s.stages()
	inDoubt := int64(0)
	for stage, n := range stored {
		if n != 1 {
			t.Errorf("seed %d: %q stored %d times", seed, stage, n)
		}
		if unknown, dropped := maybe[stage]; dropped {
			if !unknown {
				t.Errorf("seed %d: %q was dropped as not stored, but is", seed, stage)
			}
			inDoubt++
		}
	}
	if got := int64(len(stored)) - inDoubt; got != st.Delivered {
		t.Errorf("seed %d: %d stored for certain, %d delivered", seed, got, st.Delivered)
	}
}

// linesAt are the log's lines of a level.
func linesAt(o *observer, level slog.Level) []line {
	return slices.DeleteFunc(o.logged(), func(l line) bool { return l.level != level })
}

// checkQuiet holds the log to one Error line per kind and 30 s.
func checkQuiet(t *testing.T, o *observer) {
	t.Helper()
	last := map[string]time.Time{}
	for _, l := range linesAt(o, slog.LevelError) {
		kind, _, _ := strings.Cut(l.text, "=")
		if before, ok := last[kind]; ok && l.at.Sub(before) < 30*time.Second {
			t.Errorf("%q again after %s", l.text, l.at.Sub(before))
		}
		last[kind] = l.at
	}
}

// checkReported holds that every drop was handed over or counted as skipped.
func checkReported(t *testing.T, c *docevents.Client, o *observer) {
	t.Helper()
	st := c.Stats()
	if got := int64(len(o.lost())); got+st.Unreported != st.Dropped.Total() {
		t.Errorf("%d handler calls and %d skipped, for %+v", got, st.Unreported, st.Dropped)
	}
}
