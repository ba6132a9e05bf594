package docevents_test

import (
	"errors"
	"fmt"
	"log/slog"
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

// TestRandomSchedules runs recorders, flushes and a close at random times against
// a server with random faults, and compares the client's counts and errors with
// the rows that the server has.
func TestRandomSchedules(t *testing.T) {
	seeds := uint64(30)
	if isLong() {
		seeds = 500
	}
	for seed := range seeds {
		inBubble(t, fmt.Sprint("seed ", seed), func(t *testing.T) { newSchedule(t, seed).run() })
	}
}

// A schedule is one run of TestRandomSchedules.
type schedule struct {
	*testing.T
	client   *docevents.Client
	observer *observer
	server   *server

	maxBatch    int
	maxInFlight int
	faulty      int    // the percentage of requests that fail at random
	strict      bool   // the server refuses ids that it has, as it does without Prefer
	names       bool   // rejections name the row
	broken      answer // the answer to every request from brokenAt until fixedAt
	brokenAt    time.Time
	fixedAt     time.Time
	calm        atomic.Bool  // no more faults
	newest      atomic.Int64 // the number of the newest event, which is its name

	mu  sync.Mutex // guards rnd
	rnd *rand.Rand
}

// faults are answers to requests with any rows. There is no rejection among them,
// because it would blame good rows.
var faults = []answer{
	{err: errReset},
	{err: errReset, stored: true},
	{stored: true, cut: true, body: "x"},
	{delay: time.Hour},
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
	{status: 409, code: "23503", names: failingRow},
}

func newSchedule(t *testing.T, seed uint64) *schedule {
	s := &schedule{T: t, rnd: rand.New(rand.NewPCG(seed, 2))}
	s.server = &server{answer: s.answer}
	s.maxBatch, s.maxInFlight = 1+s.roll(50), 1+s.roll(5)
	s.faulty, s.strict, s.names = s.roll(60), s.roll(2) == 0, s.roll(2) == 0
	s.brokenAt = time.Now().Add(time.Duration(s.roll(5000)) * time.Millisecond)
	s.fixedAt = s.brokenAt.Add(time.Duration(s.roll(10_000)) * time.Millisecond)
	s.broken = []answer{{status: 503}, {err: errReset}, {status: 401}, {status: 400, code: "23502", text: "null value"}, {status: 413}}[s.roll(5)]
	s.client, s.observer = newClient(t, s.server,
		docevents.WithMaxBatch(s.maxBatch), docevents.WithMaxInFlight(s.maxInFlight),
		docevents.WithQueueLimits(200+s.roll(2000), 1<<20), docevents.WithRequestTimeout(30*time.Millisecond))
	return s
}

func (s *schedule) roll(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rnd.IntN(n)
}

func (s *schedule) answer(r *request) *answer {
	delay := time.Duration(s.roll(40)) * time.Millisecond
	a := s.fault(r)
	if a.delay < time.Minute {
		a.delay = delay
	}
	return &a
}

func (s *schedule) fault(r *request) answer {
	if len(r.rows) == 0 || len(r.rows) > s.maxBatch {
		s.Errorf("a request of %d rows, the limit is %d", len(r.rows), s.maxBatch)
	}
	if now := time.Now(); !s.calm.Load() && now.After(s.brokenAt) && now.Before(s.fixedAt) {
		return s.named(s.broken, &r.rows[s.roll(len(r.rows))])
	}
	if !s.calm.Load() && s.roll(100) < s.faulty {
		return s.named(faults[s.roll(len(faults))], &r.rows[s.roll(len(r.rows))])
	}
	if s.strict {
		s.server.mu.Lock()
		defer s.server.mu.Unlock()
		for i := range r.rows {
			if _, stored := s.server.rows[r.rows[i].ID]; stored {
				return s.named(answer{status: 409, code: "23505", text: `duplicate key value violates unique constraint "x_pkey"`}, &r.rows[i])
			}
		}
	}
	if at := r.bad(); at >= 0 && strings.HasPrefix(*r.rows[at].Stage, "bad suspect") {
		return answer{err: errReset}
	} else if at >= 0 {
		return s.named(refusal, &r.rows[at])
	}
	return answer{stored: true}
}

// named adds details that name a row, if the schedule's answers name rows.
func (s *schedule) named(a answer, row *wireRow) answer {
	if a.code != "" && s.names {
		a.details = failingRow(row)
	}
	return a
}

func (s *schedule) run() {
	var wg, checks sync.WaitGroup
	var done atomic.Bool
	checks.Go(func() {
		for !done.Load() {
			time.Sleep(time.Duration(s.roll(100)) * time.Millisecond)
			checkStats(s.T, s.client, nil)
		}
	})
	for range 1 + s.roll(6) {
		wg.Go(s.record)
	}
	for range s.roll(4) {
		wg.Go(func() { s.flush(nil) })
	}
	if s.roll(4) == 0 {
		before, deadline := s.roll(3000), s.roll(5000)
		wg.Go(func() {
			time.Sleep(time.Duration(before) * time.Millisecond)
			_ = within(time.Duration(deadline)*time.Millisecond, s.client.Close)
		})
	}
	wg.Wait()
	s.calm.Store(true)
	start := time.Now()
	err := within(10*time.Minute, s.client.Close)
	if took := time.Since(start); took > 5*time.Minute { // if no other row is stored, bad rows look like an outage
		for _, d := range s.observer.lost() {
			if d.reason == docevents.Abandoned && !strings.HasPrefix(d.event.Stage, "bad") {
				s.Errorf("Close took %s, and abandoned %q: %v", took, d.event.Stage, err)
			}
		}
	}
	done.Store(true)
	checks.Wait()
	s.check(err)
}

// record records events, and flushes now and then.
func (s *schedule) record() {
	var names []string
	for range s.roll(400) {
		name := fmt.Sprint(s.newest.Add(1))
		switch s.roll(200) {
		case 0:
			name = "bad suspect " + name
		case 1, 2, 3:
			name = "bad " + name
		case 4:
			s.client.Record(docevents.Event{Stage: name})
			continue
		}
		s.client.Record(event(name))
		names = append(names, name)
		if s.roll(10) == 0 {
			time.Sleep(time.Duration(s.roll(300)) * time.Millisecond)
		}
		if s.roll(200) == 0 {
			s.flush(names)
		}
	}
}

// flush checks that after Flush none of the events recorded before is pending.
func (s *schedule) flush(names []string) {
	if within(time.Duration(s.roll(5000))*time.Millisecond, s.client.Flush) != nil {
		return // with so many faults Flush may fail
	}
	stored, lost := s.server.stages(), map[string]bool{}
	for _, d := range s.observer.lost() {
		lost[d.event.Stage] = true
	}
	for _, name := range names {
		if stored[name] == 0 && !lost[name] {
			s.Errorf("%q is neither stored nor dropped after Flush", name)
		}
	}
}

// check compares the client's counts and errors after Close with the server's rows.
// err is the error that Close returned.
func (s *schedule) check(err error) {
	synctest.Wait()
	st := s.client.Stats()
	checkStats(s.T, s.client, nil)
	checkReported(s.T, s.client, s.observer)
	if st.Pending != 0 || (err != nil) != (st.Dropped.Abandoned > 0) {
		s.Errorf("Close: %v, %+v", err, st)
	}
	if s.server.twice != "" || s.server.most > s.maxInFlight+1 {
		s.Errorf("row %q was in two requests at once; %d requests at once, the limit is %d", s.server.twice, s.server.most, s.maxInFlight)
	}
	dropped := map[string]error{}
	for _, d := range s.observer.lost() {
		dropped[d.event.Stage] = d.err
		if d.reason == docevents.Rejected && answerIn(d.err).Code == "23502" && !strings.HasPrefix(d.event.Stage, "bad") {
			s.Errorf("%q was dropped for a fault of the table: %v", d.event.Stage, d.err)
		}
	}
	certain := int64(0)
	for stage, n := range s.server.stages() {
		err, lost := dropped[stage]
		switch {
		case n != 1:
			s.Errorf("%q is stored %d times", stage, n)
		case lost && !errors.Is(err, docevents.ErrOutcomeUnknown):
			s.Errorf("%q was dropped as not stored, but is: %v", stage, err)
		case !lost:
			certain++
		}
	}
	if certain != st.Delivered {
		s.Errorf("%d are stored and not dropped, %d delivered", certain, st.Delivered)
	}
}

// In a month of steady traffic, with a bad row every hour and an outage of an hour
// every day, the client's memory doesn't grow.
func TestThirtyDays(t *testing.T) {
	if !isLong() {
		t.Skip("it takes several seconds")
	}
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		s := &server{discard: true, answer: func(r *request) *answer {
			if time.Since(begin)%(24*time.Hour) > 23*time.Hour {
				return &answer{status: 503}
			}
			if r.number%50 == 0 {
				return &answer{err: errReset}
			}
			return answerBad(refusal, 20*time.Millisecond)(r)
		}}
		c, _ := newClient(t, s, docevents.WithDropHandler(nil), docevents.WithSlog(slog.New(slog.DiscardHandler)))
		var requests, bytes []int64
		for range 30 {
			before := c.Stats().Requests
			for i := range 24 * 60 {
				c.Record(event(fineOrBad(i%60 == 0)))
				time.Sleep(time.Minute)
			}
			requests = append(requests, c.Stats().Requests-before)
			bytes = append(bytes, heap())
			checkStats(t, c, nil)
		}
		if least, most := slices.Min(requests[1:]), slices.Max(requests[1:]); most > least+100 || most > 2400 {
			t.Errorf("%d to %d requests a day", least, most)
		}
		if grown := bytes[29] - bytes[4]; grown > 1<<20 {
			t.Errorf("the heap grew by %d KiB within 25 days", grown>>10)
		}
		if st := c.Stats(); st.Pending > 60 {
			t.Errorf("%+v", st)
		}
		closeNow(t, c)
	})
}
