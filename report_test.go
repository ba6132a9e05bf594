package docevents_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
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
	const good, bad = 2000, 1500
	for name, misbehave := range map[string]func(c *docevents.Client, release chan struct{}){
		"panics":                 func(*docevents.Client, chan struct{}) { panic("row content") },
		"ends its goroutine":     func(*docevents.Client, chan struct{}) { runtime.Goexit() }, // as t.FailNow does
		"blocks for ever":        func(_ *docevents.Client, release chan struct{}) { <-release },
		"calls Record and Stats": func(c *docevents.Client, _ chan struct{}) { c.Record(event("own")); _ = c.Stats() },
	} {
		for _, which := range []string{"logger", "handler"} {
			t.Run(which+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					release := make(chan struct{})
					s := slow(time.Millisecond)
					var c *docevents.Client
					var calls, lines atomic.Int64
					log := slogFunc(func(slog.Record) {
						if lines.Add(1); which == "logger" {
							misbehave(c, release)
						}
					})
					handler := func(docevents.Event, docevents.DropReason, error) {
						if calls.Add(1); which == "handler" {
							misbehave(c, release)
						}
					}
					c, _ = newClient(t, s, docevents.WithSlog(slog.New(log)), docevents.WithDropHandler(handler))
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
					if name == "blocks for ever" {
						most = 11 * time.Second // the 10 s of ctx and one more second
					}
					if took > most {
						t.Errorf("Close took %s, want %s at most", took, most)
					}
					close(release)
					synctest.Wait() // until the last call has returned
					st, own, late := c.Stats(), int64(s.stages()["own"]), int64(0)
					if name == "calls Record and Stats" {
						if late = st.Dropped.Closed; own == 0 {
							t.Error("its own events were not stored")
						}
					}
					checkStats(t, c, &docevents.Stats{
						Recorded: good + bad + own + late, Delivered: good + own,
						Dropped: docevents.Drops{Invalid: bad, Closed: late},
					})
					if got := calls.Load() + st.Unreported; got != st.Dropped.Total() {
						t.Errorf("%d handler calls and %d skipped, for %d drops", calls.Load(), st.Unreported, st.Dropped.Total())
					}
					if lines.Load() == 0 {
						t.Error("the logger was not called")
					}
				})
			})
		}
	}
}

// Two lines report all panics of the handler: one for the first panic, and one at Close.
// They don't contain the value of the panic.
func TestHandlerPanicsAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, o := newClient(t, &server{}, docevents.WithDropHandler(func(docevents.Event, docevents.DropReason, error) { panic("row content") }))
		for range 5 {
			c.Record(docevents.Event{})
		}
		synctest.Wait()
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		const text = "docevents: the drop handler panicked"
		wantCounts(t, o, text, "at Close", 1, 4)
		for _, l := range o.logged() {
			if strings.HasPrefix(l.text, text) && !strings.HasSuffix(l.text, "error=panic with a string") {
				t.Errorf("logged %q", l.text)
			}
		}
	})
}

// wantCounts checks the counts in the lines of the log that contain text.
func wantCounts(t *testing.T, o *observer, text, when string, want ...int) {
	t.Helper()
	var got []int
	for _, l := range linesAt(o, slog.LevelError) {
		if _, count, _ := strings.Cut(l.text, " count="); strings.Contains(l.text, text) {
			n := 0
			_, _ = fmt.Sscan(count, &n)
			got = append(got, n)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s: lines with counts %v, want %v: %v", when, got, want, o.logged())
	}
}

// While the handler is slow, up to 1,000 calls or 1 MiB of text wait for it. Other
// calls are skipped and counted.
func TestNoticesAreBounded(t *testing.T) {
	for name, test := range map[string]struct {
		message int   // bytes
		waiting int64 // calls
	}{
		"1,000 calls":   {0, 1000},
		"1 MiB of text": {60 << 10, 17},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				var calls atomic.Int64
				c, _ := newClient(t, &server{}, docevents.WithDropHandler(func(docevents.Event, docevents.DropReason, error) {
					calls.Add(1)
					<-release
				}))
				bad := docevents.Event{ErrorMessage: strings.Repeat("m", test.message)}
				c.Record(bad)
				synctest.Wait() // the handler is running
				const more = 2000
				for range more {
					c.Record(bad)
				}
				synctest.Wait()
				skipped := c.Stats().Unreported
				if got := more - skipped; got != test.waiting {
					t.Errorf("%d calls wait, want %d", got, test.waiting)
				}
				close(release)
				if err := c.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
				if got := calls.Load(); got != 1+test.waiting {
					t.Errorf("%d calls, want the first and the %d that waited", got, test.waiting)
				}
				c.Record(bad)
				if err := c.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				if got := calls.Load(); got != 2+test.waiting || c.Stats().Unreported != skipped {
					t.Errorf("%d calls and %d skipped, after the handler had caught up", got, c.Stats().Unreported)
				}
				checkStats(t, c, &docevents.Stats{Recorded: 2 + more, Dropped: docevents.Drops{Invalid: 2 + more}})
			})
		})
	}
}

// The handler gets every event that Close abandons, and has one second for that
// after ctx ends. Events that are left then count as Unreported.
func TestCloseAndTheHandler(t *testing.T) {
	const events = 2000
	for name, test := range map[string]struct {
		each  time.Duration // the time that a handler call takes
		calls int64         // how many calls are made at most; there may be one less
		took  time.Duration // the time that Close takes after the end of ctx
	}{
		"a quick handler gets all":               {0, events, 0},
		"a slow one what it manages in a second": {10 * time.Millisecond, 101, time.Second},
		"one that never returns gets one":        {1 << 62, 1, time.Second},
	} {
		for _, ahead := range []time.Duration{0, 3 * time.Second} { // the time until ctx ends
			t.Run(fmt.Sprint(name, ", ctx ", ahead), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					end := make(chan struct{})
					var calls atomic.Int64
					c, o := newClient(t, slow(time.Hour), docevents.WithDropHandler(func(_ docevents.Event, reason docevents.DropReason, err error) {
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
					if got := calls.Load(); got < test.calls-1 || got > test.calls {
						t.Errorf("%d handler calls, want %d", got, test.calls)
					}
					if test.took == 0 {
						wantCounts(t, o, "abandoned by Close", "at Close", events)
					}
					if err := c.Close(ctx); err == nil || !strings.Contains(err.Error(), "abandoned") {
						t.Errorf("the second Close: %v", err)
					}
					checkStats(t, c, &docevents.Stats{Recorded: events, Dropped: docevents.Drops{Abandoned: events}})
					close(end)
					synctest.Wait()
					if got := calls.Load() + c.Stats().Unreported; got != events {
						t.Errorf("%d handler calls and %d skipped, want %d in all", calls.Load(), c.Stats().Unreported, events)
					}
				})
			})
		}
	}
}

// While the handler hangs, Flush and Close end with their contexts. After Close, nothing
// waits for the handler.
func TestHangingHandler(t *testing.T) {
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
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if err := c.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("Flush: %v after %s, want ctx's second", err, time.Since(start))
		}
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
		if got := c.Stats().Unreported; calls.Load() != 2 || got != 19 {
			t.Errorf("%d calls and %d unreported, want 2 and 19", calls.Load(), got)
		}
		checkStats(t, c, &docevents.Stats{Recorded: 21, Dropped: docevents.Drops{Invalid: 10, Closed: 11}})
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
	for range 100_000 {
		_ = c.Flush(ctx)
	}
	if grown := heap() - before; grown > 4<<20 {
		t.Errorf("100,000 calls of Flush hold %d MiB", grown>>20)
	}
	close(stuck)
	_ = c.Close(t.Context())
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
	}
}

// The first line with a message is written at once. Its repeats are suppressed and
// counted. At most every 30 s, a repeat, Flush or Close writes a line with their
// number and the newest event.
func TestRepeatsAreSummedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, o := newClient(t, &server{})
		start := time.Now()
		at := func(second time.Duration) { time.Sleep(time.Until(start.Add(second * time.Second))) }
		record := func(n int) {
			for i := range n {
				c.Record(docevents.Event{DocumentID: fmt.Sprintf("22222222-2222-4222-8222-%012d", i)})
			}
		}
		flush := func() {
			if err := c.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		want := func(when string, counts ...int) {
			t.Helper()
			synctest.Wait()
			wantCounts(t, o, "it can't be stored", when, counts...)
		}
		record(1)
		want("the first, at once", 1)
		record(9)
		at(29)
		record(1)
		flush()
		want("within 30 s", 1)
		at(31)
		record(1)
		want("the first after 30 s", 1, 11)
		record(2)
		flush()
		want("again within 30 s", 1, 11)
		at(62)
		flush()
		want("Flush after 30 s", 1, 11, 2)
		record(7)
		flush()
		want("within 30 s of that", 1, 11, 2)
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		want("Close", 1, 11, 2, 7)
		last := o.logged()[3].text
		if _, id, _ := strings.Cut(last, "document_id="); id != "22222222-2222-4222-8222-000000000006" {
			t.Errorf("%q, want the newest event's document", last)
		}
	})
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
		outage := func(d time.Duration) (failures int) {
			before := s.sent()
			down.Store(true)
			c.Record(event("a"))
			time.Sleep(d)
			down.Store(false)
			if err := c.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			return s.sent() - before - 1
		}
		wantEnd := func(failures int, after string) {
			t.Helper()
			lines := o.logged()
			last := lines[len(lines)-1]
			if want := fmt.Sprint(" failed_requests=", failures); last.level != slog.LevelInfo || !strings.HasSuffix(last.text, want) || !strings.Contains(last.text, " after="+after) {
				t.Errorf("%s %q, want the outage's length, and%s", last.level, last.text, want)
			}
		}
		wantLines := func(when string, want int) {
			t.Helper()
			if lines := o.logged(); len(lines) != want {
				t.Fatalf("%s: %d lines, want %d: %v", when, len(lines), want, lines)
			}
		}
		failures := outage(time.Second)
		wantLines("a short outage", 2)
		wantCounts(t, o, "insert failed, trying again", "a short outage", 1)
		wantEnd(failures, "1")
		time.Sleep(time.Minute)
		if err := c.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantLines("a Flush later", 2)
		outage(time.Second)
		wantLines("another outage", 4)
		outage(time.Second)
		wantLines("another within 30 s", 4)
		time.Sleep(time.Minute)
		failures = outage(10 * time.Minute)
		wantEnd(failures, "10m")
		checkQuiet(t, o)
		lines := len(o.logged())
		if lines < 14 || lines > 26 {
			t.Errorf("%d lines after ten minutes: %v", lines, o.logged())
		}
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantLines("Close, after everything was logged", lines)
	})
}

// When an outage ends, the numbers of suppressed lines with other messages are
// written.
func TestRepeatsAreWrittenAtRecovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, o := newClient(t, during(40*time.Second, answer{err: errReset}))
		for range 5 {
			c.Record(docevents.Event{})
		}
		c.Record(event("a"))
		time.Sleep(2 * time.Minute)
		checkStats(t, c, &docevents.Stats{Recorded: 6, Delivered: 1, Dropped: docevents.Drops{Invalid: 5}})
		wantCounts(t, o, "it can't be stored", "after the recovery", 1, 4)
	})
}

// WithLogger writes all lines with their levels and fields.
func TestLinesInLogrus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, hook := logrustest.NewNullLogger()
		recordAllKinds(t, log)
		const event, answer = " document_id event_type", " code status"
		want := map[string]struct{ fields, err string }{
			"event dropped, it can't be stored":          {"count error", "DocumentID is empty"},
			"event dropped, the queue is full":           {"count error" + event, "the queue is full"},
			"event dropped, the server rejected it":      {"count error" + event + answer, "HTTP 400 23514"},
			"event dropped, it was recorded after Close": {"count error" + event, "the client is closed"},
			"events abandoned by Close":                  {"count error" + event + answer, "abandoned by Close: context canceled"},
			"insert failed, trying again":                {"count error pending" + answer, "HTTP 503 PGRST001: no connection"},
			"the drop handler panicked":                  {"count error", "panic with a string"},
			"delivering again":                           {"after failed_requests", ""},
		}
		messages := map[string]bool{}
		for _, e := range hook.AllEntries() {
			message := strings.TrimPrefix(e.Message, "docevents: ")
			if messages[message] {
				continue // Close also sums up repeats, in lines without "pending"
			}
			messages[message] = true
			fields := strings.Fields(want[message].fields)
			slices.Sort(fields)
			if got := slices.Sorted(maps.Keys(e.Data)); !slices.Equal(got, fields) {
				t.Errorf("%s: fields %q, want %q", message, got, fields)
			}
			level := logrus.ErrorLevel
			if message == "delivering again" {
				level = logrus.InfoLevel
			}
			if err := fmt.Sprint(e.Data["error"]); e.Level != level || !strings.Contains(err, want[message].err) {
				t.Errorf("%s: %s, %s, want %s, %s", message, e.Level, err, level, want[message].err)
			}
			if status, code := e.Data["status"], e.Data["code"]; strings.Contains(message, "trying again") && (status != int64(503) || code != "PGRST001") {
				t.Errorf("%s: status %v, code %v", message, status, code)
			}
		}
		if len(messages) != len(want) {
			t.Errorf("got %v, want all %d kinds of lines", messages, len(want))
		}
	})
}

// recordAllKinds does all that the log has messages for: each kind of drop, an outage and
// its end, and a panic of the handler.
func recordAllKinds(t *testing.T, log logrus.FieldLogger) {
	t.Helper()
	var fail atomic.Bool
	s := &server{answer: func(r *request) *answer {
		switch {
		case fail.Load():
			return &answer{status: 503, code: "PGRST001", text: "no connection"}
		case r.has("bad"):
			return &refusal
		}
		return nil
	}}
	c, err := docevents.New(testURL, testKey, docevents.WithTransport(s), docevents.WithLogger(log), docevents.WithQueueLimits(2, 1<<20), docevents.WithMaxInFlight(1),
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
	for range 3 { // one too many
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
	closeNow(t, c)
	c.Record(event("c"))
	synctest.Wait()
}

// The app chooses the level of its logrus logger.
func TestLogrusLevelIsTheApps(t *testing.T) {
	log, hook := logrustest.NewNullLogger()
	log.SetLevel(logrus.PanicLevel)
	c, _ := newClient(t, &server{}, docevents.WithLogger(log))
	c.Record(docevents.Event{})
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := len(hook.AllEntries()); got != 0 {
		t.Errorf("%d entries", got)
	}
}
