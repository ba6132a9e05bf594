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
	const mib = 1 << 20
	for _, test := range []struct {
		option    string
		low, high int
		with      func(n int) docevents.Option
	}{
		{"WithRequestTimeout", 1, 600_000, func(n int) docevents.Option { return docevents.WithRequestTimeout(time.Duration(n) * time.Millisecond) }},
		{"WithMaxInFlight", 1, 64, docevents.WithMaxInFlight},
		{"WithMaxBatch", 1, 10_000, docevents.WithMaxBatch},
		{"WithQueueLimits' events", 1, 10_000_000, func(n int) docevents.Option { return docevents.WithQueueLimits(n, mib) }},
		{"WithQueueLimits' bytes", 128 << 10, 1 << 30, func(n int) docevents.Option { return docevents.WithQueueLimits(1, n) }},
		{"WithPurgeBatch", 1, 1_000_000, docevents.WithPurgeBatch},
		{"WithSchema", 1, 63, func(n int) docevents.Option { return docevents.WithSchema(strings.Repeat("s", n)) }},
		{"WithTable", 1, 63, func(n int) docevents.Option { return docevents.WithTable(strings.Repeat("t", n)) }},
		{"WithEventTypes", 1, 256, func(n int) docevents.Option { return notes(docevents.EventType(strings.Repeat("t", n))) }},
	} {
		for _, n := range []int{test.low - 1, test.low, test.high, test.high + 1} {
			_, err := docevents.New(testURL, testKey, test.with(n))
			switch {
			case n >= test.low && n <= test.high:
				if err != nil {
					t.Errorf("%s %d: %v", test.option, n, err)
				}
			case err == nil:
				t.Errorf("%s %d: no error", test.option, n)
			default:
				for _, want := range []string{test.option, fmt.Sprint(test.low), fmt.Sprint(test.high)} {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%s %d: %v: lacks %q", test.option, n, err, want)
					}
				}
			}
		}
	}
}

// Names become part of requests, so only plain ones are valid.
func TestBadOptions(t *testing.T) {
	for want, opts := range map[string][]docevents.Option{
		"WithSchema and WithTable must be": {
			docevents.WithSchema("public,auth"), docevents.WithSchema("public\r\nX-Evil: 1"), docevents.WithTable("../rpc/x"),
			docevents.WithTable("t?select=*"), docevents.WithTable("a b"), docevents.WithTable("t\n"), docevents.WithTable("täble"),
		},
		"WithRequestTimeout, in ms, must be": {
			docevents.WithRequestTimeout(time.Millisecond - 1), docevents.WithRequestTimeout(math.MaxInt64), docevents.WithRequestTimeout(math.MinInt64),
		},
		"WithMaxInFlight must be":  {docevents.WithMaxInFlight(-1), docevents.WithMaxInFlight(math.MaxInt)},
		"WithEventTypes: Notes[1]": {notes("archived", "a\xff")},
	} {
		for i, opt := range opts {
			if _, err := docevents.New(testURL, testKey, opt); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%d: got %v, want %q", i, err, want)
			}
		}
	}
	if _, err := docevents.New(testURL, testKey, docevents.WithTable("aZ_09")); err != nil {
		t.Error(err)
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
