package docevents

import (
	"cmp"
	"errors"
	"testing"
	"time"

	"github.com/docevents/docevents-go/internal/rest"
)

func TestDecide(t *testing.T) {
	for name, test := range map[string]struct {
		v               rest.Verdict
		rows            int
		named, evidence bool
		strikes         int
		want            action
	}{
		"a batch fails for the first time":                           {v: rest.Transient, rows: 10, want: sendAgain},
		"a batch fails again, and other rows were stored in between": {v: rest.Transient, rows: 10, evidence: true, strikes: 1, want: split},
		"a refused key": {v: rest.Configuration, rows: 10, want: sendAgain},
		"a trigger's missing table, while others are stored":           {v: rest.Configuration, rows: 10, evidence: true, strikes: 1, want: split},
		"several rows are too much for a request":                      {v: rest.TooMuch, rows: 10, want: split},
		"one row is too much for a request":                            {v: rest.TooMuch, rows: 1, want: sendAgain},
		"the data of a row is rejected":                                {v: rest.BadData, rows: 10, want: split},
		"the data of a row is rejected, and the row is named":          {v: rest.BadData, rows: 10, named: true, want: setAside},
		"a missing foreign key, and the row is named":                  {v: rest.Transient, rows: 10, named: true, want: setAside},
		"a row was stored before, and is named":                        {v: rest.StoredBefore, rows: 10, named: true, want: setAside},
		"a row was stored before, and isn't named":                     {v: rest.StoredBefore, rows: 10, want: split},
		"misconfigured, with details that seem to name a row":          {v: rest.Configuration, rows: 10, named: true, want: sendAgain},
		"too much for a request, with details that seem to name a row": {v: rest.TooMuch, rows: 10, named: true, want: split},
		"one row is rejected, and nothing else was stored":             {v: rest.BadData, rows: 1, want: sendAgain},
		"one row is rejected after nine strikes":                       {v: rest.BadData, rows: 1, strikes: 9, want: sendAgain},
		"one row is rejected again, and others were stored in between": {v: rest.BadData, rows: 1, evidence: true, want: drop},
		"one row's ninth strike":                                       {v: rest.Transient, rows: 1, evidence: true, strikes: 9, want: sendAgain},
		"one row's tenth strike":                                       {v: rest.Transient, rows: 1, evidence: true, strikes: 10, want: drop},
		"one row's tenth strike, too much for a request":               {v: rest.TooMuch, rows: 1, evidence: true, strikes: 10, want: drop},
		"one row's tenth strike, misconfigured":                        {v: rest.Configuration, rows: 1, evidence: true, strikes: 10, want: drop},
	} {
		t.Run(name, func(t *testing.T) {
			if got := decide(test.v, test.rows, test.named, test.evidence, test.strikes); got != test.want {
				t.Errorf("got %d, want %d", got, test.want)
			}
		})
	}
}

func TestBlamesServer(t *testing.T) {
	for name, test := range map[string]struct {
		v               rest.Verdict
		named, evidence bool
		sinceStored     time.Duration
		want            bool
	}{
		"a 503, without evidence against the rows":              {v: rest.Transient, want: true},
		"a 503, with evidence against the rows":                 {v: rest.Transient, evidence: true, sinceStored: time.Hour},
		"a refused key, without evidence":                       {v: rest.Configuration, want: true},
		"a statement timeout, without evidence":                 {v: rest.TooMuch, want: true},
		"rejected, shortly after rows were stored":              {v: rest.BadData, sinceStored: trustTime - 1},
		"rejected, long after rows were stored":                 {v: rest.BadData, sinceStored: trustTime, want: true},
		"stored before, shortly after others were":              {v: rest.StoredBefore, sinceStored: trustTime - 1},
		"a missing foreign key, shortly after rows were stored": {v: rest.Transient, named: true, sinceStored: trustTime - 1},
		"a missing foreign key, long after rows were stored":    {v: rest.Transient, named: true, sinceStored: trustTime, want: true},
		"rejected, with evidence against the rows":              {v: rest.BadData, evidence: true, sinceStored: time.Hour},
		"rejected, but rows were stored since it was sent":      {v: rest.BadData, sinceStored: -time.Hour},
		"rejected, and nothing was ever stored":                 {v: rest.BadData, sinceStored: time.Since(time.Time{}), want: true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := blamesServer(test.v, test.named, test.evidence, test.sinceStored); got != test.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

// There is evidence against a batch if a request that was sent after the batch
// failed had stored rows before the batch was sent again. For a rejection, only an
// earlier rejection counts. For other failures, any earlier failure counts.
func TestEvidence(t *testing.T) {
	type failure struct {
		v       rest.Verdict
		request int64 // the request that failed
		newest  int64 // the newest request at the failure
		stored  int64 // the newest request that had stored rows when this one was sent
		last    bool  // every pending row was rejected alone
	}
	for name, test := range map[string]struct {
		rows       int
		rejectMark int64 // the first rejected request with the row in it
		failures   []failure
		evidence   bool // the result of the last failure
		strikes    int
	}{
		"the first failure":                                                            {1, 0, []failure{{rest.Transient, 5, 5, 4, false}}, false, 0},
		"nothing was stored in between":                                                {1, 0, []failure{{rest.Transient, 5, 5, 4, false}, {rest.Transient, 6, 6, 4, false}}, false, 0},
		"stored by a request sent before the failure":                                  {1, 0, []failure{{rest.Transient, 5, 5, 4, false}, {rest.Transient, 7, 7, 5, false}}, false, 0},
		"other rows were stored in between":                                            {1, 0, []failure{{rest.Transient, 5, 5, 4, false}, {rest.Transient, 7, 7, 6, false}}, true, 1},
		"stored by a request in flight at the failure":                                 {1, 0, []failure{{rest.Transient, 5, 7, 4, false}, {rest.Transient, 8, 8, 6, false}}, true, 1},
		"other rows were stored between any two failures":                              {1, 0, []failure{{rest.Transient, 5, 5, 4, false}, {rest.Configuration, 7, 7, 6, false}, {rest.TooMuch, 9, 9, 8, false}}, true, 2},
		"nothing was stored since the last strike":                                     {1, 0, []failure{{rest.Transient, 5, 5, 4, false}, {rest.Transient, 7, 7, 6, false}, {rest.Transient, 9, 9, 7, false}}, false, 1},
		"other rows were stored after the first of three failures":                     {1, 0, []failure{{rest.Transient, 5, 5, 4, false}, {rest.Transient, 7, 7, 4, false}, {rest.Transient, 9, 9, 6, false}}, true, 1},
		"rejected after a 503":                                                         {1, 0, []failure{{rest.Transient, 5, 5, 4, false}, {rest.BadData, 7, 7, 6, false}}, false, 0},
		"rejected twice":                                                               {1, 0, []failure{{rest.BadData, 5, 5, 4, false}, {rest.BadData, 7, 7, 6, false}}, true, 0},
		"rejected twice, with a 503 in between":                                        {1, 0, []failure{{rest.BadData, 5, 5, 4, false}, {rest.Transient, 7, 7, 4, false}, {rest.BadData, 9, 9, 6, false}}, true, 0},
		"rejected twice, stored by a request in flight at the first":                   {1, 0, []failure{{rest.BadData, 5, 7, 4, false}, {rest.BadData, 8, 8, 6, false}}, false, 0},
		"every pending row rejected alone, and the row twice":                          {1, 0, []failure{{rest.BadData, 5, 5, 4, false}, {rest.BadData, 7, 7, 6, true}}, true, 0},
		"every pending row rejected alone, and the row before with others":             {1, 3, []failure{{rest.BadData, 5, 5, 4, false}, {rest.BadData, 7, 7, 4, true}}, true, 0},
		"rejected alone, and before with others, but not every pending row":            {1, 3, []failure{{rest.BadData, 5, 5, 4, false}, {rest.BadData, 7, 7, 4, false}}, false, 0},
		"every pending row rejected alone, but nothing stored since the first time":    {1, 4, []failure{{rest.BadData, 5, 5, 4, false}, {rest.BadData, 7, 7, 4, true}}, false, 0},
		"several rows, stored by a request in flight at the failure":                   {2, 0, []failure{{rest.Transient, 5, 7, 4, false}, {rest.Transient, 8, 8, 6, false}}, false, 0},
		"several rows, others were stored in between":                                  {2, 0, []failure{{rest.Transient, 5, 7, 4, false}, {rest.Transient, 9, 9, 8, false}}, true, 0},
		"several rows, others were stored after the first of three failures":           {2, 0, []failure{{rest.Transient, 5, 5, 4, false}, {rest.Transient, 7, 7, 4, false}, {rest.Transient, 9, 9, 6, false}}, true, 0},
		"several rows, nothing was stored since the last evidence":                     {2, 0, []failure{{rest.Transient, 5, 7, 4, false}, {rest.Transient, 9, 9, 8, false}, {rest.Transient, 10, 10, 8, false}}, false, 0},
		"several rows, others were stored since the last evidence":                     {2, 0, []failure{{rest.Transient, 5, 7, 4, false}, {rest.Transient, 9, 9, 8, false}, {rest.Transient, 12, 12, 10, false}}, true, 0},
		"several rows, rejected twice":                                                 {2, 0, []failure{{rest.BadData, 5, 5, 4, false}, {rest.BadData, 7, 7, 6, false}}, false, 0},
		"every pending row rejected alone, stored by a request in flight at the first": {1, 0, []failure{{rest.BadData, 5, 7, 4, false}, {rest.BadData, 8, 8, 6, true}}, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBatch(make([]record, test.rows), &batch{})
			if test.rejectMark > 0 {
				b.rejectMark, b.rejection = test.rejectMark, "failed"
			}
			evidence := false
			for _, f := range test.failures {
				b.request, b.storedWhenSent = f.request, f.stored
				rejection := ""
				if f.v == rest.BadData {
					rejection = "failed"
				}
				evidence = b.evidence(f.stored, f.v == rest.BadData, f.last)
				b.remember(errors.New("failed"), rejection, evidence, f.newest)
			}
			if evidence != test.evidence || b.strikes != test.strikes {
				t.Errorf("evidence %t, %d strikes; want %t, %d", evidence, b.strikes, test.evidence, test.strikes)
			}
		})
	}
}

func TestRefusalsBecomeLasting(t *testing.T) {
	start := time.Now()
	for name, test := range map[string]struct {
		answers []rest.Verdict // one answer per pause, a second by default
		act     action         // after each answer
		pause   time.Duration
		lasting bool
	}{
		"refusals for 4 s":     {[]rest.Verdict{rest.Configuration, rest.Configuration, rest.BadData, rest.Configuration, rest.Configuration}, sendAgain, 0, false},
		"refusals for 5 s":     {[]rest.Verdict{rest.Configuration, rest.Configuration, rest.BadData, rest.Configuration, rest.Configuration, rest.BadData}, sendAgain, 0, true},
		"a 503 in between":     {[]rest.Verdict{rest.Configuration, rest.Configuration, rest.Configuration, rest.Transient, rest.Configuration, rest.Configuration}, sendAgain, 0, false},
		"a 503 afterwards":     {[]rest.Verdict{rest.Configuration, rest.Configuration, rest.Configuration, rest.Configuration, rest.Configuration, rest.Configuration, rest.Transient}, sendAgain, 0, false},
		"a timeout in between": {[]rest.Verdict{rest.Configuration, rest.TooMuch, rest.Configuration, rest.Configuration, rest.Configuration, rest.Configuration}, sendAgain, 0, false},
		"503s only, for 5 s":   {[]rest.Verdict{rest.Transient, rest.Transient, rest.Transient, rest.Transient, rest.Transient, rest.Transient}, sendAgain, 0, false},
		"4 refusals in 9 s":    {[]rest.Verdict{rest.BadData, rest.BadData, rest.BadData, rest.BadData}, sendAgain, 3 * time.Second, false},
		"5 refusals in 12 s":   {[]rest.Verdict{rest.BadData, rest.BadData, rest.BadData, rest.BadData, rest.BadData}, sendAgain, 3 * time.Second, true},
		"batches are cut":      {[]rest.Verdict{rest.BadData, rest.BadData, rest.BadData, rest.BadData, rest.BadData, rest.BadData}, split, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			var h health
			for i, v := range test.answers {
				h.noteRefusal(v, test.act, errors.New("failed"), start.Add(time.Duration(i)*cmp.Or(test.pause, time.Second)))
			}
			if got := h.lasting != nil; got != test.lasting {
				t.Errorf("lasting: %t", got)
			}
		})
	}
}
