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
	"github.com/jackc/pgx/v5"
)

var (
	longSoak = flag.Bool("soak", false, "run the soak test with 200,000 events and with slower faults, which takes minutes")
	soakSeed = flag.Uint64("seed", 0, "`seed` of the soak test's faults; 0 chooses one at random")
)

// The fates of special events in the soak test. An event's stage ends with its fate.
const (
	poisoned      = "poisoned"       // the table's CHECK rejects it
	invalid       = "invalid"        // Record drops it as invalid
	blocked       = "blocked"        // a firewall rejects every request with it
	unanswered    = "unanswered"     // the server stores it, but every answer is a 502
	rejectedLater = "rejected later" // the first request stores it but the answer is lost; later requests are rejected
)

// TestSoak records from many goroutines while the proxy causes random faults and
// the servers behind it are killed and restarted. It checks the library's main
// promise: every event is either stored once or passed to the drop handler.
func TestSoak(t *testing.T) {
	events, crashes, batch := 6_000, 3, 40
	share, faults := 0.15, soakFaults
	if *longSoak {
		events, crashes, batch = 200_000, 60, 200
		faults = append(slices.Repeat(faults, 30), slowFaults...)
	}
	seed := cmp.Or(*soakSeed, rand.Uint64())
	t.Logf("to repeat these faults: go test ./integration/faultproxy -run TestSoak -soak=%t -seed %d", *longSoak, seed)

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
		return faultproxy.ForRow(blocked, faultproxy.Page(403),
			faultproxy.ForRow(unanswered, faultproxy.Page(502).Committed(), s.rejectLater(others)))
	}
	proxy.Deal(chosen(faultproxy.Random(seed, share, faults...)))

	s.client, err = docevents.New(proxy.URL, stack.ServiceRoleKey, append(s.Options(),
		docevents.WithEventTypes(docevents.EventTypes{Open: true}), // so that the table's CHECK rejects the poisoned events
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

	// From here on only the events with a fate have faults. All other events must be
	// stored. The test records more events until then, because the client drops a
	// rejected row only after another row has been stored.
	proxy.Deal(chosen(faultproxy.Pass))
	var followed time.Time
	observe.Await(t, "only chosen rows are pending", func() bool {
		if time.Since(followed) > 50*time.Millisecond {
			followed = time.Now()
			s.names = append(s.names, fmt.Sprintf("%06d ", len(s.names)))
			s.client.Record(soakEvent(s.names[len(s.names)-1]))
		}
		left := len(s.fated(blocked)) + len(s.fated(unanswered))
		for _, d := range s.Drops() { // some of these may be dropped already
			if strings.HasSuffix(d.Event.Stage, blocked) || strings.HasSuffix(d.Event.Stage, unanswered) {
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
	if (closed != nil) != (stats.Dropped.Abandoned > 0) {
		t.Errorf("Close: %v, with %d events abandoned", closed, stats.Dropped.Abandoned)
	}
	if len(s.crashed) < 3 {
		t.Errorf("crashes %v, want all three kinds", s.crashed)
	}
	s.check(t, stats)
}

// soakFaults are faults after which the client retries soon.
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
	faultproxy.Refusal(400, "23514", "violates check constraint"), // for requests at random, so most of their rows are stored later
	faultproxy.Refusal(400, "22P02", "invalid input syntax"),
	faultproxy.Refusal(500, "40P01", "deadlock detected"),
	faultproxy.Refusal(500, "57014", "statement timeout"),
	faultproxy.Refusal(400, "PGRST102", "Empty or invalid json"),
	faultproxy.Refusal(503, "PGRST001", "Database client error.").Committed(),
	faultproxy.Refusal(504, "PGRST003", "Timed out acquiring connection from connection pool."),
}

// slowFaults are faults after which the client may wait up to a minute.
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
	ahead   int64          // the most events that are recorded and not yet delivered
	rng     *rand.Rand     // for the crashes
	crashed map[string]int // number of crashes by name
	names   []string       // the stages of all events
	lost    sync.Map       // stages of the events rejectedLater whose first answer was lost
}

// name names the events, and gives some of them a fate.
func (s *soak) name(events int) {
	fates := map[int]string{events / 10: blocked, events / 5: unanswered, events / 2: unanswered}
	for i := range events {
		fate := fates[i]
		switch {
		case fate != "":
		case i%500 == 7:
			fate = poisoned
		case i%1000 == 9:
			fate = invalid
		case i%1000 == 500:
			fate = rejectedLater
		}
		s.names = append(s.names, fmt.Sprintf("%06d %s", i, fate))
	}
}

// rejectLater returns a plan with the faults of the events with the fate rejectedLater.
// The plan others chooses the faults of requests without such an event.
func (s *soak) rejectLater(others faultproxy.Plan) faultproxy.Plan {
	names := s.fated(rejectedLater)
	return func(r *faultproxy.Request) faultproxy.Fault {
		fault := others(r)
		for _, name := range names {
			if !r.Has(name) {
				continue
			}
			if _, lost := s.lost.LoadOrStore(name, true); !lost {
				return faultproxy.Page(502).Committed() // other events of the request get their fault later
			}
			fault = faultproxy.Refusal(400, "23514", "violates check constraint")
		}
		return fault
	}
}

// fated returns the names of the events with a fate.
func (s *soak) fated(fate string) []string {
	var names []string
	for _, name := range s.names {
		if strings.HasSuffix(name, fate) {
			names = append(names, name)
		}
	}
	return names
}

// record records from many goroutines, in bursts with a Flush between them. It pauses
// while too many events are pending, so that it doesn't end before the crashes.
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
				_ = s.client.Flush(ctx) // may end with ctx, or early because of a misconfiguration
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

// watch checks that the counts of Stats add up at any time.
func (s *soak) watch(t *testing.T, recording context.Context) {
	for recording.Err() == nil {
		if got := s.client.Stats(); got.Recorded != got.Delivered+got.Dropped.Total()+got.Pending {
			t.Errorf("counts don't add up: %+v", got)
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// crash breaks PostgreSQL, the REST server and the connections in turn, and repairs each
// before it breaks the next. Between two crashes, the argument every is the number of
// events that are delivered.
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
		time.Sleep(time.Duration(s.rng.Int64N(int64(300 * time.Millisecond)))) // the length of the outage
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

// checkFate checks whether and why one event was dropped, according to its fate.
func (s *soak) checkFate(t *testing.T, name string, d observe.Drop, dropped bool) {
	_, fate, _ := strings.Cut(name, " ")
	var e *docevents.Error
	ok := false
	switch fate {
	case "": // dropped only if the proxy rejected it
		ok = !dropped || d.Reason == docevents.Rejected && errors.As(d.Err, &e) && slices.Contains([]string{"23514", "22P02"}, e.Code)
	case poisoned:
		ok = dropped && d.Reason == docevents.Rejected && errors.As(d.Err, &e) && slices.Contains([]string{"23514", "22P02"}, e.Code)
	case rejectedLater:
		ok = dropped && d.Reason == docevents.Rejected && errors.As(d.Err, &e) && e.Code == "23514" &&
			errors.Is(d.Err, docevents.ErrOutcomeUnknown)
	case invalid:
		ok = dropped && d.Reason == docevents.Invalid
	case blocked, unanswered: // dropped after many retries, or pending at Close
		ok = dropped && (d.Reason == docevents.Rejected || d.Reason == docevents.Abandoned)
	}
	if !ok {
		t.Errorf("%q: dropped %t as %s: %v", name, dropped, d.Reason, d.Err)
	}
}

// stored returns the number of rows by stage.
func (s *soak) stored(t *testing.T) map[string]int {
	t.Helper()
	if err := s.stack.Reload(t.Context()); err != nil { // waits until the servers are up
		t.Fatal(err)
	}
	rows, err := s.stack.Pool().Query(t.Context(), "SELECT stage, count(*) FROM document_processing_events GROUP BY stage")
	if err != nil {
		t.Fatal(err)
	}
	stored := map[string]int{}
	var name string
	var n int
	if _, err := pgx.ForEachRow(rows, []any{&name, &n}, func() error { stored[name] = n; return nil }); err != nil {
		t.Fatal(err)
	}
	return stored
}
