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
