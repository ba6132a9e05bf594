package docevents_test

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docevents/docevents-go"
)

// slow stores every request after a delay.
func slow(delay time.Duration) *server {
	return &server{answer: func(*request) *answer { return &answer{delay: delay, stored: true} }}
}

// A lone event is sent at once. Further events share a request, which is sent 50 ms
// after the newest request, when it is full, or when an answer comes.
func TestGroupCommit(t *testing.T) {
	type step struct {
		wait   time.Duration
		events int
		want   []int // the rows of each request so far
	}
	for name, test := range map[string]struct {
		delay time.Duration
		steps []step
	}{
		"a lone event is sent at once": {time.Second, []step{{0, 1, []int{1}}}},
		"the events of 50 ms share a request": {time.Second, []step{
			{0, 1, []int{1}}, {0, 5, []int{1}}, {49 * time.Millisecond, 1, []int{1}}, {time.Millisecond, 0, []int{1, 6}},
		}},
		"a full batch doesn't wait":            {time.Second, []step{{0, 1, []int{1}}, {0, 9, []int{1}}, {0, 1, []int{1, 10}}, {0, 25, []int{1, 10, 10}}}},
		"an answer ends the wait":              {10 * time.Millisecond, []step{{0, 1, []int{1}}, {0, 5, []int{1}}, {10 * time.Millisecond, 0, []int{1, 5}}}},
		"there are at most three at once":      {time.Second, []step{{0, 31, []int{1, 10, 10}}, {time.Minute, 0, []int{1, 10, 10, 10}}}},
		"each request starts the wait again":   {time.Second, []step{{0, 1, []int{1}}, {50 * time.Millisecond, 1, []int{1, 1}}, {49 * time.Millisecond, 1, []int{1, 1}}, {time.Millisecond, 0, []int{1, 1, 1}}}},
		"nothing is sent for nothing":          {time.Second, []step{{time.Minute, 0, nil}}},
		"a burst on an idle client is batched": {time.Millisecond, []step{{0, 95, []int{1, 10, 10}}, {time.Second, 0, []int{1, 10, 10, 10, 10, 10, 10, 10, 10, 10, 4}}}},
	} {
		inBubble(t, name, func(t *testing.T) {
			s := slow(test.delay)
			c, _ := newClient(t, s, docevents.WithMaxBatch(10), docevents.WithMaxInFlight(3))
			for i, step := range test.steps {
				time.Sleep(step.wait)
				recordMany(c, step.events, "a")
				synctest.Wait()
				var got []int
				for _, r := range s.all() {
					got = append(got, len(r.rows))
				}
				slices.Sort(got) // requests that are sent at the same time arrive in any order
				slices.Sort(step.want)
				if !slices.Equal(got, step.want) {
					t.Errorf("step %d: requests of %v rows, want %v", i, got, step.want)
				}
			}
			if err := c.Close(t.Context()); err != nil {
				t.Error(err)
			}
			checkStats(t, c, nil)
		})
	}
}

func TestQueueIsFullToTheByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := newClient(t, slow(time.Second), docevents.WithQueueLimits(100, 1<<20))
		e := event("a")
		e.ErrorMessage = strings.Repeat("m", 64<<10-300-len("a")-len(e.Type))
		for range 17 {
			c.Record(e)
		}
		if st := c.Stats(); st.Pending != 16 || st.PendingBytes != 1<<20 || st.Dropped.QueueFull != 1 {
			t.Errorf("%+v, want the 16 events that are exactly 1 MiB", st)
		}
		closeNow(t, c)
	})
}

// Retries counts the requests that send a row again, and no others.
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

// A row keeps its id, so the server stores it once however often it is sent.
func TestAnswerLostAfterCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(r *request) *answer {
			a := &answer{delay: 5 * time.Millisecond, stored: true}
			if r.number%5 == 0 {
				a.err = errReset
			}
			return a
		}}
		c, o := newClient(t, s, docevents.WithMaxBatch(10))
		const events = 500
		recordMany(c, events, "a")
		flush(t, c)
		checkRejected(t, c, o, events, 0)
		if n := s.stages()["a"]; n != events {
			t.Errorf("%d rows, want %d", n, events)
		}
		if c.Stats().Retries == 0 {
			t.Error("no retries: the test tests nothing")
		}
	})
}

// While the server doesn't answer, the queue's memory and the number of goroutines
// are bounded.
func TestStalledServer(t *testing.T) {
	const limit = 8 << 20
	s := &server{answer: func(*request) *answer { return &answer{delay: time.Hour} }}
	c, _ := newClient(t, s, docevents.WithQueueLimits(1_000_000, limit), docevents.WithDropHandler(nil)) // the observer's drop handler would keep the events
	goroutines := runtime.NumGoroutine()
	before := heap()
	const events = 100_000
	for i := range events {
		e := event("a")
		if i%10_000 == 0 {
			e.ErrorMessage = strings.Repeat("x", 10<<20)
		} else if i%10 == 0 {
			e.ErrorMessage = strings.Repeat("y", 2<<10)
		}
		c.Record(e)
	}
	if grown := heap() - before; grown > limit+8<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
	if got := runtime.NumGoroutine() - goroutines; got > 3*docevents.DefaultMaxInFlight+2 {
		t.Errorf("%d goroutines", got)
	}
	st := c.Stats()
	if st.PendingBytes > limit || st.PendingBytes < limit*9/10 || st.Dropped.QueueFull == 0 {
		t.Errorf("%+v", st)
	}
	closeNow(t, c)
	checkStats(t, c, &docevents.Stats{Recorded: events, Dropped: docevents.Drops{QueueFull: st.Dropped.QueueFull, Abandoned: st.Pending}})
}

// Neither an idle client nor a closed one has a goroutine. synctest fails the test
// if one is left.
func TestNoGoroutineWhenIdle(t *testing.T) {
	for _, closed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := &server{answer: func(r *request) *answer {
				if r.number < 3 {
					return &answer{err: errReset}
				}
				return answerBad(refusal, time.Millisecond)(r)
			}}
			c, _ := newClient(t, s, docevents.WithMaxInFlight(1))
			recordMany(c, 100, "a")
			c.Record(event("bad"))
			c.Record(docevents.Event{})
			drain(t, c)
			flush(t, c)
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

// If the app's transport panics or ends its goroutine, the request is retried.
func TestMisbehavingTransport(t *testing.T) {
	for name, test := range map[string]struct {
		misbehave func()
		logged    string
	}{
		"panics":             {func() { panic("row content") }, "trying again"},
		"ends its goroutine": {runtime.Goexit, "the transport ended its goroutine"}, // as testing's FailNow does
	} {
		inBubble(t, name, func(t *testing.T) {
			c, o := newClient(t, &server{answer: func(r *request) *answer {
				if r.number == 0 {
					test.misbehave()
				}
				return nil
			}}, docevents.WithMaxInFlight(1))
			c.Record(event("a"))
			flush(t, c)
			checkStats(t, c, &docevents.Stats{Recorded: 1, Delivered: 1})
			lines := o.logged()
			if len(lines) == 0 || !strings.Contains(lines[0].text, test.logged) || strings.Contains(fmt.Sprint(lines), "row content") {
				t.Errorf("logged %v", lines)
			}
		})
	}
}
