package docevents

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// rowsOf are records whose stages are their names.
func rowsOf(names ...string) (records []record) {
	for _, name := range names {
		records = append(records, record{stage: name})
	}
	return records
}

// run is n records named "a".
func run(n int) []record { return slices.Repeat(rowsOf("a"), n) }

func (b *batch) names() (names []string) {
	for i := range b.records {
		names = append(names, b.records[i].stage)
	}
	return names
}

func newQueue(maxRows int) *queue { return &queue{maxRows: maxRows, waiting: map[*batch]bool{}} }

// checkText holds that a batch's text is that of its rows.
func checkText(t *testing.T, batches ...*batch) {
	t.Helper()
	for _, b := range batches {
		text := 0
		for i := range b.records {
			text += b.records[i].text()
		}
		if b.text != text {
			t.Errorf("%d bytes of text, want %d", b.text, text)
		}
	}
}

func TestQueueAdd(t *testing.T) {
	q := newQueue(3)
	for i := range 7 {
		q.add(&record{stage: fmt.Sprint(i)})
	}
	q.add(&record{message: strings.Repeat("m", maxBatchText-1)}) // with the "6" exactly a batch's text
	q.add(&record{stage: "8"})
	got := fmt.Sprint(len(q.ready))
	for _, b := range q.ready {
		checkText(t, b)
		got += fmt.Sprint(" ", b.names())
	}
	if want := "4 [0 1 2] [3 4 5] [6 ] [8]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if q.open != q.ready[3] {
		t.Error("the last batch is not the open one")
	}
	if c := cap(q.ready[1].records); c != 3 {
		t.Errorf("behind a full batch, room for %d rows, want 3 at once", c)
	}
	if c := cap(q.ready[3].records); c != 1 {
		t.Errorf("behind one that is full of text, room for %d rows, want 1", c)
	}
}

// What may be joined is, as far as one request may carry it.
func TestQueueTake(t *testing.T) {
	text := func(n int) *batch { return newBatch([]record{{message: strings.Repeat("m", n)}}, false, false) }
	of := func(n int) *batch { return newBatch(run(n), false, false) }
	apart := func(n int) *batch { return newBatch(run(n), true, false) }
	for name, test := range map[string]struct {
		ready []*batch
		rows  []int // of the batches taken
	}{
		"nothing":                         {nil, []int{}},
		"one":                             {[]*batch{of(1)}, []int{1}},
		"remainders":                      {[]*batch{of(1), of(2), of(3)}, []int{6}},
		"exactly as many rows as may be":  {[]*batch{of(4), of(6), of(1)}, []int{10, 1}},
		"one row more":                    {[]*batch{of(5), of(6)}, []int{5, 6}},
		"exactly as much text as may be":  {[]*batch{text(maxBatchText - 7), text(7)}, []int{2}},
		"one byte more":                   {[]*batch{text(maxBatchText - 7), text(8)}, []int{1, 1}},
		"in order: none is passed over":   {[]*batch{of(5), of(6), of(1)}, []int{5, 7}},
		"a suspect is not joined":         {[]*batch{apart(1), of(1), of(1)}, []int{1, 2}},
		"nor joins":                       {[]*batch{of(1), apart(1)}, []int{1, 1}},
		"nor is it in the way":            {[]*batch{of(1), apart(3), of(1), apart(4), of(2)}, []int{4, 3, 4}},
		"in order behind suspects, too":   {[]*batch{of(5), apart(3), of(6), of(1)}, []int{5, 3, 7}},
		"two suspects are not one either": {[]*batch{apart(1), apart(1)}, []int{1, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			q := newQueue(10)
			q.push(test.ready...)
			got := []int{}
			for b := q.take(true); b != nil; b = q.take(true) {
				got = append(got, len(b.records))
				checkText(t, b)
			}
			if !slices.Equal(got, test.rows) {
				t.Errorf("took %v, want %v", got, test.rows)
			}
		})
	}
}

// Suspects that may not be sent stay, in their order.
func TestQueueTakesNoSuspect(t *testing.T) {
	q := newQueue(10)
	for _, n := range []int{2, 3, 1, 4, 5} {
		q.push(newBatch(run(n), n > 1, false))
	}
	for _, want := range []int{1, 0} {
		if b := q.take(false); b == nil && want > 0 || b != nil && len(b.records) != want {
			t.Errorf("took %+v, want %d rows", b, want)
		}
	}
	for _, want := range []int{2, 3, 4, 5} {
		if b := q.take(true); b == nil || len(b.records) != want {
			t.Errorf("took %+v, want %d rows", b, want)
		}
	}
}

// What is taken is closed: nothing is added to a batch in flight.
func TestQueueTakesTheOpenBatch(t *testing.T) {
	for name, leave := range map[string]func(q *queue) *batch{
		"taken": func(q *queue) *batch { return q.take(true) },
		"joined": func(q *queue) *batch {
			q.ready = slices.Insert(q.ready, 0, newBatch(run(1), false, false))
			return q.take(true)
		},
		"removed": func(q *queue) *batch {
			b := q.open
			if !q.remove(b) || q.remove(b) {
				t.Error("removed once, not twice")
			}
			return b
		},
	} {
		q := newQueue(10)
		q.add(&record{stage: "a"})
		b := leave(q)
		before := len(b.records)
		q.add(&record{stage: "b"})
		if len(b.records) != before || len(q.ready) != 1 || len(q.ready[0].records) != 1 {
			t.Errorf("%s: it has %d rows, then %d; %d batches are ready", name, before, len(b.records), len(q.ready))
		}
	}
}

// A piece has an array and a memory of its own: each size is judged by itself,
// but whether a row has failed, and may be stored, stays true of it.
func TestBatchInPieces(t *testing.T) {
	whole := func() *batch {
		b := newBatch(rowsOf("0", "1", "2", "3", "4"), false, false)
		for i := range b.records {
			b.records[i].failed, b.records[i].seen, b.records[i].strikes, b.records[i].tries, b.records[i].doubt = 7, 8, 2, 5, true
		}
		return b
	}
	check := func(t *testing.T, b *batch, want string, tries uint8, proven bool) {
		t.Helper()
		checkText(t, b)
		if got := fmt.Sprint(b.names()); got != want || !b.apart || b.proven != proven {
			t.Errorf("got %s apart %t, proven %t, want %s, proven %t", got, b.apart, b.proven, want, proven)
		}
		for _, r := range b.records {
			if r.failed != 7 || r.seen != 8 || !r.doubt || r.strikes != 0 || r.tries != tries {
				t.Errorf("%s: %+v", r.stage, r)
			}
		}
		if cap(b.records) >= 5 {
			t.Errorf("%s holds on to %d rows", want, cap(b.records))
		}
	}
	for _, proven := range []bool{false, true} {
		b := whole()
		first, second := b.halves(proven)
		check(t, first, "[0 1]", 0, proven)
		check(t, second, "[2 3 4]", 0, proven)

		b = whole()
		for i := range b.records {
			b.records[i].strikes, b.records[i].tries = 0, 1
		}
		rest, lone := b.without([]int{1, 4}, proven)
		check(t, rest, "[0 2 3]", 1, proven)
		if len(lone) != 2 {
			t.Fatalf("%d lone rows", len(lone))
		}
		check(t, lone[0], "[1]", 1, proven)
		check(t, lone[1], "[4]", 1, proven)

		rest, lone = whole().without([]int{0}, proven)
		check(t, lone[0], "[0]", 1, proven)
		if rest.records[0].strikes != 2 || rest.records[0].tries != 5 {
			t.Errorf("the rest has forgotten its failures: %+v", rest.records[0])
		}
	}
}

func TestBatchCompact(t *testing.T) {
	for _, test := range []struct {
		rows, room int
		want       bool
	}{{0, 10, true}, {4, 9, true}, {4, 8, false}, {5, 5, false}} {
		b := &batch{records: make([]record, test.rows, test.room)}
		b.compact()
		if got := cap(b.records) < test.room; got != test.want || len(b.records) != test.rows {
			t.Errorf("%d rows in an array of %d: let go of %t", test.rows, test.room, got)
		}
	}
}

// wait lets b wait for d.
func (q *queue) wait(b *batch, d time.Duration) *batch {
	q.waiting[b] = true
	b.due = time.Now().Add(d)
	b.timer = time.AfterFunc(d, func() { panic("the wait has ended") })
	return b
}

func TestQueueForgive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(10)
		if due := q.forgive(); !due.IsZero() {
			t.Errorf("nothing waits until %s", due)
		}
		bad := func(proven bool) *batch {
			b := newBatch(run(2), true, proven)
			b.twin, b.refusal = &batch{}, errGoexit
			return b
		}
		ready, proven := bad(false), bad(true)
		q.push(ready, proven)
		waiting := []*batch{q.wait(bad(false), 3*time.Second), q.wait(bad(true), 2*time.Second), q.wait(bad(false), 4*time.Second)}
		if due := q.forgive(); !due.Equal(time.Now().Add(2 * time.Second)) {
			t.Errorf("the first is due in %s", time.Until(due))
		}
		if len(q.ready) != 4 || len(q.waiting) != 1 || !q.waiting[waiting[1]] {
			t.Errorf("%d ready, %d waiting, want the one with proof to wait on", len(q.ready), len(q.waiting))
		}
		q.end(waiting[1])
		for _, b := range append(waiting, ready, proven) {
			if !q.waiting[b] && slices.Contains(q.ready, b) && b.refusal != nil || b.apart != b.proven || (b.twin != nil) != b.proven {
				t.Errorf("not forgiven: %+v", b)
			}
		}
		time.Sleep(time.Minute) // the timers are stopped
		if q.end(waiting[0]) {
			t.Error("a wait ended twice")
		}
	})
}

// The row that tries whether an outage is over is drawn by lot, from what has
// not failed yet, from lone suspects last.
func TestQueueDraw(t *testing.T) {
	failed := func(proven bool, names ...string) *batch {
		b := newBatch(rowsOf(names...), proven, proven)
		for i := range b.records {
			b.records[i].failed = 1
		}
		return b
	}
	fresh := func(names ...string) *batch { return newBatch(rowsOf(names...), false, false) }
	for name, test := range map[string]struct {
		ready []*batch
		want  string // the rows that may be drawn
	}{
		"nothing":                         {nil, ""},
		"one row":                         {[]*batch{fresh("a")}, "a"},
		"each row of each batch":          {[]*batch{fresh("a", "b", "c"), fresh("d"), fresh("e", "f")}, "abcdef"},
		"what hasn't failed":              {[]*batch{failed(false, "x", "y"), fresh("a", "b"), failed(true, "z"), fresh("c")}, "abc"},
		"batches before lone suspects":    {[]*batch{failed(true, "x"), failed(true, "a", "b"), failed(false, "c"), failed(true, "y")}, "abc"},
		"lone suspects, if that is all":   {[]*batch{failed(true, "a"), failed(true, "b")}, "ab"},
		"a lone row, though it has tried": {[]*batch{failed(false, "a")}, "a"},
	} {
		t.Run(name, func(t *testing.T) {
			drawn := map[string]int{}
			for range 600 {
				q, rows := newQueue(10), 0
				for _, b := range test.ready {
					c := newBatch(slices.Clone(b.records), b.apart, b.proven)
					rows += len(c.records)
					q.push(c)
				}
				probe := q.draw()
				if probe == nil {
					break
				}
				checkText(t, append(q.ready, probe)...)
				if len(probe.records) != 1 || (probe.home == nil) != (len(q.ready) < len(test.ready)) {
					t.Fatalf("drew %d rows, home %v, of %d batches %d are left", len(probe.records), probe.home, len(test.ready), len(q.ready))
				}
				drawn[probe.records[0].stage]++
				q.giveBack(probe)
				checkText(t, q.ready...)
				left := 0
				for _, b := range q.ready {
					left += len(b.records)
				}
				if left != rows || len(q.ready) != len(test.ready) {
					t.Fatalf("given back, there are %d rows of %d in %d batches of %d", left, rows, len(q.ready), len(test.ready))
				}
			}
			if len(drawn) != len(test.want) {
				t.Errorf("drew %v, want all of %q", drawn, test.want)
			}
			for row, n := range drawn {
				if fair := 600 / len(test.want); !strings.Contains(test.want, row) || n < fair/2 || n > 2*fair {
					t.Errorf("drew %q %d times, want one of %q, about %d times", row, n, test.want, fair)
				}
			}
		})
	}
}

// The array of the batch that a probe was taken from tells what it holds, and
// no copy of the row is left in it. What is recorded next begins a new batch.
func TestQueueDrawFromTheOpenBatch(t *testing.T) {
	q := newQueue(10)
	q.add(&record{stage: "a"})
	q.add(&record{stage: "b"})
	home := q.open
	probe := q.draw()
	if probe.home != home || home.records[:2][1].stage != "" || !probe.apart || probe.proven {
		t.Errorf("%+v was drawn from %+v", probe, home.records[:2])
	}
	q.add(&record{stage: "c"})
	if len(home.records) != 1 || len(q.ready) != 2 {
		t.Errorf("%d rows beside the probe's, %d batches", len(home.records), len(q.ready))
	}
}

// A failed probe's row goes back to where it came from if that has room, and is
// first there: the batch counts as one that has failed.
func TestQueueGiveBack(t *testing.T) {
	const text = 100
	for name, test := range map[string]struct {
		change func(q *queue, probe, home *batch)
		back   bool
	}{
		"its place is free":          {func(*queue, *batch, *batch) {}, true},
		"its batch is just not full": {func(q *queue, _, home *batch) { home.records = append(home.records, run(q.maxRows-3)...) }, true},
		"its batch is full":          {func(q *queue, _, home *batch) { home.records = append(home.records, run(q.maxRows-2)...) }, false},
		"its text just fits":         {func(_ *queue, _, home *batch) { home.text = maxBatchText - text }, true},
		"its text doesn't":           {func(_ *queue, _, home *batch) { home.text = maxBatchText - text + 1 }, false},
		"its batch was sent":         {func(q *queue, _, home *batch) { q.remove(home) }, false},
		"it is known to be bad":      {func(_ *queue, probe, _ *batch) { probe.proven = true }, false},
		"it came from nowhere":       {func(_ *queue, probe, _ *batch) { probe.home = nil }, false},
	} {
		t.Run(name, func(t *testing.T) {
			q := newQueue(10)
			home := newBatch(rowsOf("0", "1"), false, false)
			probe := newBatch([]record{{stage: "probe", message: strings.Repeat("m", text-5)}}, true, false)
			probe.home, probe.refusal = home, errGoexit
			q.push(home)
			test.change(q, probe, home)
			rows, bytes := len(home.records), home.text
			q.giveBack(probe)
			if probe.home != nil || probe.refusal != nil || probe.apart != probe.proven {
				t.Errorf("not forgiven: %+v", probe)
			}
			if !test.back {
				if len(home.records) != rows || home.text != bytes || q.ready[len(q.ready)-1] != probe {
					t.Error("it is not at the end of the queue")
				}
				return
			}
			if names := home.names(); names[0] != "probe" || names[rows] != "0" || len(names) != rows+1 || home.text != bytes+text || len(q.ready) != 1 {
				t.Errorf("home has %v, %d bytes; %d batches", names, home.text, len(q.ready))
			}
		})
	}
}
