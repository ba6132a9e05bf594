// Package health runs a service for up to a day of virtual time. It checks that Health
// reports the faults of the service, and reports nothing on a normal day.
package health

import (
	"context"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/integration/localstack"
)

// limits fit a service with up to 16 documents per minute. Each takes some seconds,
// and 1 % of them fail.
var limits = docevents.Limits{
	Window: 3 * time.Minute, StuckAfter: 90 * time.Second, MaxFailureRate: 0.12, MinEnded: 25, Silence: time.Minute,
}

func TestMain(m *testing.M) { localstack.Main(m) }

// A service processes documents as they arrive, in virtual time, so that a day
// takes seconds. The database is real.
type service struct {
	*docevents.Client
	user          string // the UserID of this service's events
	limits        docevents.Limits
	random        *rand.Rand
	mu            sync.Mutex // guards recorded
	recorded      []docevents.Event
	failing       atomic.Int64 // the percentage of documents that fail
	killed, hangs atomic.Bool  // killed kills the next worker; hangs makes all workers hang
	cancel        context.CancelFunc
}

func serve(t *testing.T, stack *localstack.Stack, perMinute func(time.Time) float64) *service {
	client, err := docevents.New(stack.URL, stack.ServiceRoleKey,
		docevents.WithTransport(&http.Transport{DisableKeepAlives: true})) // an idle connection would stop virtual time
	if err != nil {
		t.Fatal(err)
	}
	s := &service{Client: client, limits: limits, user: uuid.NewString(), random: rand.New(rand.NewPCG(1, 2))}
	s.limits.Where = map[string]string{"user_id": s.user}
	s.failing.Store(1)
	ctx, cancel := context.WithCancel(t.Context())
	s.cancel = cancel
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Duration(s.random.ExpFloat64() / perMinute(time.Now()) * float64(time.Minute))):
			}
			go s.process(ctx, uuid.NewString(), s.random.Int64N(100) < s.failing.Load())
		}
	}()
	return s
}

// process runs two steps for a document. The first step of a broken document fails.
func (s *service) process(ctx context.Context, document string, broken bool) {
	record := func(stage string, t docevents.EventType) {
		s.work(ctx, docevents.Event{DocumentID: document, UserID: s.user, Stage: stage, Type: t})
	}
	record("", docevents.UploadStarted)
	end := docevents.Completed
	for _, stage := range []string{"extract", "summarize"} {
		record(stage, docevents.ProcessingStarted)
		if broken {
			end = docevents.Failed
		}
		if record(stage, end); broken {
			break
		}
	}
	record("", end)
}

// work keeps an event for the next check. For the start of a step, it then sleeps 1
// to 8 seconds. If the worker is killed or hangs, work doesn't return.
func (s *service) work(ctx context.Context, e docevents.Event) {
	e.CreatedAt = time.Now()
	s.mu.Lock()
	s.recorded = append(s.recorded, e)
	s.mu.Unlock()
	if e.Type != docevents.ProcessingStarted {
		return
	}
	if s.killed.CompareAndSwap(true, false) {
		runtime.Goexit()
	}
	if s.hangs.Load() {
		<-ctx.Done()
		runtime.Goexit()
	}
	time.Sleep(time.Second * time.Duration(1+uuid.MustParse(e.DocumentID)[15]%8))
}

// check records the kept events, waits until they are stored, and returns the verdict of
// Health. If each event were recorded when it happens, the test would need a request for
// each event.
func (s *service) check(t *testing.T) docevents.Health {
	t.Helper()
	s.mu.Lock()
	for _, e := range s.recorded {
		s.Record(e)
	}
	s.recorded = nil
	s.mu.Unlock()
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	h, err := s.Health(t.Context(), s.limits)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// stop ends the service and its documents.
func (s *service) stop(t *testing.T) {
	s.cancel()
	time.Sleep(time.Minute)
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestHealthReportsFaults checks that Health reports each fault within two minutes.
func TestHealthReportsFaults(t *testing.T) {
	stack := localstack.Shared(t)
	for name, test := range map[string]struct {
		inject func(*service)
		want   string
	}{
		"a killed worker":       {func(s *service) { s.killed.Store(true) }, "1 document has been under way for longer than 1.5 min"},
		"a failure rate of 30%": {func(s *service) { s.failing.Store(30) }, "documents that ended in the last 3 min failed"},
		"silence":               {func(s *service) { s.hangs.Store(true) }, "No document has completed since"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := serve(t, stack, func(time.Time) float64 { return 16 })
				defer s.stop(t)
				for range 20 {
					time.Sleep(30 * time.Second)
					if h := s.check(t); !h.OK {
						t.Fatalf("before the fault: %q", h.Problems)
					}
				}
				test.inject(s)
				for began := time.Now(); ; time.Sleep(10 * time.Second) {
					h, after := s.check(t), time.Since(began)
					if slices.ContainsFunc(h.Problems, func(p string) bool { return strings.Contains(p, test.want) }) {
						t.Logf("after %s: %q", after, h.Problems)
						return
					}
					if after >= 2*time.Minute {
						t.Fatalf("after %s: %q", after, h.Problems)
					}
				}
			})
		})
	}
}

// TestHealthOfNormalDay checks that Health reports nothing during a normal day. The service
// has one document in two minutes at night, and 16 documents per minute at noon.
func TestHealthOfNormalDay(t *testing.T) {
	pause := limits.Window
	if os.Getenv("DOCEVENTS_LONG_TESTS") == "" || testing.Short() {
		pause *= 4 // a quarter of the checks
	}
	stack := localstack.Shared(t)
	synctest.Test(t, func(t *testing.T) {
		midnight := time.Now()
		s := serve(t, stack, func(now time.Time) float64 {
			return 0.5 + 15.5*math.Exp(-math.Pow((now.Sub(midnight).Hours()-12)/3, 2))
		})
		defer s.stop(t)
		var checks, rates int
		for time.Since(midnight) < 24*time.Hour {
			time.Sleep(pause)
			h := s.check(t)
			if !h.OK {
				t.Fatalf("%s: %q", time.Since(midnight), h.Problems)
			}
			if checks++; h.FailureRate > 0 {
				rates++
			}
		}
		t.Logf("%d checks, %d with failures, %d events", checks, rates, s.Stats().Recorded)
		if rates == 0 {
			t.Error("no document failed, so the test didn't check that Health tolerates failures")
		}
	})
}
