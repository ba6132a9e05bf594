package docevents

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// What a purge does after a failure, by what it was and what came before.
func TestPurgeAfterAFailure(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	timeout := &Error{Status: 500, Code: "57014"}
	refusal := &Error{Status: 403, Code: "42501"}
	gateway := &Error{Status: 504}
	for name, test := range map[string]struct {
		p            purge // with its failures before this one
		err          error
		bounded      bool
		again, fewer bool
	}{
		"a timeout":                                 {purge{}, timeout, false, true, true},
		"the ninth, of one row":                     {purge{failures: 8, size: stepSize{rows: 1}}, timeout, false, true, true},
		"the tenth":                                 {purge{failures: 9, size: stepSize{rows: 1}}, timeout, false, false, true},
		"the tenth, before a deadline":              {purge{failures: 9, size: stepSize{rows: 1}}, timeout, true, false, true},
		"the tenth, of two rows":                    {purge{failures: 9, size: stepSize{rows: 2}}, timeout, false, true, true},
		"the twentieth":                             {purge{failures: 19, size: stepSize{rows: 2}}, timeout, true, false, true},
		"of the one DELETE":                         {purge{whole: true}, timeout, false, true, true},
		"a gateway that waits no longer for it":     {purge{whole: true}, gateway, false, true, true},
		"a gateway that waits no longer for a step": {purge{}, gateway, false, true, false},
		"no free connection for the one DELETE":     {purge{whole: true}, &Error{Status: 504, Code: "PGRST003"}, false, true, false},
		"no answer":                                 {purge{whole: true}, errors.New("connection reset"), false, true, false},
		"the tenth outage":                          {purge{failures: 9}, errors.New("connection reset"), false, false, false},
		"the tenth outage before a deadline":        {purge{failures: 9}, errors.New("connection reset"), true, true, false},
		"a deadlock":                                {purge{}, &Error{Status: 409, Code: "40P01"}, false, true, false},
		"no lock in time":                           {purge{}, &Error{Status: 500, Code: "55P03"}, false, true, false},
		"a refusal":                                 {purge{}, refusal, false, true, false},
		"the tenth refusal in 4.9 s":                {purge{failures: 9, refused: now.Add(-4900 * time.Millisecond)}, refusal, false, true, false},
		"a refusal of 5 s":                          {purge{failures: 1, refused: now.Add(-5 * time.Second)}, refusal, true, false, false},
		"rows that others point to":                 {purge{}, &Error{Status: 409, Code: "23503"}, true, false, false},
		"bad data":                                  {purge{}, &Error{Status: 400, Code: "22007"}, true, false, false},
		"a trigger's refusal":                       {purge{}, &Error{Status: 400, Code: "P0001"}, true, false, false},
		"too large":                                 {purge{}, &Error{Status: 413}, true, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			p, failures := test.p, test.p.failures
			if again, fewer := p.failed(fmt.Errorf("outer: %w", test.err), now, test.bounded); again != test.again || fewer != test.fewer {
				t.Errorf("again %v, fewer %v", again, fewer)
			}
			if p.failures != failures+1 || p.refused.IsZero() != (test.err != refusal) {
				t.Errorf("remembers %d failures, refused since %s", p.failures, p.refused)
			}
		})
	}
}

// Steps after timeouts (t) and successes (+), of 32 rows at most.
func TestStepSize(t *testing.T) {
	for _, test := range []struct{ outcomes, want string }{
		{"++", "32 32"},
		{"tttttttt", "16 8 4 2 1 1 1 1"},
		{"t+", "16 32"},
		{"+t+t+", "32 16 32 16 32"}, // a lock now and then: the size has had successes
		{"ttt+++", "16 8 4 8 16 32"},
		{"t+t+t+", "16 32 16 16 8 16"},                  // the second time it takes two
		{"t+t++t++++", "16 32 16 16 32 16 16 16 16 32"}, // and then four
		{"t+t++t++++t+++++++", "16 32 16 16 32 16 16 16 16 32 16 16 16 16 16 16 16 16"},
		{"t+t++++t+", "16 32 16 16 32 32 32 16 32"}, // once it has had a success it is as good as any
		{"t+t+ttt+++", "16 32 16 16 8 4 2 4 8 16"},  // below, each success counts
	} {
		s := stepSize{rows: 32, most: 32}
		var got []string
		for _, outcome := range test.outcomes {
			if outcome == 't' {
				s.timedOut()
			} else {
				s.succeeded()
			}
			got = append(got, fmt.Sprint(s.rows))
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: %v, want %s", test.outcomes, got, test.want)
		}
	}
}
