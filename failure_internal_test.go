package docevents

import (
	"testing"
	"time"
)

func TestDecide(t *testing.T) {
	for name, test := range map[string]struct {
		v    verdict
		h    history
		want step
	}{
		"a batch fails for the first time":                 {transient, history{rows: 10}, again},
		"again, while others got through":                  {transient, history{rows: 10, proof: true, struck: true, strikes: 1}, hurry},
		"and again":                                        {transient, history{rows: 10, proof: true, strikes: 2}, halve},
		"as often, though nothing got through meanwhile":   {transient, history{rows: 10, strikes: 1}, again},
		"half of a refused batch, likewise":                {transient, history{rows: 10, linked: true, proof: true, struck: true, strikes: 5}, hurry},
		"until that has to be chance no longer":            {transient, history{rows: 10, linked: true, proof: true, struck: true, strikes: 6}, halve},
		"a refused key":                                    {configuration, history{rows: 10}, again},
		"a trigger's missing table, while others get in":   {configuration, history{rows: 10, proof: true, strikes: 2}, halve},
		"too much at once":                                 {tooMuch, history{rows: 10}, halve},
		"a row that is too much":                           {tooMuch, history{rows: 1}, again},
		"refused for the data of one of them":              {badData, history{rows: 10}, halve},
		"which is named":                                   {badData, history{rows: 10, named: true}, setAside},
		"a named key that isn't there yet":                 {transient, history{rows: 10, named: true}, setAside},
		"stored before, named":                             {storedBefore, history{rows: 10, named: true}, setAside},
		"stored before, not named":                         {storedBefore, history{rows: 10}, halve},
		"a configuration error whose details look like it": {configuration, history{rows: 10, named: true}, again},
		"a row refused, nothing else got through":          {badData, history{rows: 1}, again},
		"a row refused, others got through":                {badData, history{rows: 1, proof: true}, giveUp},
		"a row that fails":                                 {transient, history{rows: 1, proof: true, strikes: 9}, again},
		"for the tenth time, with proof":                   {transient, history{rows: 1, proof: true, strikes: 10}, giveUp},
		"a row that is too much, for the tenth time":       {tooMuch, history{rows: 1, proof: true, strikes: 10}, giveUp},
		"a configuration error of its own, likewise":       {configuration, history{rows: 1, proof: true, strikes: 10}, giveUp},
	} {
		t.Run(name, func(t *testing.T) {
			if got := decide(test.v, test.h); got != test.want {
				t.Errorf("got %d, want %d", got, test.want)
			}
		})
	}
}

func TestIsOutage(t *testing.T) {
	for name, test := range map[string]struct {
		failures int
		idle     bool
		quiet    time.Duration
		want     bool
	}{
		"one, others in flight":                          {newsWeight, false, time.Hour, false},
		"all that was in flight":                         {newsWeight, true, time.Hour, true},
		"all that was in flight, after a recent success": {newsWeight, true, time.Second - 1, false},
		"two":                                {2 * newsWeight, false, time.Second, false},
		"three":                              {3 * newsWeight, false, time.Second, true},
		"three, after a recent success":      {3 * newsWeight, false, time.Second - 1, false},
		"ten, after a recent success":        {10 * newsWeight, false, 0, true},
		"nine":                               {10*newsWeight - 1, false, 0, false},
		"three suspects knock":               {3, false, time.Hour, false},
		"thirty suspects knock":              {30, false, time.Hour, true},
		"three, with nothing delivered ever": {3 * newsWeight, false, time.Since(time.Time{}), true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := isOutage(test.failures, test.idle, test.quiet); got != test.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

// What was sent before rows failed proves nothing against them, however late
// its answer comes: the table may have been changed in between.
func TestProofIsSentAfterTheFailure(t *testing.T) {
	for name, test := range map[string]struct {
		proof int64
		want  bool
	}{
		"sent before":               {4, false},
		"the newest when it failed": {5, false},
		"sent after":                {6, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBatch(make([]record, 2), false, false)
			if h := b.fail(transient, 5, 0, false, false); h.proof || h.strikes != 0 {
				t.Errorf("the first failure: %+v", h)
			}
			h := b.fail(transient, 7, test.proof, false, false)
			if h.proof != test.want || (h.strikes == 1) != test.want {
				t.Errorf("got %+v, want proof %t", h, test.want)
			}
		})
	}
}
