package docevents_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docevents/docevents-go"
)

// These tests have a server at fault: the network, the key or the table fails every
// row.

// during answers a to every request for a time after the server was created, and
// then stores every request.
func during(length time.Duration, a answer) *server {
	end := time.Now().Add(length)
	return &server{discard: true, answer: func(*request) *answer {
		if time.Now().Before(end) {
			return &a
		}
		return &answer{delay: a.delay}
	}}
}

// Five failures in a row are an outage. Then one row at a time is sent as a probe,
// after waits that grow to 10 s. The next outage begins with a short wait.
func TestOutageIsProbed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const before, probes, delay = 8, 10, 10 * time.Millisecond // the fifth failure begins the outage, while three more requests are in flight
		var failures atomic.Int64
		s := &server{answer: func(*request) *answer {
			if failures.Add(-1) >= 0 {
				return &answer{delay: delay, err: errReset}
			}
			return &answer{delay: delay, stored: true}
		}}
		c, _ := newClient(t, s, docevents.WithMaxBatch(10))
		for outage := range int64(2) {
			failures.Store(before + probes - 1)
			first := s.sent()
			recordMany(c, 100, "a")
			time.Sleep(2 * time.Minute)
			checkStats(t, c, &docevents.Stats{Recorded: 100 * (1 + outage), Delivered: 100 * (1 + outage)})
			wait := 200 * time.Millisecond
			requests := s.all()[first:]
			for i := before; i < before+probes; i++ {
				if n := len(requests[i].rows); n != 1 {
					t.Errorf("outage %d, request %d has %d rows, want 1", outage, i, n)
				}
				if got := requests[i].at.Sub(requests[i-1].at) - delay; got < wait/2 || got > wait {
					t.Errorf("outage %d, request %d: waited %s, want %s to %s", outage, i, got, wait/2, wait)
				}
				wait = min(2*wait, 10*time.Second)
			}
		}
	})
}

// The probes of an outage take turns: a row that was never sent, a row of the newest
// batch that was never sent, and a row that has failed before.
func TestProbesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(*request) *answer { return &answer{delay: 10 * time.Millisecond, err: errReset} }}
		c, _ := newClient(t, s, docevents.WithMaxBatch(10))
		const events, before = 151, 8 // as many requests are in flight when the outage begins
		for i := range events {
			c.Record(event(fmt.Sprint(i))) // the first is sent alone, the others are batches of ten
		}
		time.Sleep(2 * time.Minute)
		closeNow(t, c)
		sent, newest, older := map[int]bool{}, events-1, 0
		for i, r := range s.all() {
			for sent[newest] {
				newest--
			}
			for _, row := range r.rows {
				n, _ := strconv.Atoi(*row.Stage)
				isNewest := (n+9)/10 == (newest+9)/10
				if probe := i - before; probe >= 0 && (sent[n] != (probe%3 == 2) || probe%3 == 1 && !isNewest) {
					t.Errorf("probe %d is row %d, sent before: %t, newest batch: %t", probe, n, sent[n], isNewest)
				} else if probe >= 0 && probe%3 == 0 && !isNewest {
					older++
				}
				sent[n] = true
			}
		}
		if len(s.all()) < before+15 || older == 0 {
			t.Errorf("%d requests, and %d times an older row that was never sent", len(s.all()), older)
		}
	})
}

// For a quarter of a second after rows were stored, rejections don't count towards
// an outage, since the rows are at fault and not the table.
func TestFailuresThatMakeAnOutage(t *testing.T) {
	for name, test := range map[string]struct {
		answer      answer
		least, most int // requests until the first wait
	}{
		"no server":    {answer{err: errReset}, 5, 5},
		"a refusal":    {answer{status: 401}, 5, 5},
		"refused rows": {refusal, 24 + 5, 27 + 2*5}, // five failures of each lane
	} {
		inBubble(t, name, func(t *testing.T) {
			s := &server{answer: func(r *request) *answer {
				a := test.answer
				if r.number == 0 {
					a = answer{stored: true}
				}
				a.delay = 10 * time.Millisecond
				return &a
			}}
			c, _ := newClient(t, s, docevents.WithMaxInFlight(1), docevents.WithMaxBatch(1))
			recordMany(c, 101, "a")
			time.Sleep(time.Duration(test.most+1)*10*time.Millisecond + 50*time.Millisecond)
			if got := s.sent() - 1; got < test.least || got > test.most {
				t.Errorf("%d requests failed until the first wait, want %d to %d", got, test.least, test.most)
			}
			closeNow(t, c)
		})
	}
}

// An outage of any length costs few requests, loses nothing, and writes one log line
// per 30 s. When it ends, full batches are sent at once.
func TestOutage(t *testing.T) {
	events, lengths := 5000, []time.Duration{10 * time.Minute}
	if isLong() { // so many that some are still fresh after a week of probes
		events, lengths = 100_000, append(lengths, 24*time.Hour, 7*24*time.Hour)
	}
	for name, test := range map[string]struct {
		answer answer
		wait   time.Duration // the longest wait until the next probe
	}{
		"down":          {answer{err: errReset}, 10 * time.Second},
		"503":           {answer{status: 503}, 10 * time.Second},
		"too slow":      {answer{delay: time.Second, status: 500, code: "57014", text: "canceling statement due to statement timeout"}, 11 * time.Second},
		"refused data":  {answer{status: 400, code: "22P02", text: "invalid input syntax for type bigint"}, 30 * time.Second},
		"a refused key": {answer{status: 401}, 30 * time.Second},
	} {
		for _, length := range lengths {
			inBubble(t, fmt.Sprint(length, " ", name), func(t *testing.T) {
				s := during(length, test.answer)
				c, o := newClient(t, s)
				recordMany(c, events, "a")
				time.Sleep(length)
				checkStats(t, c, &docevents.Stats{Recorded: int64(events), Pending: int64(events)})
				in, most, mostAfter := s.sent(), 110, events/docevents.DefaultMaxBatch+20
				if length > 10*time.Minute {
					most, mostAfter = int(length/(5*time.Second))+50, mostAfter+30
				}
				s.mu.Lock()
				s.most = s.inFlight
				s.mu.Unlock()
				time.Sleep(test.wait + test.answer.delay*time.Duration(1+events/2000) + 100*time.Millisecond)
				checkStats(t, c, &docevents.Stats{Recorded: int64(events), Delivered: int64(events)})
				if after := s.sent() - in; in > most || after > mostAfter {
					t.Errorf("%d requests in it, want at most %d; %d after it, want at most %d", in, most, after, mostAfter)
				}
				if test.answer.delay > 0 && s.peak() != docevents.DefaultMaxInFlight {
					t.Errorf("%d requests at once after it, want %d", s.peak(), docevents.DefaultMaxInFlight)
				}
				if infos := linesAt(o, slog.LevelInfo); len(infos) != 1 || !strings.Contains(infos[0].text, "delivering again") {
					t.Errorf("recovery lines: %v", infos)
				}
				checkQuiet(t, o)
			})
		}
	}
}

// In an outage suspects are sent only as probes, even if their own waits end.
func TestOutageOfSuspects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		s := &server{answer: func(r *request) *answer {
			if down.Load() || r.bad() >= 0 {
				return &answer{err: errReset}
			}
			return nil
		}}
		c, _ := newClient(t, s)
		for i := range 100 {
			if i < 20 {
				c.Record(event("bad"))
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
		closeNow(t, c)
	})
}

// In an outage that doesn't end, the queue fills, and Close abandons it at its
// deadline. The errors of rows that were sent match ErrOutcomeUnknown.
func TestOutageThatNeverEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(*request) *answer { return &answer{err: errReset} }}
		const room = 500
		c, o := newClient(t, s, docevents.WithQueueLimits(room, 64<<20), docevents.WithMaxBatch(10))
		recordMany(c, 2*room, "a")
		time.Sleep(time.Minute)
		checkStats(t, c, &docevents.Stats{Recorded: 2 * room, Pending: room, Dropped: docevents.Drops{QueueFull: room}})
		checkQuiet(t, o)
		start := time.Now()
		err := within(5*time.Second, c.Close)
		checkTook(t, start, 5*time.Second, 6*time.Second)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(fmt.Sprint(err), "500 events abandoned") {
			t.Errorf("Close: %v", err)
		}
		checkStats(t, c, &docevents.Stats{Recorded: 2 * room, Dropped: docevents.Drops{QueueFull: room, Abandoned: room}})
		checkReported(t, c, o)
		inDoubt, sent := 0, map[string]bool{}
		for _, r := range s.all() {
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
			t.Errorf("the outcome of %d rows is unknown, and %d of %d were sent", inDoubt, len(sent), room)
		}
	})
}

// If some requests fail by chance and the server goes down soon after that, their batches
// aren't split down to single rows, although other rows were stored in between.
func TestOutageAfterFailuresByChance(t *testing.T) {
	for seed := range uint64(10) {
		synctest.Test(t, func(t *testing.T) {
			rng, begin := rand.New(rand.NewPCG(seed, 1)), time.Now()
			down := 20*time.Millisecond + time.Duration(rng.IntN(400))*time.Millisecond
			requests := 0 // while the server is down
			s := &server{discard: true}
			s.answer = func(*request) *answer {
				s.mu.Lock()
				defer s.mu.Unlock()
				switch at := time.Since(begin); {
				case down < at && at < time.Minute:
					requests++
					return &answer{delay: 10 * time.Millisecond, status: 503}
				case rng.IntN(5) == 0:
					return &answer{delay: 20 * time.Millisecond, status: 502}
				}
				return &answer{delay: 20 * time.Millisecond}
			}
			c, _ := newClient(t, s, docevents.WithMaxBatch(100))
			recordMany(c, 3000, "a")
			time.Sleep(2 * time.Minute)
			checkStats(t, c, &docevents.Stats{Recorded: 3000, Delivered: 3000})
			if requests > 40 {
				t.Errorf("seed %d: %d requests while the server was down", seed, requests)
			}
		})
	}
}

// If the key, the URL or the table is wrong, one error line is logged after 5 s, and
// Flush and Close return the error.
func TestMisconfigured(t *testing.T) {
	for name, test := range map[string]struct {
		answer answer
		remedy string
	}{
		"a wrong key":     {answer{status: 401, code: "PGRST301", text: "No suitable key or wrong key type"}, "check the key"},
		"a missing table": {answer{status: 404, code: "PGRST205", text: "Could not find the table 'public.document_processing_events' in the schema cache"}, "sql/013_create_processing_events_table.sql"},
		"a redirect":      {answer{status: 302, header: map[string]string{"Location": "http://elsewhere.test/"}}, "check SUPABASE_URL"},
		"a web page":      {answer{status: 200, body: "<!doctype html><title>hi</title>"}, "check SUPABASE_URL"},
	} {
		inBubble(t, name, func(t *testing.T) {
			c, o := newClient(t, &server{answer: func(*request) *answer { return &test.answer }})
			recordMany(c, 1500, "a")
			synctest.Wait()
			start := time.Now()
			err := c.Flush(t.Context())
			if status := answerIn(err).Status; status != test.answer.status && status != 201 || !strings.Contains(fmt.Sprint(err), test.remedy) {
				t.Errorf("Flush: %v", err)
			}
			checkTook(t, start, 5*time.Second, 5*time.Second)
			checkStats(t, c, &docevents.Stats{Recorded: 1500, Pending: 1500})
			start = time.Now()
			err = c.Close(t.Context())
			if answerIn(err).Status == 0 || !strings.Contains(fmt.Sprint(err), "1500 events abandoned") {
				t.Errorf("Close: %v", err)
			}
			checkTook(t, start, 0, 0)
			checkStats(t, c, &docevents.Stats{Recorded: 1500, Dropped: docevents.Drops{Abandoned: 1500}})
			checkReported(t, c, o)
			loud := 0
			for _, l := range linesAt(o, slog.LevelError) {
				if strings.Contains(l.text, test.remedy) && strings.Contains(l.text, "until this is fixed") {
					loud++
				}
			}
			if loud < 1 || loud > 2 { // the second line, at Close, has the count of repeats
				t.Errorf("lines: %v", o.logged())
			}
		})
	}
}

// Once a refusal is lasting, one row is sent every 15 to 30 s.
func TestLastingRefusalIsProbedRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := during(6*time.Minute, answer{status: 401})
		c, _ := newClient(t, s)
		recordMany(c, 1500, "a")
		time.Sleep(5 * time.Second)
		synctest.Wait()
		before := s.sent()
		if before > 20 {
			t.Errorf("%d requests within 5 s", before)
		}
		time.Sleep(15*time.Second - 1)
		if got := s.sent() - before; got > 0 {
			t.Errorf("%d requests within 15 s, want the long wait", got)
		}
		time.Sleep(6*time.Minute - 20*time.Second)
		if got := s.sent() - before; got < 11 || got > 24 {
			t.Errorf("%d requests in six minutes, want one every 15 to 30 s", got)
		}
		time.Sleep(31 * time.Second)
		checkStats(t, c, &docevents.Stats{Recorded: 1500, Delivered: 1500})
	})
}

// A failure delays only the batch that failed, by Retry-After if the answer has it.
func TestFailureDelaysNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(r *request) *answer {
			switch r.number {
			case 0:
				return &answer{delay: 150 * time.Millisecond, status: 503, header: map[string]string{"Retry-After": "60"}}
			case 1:
				return &answer{delay: 60 * time.Millisecond, err: errReset}
			case 2:
				return &answer{delay: time.Second, stored: true}
			}
			return nil
		}}
		c, _ := newClient(t, s)
		start := time.Now()
		for i, stage := range []string{"later", "again", "slow", "new"} {
			time.Sleep(time.Until(start.Add(time.Duration(i) * 60 * time.Millisecond)))
			c.Record(event(stage))
		}
		time.Sleep(2 * time.Minute)
		for stage, want := range map[string][2]time.Duration{
			"again": {220 * time.Millisecond, 320 * time.Millisecond},
			"new":   {180 * time.Millisecond, 180 * time.Millisecond},
			"later": {60150 * time.Millisecond, 60150 * time.Millisecond},
		} {
			var last *request
			for _, r := range s.all() {
				if r.has(stage) {
					last = r
				}
			}
			if took := last.at.Sub(start); took < want[0] || took > want[1] {
				t.Errorf("%s was sent after %s, want %s", stage, took, want)
			}
		}
		checkStats(t, c, &docevents.Stats{Recorded: 4, Delivered: 4})
	})
}

func TestRetryAfter(t *testing.T) {
	for name, test := range map[string]struct {
		status   int
		header   string
		min, max time.Duration
	}{
		"absent":  {503, "", 100 * time.Millisecond, 200 * time.Millisecond},
		"seconds": {429, "7", 7 * time.Second, 7 * time.Second},
		"absurd":  {503, "99999999999999999999", time.Minute, time.Minute},
		"a date":  {503, "Sat, 01 Jan 2000 00:00:20 GMT", 18 * time.Second, 20 * time.Second},
	} {
		inBubble(t, name, func(t *testing.T) { // time begins at midnight, 2000-01-01
			s := &server{answer: func(r *request) *answer {
				if r.number == 0 {
					return &answer{status: test.status, header: map[string]string{"Retry-After": test.header}}
				}
				return nil
			}}
			c, _ := newClient(t, s)
			c.Record(event("a"))
			start := time.Now()
			flush(t, c)
			checkTook(t, start, test.min, test.max)
		})
	}
}

// In an outage Retry-After delays the next probe.
func TestRetryAfterInAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := during(10*time.Minute, answer{delay: 10 * time.Millisecond, status: 503, header: map[string]string{"Retry-After": "60"}})
		c, _ := newClient(t, s, docevents.WithMaxBatch(10))
		recordMany(c, 100, "a")
		time.Sleep(10 * time.Minute)
		if got := s.sent(); got > 8+10 {
			t.Errorf("%d requests in ten minutes, want five at once, with three in flight, and one a minute", got)
		}
		time.Sleep(time.Minute)
		checkStats(t, c, &docevents.Stats{Recorded: 100, Delivered: 100})
	})
}

// If a third of the requests fails, or half of them with one in flight, the queue
// doesn't grow, since rows that failed are sent in full batches.
func TestSteadyTrafficWhileRequestsFail(t *testing.T) {
	events := 3000
	if isLong() {
		events = 60_000
	}
	for name, test := range map[string]struct {
		fails    float64
		pause    time.Duration // the time between two events
		inFlight int
		most     int64 // pending
	}{
		"a third, at 1,000/s":             {0.35, time.Millisecond, 4, 1000},
		"half, one in flight, at 20/s":    {0.5, 50 * time.Millisecond, 1, 1000},
		"a tenth, one in flight, at 20/s": {0.1, 50 * time.Millisecond, 1, 50},
	} {
		inBubble(t, name, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(1, 2))
			s := &server{discard: true}
			s.answer = func(*request) *answer {
				s.mu.Lock()
				defer s.mu.Unlock()
				a := answer{delay: 20 * time.Millisecond}
				if rnd.Float64() < test.fails {
					a.status = 502
				}
				return &a
			}
			c, _ := newClient(t, s, docevents.WithMaxInFlight(test.inFlight))
			most := int64(0)
			for range events {
				c.Record(event("a"))
				time.Sleep(test.pause)
				most = max(most, c.Stats().Pending)
			}
			if most > test.most {
				t.Errorf("up to %d pending, want %d", most, test.most)
			}
			_ = c.Close(t.Context())
			checkStats(t, c, nil)
		})
	}
}

// speedOf records events at once and returns how many of them are delivered per second.
// A share of the requests fails at random. A request takes 20 ms, plus 30 us for each
// row. One event of every few is bad, or none if every is 0.
func speedOf(t *testing.T, events int, share float64, every int, refusal answer) float64 {
	seeds := 1
	if share > 0.1 && isLong() { // the last row may fail often by chance, and then its waits are much of a run
		seeds = 3
	}
	var speeds []float64
	for seed := range seeds {
		inBubble(t, fmt.Sprint(share), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(uint64(seed), 2))
			s := &server{discard: true}
			s.answer = func(r *request) *answer {
				delay := 20*time.Millisecond + time.Duration(len(r.rows))*30*time.Microsecond
				s.mu.Lock()
				defer s.mu.Unlock()
				if rnd.Float64() < share {
					return &answer{delay: delay, status: 502}
				}
				return answerBad(refusal, delay)(r)
			}
			c, _ := newClient(t, s, docevents.WithDropHandler(nil))
			start, bad, others := time.Now(), 0, 0
			for i := range events {
				isBad := every > 0 && i%every == 0
				if isBad {
					bad++
				}
				c.Record(event(fineOrBad(isBad)))
			}
			for ; c.Stats().Dropped.Rejected < int64(bad) && others < 100_000; others++ { // most bad rows are dropped only after others are stored
				time.Sleep(20 * time.Millisecond)
				c.Record(event("other"))
			}
			if err := c.Flush(t.Context()); err != nil {
				t.Error(err)
			}
			speeds = append(speeds, float64(events)/time.Since(start).Seconds())
			n := int64(events + others)
			checkStats(t, c, &docevents.Stats{Recorded: n, Delivered: n - int64(bad), Dropped: docevents.Drops{Rejected: int64(bad)}})
		})
	}
	slices.Sort(speeds)
	return speeds[len(speeds)/2]
}

// If requests fail at random, the speed falls by about their share. Bad rows divide the
// speed by a factor.
func TestSpeedByFailureRate(t *testing.T) {
	events, shares := 90_000, []float64{0, 0.01, 0.1, 0.2, 0.35}
	if !isLong() {
		events, shares = 10_000, []float64{0.2}
	}
	named := refusal
	named.names = failingRow
	clean := speedOf(t, events, 0, 0, refusal)
	for _, share := range shares {
		speed, withNamed, withUnnamed := speedOf(t, events, share, 0, refusal), speedOf(t, events, share, 997, named), speedOf(t, events, share, 997, refusal)
		t.Logf("%2.0f %% of the requests fail: %6.0f events/s; with bad rows that are named %6.0f, not named %6.0f", 100*share, speed, withNamed, withUnnamed)
		tail := !isLong() || share > 0.2 // the waits of the last bad row are most of the run
		if speed < clean*(1-share)/2 || !tail && (withNamed < speed/6 || withUnnamed < speed/30) {
			t.Errorf("without failures %.0f events/s", clean)
		}
	}
}

// If the server refuses every row, with any code, the table is at fault and not the
// rows. Every row waits, one error line is logged, and every row is stored once the
// table is fixed.
func TestTableAtFault(t *testing.T) {
	for name, a := range map[string]answer{
		"a bigint id":                      {status: 400, code: "22P02", text: `invalid input syntax for type bigint: "11111111-1111-4111-8111-111111111111"`},
		"no partition":                     {status: 400, code: "23514", text: `no partition of relation "document_processing_events" found for row`},
		"a trigger that always raises":     {status: 400, code: "P0001", text: "not today"},
		"a unique constraint on documents": {status: 409, code: "23505", text: `duplicate key value violates unique constraint "one_per_document"`},
	} {
		for _, isNamed := range []bool{false, true} {
			for _, events := range []int{1, 3, 1500} {
				inBubble(t, fmt.Sprintf("%s/named %t/%d events", name, isNamed, events), func(t *testing.T) {
					fixed := time.Now().Add(time.Minute)
					s := &server{discard: true, answer: func(r *request) *answer {
						if time.Now().After(fixed) {
							return nil
						}
						a := a
						if isNamed {
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
					if n := s.sent(); n > 50 {
						t.Errorf("%d requests", n)
					}
					loud, back := 0, 0
					for _, l := range o.logged() {
						if strings.Contains(l.text, "until this is fixed") {
							loud++
						} else if strings.Contains(l.text, "delivering again") {
							back++
						}
					}
					if loud == 0 || loud > 3 || back != 1 { // one line at once, and lines with the count of repeats
						t.Errorf("%d loud lines in a minute, and %d of the recovery", loud, back)
					}
				})
			}
		}
	}
}

// A failure is logged at once, even shortly after rows were stored. A rejection is
// logged when the row is dropped.
func TestFailureAfterADelivery(t *testing.T) {
	for name, test := range map[string]struct {
		answer answer
		lines  int
	}{
		"a gateway's": {answer{status: 503}, 1},
		"a refusal":   {refusal, 0},
	} {
		inBubble(t, name, func(t *testing.T) {
			s := &server{answer: func(r *request) *answer {
				if r.number == 1 {
					return &test.answer
				}
				return nil
			}}
			c, o := newClient(t, s)
			for range 2 {
				c.Record(event("a"))
				time.Sleep(10 * time.Millisecond)
			}
			if got := len(o.logged()); got != test.lines {
				t.Errorf("%d lines, want %d: %v", got, test.lines, o.logged())
			}
			flush(t, c)
			checkStats(t, c, &docevents.Stats{Recorded: 2, Delivered: 2})
		})
	}
}

// A refusal is lasting if there was no other answer for 5 s. Stored rows or another
// failure start the 5 s again.
func TestRefusalsAreCountedFromTheLastOtherAnswer(t *testing.T) {
	for name, between := range map[string]answer{"a delivery": {stored: true}, "another failure": {status: 503}} {
		inBubble(t, name, func(t *testing.T) {
			begin := time.Now()
			s := &server{answer: func(*request) *answer {
				if at := time.Since(begin); at >= 2*time.Second && at < 6*time.Second {
					return &between
				}
				return &answer{status: 401}
			}}
			c, _ := newClient(t, s)
			for range 100 { // for 7 s
				c.Record(event("a"))
				time.Sleep(70 * time.Millisecond)
			}
			start := time.Now()
			if err := c.Flush(t.Context()); answerIn(err).Status != 401 {
				t.Errorf("Flush: %v", err)
			}
			checkTook(t, start, 3*time.Second, 6*time.Second)
			closeNow(t, c)
		})
	}
}

// The rejection of a row that is dropped is the row's fault. It doesn't count as
// the beginning of a lasting refusal, even if nothing else is sent for a long time.
func TestRefusalOfADroppedRowIsNotLasting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, o := newClient(t, &server{answer: answerBad(refusal, 0)})
		for _, stage := range []string{"fine", "bad", "fine"} {
			c.Record(event(stage))
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		checkStats(t, c, &docevents.Stats{Recorded: 3, Delivered: 2, Dropped: docevents.Drops{Rejected: 1}})
		c.Record(event("bad"))
		time.Sleep(10 * time.Millisecond)
		for _, l := range o.logged() {
			if strings.Contains(l.text, "until this is fixed") {
				t.Errorf("after one refusal of a new row: %s", l.text)
			}
		}
		closeNow(t, c)
	})
}

// If the table refuses every row for a moment, for example because it was altered
// and a cache is stale, no row is dropped.
func TestRefusedForAMoment(t *testing.T) {
	notNull := answer{status: 400, code: "23502", text: "null value"}
	for name, test := range map[string]struct {
		answer    answer
		perSecond int
		delay     time.Duration
		fails     float64 // the share of the requests before that fail at random
	}{
		"a NOT NULL column without a value": {notNull, 100, 5 * time.Millisecond, 0},
		"at 500 events/s":                   {notNull, 500, 40 * time.Millisecond, 0},
		"at 10 events/s, slowly":            {notNull, 10, 200 * time.Millisecond, 0},
		"while many requests fail":          {notNull, 100, 200 * time.Millisecond, 0.5},
		"a duplicate key":                   {answer{status: 409, code: "23505", text: "duplicate key"}, 100, 5 * time.Millisecond, 0},
		"a missing table":                   {answer{status: 404, code: "42P01", text: "no such table"}, 100, 5 * time.Millisecond, 0},
	} {
		for _, length := range []time.Duration{100 * time.Millisecond, 500 * time.Millisecond, 3 * time.Second} {
			for _, isNamed := range []bool{false, true} {
				inBubble(t, fmt.Sprintf("%s/%s/named %t", name, length, isNamed), func(t *testing.T) {
					begin := time.Now().Add(time.Second)
					chance, pauses := rand.New(rand.NewPCG(uint64(length), 4)), rand.New(rand.NewPCG(uint64(length), 3))
					s := &server{discard: true}
					s.answer = func(r *request) *answer {
						s.mu.Lock()
						defer s.mu.Unlock()
						a := answer{stored: true}
						if at := time.Since(begin); at >= 0 && at < length {
							a = test.answer
							if isNamed {
								a.details = failingRow(&r.rows[0])
							}
						} else if at < 0 && chance.Float64() < test.fails {
							a = answer{status: 502}
						}
						a.delay = test.delay
						return &a
					}
					c, o := newClient(t, s)
					for range 5 * test.perSecond {
						c.Record(event("a"))
						time.Sleep(time.Duration(pauses.Int64N(2 * int64(time.Second) / int64(test.perSecond))))
					}
					if err := c.Close(t.Context()); err != nil {
						t.Error(err)
					}
					if lost := o.lost(); len(lost) > 0 {
						t.Errorf("%d lost: %v", len(lost), lost[0].err)
					}
				})
			}
		}
	}
}

// Waiting rows keep no other rows in memory.
func TestWaitingRowsKeepNoOthers(t *testing.T) {
	before := heap()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		missing := answerBad(answer{status: 409}, time.Millisecond)
		s := &server{discard: true, answer: func(r *request) *answer {
			<-release
			return missing(r)
		}}
		c, _ := newClient(t, s, docevents.WithMaxBatch(100))
		c.Record(event("fine"))
		for i := range 2000 {
			e := event(fineOrBad(i%100 == 99))
			e.ErrorMessage = strings.Repeat("m", 1<<10)
			c.Record(e)
		}
		close(release)
		for c.Stats().Pending > 20 {
			time.Sleep(100 * time.Millisecond)
		}
		if grown := heap() - before; grown > 512<<10 {
			t.Errorf("%d rows pending, %d bytes by Stats, %d KiB on the heap", c.Stats().Pending, c.Stats().PendingBytes, grown>>10)
		}
		closeNow(t, c)
	})
}

// The error of a dropped row matches ErrOutcomeUnknown if the answer to a request
// with that row was lost.
func TestOutcomeUnknown(t *testing.T) {
	for name, test := range map[string]struct {
		answers []answer // the last one is repeated
		want    bool
	}{
		"never an answer":               {[]answer{{err: errReset}}, true},
		"a refusal":                     {[]answer{{status: 403, body: "<html>"}}, false},
		"a refusal after a lost answer": {[]answer{{err: errReset}, {status: 403}}, true},
		"a database's error":            {[]answer{{status: 500, code: "XX000"}}, false},
		"a gateway's":                   {[]answer{{status: 502}}, true},
	} {
		inBubble(t, name, func(t *testing.T) {
			n := 0
			c, o := newClient(t, &server{answer: func(r *request) *answer {
				if r.bad() < 0 {
					return nil
				}
				n++
				return &test.answers[min(n, len(test.answers))-1]
			}})
			c.Record(event("bad"))
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
	}
}
