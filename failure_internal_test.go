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
		"again, while others got through":                  {transient, history{rows: 10, proof: true, strikes: 1}, again},
		"and again":                                        {transient, history{rows: 10, proof: true, strikes: 2}, halve},
		"as often, though nothing got through meanwhile":   {transient, history{rows: 10, strikes: 1}, again},
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
		"a row refused, however often it failed before":    {badData, history{rows: 1, strikes: 10}, again},
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
			b.known = test.proof
			h := b.fail(transient, 7, test.proof, false, false)
			if h.proof != test.want || (h.strikes == 1) != test.want {
				t.Errorf("got %+v, want proof %t", h, test.want)
			}
		})
	}
}

// What is known of one row of a batch is known of the batch.
func TestBatchRemembersItsFailures(t *testing.T) {
	failed := func(strikes uint8) record { return record{failed: 3, seen: 5, strikes: strikes, tries: 2} }
	for name, test := range map[string]struct {
		rows  []record
		v     verdict
		known int64
		proof int64
		alone bool
		want  history
	}{
		"for the first time":               {rows: []record{{}, {}}, v: transient, known: 9, proof: 9, alone: true},
		"nothing came through":             {rows: []record{failed(0), {}}, v: transient, known: 3, proof: 5},
		"something, before it failed last": {rows: []record{failed(0), {}}, v: transient, known: 4, proof: 5, want: history{proof: true}},
		"something, while it was sent":     {rows: []record{failed(0), {}}, v: transient, known: 3, proof: 6, want: history{strikes: 1}},
		"something, since":                 {rows: []record{failed(1), {}}, v: transient, known: 6, proof: 6, want: history{proof: true, strikes: 2}},
		"which is the same of the last":    {rows: []record{{}, failed(1)}, v: transient, known: 6, proof: 6, want: history{proof: true, strikes: 2}},
		"of any":                           {rows: []record{{}, failed(1), {}}, v: configuration, known: 6, proof: 6, want: history{proof: true, strikes: 2}},
		"none are left":                    {rows: []record{failed(0), {}}, v: transient, known: 4, proof: 5, alone: true, want: history{proof: true, strikes: 1}},
		"nor ever came through":            {rows: []record{failed(0), {}}, v: transient, known: 3, proof: 3, alone: true},
		"none are left, a row":             {rows: []record{failed(0)}, v: transient, known: 4, proof: 5, alone: true, want: history{proof: true}},
		"refused, which is no strike":      {rows: []record{{failed: 3, seen: 5, tries: 2, data: 3}, {}}, v: badData, known: 6, proof: 6, want: history{proof: true}},
		"stored before, which isn't":       {rows: []record{{failed: 3, seen: 5, tries: 2, data: 3}, {}}, v: storedBefore, known: 6, proof: 6, want: history{proof: true}},
		"refused, but failed by chance":    {rows: []record{failed(0), {}}, v: badData, known: 6, proof: 6},
		"and was refused by itself before": {rows: []record{{failed: 3, seen: 5, data: 5, refused: true}}, v: badData, known: 4, proof: 6, want: history{proof: true}},
		"no more strikes can be counted":   {rows: []record{failed(255), {}}, v: transient, known: 6, proof: 6, want: history{proof: true, strikes: 255}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBatch(test.rows, false, false)
			b.known, b.request = test.known, 7
			test.want.rows = len(test.rows)
			before := b.records[0]
			if got := b.fail(test.v, 8, test.proof, true, test.alone); got != test.want {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
			lone := len(b.records) == 1
			for i, r := range b.records {
				if first := r.failed != 3; r.seen != 8 || !r.doubt || first && r.failed != 8 || !lone && test.v == badData && r.refused {
					t.Errorf("row %d: %+v", i, r)
				}
			}
			if got := b.records[0].tries; got != before.tries+1 {
				t.Errorf("%d tries", got)
			}
		})
	}
	b := newBatch([]record{{tries: 255}}, false, false)
	b.request = 7
	b.fail(badData, 8, 0, false, false)
	if r := b.records[0]; r.failed != 7 || r.tries != 255 || !r.refused || r.doubt {
		t.Errorf("a lone row's first failure is its request's own: %+v", r)
	}
}
