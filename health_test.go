package docevents_test

import (
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docevents/docevents-go"
)

// summaryWith returns emptySummary with other figures.
func summaryWith(oldNew ...string) answer {
	return answer{body: strings.NewReplacer(oldNew...).Replace(emptySummary)}
}

// Time begins at 2000-01-01, because the test runs in a synctest bubble.
func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := []string{`"under_way":0`, `"under_way":2`, `"stuck_total":0,"stuck":[]`, `"stuck_total":2,"stuck":[{"document_id":"a","started":"1999-12-31T23:00:00Z"}]`}
		s := &script{answers: []answer{
			summaryWith(`"completed":0`, `"completed":4`, `"failed":0`, `"failed":6`),
			summaryWith(append(stuck, "2026-01-01T00:00:00", "1999-12-30T21:00:00")...),
			summaryWith(stuck...),
		}}
		c, _ := newClient(t, s, docevents.WithTable("steps"))
		c.Record(docevents.Event{Type: "not of the table"}) // is dropped, so that Stats isn't zero
		h, err := c.Health(t.Context(), docevents.Limits{
			Window: time.Minute, StuckAfter: 2 * time.Hour, MaxStuck: 1, MaxFailureRate: 0.25, MinEnded: 10, Silence: 3 * time.Hour,
			Where: map[string]string{"tenant_id": "7"},
		})
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		if stats, _ := got["stats"].(map[string]any); len(stats) == 0 || h.Stats != c.Stats() || h.Stats.Recorded != 1 {
			t.Errorf("stats: %v", got["stats"])
		}
		delete(got, "stats")
		want := map[string]any{
			"ok": false, "problems": []any{
				"2 documents have been under way for longer than 120 min, the oldest since 1999-12-31 23:00:00 UTC; the limit is 1.",
				"6 of the 10 documents that ended in the last 1 min failed, 60.0 %; the limit is 25.0 %.",
				"No document has completed since 1999-12-30 21:00:00 UTC, although 2 documents have been under way for longer than 180 min.",
			},
			"at": "2000-01-01T00:00:00Z", "ended": 10., "failed": 6., "failure_rate": 0.6, "under_way": 2., "stuck": 2., "stuck_since": "1999-12-31T23:00:00Z",
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
		for i, want := range []map[string]string{
			{"since": "1999-12-31T23:59:00.000000Z", "until": "2000-01-01T00:00:00.000000Z", "stuck_after": "7200000000 microseconds"},
			{"since": "1999-12-30T21:00:00.000000Z", "until": "2000-01-01T00:00:00.000000Z", "stuck_after": "7200000000 microseconds"},
			{"since": "1999-12-30T21:00:00.000000Z", "until": "2000-01-01T00:00:00.000000Z", "stuck_after": "10800000000 microseconds"},
		} {
			query := s.requests[i].URL.Query()
			if source := query.Get("source"); !strings.Contains(source, `"table":"steps"`) || !strings.Contains(source, `"filters":{"tenant_id":"7"}`) {
				t.Errorf("request %d: source %s", i, source)
			}
			for name, value := range want {
				if got := query.Get(name); got != value {
					t.Errorf("request %d: %s is %s, want %s", i, name, got, value)
				}
			}
		}
	})
}

// Health counts the documents under way for longer than Silence only if none has
// completed in that time.
func TestHealthWithoutSilence(t *testing.T) {
	for name, a := range map[string]answer{
		"no documents":              {body: emptySummary},
		"a completion just in time": summaryWith(`"under_way":0`, `"under_way":4`, `"last_completed":null`, `"last_completed":"1999-12-31T23:50:00Z"`),
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &script{answers: []answer{a}}
			c, _ := newClient(t, s)
			h, err := c.Health(t.Context(), docevents.Limits{Silence: 10 * time.Minute})
			if err != nil || !h.OK || h.Problems == nil || len(s.requests) != 2 {
				t.Errorf("%s: got %+v, %v after %d requests", name, h, err, len(s.requests))
			}
		})
	}
}

// If the table can't be read, there is no verdict.
func TestHealthOfUnreadableTable(t *testing.T) {
	missing := answer{status: http.StatusNotFound, body: `{"code":"PGRST202","message":"Could not find the function public.docevents_summary"}`}
	quiet := answer{body: emptySummary}
	underWay := summaryWith(`"under_way":0`, `"under_way":1`)
	for _, answers := range [][]answer{{missing}, {quiet, missing}, {quiet, underWay, missing}} {
		c, _ := newClient(t, &script{answers: answers})
		h, err := c.Health(t.Context(), docevents.Limits{Silence: time.Minute})
		if _, answered := errors.AsType[*docevents.Error](err); !answered || !strings.HasPrefix(err.Error(), "docevents: Health: ") || !strings.Contains(err.Error(), "sql/014") || h.OK {
			t.Errorf("got %+v, %v", h, err)
		}
	}
}

func TestLimitsOutOfBounds(t *testing.T) {
	s := &script{}
	c, _ := newClient(t, s)
	for want, l := range map[string]docevents.Limits{
		"Window, StuckAfter and Silence must": {Window: -1},
		"not 1h0m0s, 2562047h":                {StuckAfter: math.MaxInt64},
		"0 to 365 days":                       {Silence: -time.Hour},
		"MaxStuck and":                        {MaxStuck: -1},
		"MinEnded must":                       {MinEnded: -1},
		"MaxFailureRate must":                 {MaxFailureRate: 20}, // percent
		"not NaN":                             {MaxFailureRate: math.NaN()},
		"is not valid text":                   {Where: map[string]string{"\xff": "x"}},
	} {
		if h, err := c.Health(t.Context(), l); err == nil || !strings.Contains(err.Error(), want) || h.OK {
			t.Errorf("%+v: got %+v, %v", l, h, err)
		}
	}
	if len(s.requests) > 0 {
		t.Errorf("%d requests", len(s.requests))
	}
}
