package docevents_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docevents/docevents-go"
)

// flushAndClose runs a test twice, in synctest bubbles: once for Flush and once for
// Close. end calls Flush or Close with a deadline.
func flushAndClose(t *testing.T, test func(t *testing.T, closes bool, end func(c *docevents.Client, within time.Duration) error)) {
	for _, closes := range []bool{false, true} {
		t.Run(map[bool]string{false: "Flush", true: "Close"}[closes], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				test(t, closes, func(c *docevents.Client, within time.Duration) error {
					ctx, cancel := context.WithTimeout(t.Context(), within)
					defer cancel()
					if closes {
						return c.Close(ctx)
					}
					return c.Flush(ctx)
				})
			})
		})
	}
}

// never is used instead of no deadline, so that a bubble doesn't wait for ever.
const never = 1000 * time.Hour

// Flush waits for the events that were recorded before it, and not for later ones.
func TestFlushIsABarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(r *request) *answer {
			if r.has("late") {
				return &answer{delay: time.Hour, stored: true}
			}
			if r.has("between") {
				return nil
			}
			return &answer{delay: 2 * time.Second, stored: true}
		}}
		c, _ := newClient(t, s, docevents.WithMaxBatch(1), docevents.WithRequestTimeout(10*time.Minute))
		c.Record(event("early"))
		c.Record(event("early"))
		time.AfterFunc(time.Second, func() { c.Record(event("between")); c.Record(event("late")) })
		start := time.Now()
		if err := c.Flush(t.Context()); err != nil || time.Since(start) != 2*time.Second {
			t.Errorf("Flush: %v after %s, want the early events' 2 s", err, time.Since(start))
		}
		if got := s.stages(); got["early"] != 2 || got["between"] != 1 {
			t.Errorf("stored %v", got)
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

// In an outage Close sends one row at once, and retries at least once a second until
// the outage ends.
func TestCloseInAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		s := &server{answer: func(*request) *answer {
			if time.Since(start) < 90*time.Second {
				return &answer{status: 503}
			}
			return nil
		}}
		c, _ := newClient(t, s)
		for range 8000 {
			c.Record(event("a"))
		}
		time.Sleep(40 * time.Second) // the waits have become long
		before := s.sent()
		closed := make(chan error)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
			defer cancel()
			closed <- c.Close(ctx)
		}()
		synctest.Wait()
		if got := s.sent() - before; got != 1 || len(s.all()[before].rows) != 1 {
			t.Errorf("Close made %d attempts at once, want one of one row", got)
		}
		if err := <-closed; err != nil {
			t.Error(err)
		}
		last := start.Add(40 * time.Second)
		for _, r := range s.all()[before:] {
			if r.at.Sub(last) > time.Second {
				t.Errorf("Close waited %s between two attempts, want at most a second", r.at.Sub(last))
			}
			last = r.at
		}
		if took := time.Since(start); took > 91500*time.Millisecond {
			t.Errorf("closed after %s, want at most a second after the outage", took)
		}
		checkStats(t, c, &docevents.Stats{Recorded: 8000, Delivered: 8000})
	})
}

// If a request that was in flight when Close began fails, Close soon makes an
// attempt.
func TestCloseWhileARequestIsInFlight(t *testing.T) {
	for name, test := range map[string]struct {
		answer answer
		fails  bool // the answer is the same every time
	}{
		"a reset":              {answer{err: errReset}, false},
		"a refusal":            {answer{status: 401}, false},
		"a refusal every time": {answer{status: 401}, true}, // for the 5 s after which it is lasting
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
				low, high := time.Second, 1200*time.Millisecond // that request and one more
				if test.fails {
					low, high = 6*time.Second, 8*time.Second // a request takes a second
				}
				if took := time.Since(start); (err != nil) != test.fails || took < low || took > high {
					t.Errorf("Close: %v after %s, want %s to %s", err, took, low, high)
				}
				if next := s.all()[1].at.Sub(start); next > 1200*time.Millisecond {
					t.Errorf("the next attempt came after %s", next)
				}
			})
		})
	}
}

// An answer that comes while Close cancels the requests still counts.
func TestCloseCountsALateAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := &server{answer: func(*request) *answer {
			<-release // even if the context has ended
			time.Sleep(450 * time.Millisecond)
			return &answer{stored: true}
		}}
		c, o := newClient(t, s, docevents.WithMaxInFlight(1))
		c.Record(event("a"))
		synctest.Wait()
		c.Record(event("b"))
		ctx, cancel := context.WithCancel(t.Context())
		context.AfterFunc(ctx, func() { close(release) })
		time.AfterFunc(500*time.Millisecond, cancel)
		err := c.Close(ctx)
		if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "1 events abandoned") {
			t.Errorf("Close: %v", err)
		}
		checkStats(t, c, &docevents.Stats{Recorded: 2, Delivered: 1, Dropped: docevents.Drops{Abandoned: 1}})
		checkReported(t, c, o)
	})
}

// The events of a request that Close cancels may be stored. So their errors match
// ErrOutcomeUnknown, whether the transport returns at once, late, or never. Errors
// of events that were never sent don't match it.
func TestOutcomeOfCancelledRequests(t *testing.T) {
	for name, returns := range map[string]time.Duration{"at once": 0, "late": 100 * time.Millisecond, "never": never} {
		t.Run("the transport returns "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &server{}
				c, o := newClient(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
					resp, err := s.RoundTrip(req) // stores the rows
					<-req.Context().Done()
					time.Sleep(returns)
					return resp, errors.Join(err, req.Context().Err())
				}), docevents.WithMaxInFlight(1), docevents.WithMaxBatch(10))
				for range 21 { // one event is stored, and then ten requests hang
					c.Record(event("a"))
				}
				start := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				if err := c.Close(ctx); !strings.Contains(fmt.Sprint(err), "21 events abandoned") {
					t.Errorf("Close: %v", err)
				}
				if took, want := time.Since(start), 3*time.Second+min(returns, 500*time.Millisecond); took != want {
					t.Errorf("Close took %s, want %s", took, want)
				}
				checkStats(t, c, &docevents.Stats{Recorded: 21, Dropped: docevents.Drops{Abandoned: 21}})
				unknown := 0
				for _, d := range o.lost() {
					if errors.Is(d.err, docevents.ErrOutcomeUnknown) {
						unknown++
					}
				}
				if stored := s.stages()["a"]; unknown != stored || stored != 11 {
					t.Errorf("the outcome of %d is unknown, %d are stored, want 11 of each", unknown, stored)
				}
				checkReported(t, c, o)
				time.Sleep(never) // a late answer changes nothing
				checkStats(t, c, &docevents.Stats{Recorded: 21, Dropped: docevents.Drops{Abandoned: 21}})
			})
		})
	}
}

func TestCloseWhile64GoroutinesRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := slow(time.Millisecond)
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

// Flush and Close send every waiting row at once, for whatever reason it waits.
func TestFlushAndCloseTryEverything(t *testing.T) {
	hangs := answer{delay: time.Hour}
	for name, test := range map[string]struct {
		answers []answer // the answers to the first requests; the others are stored
		events  int      // how many are recorded at the time of the first request
		wait    time.Duration
		left    int64 // how many rows are in the request that hangs
	}{
		"rows that wait to share a request that hangs": {[]answer{hangs}, 500, 0, 1},
		"a probe hangs":                    {append(slices.Repeat([]answer{{status: 503, delay: 10 * time.Millisecond}}, 8), hangs), 6000, time.Second, 1},
		"Retry-After":                      {[]answer{{status: 503, header: map[string]string{"Retry-After": "60"}}}, 1000, time.Second, 0},
		"a refusal":                        {[]answer{{status: 404, code: "PGRST205"}}, 1000, 50 * time.Millisecond, 0},
		"Retry-After, and a request hangs": {[]answer{{status: 503, header: map[string]string{"Retry-After": "60"}, delay: 60 * time.Millisecond}, hangs}, 1, 100 * time.Millisecond, 1},
	} {
		t.Run(name, func(t *testing.T) {
			flushAndClose(t, func(t *testing.T, _ bool, end func(*docevents.Client, time.Duration) error) {
				s := &server{answer: func(r *request) *answer {
					if r.number < len(test.answers) {
						return &test.answers[r.number]
					}
					return nil
				}}
				c, _ := newClient(t, s, docevents.WithRequestTimeout(10*time.Minute))
				c.Record(event("first"))
				synctest.Wait()
				if test.events == 1 { // too late to share the first request
					time.Sleep(51 * time.Millisecond)
				}
				for range test.events {
					c.Record(event("a"))
				}
				time.Sleep(test.wait)
				start := time.Now()
				err := end(c, 10*time.Second)
				st := c.Stats()
				if left := st.Pending + st.Dropped.Abandoned; left != test.left || (err != nil) != (left > 0) {
					t.Errorf("%d left after %d requests: %v", left, st.Requests, err)
				}
				if took := time.Since(start); test.left == 0 && took > 0 {
					t.Errorf("took %s", took)
				}
				_ = c.Close(t.Context())
			})
		})
	}
}

// If all requests that WithMaxInFlight allows hang, Flush and Close send the rest in
// one more. If they are only slow, there is no further request.
func TestFlushAndCloseWhileAllHang(t *testing.T) {
	for name, test := range map[string]struct {
		delay time.Duration // the time that the first four requests take
		wait  time.Duration // the time before Flush or Close
		most  int           // the most requests at once
	}{
		"they hang for a long time":         {time.Hour, 5 * time.Second, 5},
		"they have just begun to hang":      {time.Hour, 0, 5},
		"they are slow and have just begun": {900 * time.Millisecond, 0, 4},
		"they were slow and have ended":     {900 * time.Millisecond, time.Second, 4},
	} {
		t.Run(name, func(t *testing.T) {
			flushAndClose(t, func(t *testing.T, _ bool, end func(*docevents.Client, time.Duration) error) {
				s := &server{answer: func(r *request) *answer {
					if r.number < 4 {
						return &answer{delay: test.delay, stored: true}
					}
					return &answer{delay: 10 * time.Millisecond, stored: true}
				}}
				c, _ := newClient(t, s, docevents.WithMaxBatch(100), docevents.WithRequestTimeout(10*time.Minute))
				for i := range 1000 {
					c.Record(event(fmt.Sprint(i)))
				}
				time.Sleep(test.wait)
				err := end(c, 10*time.Second)
				if want := 1000 - 301*(test.most-4); len(s.stages()) < want-99 || (err != nil) != (test.most > 4) {
					t.Errorf("%d of 1000 stored: %v", len(s.stages()), err)
				}
				if s.peak() != test.most {
					t.Errorf("%d requests at once, want %d", s.peak(), test.most)
				}
				if after := s.all()[4].at.Sub(s.all()[3].at); after != min(test.delay, max(test.wait, time.Second)) {
					t.Errorf("the fifth request was sent %s after the fourth", after)
				}
				closeNow(t, c)
			})
		})
	}
}

// Hosted Supabase sometimes refuses every request for a second or two. Flush and
// Close wait until that ends.
func TestFlushAndCloseOutlastShortRefusals(t *testing.T) {
	for _, a := range []answer{
		{status: 401, code: "PGRST303", text: "JWT issued at future"},
		{status: 400, code: "PGRST204", text: "Could not find the 'stage' column"},
		{status: 404, code: "PGRST205", text: "Could not find the table"},
		{status: 400, code: "0A000", text: "cached plan must not change result type"},
	} {
		t.Run(a.code, func(t *testing.T) {
			flushAndClose(t, func(t *testing.T, _ bool, end func(*docevents.Client, time.Duration) error) {
				c, _ := newClient(t, during(2*time.Second, a))
				for range 50 {
					c.Record(event("a"))
				}
				time.Sleep(500 * time.Millisecond)
				if err := end(c, 5*time.Second); err != nil {
					t.Error(err)
				}
				checkStats(t, c, &docevents.Stats{Recorded: 50, Delivered: 50})
				_ = c.Close(t.Context())
			})
		})
	}
}

// After a lasting refusal Flush and Close ask the server again. If it is fixed by
// then, they return no error.
func TestFlushAndCloseAfterALastingRefusal(t *testing.T) {
	flushAndClose(t, func(t *testing.T, _ bool, end func(*docevents.Client, time.Duration) error) {
		c, _ := newClient(t, during(time.Minute, answer{status: 401}))
		for range 50 {
			c.Record(event("a"))
		}
		time.Sleep(time.Minute)
		start := time.Now()
		if err := end(c, never); err != nil || time.Since(start) > 0 {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		checkStats(t, c, &docevents.Stats{Recorded: 50, Delivered: 50})
		_ = c.Close(t.Context())
	})
}

// A bad row that is the last event is not dropped, since nothing is stored after its
// rejection. Flush and Close return the rejection after some seconds.
func TestFlushAndCloseAfterABadRow(t *testing.T) {
	for _, bad := range []int{1, 20} {
		for _, isNamed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d/named %t", bad, isNamed), func(t *testing.T) {
				flushAndClose(t, func(t *testing.T, closes bool, end func(*docevents.Client, time.Duration) error) {
					a := refusal
					if isNamed {
						a.names = failingRow
					}
					c, o := newClient(t, &server{answer: answerBad(a, time.Millisecond)})
					for range 100 {
						c.Record(event("fine"))
					}
					time.Sleep(time.Second)
					for range bad {
						c.Record(event("bad"))
					}
					start := time.Now()
					err := end(c, never)
					if e, ok := errors.AsType[*docevents.Error](err); !ok || e.Code != "23514" {
						t.Errorf("%v", err)
					}
					if took := time.Since(start); took < 2*time.Second || took > 11*time.Second {
						t.Errorf("took %s", took)
					}
					st := c.Stats()
					if st.Delivered != 100 || closes && st.Dropped.Abandoned+st.Dropped.Rejected != int64(bad) || !closes && st.Pending+st.Dropped.Rejected != int64(bad) {
						t.Errorf("%+v", st)
					}
					for _, d := range o.lost() {
						if e, ok := errors.AsType[*docevents.Error](d.err); d.event.Stage != "bad" || !ok || e.Code != "23514" {
							t.Errorf("%s: %v", d.reason, d.err)
						}
					}
					if !closes {
						checkQuiet(t, o)
						n := drain(t, c)
						checkStats(t, c, &docevents.Stats{Recorded: int64(100+bad) + n, Delivered: 100 + n, Dropped: docevents.Drops{Rejected: int64(bad)}})
					}
				})
			})
		}
	}
}

// A serverless function that is frozen between replies runs only while Flush runs.
func TestFlushAfterALongOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := newClient(t, during(3*time.Minute, answer{err: errReset}))
		c.Record(event("a"))
		c.Record(event("b"))
		time.Sleep(3 * time.Minute)
		start := time.Now()
		if err := c.Flush(t.Context()); err != nil || time.Since(start) > 0 {
			t.Errorf("Flush: %v after %s", err, time.Since(start))
		}
	})
}

// Flush cuts the backoff short at most once a second, however often it is called.
func TestFlushOftenSendsOneRequestASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(*request) *answer { return &answer{err: errReset} }}
		c, _ := newClient(t, s)
		c.Record(event("a"))
		time.Sleep(5 * time.Minute) // the waits have become long
		before := s.sent()
		for range 600 { // for a minute
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			if err := c.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), errReset.Error()) {
				t.Fatalf("Flush: %v", err)
			}
			cancel()
		}
		if got := s.sent() - before; got < 55 || got > 67 {
			t.Errorf("%d requests in a minute, want one a second and the timer's", got)
		}
		closeNow(t, c)
	})
}

// If a suspect is pending when the key is refused, Flush and Close wait only until
// the refusal counts as lasting.
func TestFlushAndCloseOfASuspectWhileTheKeyIsRefused(t *testing.T) {
	flushAndClose(t, func(t *testing.T, closes bool, end func(*docevents.Client, time.Duration) error) {
		var revoked atomic.Bool
		s := &server{answer: func(r *request) *answer {
			if revoked.Load() {
				return &answer{status: 401}
			}
			return answerBad(answer{status: 403}, 0)(r)
		}}
		c, _ := newClient(t, s)
		c.Record(event("bad"))
		for range 5 {
			time.Sleep(time.Second)
			c.Record(event("fine"))
		}
		time.Sleep(time.Second)
		checkStats(t, c, &docevents.Stats{Recorded: 6, Delivered: 5, Pending: 1})
		revoked.Store(true)
		time.Sleep(time.Minute)
		start := time.Now()
		err := end(c, never)
		if e, ok := errors.AsType[*docevents.Error](err); !ok || e.Status != 401 {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("took %s", took)
		}
		closeNow(t, c)
	})
}

// Even without a deadline, Close returns when all rows that are left, however many,
// fail again and again although the server stored others.
func TestCloseStopsWaitingForSuspects(t *testing.T) {
	slowly := answer{status: 500, code: "57014", delay: 8 * time.Second}
	for name, test := range map[string]struct {
		answer answer
		bad    int // how many of 400 rows are bad
		most   time.Duration
	}{
		"a firewall":                {answer{status: 403, body: "<html>"}, 7, time.Minute},
		"a firewall, many rows":     {answer{status: 403}, 50, time.Minute},
		"resets":                    {answer{err: errReset}, 7, time.Minute},
		"missing foreign keys":      {answer{status: 409, code: "23503"}, 50, time.Minute},
		"a trigger's missing table": {answer{status: 404, code: "42P01", text: `relation "audit" does not exist`}, 1, time.Minute},
		"too large":                 {answer{status: 413}, 4, time.Minute},
		"a statement timeout":       {slowly, 1, 5 * time.Minute},
		"statement timeouts":        {slowly, 7, 10 * time.Minute},
		"many statement timeouts":   {slowly, 50, time.Hour},
		"refused data":              {refusal, 1, 10 * time.Second},
		"refused data, many rows":   {refusal, 50, time.Minute},
	} {
		each := 400 / test.bad
		for layout, isBad := range map[string]func(i int) bool{
			"spread":                  func(i int) bool { return i%each == 5 && i < each*test.bad },
			"spread, with the first":  func(i int) bool { return i%each == 0 && i < each*test.bad }, // the first row is sent alone
			"adjacent":                func(i int) bool { return i >= 20 && i < 20+test.bad },
			"adjacent, with the last": func(i int) bool { return i >= 400-test.bad },
		} {
			for _, after := range []time.Duration{0, 300 * time.Millisecond, 3 * time.Second} {
				t.Run(fmt.Sprintf("%s/%s/after %s", name, layout, after), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						s := &server{discard: true, answer: answerBad(test.answer, 5*time.Millisecond)}
						c, o := newClient(t, s)
						for i := range 400 {
							c.Record(event(map[bool]string{true: "bad", false: "fine"}[isBad(i)]))
						}
						time.Sleep(after)
						start := time.Now()
						ctx, cancel := context.WithTimeout(t.Context(), 2*test.most)
						defer cancel()
						err := c.Close(ctx)
						if took := time.Since(start); took > test.most {
							t.Errorf("Close took %s, %d requests: %v", took, s.sent(), err)
						}
						st := c.Stats()
						if st.Delivered != int64(400-test.bad) || (err != nil) != (st.Dropped.Abandoned > 0) {
							t.Errorf("%+v: %v", st, err)
						}
						for _, d := range o.lost() {
							if d.event.Stage != "bad" {
								t.Fatalf("lost %q: %s, %v", d.event.Stage, d.reason, d.err)
							}
						}
					})
				})
			}
		}
	}
}

// Close sends a suspect five times within seconds, however often it failed before.
func TestCloseTriesSuspects(t *testing.T) {
	for at, want := range map[int]docevents.Stats{
		5: {Recorded: 6, Delivered: 6},
		6: {Recorded: 6, Delivered: 5, Dropped: docevents.Drops{Abandoned: 1}},
	} {
		t.Run(fmt.Sprintf("stored at attempt %d", at), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var closing atomic.Bool
				var tries atomic.Int64
				s := &server{answer: func(r *request) *answer {
					if r.bad() < 0 || closing.Load() && tries.Add(1) == int64(at) {
						return nil
					}
					return &answer{status: 403}
				}}
				c, o := newClient(t, s)
				c.Record(event("bad"))
				for range 5 {
					time.Sleep(5 * time.Second) // so that each failure is a strike
					c.Record(event("fine"))
				}
				time.Sleep(time.Second)
				closing.Store(true)
				start := time.Now()
				err := c.Close(t.Context())
				if took := time.Since(start); took > 10*time.Second {
					t.Errorf("Close took %s", took)
				}
				if want.Dropped.Abandoned > 0 {
					for _, err := range []error{err, o.lost()[0].err} {
						if e, ok := errors.AsType[*docevents.Error](err); !ok || e.Status != 403 {
							t.Errorf("%v, want the suspect's last failure", err)
						}
					}
					if !strings.Contains(err.Error(), "keep failing, although others were stored") {
						t.Errorf("Close: %v", err)
					}
				} else if err != nil {
					t.Errorf("Close: %v", err)
				}
				checkStats(t, c, &want)
			})
		})
	}
}

// If the first attempt of Close fails, the next follows soon, even after a long
// outage.
func TestCloseStartsTheWaitsAgain(t *testing.T) {
	for name, test := range map[string]struct {
		batches  int
		min, max time.Duration
	}{
		"two batches that failed": {2, 100 * time.Millisecond, 400 * time.Millisecond},
		"an outage":               {10, 200 * time.Millisecond, 400 * time.Millisecond}, // the second wait of an outage
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _ := newClient(t, during(10*time.Minute+time.Millisecond, answer{err: errReset}), docevents.WithMaxBatch(1))
				for range test.batches {
					c.Record(event("a"))
				}
				time.Sleep(10 * time.Minute)
				start := time.Now()
				err := c.Close(t.Context())
				if took := time.Since(start); err != nil || took < test.min || took > test.max {
					t.Errorf("Close: %v after %s, want %s to %s", err, took, test.min, test.max)
				}
			})
		})
	}
}

// Flush and Close send at once the events that wait up to 50 ms to share a request.
func TestFlushAndCloseEndTheWaitToShare(t *testing.T) {
	flushAndClose(t, func(t *testing.T, _ bool, end func(*docevents.Client, time.Duration) error) {
		s := slow(10 * time.Millisecond)
		c, _ := newClient(t, s)
		c.Record(event("a"))
		c.Record(event("b"))
		start := time.Now()
		if err := end(c, never); err != nil || time.Since(start) != 10*time.Millisecond {
			t.Errorf("%v after %s, want both events sent at once", err, time.Since(start))
		}
		_ = c.Close(t.Context())
	})
}

// If a row was rejected alone and Close abandons it, its error is the rejection,
// even if another row has failed since.
func TestAbandonedRowKeepsItsRejection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(r *request) *answer {
			if r.bad() >= 0 {
				return &refusal
			}
			return &answer{err: errReset}
		}}
		c, o := newClient(t, s)
		c.Record(event("bad"))
		synctest.Wait()
		c.Record(event("fine"))
		synctest.Wait()
		closeNow(t, c)
		if len(o.lost()) != 2 {
			t.Fatalf("lost %v, want two events", o.lost())
		}
		for _, d := range o.lost() {
			if e, isAnswer := errors.AsType[*docevents.Error](d.err); isAnswer != (d.event.Stage == "bad") || isAnswer && e.Code != refusal.code {
				t.Errorf("%s was abandoned with %v", d.event.Stage, d.err)
			}
		}
	})
}

// If the deadline of Flush passes, its error names the newest failure. It doesn't
// matter which row is retried first, or what is in flight.
func TestFlushNamesTheNewestFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(r *request) *answer {
			switch {
			case r.has("first"):
				return &answer{status: 503, header: map[string]string{"Retry-After": "60"}}
			case r.has("second"):
				return &answer{err: errReset}
			}
			return &answer{delay: time.Minute, stored: true}
		}}
		c, _ := newClient(t, s, docevents.WithRequestTimeout(10*time.Minute))
		flush := func() string {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			return fmt.Sprint(c.Flush(ctx))
		}
		c.Record(event("first"))
		if err := flush(); !strings.Contains(err, "HTTP 503") {
			t.Errorf("Flush: %s, want the only failure", err)
		}
		c.Record(event("second"))
		synctest.Wait()
		c.Record(event("slow"))
		if err := flush(); strings.Contains(err, "HTTP 503") || !strings.Contains(err, errReset.Error()) {
			t.Errorf("Flush: %s, want the newest failure", err)
		}
		closeNow(t, c)
	})
}

// If Flush's deadline passes, its error contains the last failure of the pending
// events, and no older failure.
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

// In an outage a probe hangs. Flush and Close send another one after a second.
func TestProbeHangs(t *testing.T) {
	for name, end := range map[string]func(*docevents.Client, context.Context) error{
		"Flush": (*docevents.Client).Flush, "Close": (*docevents.Client).Close,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				s := &server{}
				s.answer = func(*request) *answer {
					switch after := time.Since(begin); {
					case after < time.Minute:
						return &answer{err: errReset}
					case after < 2*time.Minute+1500*time.Millisecond:
						return &answer{delay: time.Hour}
					}
					return &answer{stored: true}
				}
				c, _ := newClient(t, s)
				for range 5000 {
					c.Record(event("a"))
				}
				time.Sleep(2 * time.Minute)
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				_ = end(c, ctx) // the probes that hang are still pending
				if got := c.Stats().Delivered; got < 4990 {
					t.Errorf("%d of 5,000 events are stored, want all but the probes", got)
				}
				closeNow(t, c)
			})
		})
	}
}
