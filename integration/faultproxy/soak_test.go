package faultproxy_test

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/integration/faultproxy"
	"github.com/docevents/docevents-go/integration/internal/observe"
	"github.com/docevents/docevents-go/integration/localstack"
	"github.com/google/uuid"
)

var (
	longSoak = flag.Bool("soak", false, "run the soak test with 200,000 events and rarer, slower faults: some minutes")
	soakSeed = flag.Uint64("seed", 0, "`seed` of the soak test's faults; 0: a new one")
)

// Events of the soak test that have a fate of their own; it is a part of their
// stage.
const (
	poisoned  = "poisoned"  // the table's CHECK refuses it
	invalid   = "invalid"   // no database could store it
	forbidden = "forbidden" // a firewall refuses every request with it
	dubious   = "dubious"   // as forbidden, but after the commit
	recanted  = "recanted"  // stored by a request whose answer is lost, and refused ever after
)

// TestSoak records from many goroutines while the proxy deals faults at random
// and the servers behind it are killed and started again. What it checks is the
// library's whole promise: every event is stored once, or handed back.
func TestSoak(t *testing.T) {
	events, crashes, batch := 6_000, 3, 40
	share, faults := 0.15, soakFaults
	if *longSoak {
		events, crashes, batch = 200_000, 60, 200
		faults = append(slices.Repeat(faults, 30), slowFaults...)
	}
	seed := cmp.Or(*soakSeed, rand.Uint64())
	t.Logf("to repeat its faults: go test ./internal/faultproxy -run TestSoak -soak=%t -seed %d", *longSoak, seed)

	stack := localstack.Own(t, localstack.Options{})
	proxy, err := faultproxy.Start(stack.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := proxy.Close(); err != nil {
			t.Error(err)
		}
	})
	s := &soak{stack: stack, proxy: proxy, ahead: 25 * int64(batch), rng: rand.New(rand.NewPCG(seed, 1))}
	s.name(events)
	chosen := func(others faultproxy.Plan) faultproxy.Plan {
		return faultproxy.ForRow(forbidden, faultproxy.Page(403),
			faultproxy.ForRow(dubious, faultproxy.Page(502).Committed(), s.recant(others)))
	}
	proxy.Deal(chosen(faultproxy.Random(seed, share, faults...)))

	s.client, err = docevents.New(proxy.URL, stack.ServiceRoleKey, append(s.Options(),
		docevents.WithEventTypes(docevents.EventTypes{Open: true}), // so that the table's CHECK has something to refuse
		docevents.WithQueueLimits(events, 1<<30),
		docevents.WithMaxBatch(batch),
		docevents.WithRequestTimeout(2*time.Second),
	)...)
	if err != nil {
		t.Fatal(err)
	}

	start := time.Now()
	recording, recorded := context.WithCancel(t.Context())
	var others sync.WaitGroup
	others.Go(func() { s.watch(t, recording) })
	others.Go(func() { s.crash(t, recording, int64(events/(crashes+1))) })
	s.record(events, seed)
	recorded()
	others.Wait()

	// The faults end, except those of the chosen rows: all others must be stored.
	// Events that follow are the evidence that drops the last bad rows.
	proxy.Deal(chosen(faultproxy.Pass))
	var followed time.Time
	observe.Await(t, "only chosen rows are pending", func() bool {
		if time.Since(followed) > 50*time.Millisecond {
			followed = time.Now()
			s.names = append(s.names, fmt.Sprintf("%06d ", len(s.names)))
			s.client.Record(soakEvent(s.names[len(s.names)-1]))
		}
		left := len(s.fated(forbidden)) + len(s.fated(dubious))
		for _, d := range s.Drops() { // they may have been given up
			if strings.HasSuffix(d.Event.Stage, forbidden) || strings.HasSuffix(d.Event.Stage, dubious) {
				left--
			}
		}
		return s.client.Stats().Pending == int64(left)
	})
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	closed := s.client.Close(ctx)

	stats := s.client.Stats()
	t.Logf("%d events in %s: %+v; crashes: %v", events, time.Since(start).Round(time.Millisecond), stats, s.crashed)
	t.Logf("requests by fault: %v", proxy.Dealt())
	if (closed != nil) != (stats.Dropped.Abandoned > 0) {
		t.Errorf("Close: %v, with %d events abandoned", closed, stats.Dropped.Abandoned)
	}
	if len(s.crashed) < 3 {
		t.Errorf("crashes %v, want each of the three", s.crashed)
	}
	s.check(t, stats)
}

// soakFaults are over soon: the client's next attempt is that of an outage.
var soakFaults = []faultproxy.Fault{
	faultproxy.RequestLost(),
	faultproxy.AnswerLost(),
	faultproxy.AnswerCut(faultproxy.CutHeader),
	faultproxy.AnswerCut(faultproxy.CutBody),
	faultproxy.Trickle(100 * time.Microsecond),
	faultproxy.HeaderLost("Prefer"),
	faultproxy.Page(403),
	faultproxy.Page(502).Committed(),
	faultproxy.Page(413),
	faultproxy.Text(429, "", "Retry-After", "0"),
	faultproxy.Text(500, "null").Committed(),
	faultproxy.Text(503, ""),
	faultproxy.Text(504, "").Committed(),
	faultproxy.Garbage(500, 10<<20),
	faultproxy.Refusal(400, "23514", "violates check constraint"), // of any row: most are delivered after all
	faultproxy.Refusal(400, "22P02", "invalid input syntax"),
	faultproxy.Refusal(500, "40P01", "deadlock detected"),
	faultproxy.Refusal(500, "57014", "statement timeout"),
	faultproxy.Refusal(400, "PGRST102", "Empty or invalid json"),
	faultproxy.Refusal(503, "PGRST001", "Database client error.").Committed(),
	faultproxy.Refusal(504, "PGRST003", "Timed out acquiring connection from connection pool."),
}

// slowFaults make the client wait up to a minute.
var slowFaults = []faultproxy.Fault{
	faultproxy.Stall(),
	faultproxy.Stall().Committed(),
	faultproxy.Text(503, "", "Retry-After", "5"),
	faultproxy.Text(503, "", "Retry-After", "86400"),
	faultproxy.Refusal(401, "PGRST303", "JWT expired"),
	faultproxy.Refusal(404, "PGRST205", "Could not find the table"),
}

type soak struct {
	observe.Observer
	stack   *localstack.Stack
	proxy   *faultproxy.Proxy
	client  *docevents.Client
	ahead   int64      // recording stays no more than so many events ahead of delivery
	rng     *rand.Rand // of the crashes
	crashed map[string]int
	names   []string // of all events, their stages
	lost    sync.Map // names of the recanted whose first answer was lost
}

// name gives some of the events a fate.
func (s *soak) name(events int) {
	fates := map[int]string{events / 10: forbidden, events / 5: dubious, events / 2: dubious}
	for i := range events {
		fate := fates[i]
		switch {
		case fate != "":
		case i%500 == 7:
			fate = poisoned
		case i%1000 == 9:
			fate = invalid
		case i%1000 == 500:
			fate = recanted
		}
		s.names = append(s.names, fmt.Sprintf("%06d %s", i, fate))
	}
}

// recant deals their faults to the recanted.
func (s *soak) recant(others faultproxy.Plan) faultproxy.Plan {
	names := s.fated(recanted)
	return func(r *faultproxy.Request) faultproxy.Fault {
		fault := others(r)
		for _, name := range names {
			if !r.Has(name) {
				continue
			}
			if _, lost := s.lost.LoadOrStore(name, true); !lost {
				return faultproxy.Page(502).Committed() // the others' turn comes
			}
			fault = faultproxy.Refusal(400, "23514", "violates check constraint")
		}
		return fault
	}
}

// fated are the events with a fate.
func (s *soak) fated(fate string) []string {
	var names []string
	for _, name := range s.names {
		if strings.HasSuffix(name, fate) {
			names = append(names, name)
		}
	}
	return names
}

// record records from many goroutines, in bursts with a Flush between them. It
// goes no faster than delivery, lest it be over before the faults.
func (s *soak) record(events int, seed uint64) {
	const goroutines = 32
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, 100+uint64(g)))
			for i, burst := g, 0; i < events; i += goroutines {
				s.client.Record(soakEvent(s.names[i]))
				if burst--; burst >= 0 {
					continue
				}
				burst = rng.IntN(64)
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rng.Int64N(int64(100*time.Millisecond))))
				_ = s.client.Flush(ctx) // ended by ctx, or by a fault that is one of configuration
				cancel()
				for s.client.Stats().Pending > s.ahead {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	wg.Wait()
}

func soakEvent(name string) docevents.Event {
	e := docevents.Event{
		DocumentID: uuid.NewString(), UserID: docevents.SystemUser, Type: docevents.Failed,
		Stage: name, Duration: time.Second, ErrorMessage: strings.Repeat("é", len(name)*7%100),
	}
	switch {
	case strings.HasSuffix(name, poisoned):
		e.Type = "no such type"
	case strings.HasSuffix(name, invalid):
		e.UserID = "nobody"
	}
	return e
}

// watch holds Stats to its promise.
func (s *soak) watch(t *testing.T, recording context.Context) {
	for recording.Err() == nil {
		if got := s.client.Stats(); got.Recorded != got.Delivered+got.Dropped.Total()+got.Pending {
			t.Errorf("counts don't add up: %+v", got)
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// crash breaks one part after another, each time after so many more events were
// delivered, and mends it before the next.
func (s *soak) crash(t *testing.T, recording context.Context, every int64) {
	ctx := t.Context()
	crashes := []struct {
		name       string
		begin, end func() error
	}{
		{"PostgreSQL killed", s.stack.KillPostgres, func() error { return s.stack.StartPostgres(ctx) }},
		{"REST server stopped", s.stack.StopREST, func() error { return s.stack.StartREST(ctx) }},
		{"connections refused", s.proxy.Refuse, s.proxy.Accept},
	}
	s.crashed = map[string]int{}
	for n := int64(0); ; n++ {
		goal := every * (n + 1)
		for s.client.Stats().Delivered < goal {
			if recording.Err() != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
		c := crashes[n%int64(len(crashes))]
		if err := c.begin(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		time.Sleep(time.Duration(s.rng.Int64N(int64(300 * time.Millisecond)))) // the fault's own length
		if err := c.end(); err != nil {
			t.Errorf("after %s: %v", c.name, err)
			return
		}
		s.crashed[c.name]++
	}
}

func (s *soak) check(t *testing.T, stats docevents.Stats) {
	drops := map[string]observe.Drop{}
	byReason := map[docevents.DropReason]int64{}
	for _, d := range s.Drops() {
		if _, twice := drops[d.Event.Stage]; twice {
			t.Errorf("%q was dropped twice", d.Event.Stage)
		}
		drops[d.Event.Stage] = d
		byReason[d.Reason]++
	}
	stored := s.stored(t)

	delivered, storedDrops := int64(0), 0
	for _, name := range s.names {
		d, dropped := drops[name]
		switch n := stored[name]; {
		case !dropped && n != 1:
			t.Errorf("%q was delivered, and is in the table %d times", name, n)
		case !dropped:
			delivered++
		case n > 1 || n == 1 && !errors.Is(d.Err, docevents.ErrOutcomeUnknown):
			t.Errorf("%q was dropped (%s: %v), and is in the table %d times", name, d.Reason, d.Err, n)
		case n == 1:
			storedDrops++
		}
		delete(stored, name)
		delete(drops, name)
		s.checkFate(t, name, d, dropped)
	}
	for name, n := range stored {
		t.Errorf("%q is in the table %d times, and was not recorded", name, n)
	}
	for name := range drops {
		t.Errorf("%q was dropped, and not recorded", name)
	}
	t.Logf("dropped %v, of them stored %d", byReason, storedDrops)

	want := docevents.Stats{
		Recorded: int64(len(s.names)), Delivered: delivered,
		Dropped: docevents.Drops{
			Invalid: int64(len(s.fated(invalid))), Rejected: byReason[docevents.Rejected], Abandoned: byReason[docevents.Abandoned],
		},
		Requests: stats.Requests, Retries: stats.Retries,
	}
	if stats != want {
		t.Errorf("stats %+v, want %+v", stats, want)
	}
	if want := int64(len(s.names)) - delivered; int64(len(s.Drops())) != want {
		t.Errorf("%d drops, want %d", len(s.Drops()), want)
	}
}

// checkFate looks at one event's drop, or that it has none.
func (s *soak) checkFate(t *testing.T, name string, d observe.Drop, dropped bool) {
	_, fate, _ := strings.Cut(name, " ")
	var e *docevents.Error
	ok := false
	switch fate {
	case "": // by one of the proxy's refusals, and only by its word
		ok = !dropped || d.Reason == docevents.Rejected && errors.As(d.Err, &e) && slices.Contains([]string{"23514", "22P02"}, e.Code)
	case poisoned:
		ok = dropped && d.Reason == docevents.Rejected && errors.As(d.Err, &e) && slices.Contains([]string{"23514", "22P02"}, e.Code)
	case recanted:
		ok = dropped && d.Reason == docevents.Rejected && errors.As(d.Err, &e) && e.Code == "23514" &&
			errors.Is(d.Err, docevents.ErrOutcomeUnknown)
	case invalid:
		ok = dropped && d.Reason == docevents.Invalid
	case forbidden, dubious: // given up, or left at the end
		ok = dropped && (d.Reason == docevents.Rejected || d.Reason == docevents.Abandoned)
	}
	if !ok {
		t.Errorf("%q: dropped %t as %s: %v", name, dropped, d.Reason, d.Err)
	}
}

// stored counts the rows by stage.
func (s *soak) stored(t *testing.T) map[string]int {
	t.Helper()
	if err := s.stack.Reload(t.Context()); err != nil { // everything is up
		t.Fatal(err)
	}
	rows, err := s.stack.Pool().Query(t.Context(), "SELECT stage, count(*) FROM document_processing_events GROUP BY stage")
	if err != nil {
		t.Fatal(err)
	}
	stored := map[string]int{}
	for rows.Next() {
		var name string
		var n int
		if err := rows.Scan(&name, &n); err != nil {
			t.Fatal(err)
		}
		stored[name] = n
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return stored
}
