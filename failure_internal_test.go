package docevents

import (
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
		"a batch fails for the first time":                   {v: rest.Transient, rows: 10, want: sendAgain},
		"again, and others were stored between":              {v: rest.Transient, rows: 10, evidence: true, strikes: 1, want: split},
		"a refused key":                                      {v: rest.Configuration, rows: 10, want: sendAgain},
		"a trigger's missing table, while others are stored": {v: rest.Configuration, rows: 10, evidence: true, strikes: 1, want: split},
		"too much at once":                                   {v: rest.TooMuch, rows: 10, want: split},
		"a row that is too much":                             {v: rest.TooMuch, rows: 1, want: sendAgain},
		"refused for the data of a row":                      {v: rest.BadData, rows: 10, want: split},
		"refused for the data of a row that is named":        {v: rest.BadData, rows: 10, named: true, want: setAside},
		"a key that isn't there yet, named":                  {v: rest.Transient, rows: 10, named: true, want: setAside},
		"stored before, named":                               {v: rest.StoredBefore, rows: 10, named: true, want: setAside},
		"stored before, not named":                           {v: rest.StoredBefore, rows: 10, want: split},
		"misconfigured, with details that look like a name":  {v: rest.Configuration, rows: 10, named: true, want: sendAgain},
		"too much, with details that look like a name":       {v: rest.TooMuch, rows: 10, named: true, want: split},
		"a row is refused, nothing else was stored":          {v: rest.BadData, rows: 1, want: sendAgain},
		"a row is refused after nine other strikes":          {v: rest.BadData, rows: 1, strikes: 9, want: sendAgain},
		"a row is refused again, and others were stored":     {v: rest.BadData, rows: 1, evidence: true, want: drop},
		"a row fails for the tenth time":                     {v: rest.Transient, rows: 1, evidence: true, strikes: 9, want: sendAgain},
		"a row fails once more":                              {v: rest.Transient, rows: 1, evidence: true, strikes: 10, want: drop},
		"a row that is too much, as often":                   {v: rest.TooMuch, rows: 1, evidence: true, strikes: 10, want: drop},
		"a row of a table that is refused to it, as often":   {v: rest.Configuration, rows: 1, evidence: true, strikes: 10, want: drop},
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
		"a 503": {v: rest.Transient, want: true},
		"a 503, and other rows were stored between": {v: rest.Transient, evidence: true, sinceStored: time.Hour},
		"a refused key":                               {v: rest.Configuration, want: true},
		"a statement timeout":                         {v: rest.TooMuch, want: true},
		"refused data while others are stored":        {v: rest.BadData, sinceStored: trustTime - 1},
		"refused data, nothing stored for long":       {v: rest.BadData, sinceStored: trustTime, want: true},
		"stored before, while others are stored":      {v: rest.StoredBefore, sinceStored: trustTime - 1},
		"a key that isn't there yet, likewise":        {v: rest.Transient, named: true, sinceStored: trustTime - 1},
		"the same, and nothing stored for long":       {v: rest.Transient, named: true, sinceStored: trustTime, want: true},
		"refused data, and other rows stored between": {v: rest.BadData, evidence: true, sinceStored: time.Hour},
		"refused data, sent before rows were stored":  {v: rest.BadData, sinceStored: -time.Hour},
		"refused data, and nothing was ever stored":   {v: rest.BadData, sinceStored: time.Since(time.Time{}), want: true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := blamesServer(test.v, test.named, test.evidence, test.sinceStored); got != test.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

// There is evidence against a batch if a request that was sent after the batch
// failed had stored rows before the batch was sent again. Rejections need an
// earlier rejection, other failures any earlier failure.
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
		"the first failure":                            {1, 0, []failure{{rest.Transient, 5, 5, 4, false}}, false, 0},
		"nothing was stored between":                   {1, 0, []failure{{rest.Transient, 5, 5, 4, false}, {rest.Transient, 6, 6, 4, false}}, false, 0},
		"stored by a request sent before the failure":  {1, 0, []failure{{rest.Transient, 5, 5, 4, false}, {rest.Transient, 7, 7, 5, false}}, false, 0},
		"stored between":                               {1, 0, []failure{{rest.Transient, 5, 5, 4, false}, {rest.Transient, 7, 7, 6, false}}, true, 1},
		"stored while it was in flight":                {1, 0, []failure{{rest.Transient, 5, 7, 4, false}, {rest.Transient, 8, 8, 6, false}}, true, 1},
		"stored between each":                          {1, 0, []failure{{rest.Transient, 5, 5, 4, false}, {rest.Configuration, 7, 7, 6, false}, {rest.TooMuch, 9, 9, 8, false}}, true, 2},
		"stored before the last strike":                {1, 0, []failure{{rest.Transient, 5, 5, 4, false}, {rest.Transient, 7, 7, 6, false}, {rest.Transient, 9, 9, 7, false}}, false, 1},
		"stored before the last failure":               {1, 0, []failure{{rest.Transient, 5, 5, 4, false}, {rest.Transient, 7, 7, 4, false}, {rest.Transient, 9, 9, 6, false}}, true, 1},
		"refused after a 503":                          {1, 0, []failure{{rest.Transient, 5, 5, 4, false}, {rest.BadData, 7, 7, 6, false}}, false, 0},
		"refused twice":                                {1, 0, []failure{{rest.BadData, 5, 5, 4, false}, {rest.BadData, 7, 7, 6, false}}, true, 0},
		"refused twice, with a 503 between":            {1, 0, []failure{{rest.BadData, 5, 5, 4, false}, {rest.Transient, 7, 7, 4, false}, {rest.BadData, 9, 9, 6, false}}, true, 0},
		"refused twice, stored while it was in flight": {1, 0, []failure{{rest.BadData, 5, 7, 4, false}, {rest.BadData, 8, 8, 6, false}}, false, 0},
		"the last ones, stored since both":             {1, 0, []failure{{rest.BadData, 5, 5, 4, false}, {rest.BadData, 7, 7, 6, true}}, true, 0},
		"the last ones, stored since one of several":   {1, 3, []failure{{rest.BadData, 5, 5, 4, false}, {rest.BadData, 7, 7, 4, true}}, true, 0},
		"not the last ones":                            {1, 3, []failure{{rest.BadData, 5, 5, 4, false}, {rest.BadData, 7, 7, 4, false}}, false, 0},
		"the last ones, nothing was stored between":    {1, 4, []failure{{rest.BadData, 5, 5, 4, false}, {rest.BadData, 7, 7, 4, true}}, false, 0},
		"several rows, stored while in flight":         {2, 0, []failure{{rest.Transient, 5, 7, 4, false}, {rest.Transient, 8, 8, 6, false}}, false, 0},
		"several rows, stored between":                 {2, 0, []failure{{rest.Transient, 5, 7, 4, false}, {rest.Transient, 9, 9, 8, false}}, true, 0},
		"several rows, stored after the first failure": {2, 0, []failure{{rest.Transient, 5, 5, 4, false}, {rest.Transient, 7, 7, 4, false}, {rest.Transient, 9, 9, 6, false}}, true, 0},
		"several rows, refused twice":                  {2, 0, []failure{{rest.BadData, 5, 5, 4, false}, {rest.BadData, 7, 7, 6, false}}, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBatch(make([]record, test.rows), &batch{history: history{rejectMark: test.rejectMark}})
			evidence := false
			for _, f := range test.failures {
				b.request = f.request
				rejected := f.v == rest.BadData
				evidence = b.evidence(f.stored, rejected, "", f.last)
				b.remember(errors.New("failed"), rejected, evidence, f.newest)
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
		answers []rest.Verdict // one answer per second
		lasting bool
	}{
		"for 4 s":            {[]rest.Verdict{rest.Configuration, rest.Configuration, rest.BadData, rest.Configuration, rest.Configuration}, false},
		"for 5 s":            {[]rest.Verdict{rest.Configuration, rest.Configuration, rest.BadData, rest.Configuration, rest.Configuration, rest.BadData}, true},
		"a 503 between":      {[]rest.Verdict{rest.Configuration, rest.Configuration, rest.Configuration, rest.Transient, rest.Configuration, rest.Configuration}, false},
		"a 503 afterwards":   {[]rest.Verdict{rest.Configuration, rest.Configuration, rest.Configuration, rest.Configuration, rest.Configuration, rest.Configuration, rest.Transient}, false},
		"a timeout between":  {[]rest.Verdict{rest.Configuration, rest.TooMuch, rest.Configuration, rest.Configuration, rest.Configuration, rest.Configuration}, false},
		"503s only, for 5 s": {[]rest.Verdict{rest.Transient, rest.Transient, rest.Transient, rest.Transient, rest.Transient, rest.Transient}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var h health
			for i, v := range test.answers {
				h.noteRefusal(v, errors.New("failed"), start.Add(time.Duration(i)*time.Second))
			}
			if got := h.lasting != nil; got != test.lasting {
				t.Errorf("lasting: %t", got)
			}
		})
	}
}
