package docevents_test

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/docevents/docevents-go"
	"github.com/jarcoal/httpmock"
	"github.com/sirupsen/logrus"
	logrustest "github.com/sirupsen/logrus/hooks/test"
)

func TestOptionBounds(t *testing.T) {
	type limits struct{ option, low, high string }
	timeout := limits{"WithRequestTimeout", "1", "600000"} // in ms
	inFlight := limits{"WithMaxInFlight", "1", "64"}
	batch := limits{"WithMaxBatch", "1", "10000"}
	events := limits{"WithQueueLimits", "1", "10000000"}
	bytes := limits{"WithQueueLimits", fmt.Sprint(128 << 10), fmt.Sprint(1 << 30)}
	purge := limits{"WithPurgeBatch", "1", "1000000"}
	schema := limits{"WithSchema", "1", "63"}
	table := limits{"WithTable", "1", "63"}
	types := limits{"WithEventTypes", "1", "256"}
	const mib = 1 << 20
	for _, test := range []struct {
		name string
		limits
		good bool
		opt  docevents.Option
	}{
		{"smallest", timeout, true, docevents.WithRequestTimeout(time.Millisecond)},
		{"largest", timeout, true, docevents.WithRequestTimeout(10 * time.Minute)},
		{"zero", timeout, false, docevents.WithRequestTimeout(0)},
		{"negative", timeout, false, docevents.WithRequestTimeout(-time.Second)},
		{"below", timeout, false, docevents.WithRequestTimeout(time.Millisecond - 1)},
		{"above", timeout, false, docevents.WithRequestTimeout(10*time.Minute + time.Millisecond)},
		{"absurd", timeout, false, docevents.WithRequestTimeout(math.MaxInt64)},
		{"absurdly negative", timeout, false, docevents.WithRequestTimeout(math.MinInt64)},

		{"smallest", inFlight, true, docevents.WithMaxInFlight(1)},
		{"largest", inFlight, true, docevents.WithMaxInFlight(64)},
		{"zero", inFlight, false, docevents.WithMaxInFlight(0)},
		{"negative", inFlight, false, docevents.WithMaxInFlight(-1)},
		{"above", inFlight, false, docevents.WithMaxInFlight(65)},
		{"absurd", inFlight, false, docevents.WithMaxInFlight(math.MaxInt)},

		{"smallest", batch, true, docevents.WithMaxBatch(1)},
		{"largest", batch, true, docevents.WithMaxBatch(10_000)},
		{"zero", batch, false, docevents.WithMaxBatch(0)},
		{"negative", batch, false, docevents.WithMaxBatch(math.MinInt)},
		{"above", batch, false, docevents.WithMaxBatch(10_001)},

		{"smallest events", events, true, docevents.WithQueueLimits(1, mib)},
		{"largest events", events, true, docevents.WithQueueLimits(10_000_000, mib)},
		{"no events", events, false, docevents.WithQueueLimits(0, mib)},
		{"negative events", events, false, docevents.WithQueueLimits(-1, mib)},
		{"too many events", events, false, docevents.WithQueueLimits(10_000_001, mib)},
		{"smallest bytes", bytes, true, docevents.WithQueueLimits(1, 128<<10)},
		{"largest bytes", bytes, true, docevents.WithQueueLimits(1, 1<<30)},
		{"no bytes", bytes, false, docevents.WithQueueLimits(1, 0)},
		{"negative bytes", bytes, false, docevents.WithQueueLimits(1, -1)},
		{"too few bytes", bytes, false, docevents.WithQueueLimits(1, 128<<10-1)},
		{"too many bytes", bytes, false, docevents.WithQueueLimits(1, 1<<30+1)},

		{"smallest", purge, true, docevents.WithPurgeBatch(1)},
		{"largest", purge, true, docevents.WithPurgeBatch(1_000_000)},
		{"zero", purge, false, docevents.WithPurgeBatch(0)},
		{"negative", purge, false, docevents.WithPurgeBatch(-10)},
		{"above", purge, false, docevents.WithPurgeBatch(1_000_001)},

		{"longest", schema, true, docevents.WithSchema(strings.Repeat("s", 63))},
		{"empty", schema, false, docevents.WithSchema("")},
		{"too long", schema, false, docevents.WithSchema(strings.Repeat("s", 64))},
		{"two schemas", schema, false, docevents.WithSchema("public,auth")},
		{"an injected header", schema, false, docevents.WithSchema("public\r\nX-Evil: 1")},

		{"of all kinds", table, true, docevents.WithTable("aZ_09")},
		{"empty", table, false, docevents.WithTable("")},
		{"too long", table, false, docevents.WithTable(strings.Repeat("t", 64))},
		{"a path", table, false, docevents.WithTable("../rpc/x")},
		{"a query", table, false, docevents.WithTable("t?select=*")},
		{"a space", table, false, docevents.WithTable("a b")},
		{"a line end", table, false, docevents.WithTable("t\n")},
		{"beyond ASCII", table, false, docevents.WithTable("täble")},

		{"open", types, true, docevents.WithEventTypes(docevents.EventTypes{Open: true})},
		{"one", types, true, notes("archived")},
		{"longest", types, true, notes(docevents.EventType(strings.Repeat("t", 256)))},
		{"empty", types, false, notes("")},
		{"an empty one of two", types, false, notes("archived", "")},
		{"too long", types, false, notes(docevents.EventType(strings.Repeat("t", 257)))},
		{"a NUL", types, false, notes("a\x00b")},
		{"invalid UTF-8", types, false, notes("a\xff")},
	} {
		c, err := docevents.New(testURL, testKey, docevents.WithTransport(refuseAll(t)), test.opt)
		switch {
		case test.good:
			if err != nil {
				t.Errorf("%s, %s: %v", test.option, test.name, err)
			}
		case err == nil || c != nil:
			t.Errorf("%s, %s: no error", test.option, test.name)
		default:
			for _, want := range []string{test.option, test.low, test.high} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%s, %s: %v: lacks %q", test.option, test.name, err, want)
				}
			}
			if strings.Contains(err.Error(), testKey) {
				t.Errorf("%s, %s: the error repeats the key", test.option, test.name)
			}
		}
	}
}

func TestLastOptionCounts(t *testing.T) {
	mock, wire := newMock(http.StatusCreated, "")
	c, _ := newClient(t, refuseAll(t), docevents.WithMaxBatch(-1), docevents.WithMaxBatch(1), docevents.WithTransport(mock))
	c.Record(event("a"))
	if err := c.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	wire.only(t)
}

// The smallest queue that New accepts has room for the largest event.
func TestSmallestQueueTakesTheLargestEvent(t *testing.T) {
	s := &server{}
	c, _ := newClient(t, s, docevents.WithQueueLimits(1, 128<<10), docevents.WithEventTypes(docevents.EventTypes{Open: true}))
	c.Record(docevents.Event{
		DocumentID: testDocument, UserID: docevents.SystemUser, Type: docevents.EventType(strings.Repeat("t", 256)),
		ErrorMessage: strings.Repeat("m", 1<<20), Stage: strings.Repeat("s", 1<<20),
	})
	if err := c.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkStats(t, c, &docevents.Stats{Recorded: 1, Delivered: 1})
}

// A nil argument of an option, or a nil Option, stands for the default.
func TestNilOptions(t *testing.T) {
	httpmock.Activate(t) // replaces the default transport
	httpmock.RegisterResponder("POST", tableURL, httpmock.NewStringResponder(http.StatusCreated, ""))
	hook := logrustest.NewGlobal() // records lines of the default logger
	standard := logrus.StandardLogger()
	out := standard.Out
	standard.SetOutput(io.Discard)
	t.Cleanup(func() {
		standard.SetOutput(out)
		standard.ReplaceHooks(logrus.LevelHooks{})
	})
	for name, opt := range map[string]docevents.Option{
		"Option":          nil,
		"WithLogger":      docevents.WithLogger(nil),
		"WithSlog":        docevents.WithSlog(nil),
		"WithDropHandler": docevents.WithDropHandler(nil),
		"WithTransport":   docevents.WithTransport(nil),
	} {
		hook.Reset()
		httpmock.ZeroCallCounters()
		c, err := docevents.New(testURL, testKey, opt)
		if err != nil {
			t.Errorf("%s(nil): %v", name, err)
			continue
		}
		c.Record(docevents.Event{})
		c.Record(event("a"))
		if err := c.Close(t.Context()); err != nil {
			t.Errorf("%s(nil): Close: %v", name, err)
		}
		checkStats(t, c, &docevents.Stats{Recorded: 2, Delivered: 1, Dropped: docevents.Drops{Invalid: 1}})
		if got := c.Stats().Unreported; got != 0 {
			t.Errorf("%s(nil): %d unreported, without a handler", name, got)
		}
		if got := httpmock.GetTotalCallCount(); got != 1 {
			t.Errorf("%s(nil): %d requests through http.DefaultTransport, want 1", name, got)
		}
		if e := hook.AllEntries(); len(e) != 1 || e[0].Level != logrus.ErrorLevel {
			t.Errorf("%s(nil): %d entries in logrus's standard logger, want 1 at Error", name, len(e))
		}
	}
}

// A logger that is a nil pointer in an interface panics when it is called. Valid
// events are still stored.
func TestTypedNils(t *testing.T) {
	c, _ := newClient(t, &server{}, docevents.WithLogger((*logrus.Logger)(nil)), docevents.WithDropHandler(nil))
	c.Record(docevents.Event{})
	c.Record(event("a"))
	if err := c.Close(t.Context()); err != nil {
		t.Error(err)
	}
	checkStats(t, c, &docevents.Stats{Recorded: 2, Delivered: 1, Dropped: docevents.Drops{Invalid: 1}})
}

// WithEventTypes copies the types, so the app may change its slice.
func TestEventTypesAreCopied(t *testing.T) {
	types := []docevents.EventType{"archived"}
	s := &server{}
	c, _ := newClient(t, s, notes(types...))
	types[0] = "changed"
	e := event("a")
	e.Type = "archived"
	c.Record(e)
	if err := c.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkStats(t, c, &docevents.Stats{Recorded: 1, Delivered: 1})
}

// notes returns an option that lists types as Notes.
func notes(types ...docevents.EventType) docevents.Option {
	return docevents.WithEventTypes(docevents.EventTypes{Notes: types})
}

// refuseAll returns a transport that fails the test on any request.
func refuseAll(t *testing.T) http.RoundTripper {
	return roundTripFunc(func(req *http.Request) (*http.Response, error) {
		t.Errorf("%s %s", req.Method, req.URL)
		return nil, errReset
	})
}
