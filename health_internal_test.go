package docevents

import (
	"slices"
	"testing"
	"time"
)

func TestJudge(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ago := func(minutes int) time.Time { return now.Add(-time.Duration(minutes) * time.Minute) }
	stuck := func(n int64, since time.Time) Summary {
		return Summary{StuckTotal: n, UnderWay: n, Stuck: []StuckDocument{{Since: since}, {Since: now}}, LastCompleted: ago(1)}
	}
	for name, test := range map[string]struct {
		limits       Limits
		recent, long Summary
		waiting      int64
		want         []string // problems
	}{
		"nothing recorded": {},
		"all is well":      {recent: Summary{Completed: 90, Failed: 10}, long: Summary{Completed: 900, Failed: 10, UnderWay: 5, LastCompleted: ago(1)}},
		"one is stuck": {
			long: stuck(1, ago(31)),
			want: []string{"1 document has been under way for longer than 30 min, the oldest since 2026-03-01 11:29:00 UTC; the limit is 0."},
		},
		"the limit of stuck documents": {limits: Limits{MaxStuck: 3}, long: stuck(3, ago(90))},
		"one more": {
			limits: Limits{MaxStuck: 3, StuckAfter: 90 * time.Second}, long: stuck(4, ago(90)),
			want: []string{"4 documents have been under way for longer than 1.5 min, the oldest since 2026-03-01 10:30:00 UTC; the limit is 3."},
		},
		"half failed": {recent: Summary{Completed: 10, Failed: 10}},
		"more than half failed": {
			recent: Summary{Completed: 10, Failed: 11},
			want:   []string{"11 of the 21 documents that ended in the last 60 min failed, 52.4 %; the limit is 50.0 %."},
		},
		"too few ended for a rate": {recent: Summary{Failed: 19}},
		"enough ended for a rate": {
			limits: Limits{MinEnded: 1}, recent: Summary{Failed: 1},
			want: []string{"1 of the 1 documents that ended in the last 60 min failed, 100.0 %; the limit is 50.0 %."},
		},
		"none ended":                       {limits: Limits{MinEnded: 1}, recent: Summary{UnderWay: 5}},
		"skipped documents don't count":    {recent: Summary{Failed: 11, Completed: 9, Skipped: 80}, want: []string{"11 of the 20 documents that ended in the last 60 min failed, 55.0 %; the limit is 50.0 %."}},
		"all may fail":                     {limits: Limits{MaxFailureRate: 1}, recent: Summary{Failed: 100}},
		"the rate is only of Window":       {long: Summary{Failed: 100}},
		"silence, but work has just begun": {limits: Limits{Silence: 10 * time.Minute}, long: Summary{UnderWay: 4, LastCompleted: ago(600)}},
		"silence": {
			limits: Limits{Silence: 10 * time.Minute}, long: Summary{UnderWay: 4, LastCompleted: ago(11)}, waiting: 1,
			want: []string{"No document has completed since 2026-03-01 11:49:00 UTC, although 1 document has been under way for longer than 10 min."},
		},
		"silence from the start": {
			limits: Limits{Silence: 10 * time.Minute}, long: Summary{Since: ago(24 * 60), UnderWay: 4}, waiting: 2,
			want: []string{"No document has completed since 2026-02-28 12:00:00 UTC, although 2 documents have been under way for longer than 10 min."},
		},
	} {
		if err := test.limits.normalize(); err != nil {
			t.Fatal(err)
		}
		h := test.limits.judge(now, &test.recent, &test.long, test.waiting)
		if !slices.Equal(h.Problems, test.want) || h.OK != (len(test.want) == 0) || h.Problems == nil {
			t.Errorf("%s: OK %v\n%q\nwant\n%q", name, h.OK, h.Problems, test.want)
		}
	}
}
