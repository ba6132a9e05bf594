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
func flushAndClose(t *testing.T, test func(t *testing.T, end func(c *docevents.Client, d time.Duration) error)) {
	inBubble(t, "Flush", func(t *testing.T) {
		test(t, func(c *docevents.Client, d time.Duration) error { return within(d, c.Flush) })
	})
	inBubble(t, "Close", func(t *testing.T) {
		test(t, func(c *docevents.Client, d time.Duration) error { return within(d, c.Close) })
	})
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
		recordMany(c, 2, "early")
		time.AfterFunc(time.Second, func() { c.Record(event("between")); c.Record(event("late")) })
		start := time.Now()
		flush(t, c)
		checkTook(t, start, 2*time.Second, 2*time.Second)
		if got := s.stages(); got["early"] != 2 || got["between"] != 1 {
			t.Errorf("stored %v", got)
		}
		if err := within(time.Minute, c.Flush); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 events still pending") {
			t.Errorf("Flush: %v", err)
		}
		closeNow(t, c)
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
		c, _ := newClient(t, s, docevents.WithMaxBatch(10))
		recordMany(c, 100, "a")
		time.Sleep(40 * time.Second) // the waits have become long
		before, last := s.sent(), time.Now()
		closed := make(chan error)
		go func() { closed <- within(10*time.Minute, c.Close) }()
		synctest.Wait()
		if got := s.sent() - before; got != 1 || len(s.all()[before].rows) != 1 {
			t.Errorf("Close made %d attempts at once, want one of one row", got)
		}
		if err := <-closed; err != nil {
			t.Error(err)
		}
		for _, r := range s.all()[before:] {
			if r.at.Sub(last) > time.Second {
				t.Errorf("Close waited %s between two attempts, want at most a second", r.at.Sub(last))
			}
			last = r.at
		}
		checkTook(t, start, 90*time.Second, 91500*time.Millisecond)
		checkStats(t, c, &docevents.Stats{Recorded: 100, Delivered: 100})
	})
}

// If a request that was in flight when Close began fails, Close soon makes an
// attempt.
func TestCloseWhileARequestIsInFlight(t *testing.T) {
	for name, test := range map[string]struct {
		answer      answer
		always      bool // otherwise only the first request fails
		least, most time.Duration
	}{
		"a reset":              {answer{err: errReset}, false, time.Second, 1200 * time.Millisecond},
		"a refusal":            {answer{status: 401}, false, time.Second, 1200 * time.Millisecond},
		"a refusal every time": {answer{status: 401}, true, 6 * time.Second, 8 * time.Second}, // the refusal is lasting after 5 s
	} {
		inBubble(t, name, func(t *testing.T) {
			s := &server{answer: func(r *request) *answer {
				if r.number > 0 && !test.always {
					return nil
				}
				a := test.answer
				a.delay = time.Second
				return &a
			}}
			c, _ := newClient(t, s)
			c.Record(event("a"))
			synctest.Wait()
			start := time.Now()
			if err := c.Close(t.Context()); (err != nil) != test.always {
				t.Errorf("Close: %v", err)
			}
			checkTook(t, start, test.least, test.most)
			if next := s.all()[1].at.Sub(start); next > 1200*time.Millisecond {
				t.Errorf("the next attempt came after %s", next)
			}
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
		time.AfterFunc(500*time.Millisecond, func() { close(release) })
		if err := within(500*time.Millisecond, c.Close); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 events abandoned") {
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
		inBubble(t, "the transport returns "+name, func(t *testing.T) {
			s := &server{}
			c, o := newClient(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
				resp, err := s.RoundTrip(req) // stores the rows
				<-req.Context().Done()
				time.Sleep(returns)
				return resp, errors.Join(err, req.Context().Err())
			}), docevents.WithMaxInFlight(1), docevents.WithMaxBatch(10))
			recordMany(c, 21, "a") // one event is stored, and then ten; these two requests hang
			start := time.Now()
			if err := within(3*time.Second, c.Close); !strings.Contains(fmt.Sprint(err), "21 events abandoned") {
				t.Errorf("Close: %v", err)
			}
			want := 3*time.Second + min(returns, 500*time.Millisecond)
			checkTook(t, start, want, want)
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
	}
}

func TestCloseWhile64GoroutinesRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := slow(time.Millisecond)
		c, o := newClient(t, s)
		var recorders, closers sync.WaitGroup
		var stop atomic.Bool
		for range 64 {
			recorders.Go(func() {
				for !stop.Load() {
					c.Record(event("a"))
					time.Sleep(time.Millisecond)
				}
			})
		}
		time.Sleep(50 * time.Millisecond)
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
		recorders.Wait()
		flush(t, c)
		if err := c.Close(t.Context()); err != nil {
			t.Errorf("another Close: %v", err)
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
	unavailable := answer{status: 503, header: map[string]string{"Retry-After": "60"}, delay: 60 * time.Millisecond}
	hangs := answer{delay: time.Hour}
	for name, test := range map[string]struct {
		answers []answer // the answers to the first requests; the others are stored
		events  int      // how many are recorded at the time of the first request
		wait    time.Duration
		left    int64 // how many rows are in the request that hangs
	}{
		"rows that wait to share a request that hangs": {[]answer{hangs}, 500, 0, 1},
		"a probe hangs":                    {append(slices.Repeat([]answer{{status: 503, delay: 10 * time.Millisecond}}, 8), hangs), 6000, time.Second, 1},
		"Retry-After":                      {[]answer{unavailable}, 1000, time.Second, 0},
		"a refusal":                        {[]answer{{status: 404, code: "PGRST205"}}, 1000, 50 * time.Millisecond, 0},
		"Retry-After, and a request hangs": {[]answer{unavailable, hangs}, 1, 100 * time.Millisecond, 1},
	} {
		t.Run(name, func(t *testing.T) {
			flushAndClose(t, func(t *testing.T, end func(*docevents.Client, time.Duration) error) {
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
				recordMany(c, test.events, "a")
				time.Sleep(test.wait)
				start := time.Now()
				err := end(c, 10*time.Second)
				st := c.Stats()
				if left := st.Pending + st.Dropped.Abandoned; left != test.left || (err != nil) != (left > 0) {
					t.Errorf("%d left after %d requests: %v", left, st.Requests, err)
				}
				if test.left == 0 {
					checkTook(t, start, 0, 0)
				}
				closeNow(t, c)
			})
		})
	}
}

// Flush and Close send at once the events that wait up to 50 ms to share a request.
func TestFlushAndCloseEndTheWaitToShare(t *testing.T) {
	flushAndClose(t, func(t *testing.T, end func(*docevents.Client, time.Duration) error) {
		c, _ := newClient(t, slow(10*time.Millisecond))
		recordMany(c, 2, "a")
		start := time.Now()
		if err := end(c, never); err != nil {
			t.Error(err)
		}
		checkTook(t, start, 10*time.Millisecond, 10*time.Millisecond)
	})
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
			flushAndClose(t, func(t *testing.T, end func(*docevents.Client, time.Duration) error) {
				s := &server{answer: func(r *request) *answer {
					if r.number < 4 {
						return &answer{delay: test.delay, stored: true}
					}
					return &answer{delay: 10 * time.Millisecond, stored: true}
				}}
				c, _ := newClient(t, s, docevents.WithMaxBatch(100), docevents.WithRequestTimeout(10*time.Minute))
				recordMany(c, 1000, "a")
				time.Sleep(test.wait)
				err := end(c, 10*time.Second)
				if want, got := 1000-301*(test.most-4), s.stages()["a"]; got < want-99 || (err != nil) != (test.most > 4) {
					t.Errorf("%d of 1000 stored: %v", got, err)
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

// Only while Flush waits is a further request sent if all requests hang.
func TestAllHangAfterFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(*request) *answer { return &answer{delay: time.Hour} }}
		c, _ := newClient(t, s, docevents.WithMaxBatch(100), docevents.WithRequestTimeout(10*time.Minute))
		if err := c.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		recordMany(c, 1000, "a")
		time.Sleep(5 * time.Second)
		if s.peak() != docevents.DefaultMaxInFlight {
			t.Errorf("%d requests at once, want %d", s.peak(), docevents.DefaultMaxInFlight)
		}
		closeNow(t, c)
	})
}

// Hosted Supabase sometimes refuses every request for a second or two. Flush and
// Close wait until that ends.
func TestFlushAndCloseOutlastShortRefusals(t *testing.T) {
	flushAndClose(t, func(t *testing.T, end func(*docevents.Client, time.Duration) error) {
		c, _ := newClient(t, during(2*time.Second, answer{status: 401, code: "PGRST303", text: "JWT issued at future"}))
		recordMany(c, 50, "a")
		time.Sleep(500 * time.Millisecond)
		if err := end(c, 5*time.Second); err != nil {
			t.Error(err)
		}
		checkStats(t, c, &docevents.Stats{Recorded: 50, Delivered: 50})
	})
}

// After an outage or a lasting refusal, Flush and Close ask the server again, however
// long the wait is. A serverless function that is frozen between replies runs only while
// Flush runs.
func TestFlushAndCloseAfterALongOutage(t *testing.T) {
	for name, a := range map[string]answer{"resets": {err: errReset}, "a lasting refusal": {status: 401}} {
		t.Run(name, func(t *testing.T) {
			flushAndClose(t, func(t *testing.T, end func(*docevents.Client, time.Duration) error) {
				c, _ := newClient(t, during(3*time.Minute, a))
				recordMany(c, 50, "a")
				time.Sleep(3 * time.Minute)
				start := time.Now()
				if err := end(c, never); err != nil {
					t.Error(err)
				}
				checkTook(t, start, 0, 0)
				checkStats(t, c, &docevents.Stats{Recorded: 50, Delivered: 50})
			})
		})
	}
}

// A bad row that is the last event is not dropped, since nothing is stored after its
// rejection. Flush and Close return the rejection after some seconds.
func TestFlushAndCloseAfterABadRow(t *testing.T) {
	for _, bad := range []int64{1, 20} {
		for name, a := range map[string]answer{"named": named["a CHECK"], "unnamed": refusal} {
			t.Run(fmt.Sprintf("%d/%s", bad, name), func(t *testing.T) {
				flushAndClose(t, func(t *testing.T, end func(*docevents.Client, time.Duration) error) {
					c, o := newClient(t, &server{answer: answerBad(a, time.Millisecond)})
					recordMany(c, 100, "fine")
					time.Sleep(time.Second)
					recordMany(c, int(bad), "bad")
					start := time.Now()
					if err := end(c, never); answerIn(err).Code != "23514" {
						t.Errorf("got %v, want the rejection", err)
					}
					checkTook(t, start, 2*time.Second, 11*time.Second)
					st := c.Stats()
					if st.Delivered != 100 || st.Pending+st.Dropped.Abandoned+st.Dropped.Rejected != bad {
						t.Errorf("%+v", st)
					}
					checkOnlyBadLost(t, o)
					for _, d := range o.lost() {
						if answerIn(d.err).Code != "23514" {
							t.Errorf("%s: %v", d.reason, d.err)
						}
					}
					if st.Pending > 0 { // after Flush
						checkQuiet(t, o)
						others := drain(t, c)
						checkRejected(t, c, o, 100+bad+others, bad)
					}
				})
			})
		}
	}
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
			if err := within(100*time.Millisecond, c.Flush); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), errReset.Error()) {
				t.Fatalf("Flush: %v", err)
			}
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
	flushAndClose(t, func(t *testing.T, end func(*docevents.Client, time.Duration) error) {
		var revoked atomic.Bool
		c, _ := newClient(t, &server{answer: func(r *request) *answer {
			if revoked.Load() {
				return &answer{status: 401}
			}
			return answerBad(answer{status: 403}, 0)(r)
		}})
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
		if err := end(c, never); answerIn(err).Status != 401 {
			t.Errorf("got %v", err)
		}
		checkTook(t, start, 0, time.Second)
		closeNow(t, c)
	})
}

// Even without a deadline, Close returns when all rows that are left, however many,
// fail again and again although the server stored others.
func TestCloseStopsWaitingForSuspects(t *testing.T) {
	for name, test := range map[string]struct {
		answer answer
		bad    int // how many of 400 rows are bad
		most   time.Duration
	}{
		"a firewall":                {answer{status: 403, body: "<html>"}, 7, time.Minute},
		"missing foreign keys":      {answer{status: 409, code: "23503"}, 50, time.Minute},
		"a trigger's missing table": {answer{status: 404, code: "42P01", text: `relation "audit" does not exist`}, 1, time.Minute},
		"too large":                 {answer{status: 413}, 4, time.Minute},
		"statement timeouts":        {answer{status: 500, code: "57014", delay: 8 * time.Second}, 7, 10 * time.Minute},
		"refused data":              {refusal, 1, 10 * time.Second},
		"refused data, many rows":   {refusal, 50, time.Minute},
	} {
		each := 400 / test.bad
		for layout, isBad := range map[string]func(i int) bool{
			"spread, with the first":  func(i int) bool { return i%each == 0 && i < each*test.bad }, // the first row is sent alone
			"adjacent, with the last": func(i int) bool { return i >= 400-test.bad },
		} {
			for _, after := range []time.Duration{0, 300 * time.Millisecond, 3 * time.Second} {
				inBubble(t, fmt.Sprintf("%s/%s/after %s", name, layout, after), func(t *testing.T) {
					c, o := newClient(t, &server{discard: true, answer: answerBad(test.answer, 5*time.Millisecond)})
					recordMixed(c, 400, isBad)
					time.Sleep(after)
					start := time.Now()
					err := within(2*test.most, c.Close)
					checkTook(t, start, 0, test.most)
					st := c.Stats()
					if st.Delivered != int64(400-test.bad) || (err != nil) != (st.Dropped.Abandoned > 0) {
						t.Errorf("%+v: %v", st, err)
					}
					checkOnlyBadLost(t, o)
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
		inBubble(t, fmt.Sprintf("stored at attempt %d", at), func(t *testing.T) {
			var closing atomic.Bool
			var tries atomic.Int64
			c, o := newClient(t, &server{answer: func(r *request) *answer {
				if r.bad() < 0 || closing.Load() && tries.Add(1) == int64(at) {
					return nil
				}
				return &answer{status: 403}
			}})
			c.Record(event("bad"))
			for range 5 {
				time.Sleep(5 * time.Second) // so that each failure is a strike
				c.Record(event("fine"))
			}
			time.Sleep(time.Second)
			closing.Store(true)
			start := time.Now()
			err := c.Close(t.Context())
			checkTook(t, start, 0, 10*time.Second)
			checkStats(t, c, &want)
			if want.Dropped.Abandoned == 0 {
				if err != nil {
					t.Errorf("Close: %v", err)
				}
				return
			}
			if answerIn(err).Status != 403 || !strings.Contains(fmt.Sprint(err), "keep failing, although others were stored") {
				t.Errorf("Close: %v, want the suspect's last failure", err)
			}
			if err := o.lost()[0].err; answerIn(err).Status != 403 {
				t.Errorf("abandoned with %v, want the suspect's last failure", err)
			}
		})
	}
}

// If the first attempt of Close fails, the next follows soon, even after a long
// outage.
func TestCloseStartsTheWaitsAgain(t *testing.T) {
	for name, test := range map[string]struct {
		batches     int
		least, most time.Duration
	}{
		"two batches that failed": {2, 100 * time.Millisecond, 400 * time.Millisecond},
		"an outage":               {10, 200 * time.Millisecond, 400 * time.Millisecond}, // the second wait of an outage
	} {
		inBubble(t, name, func(t *testing.T) {
			c, _ := newClient(t, during(10*time.Minute+time.Millisecond, answer{err: errReset}), docevents.WithMaxBatch(1))
			recordMany(c, test.batches, "a")
			time.Sleep(10 * time.Minute)
			start := time.Now()
			if err := c.Close(t.Context()); err != nil {
				t.Error(err)
			}
			checkTook(t, start, test.least, test.most)
		})
	}
}

// If a row was rejected alone and Close abandons it, its error is the rejection,
// even if another row has failed since.
func TestAbandonedRowKeepsItsRejection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, o := newClient(t, &server{answer: func(r *request) *answer {
			if r.bad() >= 0 {
				return &refusal
			}
			return &answer{err: errReset}
		}})
		for _, stage := range []string{"bad", "fine"} {
			c.Record(event(stage))
			synctest.Wait()
		}
		closeNow(t, c)
		want := map[string]string{"bad": refusal.code, "fine": ""}
		for _, d := range o.lost() {
			if answerIn(d.err).Code != want[d.event.Stage] {
				t.Errorf("%s was abandoned with %v", d.event.Stage, d.err)
			}
		}
		if n := len(o.lost()); n != 2 {
			t.Errorf("lost %d events, want two", n)
		}
	})
}

// If Flush's deadline passes, its error contains the newest failure of the pending
// events. It doesn't matter which row is retried first, what is in flight, or what failed
// before it was stored.
func TestFlushNamesTheNewestFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(r *request) *answer {
			switch {
			case r.number == 0:
				return &answer{status: 500}
			case r.has("stored"):
				return nil
			case r.has("first"):
				return &answer{status: 503, header: map[string]string{"Retry-After": "60"}}
			case r.has("second"):
				return &answer{err: errReset}
			}
			return &answer{delay: time.Minute, stored: true}
		}}
		c, _ := newClient(t, s, docevents.WithRequestTimeout(10*time.Minute))
		c.Record(event("stored"))
		time.Sleep(time.Second)
		failures := []string{"HTTP 500", "HTTP 503", errReset.Error()}
		for _, step := range []struct{ stage, want string }{{"slow", ""}, {"first", "HTTP 503"}, {"second", errReset.Error()}, {"slow", errReset.Error()}} {
			c.Record(event(step.stage))
			err := within(60*time.Millisecond, c.Flush)
			for _, failure := range failures {
				if strings.Contains(fmt.Sprint(err), failure) != (failure == step.want) {
					t.Errorf("Flush after %q: %v, want %q", step.stage, err, step.want)
				}
			}
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Flush after %q: %v", step.stage, err)
			}
		}
		closeNow(t, c)
	})
}

// In an outage a probe hangs. Flush and Close send another one after a second.
func TestProbeHangs(t *testing.T) {
	flushAndClose(t, func(t *testing.T, end func(*docevents.Client, time.Duration) error) {
		begin := time.Now()
		s := &server{answer: func(*request) *answer {
			switch after := time.Since(begin); {
			case after < time.Minute:
				return &answer{err: errReset}
			case after < 2*time.Minute+1500*time.Millisecond:
				return &answer{delay: time.Hour}
			}
			return &answer{stored: true}
		}}
		c, _ := newClient(t, s, docevents.WithMaxBatch(100))
		recordMany(c, 1000, "a")
		time.Sleep(2 * time.Minute)
		_ = end(c, 10*time.Second) // the probes that hang are still pending
		if got := c.Stats().Delivered; got < 990 {
			t.Errorf("%d of 1,000 events are stored, want all but the probes", got)
		}
		closeNow(t, c)
	})
}
