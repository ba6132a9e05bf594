package docevents_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docevents/docevents-go"
	"github.com/sirupsen/logrus"
	logrustest "github.com/sirupsen/logrus/hooks/test"
)

// A slogFunc is a logger.
type slogFunc func(slog.Record)

func (f slogFunc) Enabled(context.Context, slog.Level) bool { return true }
func (f slogFunc) WithAttrs([]slog.Attr) slog.Handler       { return f }
func (f slogFunc) WithGroup(string) slog.Handler            { return f }

func (f slogFunc) Handle(_ context.Context, r slog.Record) error {
	f(r)
	return nil
}

// If a logger or a handler panics, ends its goroutine, blocks for ever, or calls
// Record and Stats, Record takes no longer, no event is lost, and Close ends.
func TestMisbehavingLoggerOrHandler(t *testing.T) {
	const good, bad = 5000, 3000
	for name, misbehave := range map[string]func(c *docevents.Client, release chan struct{}){
		"panics":                 func(*docevents.Client, chan struct{}) { panic("row content") },
		"panics with an error":   func(*docevents.Client, chan struct{}) { panic(errReset) },
		"ends its goroutine":     func(*docevents.Client, chan struct{}) { runtime.Goexit() }, // as t.FailNow does
		"blocks for ever":        func(_ *docevents.Client, release chan struct{}) { <-release },
		"calls Record and Stats": func(c *docevents.Client, _ chan struct{}) { c.Record(event("own")); _ = c.Stats() },
		"sleeps for a minute":    func(*docevents.Client, chan struct{}) { time.Sleep(time.Minute) },
	} {
		for _, which := range []string{"logger", "handler"} {
			t.Run(which+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					release := make(chan struct{})
					s := &server{answer: func(*request) *answer { return &answer{delay: time.Millisecond, stored: true} }}
					o := &observer{}
					var c *docevents.Client
					var calls, lines atomic.Int64
					ready := make(chan struct{})
					log := slog.New(slogFunc(func(r slog.Record) {
						<-ready
						lines.Add(1)
						if which == "logger" {
							misbehave(c, release)
						}
						_ = o.Handle(context.Background(), r)
					}))
					handler := func(e docevents.Event, reason docevents.DropReason, err error) {
						calls.Add(1)
						if which == "handler" {
							misbehave(c, release)
						}
						o.dropped(e, reason, err)
					}
					c, _ = newClient(t, s, docevents.WithSlog(log), docevents.WithDropHandler(handler))
					close(ready)
					start := time.Now()
					for i := range good {
						c.Record(event("good"))
						if i < bad {
							c.Record(docevents.Event{Stage: "bad"})
						}
					}
					if took := time.Since(start); took != 0 {
						t.Errorf("Record took %s", took)
					}
					checkStats(t, c, nil)
					time.Sleep(time.Second)
					if got := s.stages()["good"]; got != good {
						t.Errorf("%d stored, want %d", got, good)
					}

					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
					defer cancel()
					start = time.Now()
					if err := c.Close(ctx); err != nil {
						t.Errorf("Close: %v", err)
					}
					took, most := time.Since(start), time.Duration(0)
					if strings.HasPrefix(name, "blocks") || strings.HasPrefix(name, "sleeps") {
						most = 11 * time.Second // the 10 s of ctx and one more second
					}
					if took > most {
						t.Errorf("Close took %s, want %s at most", took, most)
					}
					close(release)
					time.Sleep(2 * time.Minute) // until the last call has returned
					synctest.Wait()
					st := c.Stats()
					own := int64(s.stages()["own"])
					checkStats(t, c, &docevents.Stats{
						Recorded: good + bad + own + st.Dropped.Closed, Delivered: good + own,
						Dropped: docevents.Drops{Invalid: bad, Closed: st.Dropped.Closed},
					})
					if name == "calls Record and Stats" && own == 0 {
						t.Error("its own events were not stored")
					}
					if st.Dropped.Closed > 0 && name != "calls Record and Stats" {
						t.Errorf("%+v", st)
					}
					if got := calls.Load() + st.Unreported; got != st.Dropped.Total() {
						t.Errorf("%d handler calls and %d skipped, for %d drops", calls.Load(), st.Unreported, st.Dropped.Total())
					}
					if lines.Load() == 0 {
						t.Error("the logger was not called")
					}
					for _, l := range o.logged() {
						if strings.Contains(l.text, "row content") || strings.Contains(l.text, errReset.Error()) {
							t.Errorf("logged what was panicked with: %q", l.text)
						}
					}
					if strings.HasPrefix(name, "panics") && which == "handler" {
						panics := 0
						for _, l := range o.logged() {
							if strings.Contains(l.text, "handler panicked") {
								panics++
							}
						}
						if panics != 2 { // one line at the first panic, and one for the others at Close
							t.Errorf("%d lines about the panics, want 2", panics)
						}
					}
				})
			})
		}
	}
}

// While the handler is slow, up to 1,000 calls or 1 MiB of text wait for it. Other
// calls are skipped and counted.
func TestNoticesAreBounded(t *testing.T) {
	for name, test := range map[string]struct {
		message int // bytes
		least   int // the fewest calls that wait
		most    int
	}{
		"1,000 calls":   {0, 1000, 1000},
		"1 MiB of text": {60 << 10, 16, 17},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				var calls atomic.Int64
				c, _ := newClient(t, &server{}, docevents.WithDropHandler(func(docevents.Event, docevents.DropReason, error) {
					calls.Add(1)
					<-release
				}))
				c.Record(docevents.Event{})
				synctest.Wait() // the handler is running
				const more = 5000
				for range more {
					c.Record(docevents.Event{ErrorMessage: strings.Repeat("m", test.message)})
				}
				synctest.Wait()
				skipped := c.Stats().Unreported
				if waiting := int(more - skipped); waiting < test.least || waiting > test.most {
					t.Errorf("%d calls wait, want %d to %d", waiting, test.least, test.most)
				}
				checkStats(t, c, &docevents.Stats{Recorded: 1 + more, Dropped: docevents.Drops{Invalid: 1 + more}})
				close(release)
				if err := c.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
				if got := calls.Load(); got != 1+more-skipped {
					t.Errorf("%d calls, want the %d that waited", got, 1+more-skipped)
				}
				c.Record(docevents.Event{ErrorMessage: strings.Repeat("m", test.message)})
				if err := c.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				if got := calls.Load(); got != 2+more-skipped || c.Stats().Unreported != skipped {
					t.Errorf("%d calls and %d skipped, after the handler had caught up", got, c.Stats().Unreported)
				}
			})
		})
	}
}

func TestFlushEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		c, _ := newClient(t, &server{}, docevents.WithDropHandler(func(docevents.Event, docevents.DropReason, error) { <-release }))
		c.Record(docevents.Event{})
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			start := time.Now()
			if err := c.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "still pending") {
				t.Errorf("Flush: %v", err)
			}
			if took := time.Since(start); took != time.Second {
				t.Errorf("Flush took %s, want ctx's second", took)
			}
			cancel()
		}
		close(release)
		if err := c.Flush(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// The handler gets every event that Close abandons, and has one second for that
// after ctx ends. Events that are left then count as Unreported.
func TestCloseAndTheHandler(t *testing.T) {
	const events = 5000
	for name, test := range map[string]struct {
		each  time.Duration // the time that a handler call takes
		calls int           // how many calls are made
		took  time.Duration // the time that Close takes after the end of ctx
	}{
		"a quick handler gets all":               {0, events, 0},
		"a slow one what it manages in a second": {10 * time.Millisecond, 101, time.Second},
		"one that never returns gets one":        {1 << 62, 1, time.Second},
	} {
		for _, ahead := range []time.Duration{0, 3 * time.Second} { // the time until ctx ends
			t.Run(fmt.Sprint(name, ", ctx ", ahead), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := &server{answer: func(*request) *answer { return &answer{delay: time.Hour} }}
					end := make(chan struct{})
					var calls atomic.Int64
					c, o := newClient(t, s, docevents.WithDropHandler(func(_ docevents.Event, reason docevents.DropReason, err error) {
						calls.Add(1)
						if reason != docevents.Abandoned || !errors.Is(err, context.DeadlineExceeded) {
							t.Errorf("%s: %v", reason, err)
						}
						select {
						case <-time.After(test.each):
						case <-end:
						}
					}))
					for range events {
						c.Record(event("a"))
					}
					ctx, cancel := context.WithTimeout(t.Context(), ahead)
					defer cancel()
					start := time.Now()
					err := c.Close(ctx)
					if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), fmt.Sprint(events, " events abandoned")) {
						t.Errorf("Close: %v", err)
					}
					if took := time.Since(start) - ahead; took != test.took {
						t.Errorf("Close took %s beyond ctx, want %s", took, test.took)
					}
					if got := calls.Load(); got < int64(test.calls)-1 || got > int64(test.calls) {
						t.Errorf("%d handler calls, want %d", got, test.calls)
					}
					checkStats(t, c, &docevents.Stats{Recorded: events, Dropped: docevents.Drops{Abandoned: events}})
					if got := calls.Load() + c.Stats().Unreported; got != events {
						t.Errorf("%d handler calls and %d skipped, want %d in all", calls.Load(), c.Stats().Unreported, events)
					}
					if err := c.Close(ctx); err == nil || !strings.Contains(err.Error(), "abandoned") {
						t.Errorf("the second Close: %v", err)
					}
					close(end)
					synctest.Wait()
					if got := calls.Load() + c.Stats().Unreported; got != events {
						t.Errorf("later: %d handler calls and %d skipped, want %d in all", calls.Load(), c.Stats().Unreported, events)
					}
					if lines := linesAt(o, slog.LevelError); test.took == 0 && (len(lines) != 1 || !strings.Contains(lines[0].text, fmt.Sprint("count=", events))) {
						t.Errorf("logged %v, want one line for all", lines)
					}
				})
			})
		}
	}
}

// After Close has stopped waiting for a handler that hangs, nothing waits for it.
func TestRecordWhileTheHandlerHangsAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var calls atomic.Int64
		c, _ := newClient(t, &server{}, docevents.WithDropHandler(func(docevents.Event, docevents.DropReason, error) {
			calls.Add(1)
			<-release
		}))
		for range 10 {
			c.Record(docevents.Event{})
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := c.Close(ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
		if got := c.Stats().Unreported; got != 9 {
			t.Errorf("%d unreported after Close, want the 9 after the call that hangs", got)
		}
		for range 10 {
			c.Record(event("a"))
		}
		if got := c.Stats().Unreported; got != 19 {
			t.Errorf("%d unreported, want 19", got)
		}
		if err := c.Flush(t.Context()); err != nil {
			t.Errorf("Flush: %v", err)
		}
		close(release)
		synctest.Wait()
		c.Record(event("a")) // the handler has returned
		synctest.Wait()
		if st := c.Stats(); calls.Load() != 2 || st.Unreported != 19 {
			t.Errorf("%d calls, %+v", calls.Load(), st)
		}
		checkStats(t, c, &docevents.Stats{Recorded: 21, Dropped: docevents.Drops{Invalid: 10, Closed: 11}})
	})
}

// The log line about a dropped event has its document and type, so that the event
// can be found. It has neither malformed ids nor the event's text.
func TestDropNamesTheEvent(t *testing.T) {
	const other = "22222222-2222-4222-8222-222222222222"
	for name, test := range map[string]struct {
		event docevents.Event
		want  []string
		not   []string
	}{
		"a document and a type": {
			docevents.Event{DocumentID: strings.ToUpper("{" + other + "}"), Type: docevents.Failed, ErrorMessage: "Jane Doe", Stage: "Jane Doe"},
			[]string{"document_id={" + other + "}", "event_type=failed"},
			[]string{"Jane"},
		},
		"no id, an odd type": {
			docevents.Event{DocumentID: "Jane Doe", Type: docevents.EventType("\x1b[31m\n\u202e\xff" + strings.Repeat("t", 5000))},
			[]string{"event_type=\ufffd[31m \ufffd\ufffdtt"},
			[]string{"Jane", "document_id", strings.Repeat("t", 65), "\x1b", "\n"},
		},
		"neither": {docevents.Event{}, nil, []string{"document_id", "event_type"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, o := newClient(t, &server{})
				c.Record(test.event)
				if err := c.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				lines := o.logged()
				if len(lines) != 1 {
					t.Fatalf("logged %v", lines)
				}
				for _, want := range test.want {
					if !strings.Contains(lines[0].text, want) {
						t.Errorf("%q: want %q", lines[0].text, want)
					}
				}
				for _, not := range test.not {
					if strings.Contains(lines[0].text, not) {
						t.Errorf("%q: says %q", lines[0].text, not)
					}
				}
			})
		})
	}

	t.Run("the last of the counted repeats", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := &server{answer: func(*request) *answer { return &answer{delay: time.Hour} }}
			c, o := newClient(t, s)
			for _, document := range []string{other, testDocument} {
				c.Record(docevents.Event{DocumentID: document, UserID: docevents.SystemUser, Type: docevents.Completed})
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_ = c.Close(ctx)
			lines := o.logged()
			if len(lines) != 1 || !strings.Contains(lines[0].text, "event_type=completed") || strings.Count(lines[0].text, "document_id=") != 1 {
				t.Errorf("logged %v, want one line that names one event", lines)
			}
		})
	})
}

// failed_requests counts the failures of one outage, even if the end of the outage
// before it wasn't logged.
func TestFailedRequestsAreThoseOfTheOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failures := 0
		c, o := newClient(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
			if failures > 0 {
				failures--
				return (&answer{status: 503}).response(req), nil
			}
			return (&answer{}).response(req), nil
		}))
		outage := func(n int) {
			failures = n
			c.Record(event("a"))
			if err := c.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		outage(1) // logged
		outage(4) // within 30 s, so it isn't logged
		time.Sleep(time.Hour)
		outage(1)
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		lines := o.logged()
		if last := lines[len(lines)-1].text; !strings.Contains(last, "failed_requests=1") {
			t.Errorf("the last outage had one failed request: %s", last)
		}
	})
}

// The memory of a program that calls Flush before each reply doesn't grow while the
// handler hangs.
func TestFlushWhileTheHandlerHangsTakesNoMemory(t *testing.T) {
	stuck := make(chan struct{})
	c, _ := newClient(t, &server{}, docevents.WithDropHandler(func(docevents.Event, docevents.DropReason, error) { <-stuck }))
	c.Record(docevents.Event{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	before := heap()
	for range 300_000 {
		_ = c.Flush(ctx)
	}
	if grown := heap() - before; grown > 10<<20 {
		t.Errorf("300,000 calls of Flush hold %d MiB", grown>>20)
	}
	close(stuck)
	_ = c.Close(t.Context())
}

// The first line with a message is written at once. Its repeats are suppressed and
// counted. At most every 30 s, a repeat, Flush or Close writes a line with their
// number.
func TestRepeatsAreSummedUp(t *testing.T) {
	for name, test := range map[string]struct {
		set func(t *testing.T) (c *docevents.Client, o *observer, again func())
		msg string
	}{
		"invalid": {func(t *testing.T) (*docevents.Client, *observer, func()) {
			c, o := newClient(t, &server{})
			return c, o, func() { c.Record(docevents.Event{}) }
		}, "it can't be stored"},
		"rejected": {func(t *testing.T) (*docevents.Client, *observer, func()) {
			c, o := newClient(t, &server{answer: answerBad(refusal, 0)})
			return c, o, func() {
				for _, stage := range []string{"other", "bad", "other"} { // the bad row is rejected twice, and another is stored in between
					c.Record(event(stage))
					time.Sleep(10 * time.Millisecond)
				}
				time.Sleep(time.Second)
				synctest.Wait()
			}
		}, "the server rejected it"},
		"queue full": {func(t *testing.T) (*docevents.Client, *observer, func()) {
			s := &server{answer: func(*request) *answer { return &answer{delay: time.Hour, stored: true} }}
			c, o := newClient(t, s, docevents.WithQueueLimits(1, 1<<20), docevents.WithRequestTimeout(10*time.Minute))
			c.Record(event("first"))
			return c, o, func() { c.Record(event("a")) }
		}, "the queue is full"},
		"closed": {func(t *testing.T) (*docevents.Client, *observer, func()) {
			c, o := newClient(t, &server{})
			if err := c.Close(t.Context()); err != nil {
				t.Error(err)
			}
			return c, o, func() { c.Record(event("a")) }
		}, "recorded after Close"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, o, again := test.set(t)
				want := func(when string, counts ...int) {
					t.Helper()
					synctest.Wait()
					var got []string
					for _, l := range o.logged() {
						if !strings.Contains(l.text, test.msg) || l.level != slog.LevelError {
							t.Errorf("%s: %s %q", when, l.level, l.text)
						}
						_, count, _ := strings.Cut(l.text, "count=")
						count, _, _ = strings.Cut(count, " ")
						got = append(got, count)
					}
					if fmt.Sprint(got) != fmt.Sprint(counts) {
						t.Errorf("%s: lines with counts %v, want %v", when, got, counts)
					}
				}
				flush := func() {
					ctx, cancel := context.WithCancel(t.Context())
					cancel()         // for the event that finds the queue full
					_ = c.Flush(ctx) // writes the lines that are due, even if it returns an error
				}
				start := time.Now()
				again()
				want("the first, at once", 1)
				for range 9 {
					again()
				}
				time.Sleep(time.Until(start.Add(28 * time.Second)))
				again()
				want("within 30 s", 1)
				if name != "queue full" {
					flush()
					want("Flush within 30 s", 1)
				}
				time.Sleep(time.Until(start.Add(32 * time.Second)))
				again()
				want("the first after 30 s", 1, 11)
				again()
				again()
				want("again within 30 s", 1, 11)
				counts := []int{1, 11}
				if name != "queue full" {
					time.Sleep(31 * time.Second)
					flush()
					counts = append(counts, 2)
					want("Flush after 30 s", counts...)
					again()
					want("and within 30 s of that", counts...)
				}
				rest := 2
				if name != "queue full" {
					rest = 1
				}
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				_ = c.Close(ctx)
				synctest.Wait()
				var last line
				for _, l := range o.logged() {
					if strings.Contains(l.text, test.msg) {
						last = l
					}
				}
				if !strings.Contains(last.text, fmt.Sprint("count=", rest, " ")) {
					t.Errorf("at Close: %q, want count=%d", last.text, rest)
				}
			})
		})
	}
}

// An outage writes a line when it begins, a line every 30 s, and an Info line when
// it ends. An outage within 30 s of another isn't logged.
func TestOutageInTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		s := &server{answer: func(*request) *answer {
			if down.Load() {
				return &answer{err: errReset}
			}
			return nil
		}}
		c, o := newClient(t, s)
		outage := func(d time.Duration) {
			down.Store(true)
			c.Record(event("a"))
			time.Sleep(d)
			down.Store(false)
			if err := c.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		want := func(when string, texts ...string) {
			t.Helper()
			lines := o.logged()
			if len(lines) != len(texts) {
				t.Fatalf("%s: %d lines, want %d: %v", when, len(lines), len(texts), lines)
			}
			for i, l := range lines {
				level := slog.LevelError
				if texts[i] == "delivering again" {
					level = slog.LevelInfo
				}
				if l.level != level || !strings.Contains(l.text, texts[i]) {
					t.Errorf("%s: line %d: %s %q, want %s %q", when, i, l.level, l.text, level, texts[i])
				}
			}
		}
		outage(time.Second)
		failed := fmt.Sprintf("failed_requests=%d", s.sent()-1)
		want("a short outage", "insert failed", "delivering again")
		recovery := o.logged()[1]
		if !strings.Contains(recovery.text, failed) || !strings.Contains(recovery.text, " after=") {
			t.Errorf("%q, want %s and the outage's length", recovery.text, failed)
		}
		time.Sleep(time.Minute)
		if err := c.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		want("a Flush later: nothing is logged twice", "insert failed", "delivering again")
		outage(time.Second)
		want("another outage", "insert failed", "delivering again", "insert failed", "delivering again")
		outage(time.Second)
		want("another within 30 s", "insert failed", "delivering again", "insert failed", "delivering again")
		time.Sleep(time.Minute)
		outage(10 * time.Minute)
		checkQuiet(t, o)
		lines := o.logged()[4:]
		if n := len(lines); n < 10 || n > 22 || lines[n-1].level != slog.LevelInfo {
			t.Errorf("%d lines in ten minutes: %v", n, lines)
		}
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := len(o.logged()) - 4 - len(lines); got != 0 {
			t.Errorf("%d lines at Close, after everything was logged", got)
		}
	})
}

// When an outage ends, the numbers of suppressed lines with other messages are
// written.
func TestRepeatsAreWrittenAtRecovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		s := &server{answer: func(*request) *answer {
			if time.Since(start) < 40*time.Second {
				return &answer{err: errReset}
			}
			return nil
		}}
		c, o := newClient(t, s)
		for range 5 {
			c.Record(docevents.Event{})
		}
		c.Record(event("a"))
		time.Sleep(2 * time.Minute)
		checkStats(t, c, &docevents.Stats{Recorded: 6, Delivered: 1, Dropped: docevents.Drops{Invalid: 5}})
		var counts []string
		for _, l := range linesAt(o, slog.LevelError) {
			if text, count, _ := strings.Cut(l.text, " count="); strings.HasSuffix(text, "it can't be stored") {
				counts = append(counts, count[:1])
			}
		}
		if fmt.Sprint(counts) != "[1 4]" {
			t.Errorf("lines with counts %v, want 1 at once and 4 at the recovery: %v", counts, o.logged())
		}
	})
}

// WithSlog and WithLogger write the same lines, fields and levels.
func TestSlogAndLogrusGetTheSame(t *testing.T) {
	type written struct {
		level, msg string
		fields     map[string]string
	}
	scenario := func(t *testing.T, opt docevents.Option) {
		var fail atomic.Bool
		s := &server{answer: func(r *request) *answer {
			switch {
			case fail.Load():
				return &answer{status: 503, code: "PGRST001", text: "no connection"}
			case r.has("bad"):
				return refused("23514", "check")
			}
			return nil
		}}
		c, err := docevents.New(testURL, testKey, docevents.WithTransport(s), opt, docevents.WithQueueLimits(2, 1<<20), docevents.WithMaxInFlight(1),
			docevents.WithDropHandler(func(docevents.Event, docevents.DropReason, error) { panic("x") }))
		if err != nil {
			t.Fatal(err)
		}
		c.Record(docevents.Event{})
		for _, stage := range []string{"others", "bad", "others"} {
			c.Record(event(stage))
			synctest.Wait()
		}
		fail.Store(true)
		for range 3 {
			c.Record(event("a"))
		}
		synctest.Wait()
		fail.Store(false)
		if err := c.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		fail.Store(true)
		c.Record(event("b"))
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_ = c.Close(ctx)
		c.Record(event("c"))
		synctest.Wait()
	}
	var bySlog, byLogrus []written
	normal := func(key, value string) string {
		if key == "after" || key == "failed_requests" || key == "count" { // these depend on random waits
			return ""
		}
		return value
	}
	synctest.Test(t, func(t *testing.T) {
		scenario(t, docevents.WithSlog(slog.New(slogFunc(func(r slog.Record) {
			fields := map[string]string{}
			r.Attrs(func(a slog.Attr) bool {
				fields[a.Key] = normal(a.Key, a.Value.String())
				return true
			})
			bySlog = append(bySlog, written{strings.ToLower(r.Level.String()), r.Message, fields})
		}))))
	})
	synctest.Test(t, func(t *testing.T) {
		log, hook := logrustest.NewNullLogger()
		scenario(t, docevents.WithLogger(log))
		for _, e := range hook.AllEntries() {
			fields := map[string]string{}
			for key, value := range e.Data {
				fields[key] = normal(key, fmt.Sprint(value))
			}
			byLogrus = append(byLogrus, written{e.Level.String(), e.Message, fields})
		}
	})
	if !reflect.DeepEqual(sorted(bySlog), sorted(byLogrus)) {
		t.Errorf("slog   %v\nlogrus %v", bySlog, byLogrus)
	}
	kinds := map[string]bool{}
	for _, s := range bySlog {
		kinds[s.msg] = true
		if _, counted := s.fields["count"]; s.level == "error" && (!counted || s.fields["error"] == "") {
			t.Errorf("%+v lacks error or count", s)
		}
	}
	if len(kinds) != 8 { // five drop reasons, a failure, a recovery and a panic
		t.Errorf("%d kinds of lines: %v", len(kinds), kinds)
	}
	for _, s := range bySlog {
		if strings.Contains(s.msg, "trying again") && (s.fields["status"] != "503" || s.fields["code"] != "PGRST001") {
			t.Errorf("%+v lacks status or code", s)
		}
	}
}

// sorted returns the texts of lines, sorted, since Close writes repeats in any order.
func sorted[T any](lines []T) []string {
	texts := make([]string, len(lines))
	for i, l := range lines {
		texts[i] = fmt.Sprint(l)
	}
	slices.Sort(texts)
	return texts
}

// The app chooses the level of its logrus logger.
func TestLogrusLevelIsTheApps(t *testing.T) {
	log, hook := logrustest.NewNullLogger()
	log.SetLevel(logrus.PanicLevel)
	log.SetOutput(io.Discard)
	c, _ := newClient(t, &server{}, docevents.WithLogger(log))
	c.Record(docevents.Event{})
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := len(hook.AllEntries()); got != 0 {
		t.Errorf("%d entries", got)
	}
}
