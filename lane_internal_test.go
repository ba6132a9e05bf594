package docevents

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docevents/docevents-go/internal/row"
)

// recordsOf returns records with the names as stages.
func recordsOf(names ...string) (records []record) {
	for _, name := range names {
		records = append(records, record{Row: row.Row{Stage: name}})
	}
	return records
}

// failedBatch returns a batch of the retry lane.
func failedBatch(names ...string) *batch {
	return newBatch(recordsOf(names...), &batch{history: history{failMark: 1, err: errors.New("failed")}})
}

func (b *batch) names() string {
	if b == nil {
		return "nothing"
	}
	var names []string
	for i := range b.records {
		names = append(names, b.records[i].Stage)
	}
	return strings.Join(names, " ")
}

// names lists a lane's batches in the order in which they are sent.
func (l *lane) names() string {
	var all []string
	for _, b := range l.batches {
		all = append(all, "["+b.names()+"]")
	}
	return strings.Join(all, " ")
}

// checkText checks that a batch's text is the sum of its rows' texts.
func checkText(t *testing.T, batches ...*batch) {
	t.Helper()
	for _, b := range batches {
		text := 0
		for i := range b.records {
			text += b.records[i].Text()
		}
		if b.text != text {
			t.Errorf("[%s] counts %d bytes of text, want %d", b.names(), b.text, text)
		}
	}
}

func TestLaneFillsBatches(t *testing.T) {
	var l lane
	for i := range 7 {
		l.add(&record{Row: row.Row{Stage: fmt.Sprint(i)}}, 3)
	}
	l.add(&record{Row: row.Row{Message: strings.Repeat("m", maxBatchText-1)}}, 3) // with the "6" it has exactly maxBatchText
	l.add(&record{Row: row.Row{Stage: "8"}}, 3)
	if got, want := l.names(), "[0 1 2] [3 4 5] [6 ] [8]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	checkText(t, l.batches...)
}

func TestLaneSendsWhatIsDue(t *testing.T) {
	now := time.Now()
	var l lane
	sent, suspect := failedBatch("a", "b"), failedBatch("suspect")
	sent.request, suspect.request = 6, 7
	l.push(failedBatch("c", "d"), now.Add(2))
	l.push(sent, now.Add(1))
	l.push(suspect, now.Add(1))
	l.push(failedBatch("half"), now.Add(1)) // never sent by itself
	l.push(failedBatch("e", "f"), now.Add(2))
	l.push(failedBatch("late"), now.Add(9))
	if due := l.due(); !due.Equal(now.Add(1)) {
		t.Errorf("due %s, want the earliest time", due)
	}
	for _, step := range []struct {
		at   time.Duration
		want string
	}{
		{0, "nothing"},
		{1, "a b"},
		{2, "c d"},  // a batch of several rows goes before a suspect that has been due for longer
		{2, "e f"},  // of batches that are due at the same time, the first that was pushed
		{2, "half"}, // a row that was never sent by itself goes before a suspect
		{2, "suspect"},
		{2, "nothing"},
	} {
		if got := l.take(now.Add(step.at)).names(); got != step.want {
			t.Errorf("after %d ns: %s, want %s", step.at, got, step.want)
		}
	}
	if got := l.take(now.Add(9)).names(); got != "late" {
		t.Errorf("after 9 ns: %s", got)
	}
	if due := l.due(); !due.IsZero() {
		t.Errorf("an empty lane is due at %s", due)
	}
}

func TestLaneDraws(t *testing.T) {
	lanes := func() *lane {
		l := &lane{}
		for _, name := range []string{"a", "b", "c", "d"} {
			l.add(&recordsOf(name)[0], 2)
		}
		suspect := failedBatch("suspect")
		suspect.strikes = 1
		l.push(suspect, time.Time{})
		sentAlone := failedBatch("sentAlone")
		sentAlone.request = 1
		l.push(sentAlone, time.Time{})
		return l
	}
	drawn := map[string]int{}
	for range 400 {
		l := lanes()
		row := l.draw(false)
		drawn[row.names()]++
		rest := strings.Fields(strings.NewReplacer("[", "", "]", "").Replace(l.names()))
		if slices.Contains(rest, row.names()) || len(rest) != 5 {
			t.Fatalf("drew %s, left %s", row.names(), l.names())
		}
		checkText(t, row)
		checkText(t, l.batches...)
	}
	if len(drawn) != 4 || drawn["suspect"]+drawn["sentAlone"] != 0 {
		t.Errorf("drew %v, want each row now and then, and never the suspect or the row that was sent alone", drawn)
	}
	l := lanes()
	for _, want := range []string{"d", "c", "b", "a", "sentAlone", "suspect", "nothing"} {
		if got := l.draw(true).names(); got != want {
			t.Errorf("newest: %s, want %s", got, want)
		}
	}
	var failed lane
	failed.push(failedBatch("a", "b"), time.Time{})
	if row := failed.draw(false); row.failMark != 1 || row.err == nil {
		t.Error("a row that is drawn forgets the failure of its batch")
	}
}

func TestSuspects(t *testing.T) {
	for name, test := range map[string]struct {
		rows      int
		strikes   int
		aloneMark int64
		want      bool // the result if request 5 has stored rows
	}{
		"a row that was never rejected alone":          {1, 0, 0, false},
		"a row with a strike":                          {1, 1, 0, true},
		"rejected alone, and others were stored since": {1, 0, 4, true},
		"rejected alone by the first request":          {1, 0, 1, true},
		"rejected alone, and nothing was stored since": {1, 0, 5, false},
		"several rows": {2, 1, 4, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBatch(make([]record, test.rows), &batch{history: history{failMark: 1}})
			b.strikes, b.aloneMark = test.strikes, test.aloneMark
			if got := b.isSuspect(5); got != test.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

func TestLaneJoins(t *testing.T) {
	struck, refused, recent := failedBatch("struck"), failedBatch("refused"), failedBatch("recent")
	struck.strikes, refused.aloneMark, recent.aloneMark, recent.rejectMark, recent.failMark = 1, 3, 4, 4, 4
	first := failedBatch("a", "b")
	first.rejectMark, first.rejection, first.closeTries = 2, "text", 1
	var l lane
	for i, b := range []*batch{struck, first, failedBatch("c", "d", "e"), recent, failedBatch("f"), failedBatch("g"), failedBatch("h", "i", "j", "k"), refused} {
		l.push(b, time.Time{}.Add(time.Duration(i)))
	}
	l.join(4, func(b *batch) bool { return b.isSuspect(4) })
	if got, want := l.names(), "[struck] [a b recent f] [c d e] [g] [h i j k] [refused]"; got != want {
		t.Errorf("got  %s\nwant %s, suspects alone and the others in full batches", got, want)
	}
	checkText(t, l.batches...)
	if got, want := first.history, (history{failMark: 4, err: first.err}); got != want {
		t.Errorf("joined: %+v, want only the newest failure: %+v", got, want)
	}
	text := strings.Repeat("m", maxBatchText/2+1)
	var long lane
	long.push(failedBatch(text), time.Time{})
	long.push(failedBatch(text), time.Time{})
	long.join(4, func(*batch) bool { return false })
	if n := len(long.batches); n != 2 {
		t.Errorf("%d batches of more than half a request's text, want 2", n)
	}
}

func TestBatchIsCut(t *testing.T) {
	all := func() *batch {
		b := failedBatch("a", "b", "c", "d", "e")
		b.strikes = 1
		return b
	}
	first, second := all().cut(func(i int) bool { return i < 2 })
	named, rest := all().cut(func(i int) bool { return i == 1 || i == 3 })
	if got := fmt.Sprint(first.names(), "|", second.names(), "|", named.names(), "|", rest.names()); got != "a b|c d e|b d|a c e" {
		t.Error(got)
	}
	for _, piece := range []*batch{first, second, named, rest} {
		checkText(t, piece)
		if piece.failMark != 1 || piece.err == nil || piece.strikes != 0 {
			t.Errorf("[%s]: failMark %d, strikes %d; want the failure remembered, and no strike: each size is judged by itself", piece.names(), piece.failMark, piece.strikes)
		}
		if cap(piece.records) > len(piece.records)+1 {
			t.Errorf("[%s] keeps an array for %d rows", piece.names(), cap(piece.records))
		}
	}
}
