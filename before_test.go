package docevents_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docevents/docevents-go"
)

type tenantKey struct{}

// withTenant is a typical hook: it copies a value of the context to the event.
func withTenant(ctx context.Context, e *docevents.Event) bool {
	e.Stage = fmt.Sprint(e.Stage, " of ", ctx.Value(tenantKey{}))
	return true
}

// All methods that record events pass their context to the hook, even if it is
// cancelled.
func TestBeforeGetsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.WithValue(t.Context(), tenantKey{}, "acme"))
	cancel()
	s := &server{}
	c, _ := newClient(t, s, docevents.WithBefore(withTenant))
	c.Record(event("record"))
	c.RecordContext(ctx, event("record context"))
	failed := errors.New("failed")
	for _, err := range []error{
		c.Step(event("step"), func() error { return failed }),
		c.StepContext(ctx, event("step context"), func(got context.Context) error {
			if got != ctx {
				t.Error("do gets another context")
			}
			return failed
		}),
	} {
		if !errors.Is(err, failed) {
			t.Errorf("got %v", err)
		}
	}
	flush(t, c)
	want := map[string]int{"record of <nil>": 1, "record context of acme": 1, "step of <nil>": 2, "step context of acme": 2}
	if got := s.stages(); !maps.Equal(got, want) {
		t.Errorf("stored %v, want %v", got, want)
	}
}

// StepContext of a nil client only calls do.
func TestContextOfNilClient(t *testing.T) {
	ctx := context.WithValue(t.Context(), tenantKey{}, "acme")
	failed := errors.New("failed")
	for _, c := range []*docevents.Client{nil, {}} {
		c.RecordContext(ctx, event("a"))
		var got context.Context
		if err := c.StepContext(ctx, event("a"), func(ctx context.Context) error { got = ctx; return failed }); err != failed || got != ctx {
			t.Errorf("got %v, and do got %v", err, got)
		}
	}
}

func TestBefore(t *testing.T) {
	for name, test := range map[string]struct {
		before func(context.Context, *docevents.Event) bool
		stored string               // the stage of the row; "" if the event is dropped
		reason docevents.DropReason // "" if the event is stored
		err    string
		lines  int
		left   string // the stage of the event that the drop handler gets
	}{
		"a change":             {func(_ context.Context, e *docevents.Event) bool { e.Stage = "changed"; return true }, "changed", "", "", 0, ""},
		"text that is cleaned": {func(_ context.Context, e *docevents.Event) bool { e.Stage = "a\x00b"; return true }, "ab", "", "", 0, ""},
		"dropped": {
			func(_ context.Context, e *docevents.Event) bool { e.Stage, e.UserID = "clean", "none"; return false },
			"", docevents.Filtered, "returned false", 0, "clean",
		},
		"an event made invalid": {
			func(_ context.Context, e *docevents.Event) bool { e.DocumentID = "none"; return true },
			"", docevents.Invalid, "DocumentID", 1, "ocr",
		},
		"a column that the table lacks": {
			func(_ context.Context, e *docevents.Event) bool { e.Extra["trace_id"] = "1"; return true },
			"", docevents.Invalid, `Extra["trace_id"]`, 1, "ocr",
		},
		"a panic": {
			func(_ context.Context, e *docevents.Event) bool { e.Stage = "half"; panic("secret") },
			"", docevents.Invalid, "WithBefore's function panicked with a string", 1, "half",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := &server{}
			c, o := newClient(t, s, docevents.WithBefore(test.before))
			c.Record(event("ocr"))
			flush(t, c)
			switch test.reason {
			case docevents.Filtered:
				checkStats(t, c, &docevents.Stats{Recorded: 1, Dropped: docevents.Drops{Filtered: 1}})
			case docevents.Invalid:
				checkStats(t, c, &docevents.Stats{Recorded: 1, Dropped: docevents.Drops{Invalid: 1}})
			default:
				checkStats(t, c, &docevents.Stats{Recorded: 1, Delivered: 1})
			}
			if _, ok := s.stages()[test.stored]; ok != (test.stored != "") {
				t.Errorf("stored %.99v", s.stages())
			}
			lines := o.logged()
			if len(lines) != test.lines || strings.Contains(fmt.Sprint(lines), "secret") || test.lines > 0 && !strings.Contains(lines[0].text, test.err) {
				t.Errorf("logged %+v", lines)
			}
			lost := o.lost()
			if (len(lost) == 1) != (test.reason != "") {
				t.Fatalf("the drop handler got %+v", lost)
			}
			if len(lost) > 0 && (lost[0].reason != test.reason || lost[0].event.Stage != test.left || !strings.Contains(fmt.Sprint(lost[0].err), test.err)) {
				t.Errorf("the drop handler got %+v", lost)
			}
		})
	}
}

// The hook is called even after Close.
func TestBeforeAfterClose(t *testing.T) {
	c, o := newClient(t, &server{}, docevents.WithBefore(func(_ context.Context, e *docevents.Event) bool { return e.Stage != "filtered" }))
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.Record(event("filtered"))
	c.Record(event("late"))
	flush(t, c)
	checkStats(t, c, &docevents.Stats{Recorded: 2, Dropped: docevents.Drops{Filtered: 1, Closed: 1}})
	if lost := o.lost(); len(lost) != 2 || lost[0].reason != docevents.Filtered || lost[1].reason != docevents.Closed {
		t.Errorf("the drop handler got %+v", lost)
	}
}

// Goroutines may share one map for Extra: each call to the hook gets a copy, so
// there is no race and the map doesn't change.
func TestBeforeGetsCopyOfExtra(t *testing.T) {
	shared := map[string]any{"tenant_id": "acme"}
	c, o := newClient(t, &server{discard: true}, docevents.WithColumns(docevents.Columns{Extra: []string{"tenant_id", "trace_id"}}),
		docevents.WithBefore(func(_ context.Context, e *docevents.Event) bool {
			delete(e.Extra, "tenant_id")
			e.Extra["trace_id"] = "1"
			return false
		}))
	const goroutines, each = 8, 50
	var group sync.WaitGroup
	for i := range goroutines {
		group.Go(func() {
			e := event("a")
			if i%2 == 0 {
				e.Extra = shared // in the other calls, Extra is nil
			}
			for range each {
				c.Record(e)
			}
		})
	}
	group.Wait()
	flush(t, c)
	for _, d := range o.lost() {
		if !maps.Equal(d.event.Extra, map[string]any{"trace_id": "1"}) {
			t.Fatalf("got %v", d.event.Extra)
		}
	}
	if !maps.Equal(shared, map[string]any{"tenant_id": "acme"}) || c.Stats().Dropped.Filtered != goroutines*each {
		t.Errorf("the map is %v, %+v", shared, c.Stats())
	}
}

// A hook that keeps its pointer can't change the queued event.
func TestBeforeCannotChangeQueuedEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var kept []*docevents.Event
		s := &server{answer: func(*request) *answer { return &answer{stored: true, delay: time.Second} }}
		c, _ := newClient(t, s, docevents.WithBefore(func(_ context.Context, e *docevents.Event) bool {
			kept = append(kept, e)
			return true
		}))
		for _, stage := range []string{"a", "b", "c"} {
			c.Record(event(stage))
			for _, e := range kept {
				e.Stage, e.DocumentID = "changed", "none"
			}
		}
		flush(t, c)
		if got := s.stages(); !maps.Equal(got, map[string]int{"a": 1, "b": 1, "c": 1}) {
			t.Errorf("stored %v", got)
		}
	})
}

// A hook may call the client. If it records an event for each event, the client stops
// it before the stack overflows.
func TestBeforeRecordsEndlessly(t *testing.T) {
	var c *docevents.Client
	c, o := newClient(t, &server{discard: true}, docevents.WithBefore(func(context.Context, *docevents.Event) bool {
		c.Record(event("again"))
		_ = c.Stats()
		return true
	}))
	for round := range int64(2) { // the second round shows that the calls in the first have ended
		c.Record(event("first"))
		flush(t, c)
		if st := c.Stats(); st.Dropped.Invalid != round+1 || st.Recorded != (round+1)*10_001 || st.Delivered != st.Recorded-st.Dropped.Invalid {
			t.Errorf("got %+v", st)
		}
	}
	if lines := o.logged(); len(lines) == 0 || !strings.Contains(lines[0].text, "10000 calls to WithBefore's function are running") {
		t.Errorf("logged %+v", lines)
	}
}

// Stats add up in every snapshot, whether the hook accepts, filters, spoils or
// panics.
func TestBeforeAccounting(t *testing.T) {
	c, _ := newClient(t, &server{discard: true}, docevents.WithBefore(func(_ context.Context, e *docevents.Event) bool {
		switch e.Stage {
		case "panics":
			panic(e)
		case "invalid":
			e.Type = "none"
		}
		return e.Stage != "filtered"
	}))
	done := make(chan struct{})
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 200 {
				for _, stage := range []string{"stored", "panics", "invalid", "filtered"} {
					c.Record(event(stage))
				}
			}
		})
	}
	go func() { group.Wait(); close(done) }()
	for ended := false; !ended; {
		select {
		case <-done:
			ended = true
		default:
		}
		checkStats(t, c, nil)
	}
	flush(t, c)
	checkStats(t, c, &docevents.Stats{Recorded: 3200, Delivered: 800, Dropped: docevents.Drops{Invalid: 1600, Filtered: 800}})
}

func flush(t *testing.T, c *docevents.Client) {
	t.Helper()
	if err := c.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}
