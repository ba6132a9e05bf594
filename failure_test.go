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
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docevents/docevents-go"
)

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
		if outage > 110 {
			t.Errorf("%d requests in the outage, want at most 110", outage)
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
		if s.most != docevents.DefaultMaxInFlight+1 {
			t.Errorf("after recovery %d requests at once, want %d and one for Flush", s.most, docevents.DefaultMaxInFlight)
		}
		if took := time.Since(start); took > 11*time.Second {
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

// In an outage rows under suspicion don't knock one by one, however long their
// own waits are.
func TestOutageOfSuspects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		s := &server{answer: func(r *request) *answer {
			if down.Load() || r.has("disliked") {
				return &answer{err: errReset}
			}
			return nil
		}}
		c, _ := newClient(t, s)
		for i := range 100 {
			if i < 20 {
				c.Record(event("disliked"))
			}
			time.Sleep(50 * time.Millisecond)
			c.Record(event("fine"))
			time.Sleep(50 * time.Millisecond)
		}
		down.Store(true)
		before := s.sent()
		time.Sleep(10 * time.Minute)
		checkStats(t, c, &docevents.Stats{Recorded: 120, Delivered: 100, Pending: 20})
		if got := s.sent() - before; got > 120 {
			t.Errorf("%d requests in ten minutes", got)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		_ = c.Close(ended)
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
				for i, r := range s.requests { // up to five failures of each lane are allowed before that
					if i >= 12 && r.at.Before(start) && len(r.rows) != 1 {
						t.Errorf("request %d at %s of %d rows after the refusal, want a probe's one", i, r.at, len(r.rows))
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
				if before > 20 {
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

// Five failures in a row are an outage. Then one row at a time is sent, as a
// probe, each after a longer wait, and what is in flight by then changes nothing.
func TestOutageIsProbed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const probes = 8 // four fail, then the fifth opens the breaker, with three in flight
		s := &server{answer: func(r *request) *answer {
			if r.number < probes+5 {
				return &answer{delay: 10 * time.Millisecond, err: errReset}
			}
			return &answer{delay: 10 * time.Millisecond, stored: true}
		}}
		c, _ := newClient(t, s)
		for range 10_000 {
			c.Record(event("a"))
		}
		time.Sleep(time.Minute)
		checkStats(t, c, &docevents.Stats{Recorded: 10_000, Delivered: 10_000})
		low := 100 * time.Millisecond
		for i, r := range s.requests[probes:][:6] {
			if len(r.rows) != 1 {
				t.Errorf("probe %d has %d rows, want 1", i, len(r.rows))
			}
			wait := r.at.Sub(s.requests[probes+i-1].at) - 10*time.Millisecond
			if wait < low || wait > 2*low {
				t.Errorf("wait %d was %s, want %s to %s", i, wait, low, 2*low)
			}
			low *= 2
		}
	})
}

// Retry-After delays the batch that got it, and no other.
func TestRetryAfterDelaysOneBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(r *request) *answer {
			switch r.number {
			case 0:
				return &answer{delay: 150 * time.Millisecond, status: 503, header: map[string]string{"Retry-After": "60"}}
			case 1:
				return &answer{delay: 60 * time.Millisecond, err: errReset}
			}
			return nil
		}}
		c, _ := newClient(t, s)
		start := time.Now()
		c.Record(event("a"))
		time.Sleep(55 * time.Millisecond)
		c.Record(event("b"))
		time.Sleep(time.Second)
		c.Record(event("c"))
		time.Sleep(2 * time.Minute)
		for stage, most := range map[string]time.Duration{"b": 315 * time.Millisecond, "c": 1055 * time.Millisecond, "a": 60150 * time.Millisecond} {
			last := s.requests[len(s.requests)-1]
			for _, r := range s.requests {
				if r.has(stage) {
					last = r
				}
			}
			if took := last.at.Sub(start); took > most {
				t.Errorf("%s was sent after %s, want %s at most", stage, took, most)
			}
		}
		checkStats(t, c, &docevents.Stats{Recorded: 3, Delivered: 3})
	})
}

// One failure is no outage while another request is in flight: a new event is
// not held back.
func TestFailureBesideARequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(r *request) *answer {
			switch r.number {
			case 0:
				return &answer{delay: 100 * time.Millisecond, err: errReset}
			case 1:
				return &answer{delay: time.Second, stored: true}
			}
			return nil
		}}
		c, _ := newClient(t, s)
		c.Record(event("fails"))
		time.Sleep(60 * time.Millisecond)
		c.Record(event("slow"))
		time.Sleep(60 * time.Millisecond)
		start := time.Now()
		c.Record(event("new"))
		synctest.Wait()
		if s.sent() != 3 || !s.requests[2].at.Equal(start) || !s.requests[2].has("new") {
			t.Errorf("%d requests, want another at once", s.sent())
		}
		if err := c.Flush(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// Five failures in a row are an outage. For a quarter of a second after a
// delivery refused data doesn't count: the rows are at fault, not the table.
func TestFailuresThatMakeAnOutage(t *testing.T) {
	for name, test := range map[string]struct {
		answer answer
		least  int // requests until the first wait
		most   int
	}{
		"no server":    {answer{err: errReset}, 5, 5},
		"a refusal":    {answer{status: 401}, 5, 5},
		"refused rows": {answer{status: 400, code: "22P02", text: "invalid input"}, 24 + 5, 27 + 2*5}, // five of each lane,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &server{answer: func(r *request) *answer {
					if r.number == 0 {
						return &answer{delay: 10 * time.Millisecond, stored: true}
					}
					a := test.answer
					a.delay = 10 * time.Millisecond
					return &a
				}}
				c, _ := newClient(t, s, docevents.WithMaxInFlight(1), docevents.WithMaxBatch(1))
				for range 1001 {
					c.Record(event("a"))
				}
				time.Sleep(time.Duration(test.most+1)*10*time.Millisecond + 50*time.Millisecond)
				if got := s.sent() - 1; got < test.least || got > test.most {
					t.Errorf("%d requests failed until the first wait, want %d to %d", got, test.least, test.most)
				}
				closeNow(t, c)
			})
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

// A chancy server fails by itself now and then, and refuses bad rows; it takes
// 20 ms a request and 30 us a row.
type chancy struct {
	fails float64
	named bool // its refusals name the row
	every int  // each such event is bad; 0: none
}

// run delivers 100,000 events at once and returns how many a second that was.
func (ch chancy) run(t testing.TB, c *docevents.Client, events int) float64 {
	start := time.Now()
	bad := 0
	for i := range events {
		e := event("a")
		if ch.every > 0 && i%ch.every == 0 {
			e.Stage = "poison"
			bad++
		}
		c.Record(e)
	}
	others := 0
	for ; c.Stats().Dropped.Rejected < int64(bad) && others < 100_000; others++ { // bad rows wait for others to be stored
		c.Record(event("other"))
		time.Sleep(20 * time.Millisecond)
	}
	if err := c.Flush(t.Context()); err != nil {
		t.Error(err)
	}
	speed := float64(events) / time.Since(start).Seconds()
	events += others
	st := c.Stats()
	if st.Delivered != int64(events-bad) || st.Dropped.Rejected != int64(bad) {
		t.Errorf("%d events, %d of them bad: %+v", events, bad, st)
	}
	return speed
}

func (ch chancy) server(seed uint64) *server {
	rnd := rand.New(rand.NewPCG(seed, 2))
	s := &server{discard: true}
	s.answer = func(r *request) *answer {
		a := &answer{delay: 20*time.Millisecond + time.Duration(len(r.rows))*30*time.Microsecond, stored: true}
		s.mu.Lock()
		failed := rnd.Float64() < ch.fails
		s.mu.Unlock()
		if failed {
			return &answer{delay: a.delay, status: 502, body: "bad gateway"}
		}
		if i := slices.IndexFunc(r.rows, func(row wireRow) bool { return isPoison(&row) }); i >= 0 {
			a = &answer{delay: a.delay, status: 400, code: "23514", text: "violates check constraint"}
			if ch.named {
				a.details = failingRow(&r.rows[i])
			}
		}
		return a
	}
	return s
}

// Some requests fail by themselves, some rows are bad: the rest is hardly
// slower for it. The bars are shares of the speed without any of it.
func TestSpeedByFailureRate(t *testing.T) {
	events := 100_000
	if testing.Short() {
		events = 20_000
	}
	speed := func(ch chancy) float64 {
		seeds := uint64(1)
		if ch.fails > 0.1 { // the median of three: a last row that fails often by chance is much of one run
			seeds = 3
		}
		var runs []float64
		for seed := range seeds {
			synctest.Test(t, func(t *testing.T) {
				c, _ := newClient(t, ch.server(seed), docevents.WithDropHandler(nil))
				runs = append(runs, ch.run(t, c, events))
				_ = c.Close(t.Context())
			})
		}
		slices.Sort(runs)
		return runs[len(runs)/2]
	}
	clean := speed(chancy{})
	for _, rate := range []float64{0, 0.01, 0.1, 0.2, 0.35} {
		failing := speed(chancy{fails: rate})
		if failing < clean*(1-rate)/2 {
			t.Errorf("%.0f %% of the requests fail: %.0f events/s, without %.0f", 100*rate, failing, clean)
		}
		named := speed(chancy{fails: rate, every: 1009, named: true})
		unnamed := speed(chancy{fails: rate, every: 1009})
		t.Logf("%2.0f %% of the requests fail: %6.0f events/s; with bad rows that are named %6.0f, not named %6.0f", 100*rate, failing, named, unnamed)
		if testing.Short() {
			continue // the last row's waits are too much of it
		}
		if named < failing/4 || unnamed < failing/20 {
			t.Errorf("%.0f %% of the requests fail: with bad rows that are named %.0f events/s, not named %.0f, without %.0f", 100*rate, named, unnamed, failing)
		}
	}
}

func TestSteadyTrafficWhileAThirdFails(t *testing.T) {
	for seed := range uint64(3) {
		synctest.Test(t, func(t *testing.T) {
			c, _ := newClient(t, chancy{fails: 0.35}.server(seed))
			most := int64(0)
			for range 60_000 {
				c.Record(event("a"))
				time.Sleep(time.Millisecond)
				most = max(most, c.Stats().Pending)
			}
			if most > 1000 {
				t.Errorf("seed %d: up to %d pending", seed, most)
			}
			_ = c.Close(t.Context())
		})
	}
}

// Half of the requests fail, one at a time: what failed is joined, or the queue
// grows for ever.
func TestHalfOfTheRequestsFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := newClient(t, chancy{fails: 0.5}.server(1), docevents.WithMaxInFlight(1))
		for range 20 * 3600 {
			c.Record(event("a"))
			time.Sleep(50 * time.Millisecond)
		}
		if s := c.Stats(); s.Pending > 200 {
			t.Errorf("at 20 events/s, %d pending after an hour, %d delivered by %d requests", s.Pending, s.Delivered, s.Requests)
		}
		_ = c.Close(t.Context())
	})
}

// However long an outage was: few requests in it, and full ones after it.
func TestOutagesLeaveNoTraces(t *testing.T) {
	for _, test := range []struct {
		length time.Duration
		most   int // requests in it
	}{{10 * time.Minute, 110}, {24 * time.Hour, 17_330}, {7 * 24 * time.Hour, 121_010}} {
		for name, fault := range map[string]answer{
			"down":          {err: errReset},
			"503":           {status: 503},
			"too slow":      {delay: time.Second, status: 500, code: "57014", text: "canceling statement due to statement timeout"},
			"refused data":  {status: 400, code: "22P02", text: "invalid input syntax for type bigint"},
			"a refused key": {status: 401},
		} {
			t.Run(fmt.Sprint(test.length, " ", name), func(t *testing.T) {
				if testing.Short() && test.length > 10*time.Minute {
					t.Skip("longer outages take more than a second each")
				}
				synctest.Test(t, func(t *testing.T) {
					var up atomic.Bool
					s := &server{discard: true, answer: func(*request) *answer {
						if up.Load() {
							return &answer{delay: 5 * time.Millisecond, stored: true}
						}
						a := fault
						a.delay += 5 * time.Millisecond
						return &a
					}}
					c, _ := newClient(t, s)
					const events = 100_000
					for range events {
						c.Record(event("a"))
					}
					time.Sleep(test.length)
					in := int(c.Stats().Requests)
					up.Store(true)
					if err := c.Flush(t.Context()); err != nil {
						t.Fatal(err)
					}
					after := int(c.Stats().Requests) - in
					t.Logf("%d requests in it, %d after it", in, after)
					if in > test.most || after > map[bool]int{true: 120, false: 150}[test.length <= 24*time.Hour] {
						t.Errorf("%d requests in it, want at most %d; %d after it", in, test.most, after)
					}
					checkStats(t, c, &docevents.Stats{Recorded: events, Delivered: events})
					_ = c.Close(t.Context())
				})
			})
		}
	}
}

// What every row gets is the table's fault, whatever the code: the events wait,
// one line says so, all arrive once it is mended.
func TestTheTablesFault(t *testing.T) {
	for name, a := range map[string]answer{
		"a bigint id":                      {status: 400, code: "22P02", text: `invalid input syntax for type bigint: "11111111-1111-4111-8111-111111111111"`},
		"a column nobody fills":            {status: 400, code: "23502", text: `null value in column "tenant_id" of relation "document_processing_events" violates not-null constraint`},
		"no partition":                     {status: 400, code: "23514", text: `no partition of relation "document_processing_events" found for row`},
		"a type that the CHECK lacks":      {status: 400, code: "23514", text: `new row violates check constraint "document_processing_events_event_type_check"`},
		"a cached plan":                    {status: 400, code: "0A000", text: "cached plan must not change result type"},
		"a trigger that always raises":     {status: 400, code: "P0001", text: "not today"},
		"a unique constraint on documents": {status: 409, code: "23505", text: `duplicate key value violates unique constraint "one_per_document"`},
	} {
		for _, named := range []bool{false, true} {
			for _, events := range []int{1, 3, 1000, 5000} {
				t.Run(fmt.Sprintf("%s/named %t/%d events", name, named, events), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						mended := time.Now().Add(time.Minute)
						s := &server{answer: func(r *request) *answer {
							if time.Now().After(mended) {
								return nil
							}
							a := a
							if named {
								a.details = failingRow(&r.rows[0])
							}
							return &a
						}}
						c, o := newClient(t, s)
						for range events {
							c.Record(event("a"))
							if events < 10 {
								time.Sleep(100 * time.Millisecond)
							}
						}
						time.Sleep(2 * time.Minute)
						checkStats(t, c, &docevents.Stats{Recorded: int64(events), Delivered: int64(events)})
						if n := c.Stats().Requests; n > 40 {
							t.Errorf("%d requests", n)
						}
						loud, back := 0, 0
						for _, l := range o.logged() {
							if strings.Contains(l.text, "until this is mended") {
								loud++
							} else if strings.Contains(l.text, "delivering again") {
								back++
							}
						}
						if loud == 0 || loud > 3 || back != 1 { // at once, and its sums
							t.Errorf("%d loud lines in a minute, and %d of the recovery", loud, back)
						}
						_ = c.Close(t.Context())
					})
				})
			}
		}
	}
}

// After an outage all senders are back by themselves, and the waits are short
// again: the next is another one.
func TestOutageEndsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var after []time.Duration
		s := &server{}
		s.answer = func(r *request) *answer {
			at := time.Since(begin)
			switch {
			case at < time.Minute:
				return &answer{err: errReset}
			case at >= 5*time.Minute:
				s.mu.Lock()
				defer s.mu.Unlock()
				if after = append(after, at); len(after) <= 2 {
					return &answer{err: errReset}
				}
			}
			return &answer{delay: 20 * time.Millisecond, stored: true}
		}
		c, _ := newClient(t, s)
		for range 20_000 {
			c.Record(event("a"))
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		s.mu.Lock()
		if s.most != docevents.DefaultMaxInFlight {
			t.Errorf("%d requests at once after it", s.most)
		}
		s.mu.Unlock()
		c.Record(event("a"))
		c.Record(event("a"))
		time.Sleep(time.Minute)
		s.mu.Lock()
		defer s.mu.Unlock()
		if wait := after[1] - after[0]; wait > 200*time.Millisecond {
			t.Errorf("the next began with a wait of %s", wait)
		}
		checkStats(t, c, &docevents.Stats{Recorded: 20_002, Delivered: 20_002})
	})
}

// A failure is said at once, however shortly before others were delivered; a
// refusal for data when it is dropped.
func TestFailureAfterADelivery(t *testing.T) {
	for name, test := range map[string]struct {
		answer answer
		lines  int
	}{
		"a gateway's": {answer{status: 503}, 1},
		"a refusal":   {answer{status: 400, code: "23514", text: "refused"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &server{answer: func(r *request) *answer {
					if r.number == 1 {
						return &test.answer
					}
					return nil
				}}
				c, o := newClient(t, s)
				c.Record(event("a"))
				time.Sleep(10 * time.Millisecond)
				c.Record(event("b"))
				time.Sleep(10 * time.Millisecond)
				if got := len(o.logged()); got != test.lines {
					t.Errorf("%d lines, want %d: %v", got, test.lines, o.logged())
				}
				if err := c.Flush(t.Context()); err != nil {
					t.Error(err)
				}
				checkStats(t, c, &docevents.Stats{Recorded: 2, Delivered: 2})
			})
		})
	}
}

// Two refusals of a moment each are not one that lasts.
func TestRefusalsAreCountedFromTheLastDelivery(t *testing.T) {
	for name, between := range map[string]answer{"a delivery": {stored: true}, "another failure": {status: 503}, "a timeout": {status: 500, code: "57014"}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				s := &server{answer: func(*request) *answer {
					if at := time.Since(begin); at >= 2*time.Second && at < 6*time.Second {
						return &between
					}
					return &answer{status: 401}
				}}
				c, _ := newClient(t, s)
				for range 100 {
					c.Record(event("a"))
					time.Sleep(70 * time.Millisecond)
				}
				start := time.Now() // 7 s
				err := c.Flush(t.Context())
				if e, ok := errors.AsType[*docevents.Error](err); !ok || e.Status != 401 {
					t.Errorf("Flush: %v", err)
				}
				if took := time.Since(start); took < 3*time.Second || took > 6*time.Second {
					t.Errorf("Flush took %s, want until the refusal has stood for 5 s", took)
				}
				ended, cancel := context.WithCancel(t.Context())
				cancel()
				_ = c.Close(ended)
			})
		})
	}
}

// A refusal of every row for a moment, on a client that delivers, has no
// victims: the table was remade, and its cache is stale.
func TestRefusedForAMoment(t *testing.T) {
	for name, test := range map[string]struct {
		answer    answer
		perSecond int
		delay     time.Duration
		fails     float64 // of the requests before it, by chance
	}{
		"a column is missing":            {answer{status: 400, code: "23502", text: "null value"}, 100, 5 * time.Millisecond, 0},
		"at 1,000 events/s":              {answer{status: 400, code: "23502", text: "null value"}, 1000, 40 * time.Millisecond, 0},
		"at 10 events/s, slowly":         {answer{status: 400, code: "23502", text: "null value"}, 10, 200 * time.Millisecond, 0},
		"a type":                         {answer{status: 400, code: "22P02", text: "invalid input syntax"}, 100, 40 * time.Millisecond, 0},
		"a trigger":                      {answer{status: 400, code: "P0001", text: "not now"}, 10, 5 * time.Millisecond, 0},
		"a key that is named by its row": {answer{status: 409, code: "23505", text: "duplicate key"}, 100, 5 * time.Millisecond, 0},
		"while many requests fail":       {answer{status: 400, code: "23502", text: "null value"}, 100, 200 * time.Millisecond, 0.5},
		"a table":                        {answer{status: 404, code: "42P01", text: "no such table"}, 100, 5 * time.Millisecond, 0},
	} {
		for _, length := range []time.Duration{100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 3 * time.Second} {
			for _, named := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/named %t", name, length, named), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						begin := time.Now().Add(time.Second)
						chance := rand.New(rand.NewPCG(uint64(length), 4))
						s := &server{discard: true}
						s.answer = func(r *request) *answer {
							s.mu.Lock()
							defer s.mu.Unlock()
							a := answer{stored: true}
							if at := time.Since(begin); at >= 0 && at < length {
								a = test.answer
								if named {
									a.details = failingRow(&r.rows[0])
								}
							} else if at < 0 && chance.Float64() < test.fails {
								a = answer{status: 502}
							}
							a.delay = test.delay
							return &a
						}
						c, o := newClient(t, s)
						rnd := rand.New(rand.NewPCG(uint64(length), 3))
						for range 5 * test.perSecond {
							c.Record(event("a"))
							time.Sleep(time.Duration(rnd.Int64N(int64(2*time.Second) / int64(test.perSecond))))
						}
						if err := c.Close(t.Context()); err != nil {
							t.Error(err)
						}
						if lost := o.lost(); len(lost) > 0 {
							t.Errorf("%d lost: %v", len(lost), lost[0].err)
						}
					})
				})
			}
		}
	}
}

// Rows that wait hold on to no others.
func TestWaitingRowsHoldOnToNoOthers(t *testing.T) {
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	synctest.Test(t, func(t *testing.T) {
		var held atomic.Bool
		held.Store(true)
		s := &server{discard: true, answer: func(r *request) *answer {
			for held.Load() {
				time.Sleep(10 * time.Millisecond)
			}
			if r.has("early") {
				return &answer{delay: time.Millisecond, status: 409}
			}
			return &answer{delay: time.Millisecond, stored: true}
		}}
		c, _ := newClient(t, s)
		c.Record(event(""))
		synctest.Wait()
		for range 99 {
			for i := range 1000 {
				c.Record(event([]string{"", "early"}[i/999]))
			}
		}
		held.Store(false)
		for c.Stats().Pending > 99 {
			time.Sleep(100 * time.Millisecond)
		}
		if grown := heap() - before; grown > 2<<20 {
			t.Errorf("%d rows pending, %d bytes by Stats, %d KiB on the heap", c.Stats().Pending, c.Stats().PendingBytes, grown>>10)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		_ = c.Close(ended)
	})
}

// What is said of a row's outcome is true of that row.
func TestOutcomeUnknownIsTrue(t *testing.T) {
	for name, test := range map[string]struct {
		answers []answer // the last one for ever
		want    bool
	}{
		"never an answer":               {[]answer{{err: errReset}}, true},
		"a refusal":                     {[]answer{{status: 403, body: "<html>"}}, false},
		"a refusal after a lost answer": {[]answer{{err: errReset}, {status: 403}}, true},
		"a database's error":            {[]answer{{status: 500, code: "XX000"}}, false},
		"a gateway's":                   {[]answer{{status: 502}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := 0
				s := &server{answer: func(r *request) *answer {
					if !r.has("poison") {
						return nil
					}
					n++
					return &test.answers[min(n, len(test.answers))-1]
				}}
				c, o := newClient(t, s)
				c.Record(event("poison"))
				for range 20 {
					time.Sleep(40 * time.Second)
					c.Record(event("fine"))
				}
				lost := o.lost()
				if len(lost) != 1 || lost[0].reason != docevents.Rejected || errors.Is(lost[0].err, docevents.ErrOutcomeUnknown) != test.want {
					t.Errorf("lost %v", lost)
				}
				_ = c.Close(t.Context())
			})
		})
	}
}
