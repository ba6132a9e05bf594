package docevents_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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

// A full batch doesn't wait for a young request, nor anything for one of 50 ms.
func TestNothingWaitsThatNeedNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(*request) *answer { return &answer{delay: time.Second, stored: true} }}
		c, _ := newClient(t, s, docevents.WithMaxBatch(10), docevents.WithMaxInFlight(3))
		for i, step := range []struct{ events, sent int }{{1, 1}, {9, 1}, {1, 2}} {
			for range step.events {
				c.Record(event("a"))
			}
			synctest.Wait()
			if got := s.sent(); got != step.sent {
				t.Errorf("step %d: %d requests, want %d", i, got, step.sent)
			}
		}
		time.Sleep(50 * time.Millisecond)
		c.Record(event("a"))
		synctest.Wait()
		if got := s.sent(); got != 3 {
			t.Errorf("%d requests, the newest is in flight for 50 ms; want another", got)
		}
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// What is recorded while a row under suspicion is in flight goes when its answer
// comes, whatever that is, and not after the row's own wait.
func TestNothingWaitsForASuspect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c *docevents.Client
		var beside atomic.Bool
		var tried, sent time.Time
		s := &server{}
		s.answer = func(r *request) *answer {
			if !r.has("poison") {
				sent = r.at
				return nil
			}
			if beside.CompareAndSwap(true, false) {
				tried = r.at
				c.Record(event("fine"))
			}
			return &answer{delay: 10 * time.Millisecond, err: errReset}
		}
		c, _ = newClient(t, s)
		c.Record(event("poison"))
		time.Sleep(50 * time.Millisecond)
		c.Record(event("fine"))
		time.Sleep(time.Minute) // it has failed since, and its waits are long
		beside.Store(true)
		time.Sleep(time.Minute)
		synctest.Wait()
		if took := sent.Sub(tried); took != 10*time.Millisecond {
			t.Errorf("sent after %s, want when the suspect had failed", took)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		_ = c.Close(ended)
	})
}

func TestQueueIsFullToTheByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(*request) *answer { return &answer{delay: time.Second, stored: true} }}
		c, _ := newClient(t, s, docevents.WithQueueLimits(100, 1<<20))
		e := event("a")
		e.ErrorMessage = strings.Repeat("m", 64<<10-300-len("a")-len(e.Type))
		for range 17 {
			c.Record(e)
		}
		if st := c.Stats(); st.Pending != 16 || st.PendingBytes != 1<<20 || st.Dropped.QueueFull != 1 {
			t.Errorf("%+v, want the 16 events that are exactly 1 MiB", st)
		}
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// Retries are the requests that carry a row again, and no others.
func TestRequestsAndRetriesAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(r *request) *answer {
			if r.number == 1 {
				return &answer{status: 503}
			}
			return nil
		}}
		c, _ := newClient(t, s)
		for _, want := range []struct{ requests, retries int64 }{{1, 0}, {3, 1}, {4, 1}} {
			c.Record(event("a"))
			time.Sleep(time.Second)
			if st := c.Stats(); st.Requests != want.requests || st.Retries != want.retries {
				t.Errorf("%d requests, %d retries, want %+v", st.Requests, st.Retries, want)
			}
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
		time.Sleep(time.Minute) // Flush would take one more sender
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
			drain(t, c)
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
			if r.rows[i].Stage != nil && strings.HasPrefix(*r.rows[i].Stage, "suspect") {
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
					c.Record(event("suspect " + name))
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
