package docevents_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docevents/docevents-go"
)

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

// What was recorded after Flush began doesn't count for what was before.
func TestFlushCountsItsOwnEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(r *request) *answer {
			if r.has("early") {
				return &answer{delay: 5 * time.Second, stored: true}
			}
			return nil
		}}
		c, _ := newClient(t, s)
		start := time.Now()
		c.Record(event("early"))
		time.AfterFunc(time.Second, func() { c.Record(event("late")) })
		if err := c.Flush(t.Context()); err != nil || time.Since(start) != 5*time.Second {
			t.Errorf("Flush: %v after %s, want 5 s", err, time.Since(start))
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
		if got := s.sent() - before; got != 1 || len(s.requests[before].rows) != 1 {
			t.Errorf("Close made %d attempts at once, want one, of one row", got)
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
				low, high := time.Second, 1200*time.Millisecond // that request, and another shortly after
				if test.fails {
					low, high = 6*time.Second, 8*time.Second // a request takes a second
				}
				if took := time.Since(start); (err != nil) != test.fails || took < low || took > high || s.requests[1].at.Sub(start) > 1200*time.Millisecond {
					t.Errorf("Close: %v after %s, want %s to %s, and an attempt soon after the one in flight had failed", err, took, low, high)
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
		}, &s), docevents.WithMaxInFlight(1), docevents.WithMaxBatch(1))
		c.Record(event("a"))
		c.Record(event("b")) // is sent by Close
		c.Record(event("c"))
		ctx, cancel := context.WithCancel(t.Context())
		context.AfterFunc(ctx, func() { close(release) })
		time.AfterFunc(time.Second, cancel)
		err := c.Close(ctx)
		if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "1 events abandoned") {
			t.Errorf("Close: %v", err)
		}
		checkStats(t, c, &docevents.Stats{Recorded: 3, Delivered: 2, Dropped: docevents.Drops{Abandoned: 1}})
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
		sent := 0
		for _, d := range o.lost() {
			if errors.Is(d.err, docevents.ErrOutcomeUnknown) {
				sent++
			}
		}
		if sent != 10 {
			t.Errorf("the outcome of %d is said to be unknown, all 10 were sent", sent)
		}
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

// Both try at once what waits for anything: what shares a request that hangs,
// what an outage holds back, its probe hanging, and what waits by itself.
func TestFlushAndCloseTryEverything(t *testing.T) {
	hangs := answer{delay: time.Hour}
	for name, test := range map[string]struct {
		answers []answer // to the first requests; the others store
		inOne   int      // recorded in the moment of the first request
		wait    time.Duration
		left    int64 // under the request that hangs
	}{
		"what waits to share a request that hangs":   {[]answer{hangs}, 500, 0, 1},
		"what is held back while a probe hangs":      {[]answer{{status: 503}, hangs}, 1000, time.Second, 1},
		"what is held back by Retry-After":           {[]answer{{status: 503, header: map[string]string{"Retry-After": "60"}}}, 1000, time.Second, 0},
		"what is held back by a refusal":             {[]answer{{status: 404, code: "PGRST205"}}, 1000, 50 * time.Millisecond, 0},
		"what waits by itself beside one that hangs": {[]answer{{status: 503, header: map[string]string{"Retry-After": "60"}, delay: 60 * time.Millisecond}, hangs}, 1, 100 * time.Millisecond, 1},
	} {
		for _, closes := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/Close %t", name, closes), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := &server{answer: func(r *request) *answer {
						if r.number < len(test.answers) {
							return &test.answers[r.number]
						}
						return nil
					}}
					c, _ := newClient(t, s, docevents.WithRequestTimeout(10*time.Minute))
					c.Record(event("first"))
					synctest.Wait()
					if test.inOne == 1 { // late enough for a request of its own
						time.Sleep(51 * time.Millisecond)
					}
					for range test.inOne {
						c.Record(event("a"))
					}
					time.Sleep(test.wait)
					start := time.Now()
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
					defer cancel()
					err := c.Flush
					if closes {
						err = c.Close
					}
					got := err(ctx)
					st := c.Stats()
					if left := st.Pending + st.Dropped.Abandoned; left != test.left || (got != nil) != (left > 0) {
						t.Errorf("%d left after %d requests: %v", left, st.Requests, got)
					}
					if took := time.Since(start); test.left == 0 && took > 0 {
						t.Errorf("took %s", took)
					}
					cancel()
					_ = c.Close(ctx)
				})
			})
		}
	}
}

// What hosted Supabase answers for a second or two is waited out.
func TestFlushAndCloseWaitOutWhatPasses(t *testing.T) {
	for _, a := range []answer{
		{status: 401, code: "PGRST303", text: "JWT issued at future"},
		{status: 400, code: "PGRST204", text: "Could not find the 'stage' column"},
		{status: 404, code: "PGRST205", text: "Could not find the table"},
		{status: 400, code: "0A000", text: "cached plan must not change result type"},
	} {
		for _, closes := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/Close %t", a.code, closes), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					begin := time.Now()
					s := &server{answer: func(*request) *answer {
						if time.Since(begin) < 2*time.Second {
							return &a
						}
						return nil
					}}
					c, _ := newClient(t, s)
					for range 50 {
						c.Record(event("a"))
					}
					time.Sleep(500 * time.Millisecond)
					ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
					defer cancel()
					err := c.Flush
					if closes {
						err = c.Close
					}
					if err := err(ctx); err != nil {
						t.Error(err)
					}
					checkStats(t, c, &docevents.Stats{Recorded: 50, Delivered: 50})
					_ = c.Close(ctx)
				})
			})
		}
	}
}

// A function is frozen between its replies: it has no time but that of Flush.
func TestFlushAfterALongOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var up atomic.Bool
		s := &server{answer: func(*request) *answer {
			if up.Load() {
				return nil
			}
			return &answer{err: errReset}
		}}
		c, _ := newClient(t, s)
		c.Record(event("a"))
		c.Record(event("b"))
		time.Sleep(3 * time.Minute)
		up.Store(true)
		start := time.Now()
		if err := c.Flush(t.Context()); err != nil || time.Since(start) > 0 {
			t.Errorf("Flush: %v after %s", err, time.Since(start))
		}
		_ = c.Close(t.Context())
	})
}

// However often Flush is called, it ends the waits once a second.
func TestFlushOftenIsNoStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(*request) *answer { return &answer{err: errReset} }}
		c, _ := newClient(t, s)
		c.Record(event("a"))
		time.Sleep(5 * time.Minute) // the waits are long
		before := s.sent()
		for range 600 { // a minute
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			if err := c.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), errReset.Error()) {
				t.Fatalf("Flush: %v", err)
			}
			cancel()
		}
		if got := s.sent() - before; got < 55 || got > 65 {
			t.Errorf("%d requests in a minute of Flushes, want one a second and the timer's", got)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		_ = c.Close(ended)
	})
}

// A row under suspicion has failed while others got in, and now nothing is
// taken any more: neither waits longer than a refusal takes to be lasting.
func TestFlushAndCloseOfASuspectWhileTheKeyIsRefused(t *testing.T) {
	for _, closes := range []bool{false, true} {
		t.Run(fmt.Sprintf("Close %t", closes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var revoked atomic.Bool
				s := &server{answer: func(r *request) *answer {
					switch {
					case revoked.Load():
						return &answer{status: 401}
					case r.has("disliked"):
						return &answer{status: 403}
					}
					return nil
				}}
				c, _ := newClient(t, s)
				c.Record(event("disliked"))
				for range 5 {
					time.Sleep(time.Second)
					c.Record(event("fine"))
				}
				time.Sleep(time.Second)
				checkStats(t, c, &docevents.Stats{Recorded: 6, Delivered: 5, Pending: 1})
				revoked.Store(true)
				time.Sleep(time.Minute)
				start := time.Now()
				err := c.Flush
				if closes {
					err = c.Close
				}
				got := err(context.Background())
				if e, ok := errors.AsType[*docevents.Error](got); !ok || e.Status != 401 {
					t.Errorf("got %v", got)
				}
				if took := time.Since(start); took > time.Second {
					t.Errorf("took %s", took)
				}
				ended, cancel := context.WithCancel(t.Context())
				cancel()
				_ = c.Close(ended)
			})
		})
	}
}

// Close waits for a row under suspicion no longer than it takes to fail again
// while the server takes others, under whatever context.
func TestCloseGivesUpOnSuspects(t *testing.T) {
	for name, dislike := range map[string]answer{
		"a firewall's page":        {status: 403, body: "<html>"},
		"a connection that is cut": {err: errReset},
		"a missing foreign key":    {status: 409, code: "23503", text: "violates foreign key constraint"},
		"a trigger's lost table":   {status: 404, code: "42P01", text: `relation "audit" does not exist`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &server{answer: func(r *request) *answer {
					if r.has("disliked") {
						return &dislike
					}
					return nil
				}}
				c, o := newClient(t, s)
				for i := range 1000 {
					c.Record(event([]string{"fine", "disliked"}[i/500%2*(i%500/499)]))
				}
				start := time.Now()
				err := c.Close(context.Background())
				if took := time.Since(start); took > 30*time.Second {
					t.Errorf("Close took %s", took)
				}
				st := c.Stats()
				if st.Delivered != 999 || len(o.lost()) != 1 || o.lost()[0].event.Stage != "disliked" {
					t.Errorf("%+v: %v", st, err)
				}
				if st.Dropped.Abandoned == 1 && !strings.Contains(fmt.Sprint(err), "go on failing, while others were stored") {
					t.Errorf("Close: %v", err)
				}
			})
		})
	}
}

// Close ends, under whatever context, when what is left fails again while the
// server took the others: however many rows that are, and however long each of
// their requests takes.
func TestCloseGivesUpOnManySuspects(t *testing.T) {
	for name, test := range map[string]struct {
		answer answer
		rows   int // that get it, of 1,000
		most   time.Duration
	}{
		"a firewall":                   {answer{status: 403}, 7, 10 * time.Minute},
		"a firewall, many":             {answer{status: 403}, 50, time.Hour},
		"resets":                       {answer{err: errReset}, 7, 10 * time.Minute},
		"foreign keys":                 {answer{status: 409, code: "23503"}, 50, time.Hour},
		"too large":                    {answer{status: 413}, 4, 10 * time.Minute},
		"a statement timeout":          {answer{status: 500, code: "57014", delay: 8 * time.Second}, 1, 5 * time.Minute},
		"statement timeouts":           {answer{status: 500, code: "57014", delay: 8 * time.Second}, 7, 10 * time.Minute},
		"statement timeouts, and many": {answer{status: 500, code: "57014", delay: 8 * time.Second}, 50, time.Hour},
	} {
		for _, after := range []time.Duration{0, 3 * time.Second} {
			t.Run(fmt.Sprint(name, " after ", after), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := &server{answer: func(r *request) *answer {
						if r.has("bad") {
							return &test.answer
						}
						return &answer{stored: true, delay: 5 * time.Millisecond}
					}}
					c, o := newClient(t, s)
					for i := range 1000 {
						c.Record(event([]string{"bad", "fine"}[min(1, (i+5)%(1000/test.rows))]))
					}
					time.Sleep(after)
					ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour) // stands for Background
					defer cancel()
					begin := time.Now()
					err := c.Close(ctx)
					if took := time.Since(begin); took > test.most {
						t.Errorf("Close took %s, %d requests: %v", took, s.sent(), err)
					}
					for _, d := range o.lost() {
						if d.event.Stage == "fine" {
							t.Fatal("an innocent event is lost")
						}
					}
				})
			})
		}
	}
}

// A deadline's error names what failed last, while it is failing.
func TestFlushNamesNoOldFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(r *request) *answer {
			switch r.number {
			case 0:
				return &answer{status: 503}
			case 1:
				return nil
			}
			return &answer{delay: time.Minute, stored: true}
		}}
		c, _ := newClient(t, s, docevents.WithRequestTimeout(10*time.Minute))
		c.Record(event("a"))
		time.Sleep(time.Second)
		c.Record(event("slow"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "503") {
			t.Errorf("Flush: %v", err)
		}
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// However long the outage was: what Close tries in vain it tries again shortly.
func TestCloseBeginsTheWaitsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var up atomic.Bool
		s := &server{answer: func(*request) *answer {
			if up.Load() {
				return nil
			}
			return &answer{err: errReset}
		}}
		c, _ := newClient(t, s)
		c.Record(event("a"))
		c.Record(event("b"))
		time.Sleep(10 * time.Minute)
		time.AfterFunc(time.Millisecond, func() { up.Store(true) })
		start := time.Now()
		if err := c.Close(t.Context()); err != nil || time.Since(start) > 400*time.Millisecond {
			t.Errorf("Close: %v after %s", err, time.Since(start))
		}
	})
}

// Close tries a suspect once more, however often it has failed before.
func TestCloseTriesSuspectsOnce(t *testing.T) {
	for taken, want := range map[int]docevents.Stats{
		1: {Recorded: 6, Delivered: 6},
		2: {Recorded: 6, Delivered: 5, Dropped: docevents.Drops{Abandoned: 1}},
	} {
		t.Run(fmt.Sprintf("taken at attempt %d", taken), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				closing, tries := false, 0
				s := &server{}
				s.answer = func(r *request) *answer {
					if !r.has("disliked") {
						return nil
					}
					s.mu.Lock()
					defer s.mu.Unlock()
					if closing {
						tries++
					}
					if tries == taken {
						return nil
					}
					return &answer{status: 403}
				}
				c, _ := newClient(t, s)
				c.Record(event("disliked"))
				for range 5 {
					time.Sleep(time.Second)
					c.Record(event("fine"))
				}
				time.Sleep(time.Second)
				s.mu.Lock()
				closing = true
				s.mu.Unlock()
				if err := c.Close(t.Context()); (err != nil) != (want.Dropped.Abandoned > 0) {
					t.Errorf("Close: %v", err)
				}
				checkStats(t, c, &want)
			})
		})
	}
}
