package docevents

import (
	"math/rand/v2"
	"slices"
	"sort"
	"time"
)

const (
	// maxBatchText bounds the text of one request's rows, in bytes.
	maxBatchText = 1 << 20

	// openAfter is how many failures in a row open a lane's circuit breaker.
	openAfter = 5
)

// A batch is the rows of one request, and its memory of how they failed.
//
// delivery.mu guards its fields. While a batch is in flight nobody writes its
// records but record.block, and its sender reads the rest of them without the
// mutex.
type batch struct {
	records []record
	text    int // bytes of the records' text

	// The last request that carried it.
	request        int64     // its number, from 1
	sent           time.Time // when
	storedWhenSent int64     // the newest request that had stored rows by then

	// failedAt is the number of a request; a request with a greater number that
	// stores other rows is evidence against this batch. It is set at the first
	// failure, and for a single row again at each strike. Halves inherit it, so
	// that a half that fails is split at once. 0: the batch never failed, it
	// belongs in the fresh lane.
	failedAt int64

	// aloneAt is the same for refusals of a single row's data. The row must have
	// been alone in its request, or named by the answer. 0: never, and for
	// batches of several rows. The next refusal drops the row, if there is
	// evidence by then.
	aloneAt int64

	// refusedAt is the number of the first request whose data was refused with
	// these rows in it, alone or not. Halves inherit it. For the last rows that
	// are pending it takes the place of aloneAt, see fail.
	refusedAt int64

	// strikes counts a single row's failures for other reasons than its data,
	// each with evidence since the one before. It lengthens the wait; ten drop
	// the row.
	strikes int

	closeTries int       // how often it failed, as a suspect, since Close began
	err        error     // its last failure
	due        time.Time // it is not sent again before
	done       bool      // stored, dropped or kept: a later answer changes nothing
}

// newBatch returns a batch of some of the rows of another one.
func newBatch(records []record, from *batch) *batch {
	b := &batch{records: records, failedAt: from.failedAt, refusedAt: from.refusedAt, err: from.err}
	for i := range records {
		b.text += records[i].text()
	}
	return b
}

func (b *batch) hasRoom(rows, text, maxRows int) bool {
	return len(b.records)+rows <= maxRows && b.text+text <= maxBatchText
}

// isSuspect reports whether there is evidence against b, a single row. Suspects
// are not joined with other rows again. stored is the newest request that
// stored rows.
func (b *batch) isSuspect(stored int64) bool {
	return len(b.records) == 1 && (b.strikes > 0 || b.aloneAt > 0 && stored > b.aloneAt)
}

// cut returns the rows of b in two batches: those at the places that isFirst
// accepts, and the others. Each has its own array, so that the text of one can
// be freed before the other is done.
func (b *batch) cut(isFirst func(place int) bool) (first, second *batch) {
	var rows, others []record
	for i := range b.records {
		if isFirst(i) {
			rows = append(rows, b.records[i])
		} else {
			others = append(others, b.records[i])
		}
	}
	return newBatch(rows, b), newBatch(others, b)
}

// absorb appends the rows of another batch.
func (b *batch) absorb(other *batch) {
	b.records = append(b.records, other.records...)
	b.text += other.text
	b.failedAt, b.aloneAt, b.refusedAt = max(b.failedAt, other.failedAt), 0, 0
}

// A lane holds the batches that wait to be sent, in the order in which they are
// due, and counts for its circuit breaker. There are two: fresh, for rows that
// were never sent, and retry, for rows that failed. delivery.mu guards them.
type lane struct {
	batches []*batch

	// failures counts the answers in a row that speak against the server.
	// Anything stored resets it.
	failures int
}

// isOpen reports whether the lane's breaker is open: then the lane sends one
// row per wait.
func (l *lane) isOpen() bool { return l.failures >= openAfter }

// add appends a copy of r to the last batch, or to a new one if that is full.
func (l *lane) add(r *record, maxRows int) {
	var last *batch
	if n := len(l.batches); n > 0 {
		last = l.batches[n-1]
	}
	if last == nil || !last.hasRoom(1, r.text(), maxRows) {
		full := last != nil && len(last.records) >= maxRows
		last = &batch{}
		if full { // this one is likely to fill up as well: don't grow it step by step
			last.records = make([]record, 0, maxRows)
		}
		l.batches = append(l.batches, last)
	}
	last.records = append(last.records, *r)
	last.text += r.text()
}

// push inserts a batch that failed, to be sent when it is due.
func (l *lane) push(b *batch, due time.Time) {
	b.due = due
	at := sort.Search(len(l.batches), func(i int) bool { return l.batches[i].due.After(due) })
	l.batches = slices.Insert(l.batches, at, b)
}

// take removes a batch that is due: the first of several rows, else the first row
// that was never sent by itself, since both may be innocent, else the first. It
// returns nil if nothing is due.
func (l *lane) take(now time.Time) *batch {
	n := sort.Search(len(l.batches), func(i int) bool { return l.batches[i].due.After(now) })
	if n == 0 {
		return nil
	}
	at := slices.IndexFunc(l.batches[:n], func(b *batch) bool { return len(b.records) > 1 })
	if at < 0 {
		at = slices.IndexFunc(l.batches[:n], func(b *batch) bool { return b.request == 0 })
	}
	return l.remove(max(at, 0))
}

func (l *lane) remove(at int) *batch {
	b := l.batches[at]
	l.batches = slices.Delete(l.batches, at, at+1)
	return b
}

// due returns when the first batch is due. Zero: the lane is empty.
func (l *lane) due() time.Time {
	if len(l.batches) == 0 {
		return time.Time{}
	}
	return l.batches[0].due
}

// draw removes one row, whenever it is due: the last one, or one at random. It
// passes over suspects if it can. nil: the lane is empty.
func (l *lane) draw(stored int64, last bool) *batch {
	from := slices.DeleteFunc(slices.Clone(l.batches), func(b *batch) bool { return b.isSuspect(stored) })
	if len(from) == 0 {
		from = l.batches
	}
	if len(from) == 0 {
		return nil
	}
	pick := rand.IntN
	if last {
		pick = func(n int) int { return n - 1 }
	}
	b := from[pick(len(from))]
	if len(b.records) == 1 {
		return l.remove(slices.Index(l.batches, b))
	}
	at, end := pick(len(b.records)), len(b.records)-1
	row := newBatch([]record{b.records[at]}, b)
	b.records[at], b.records[end] = b.records[end], record{} // moves no other row
	b.records = b.records[:end]
	b.text -= row.text
	return row
}

// join puts the batches together again, up to the size of a request, except
// those that stay apart: while the server stores nothing, batches are split that
// have nothing wrong with them.
func (l *lane) join(maxRows int, staysApart func(*batch) bool) {
	var joined, apart []*batch
	var target *batch // the one of joined that the next batch is added to
	for _, b := range l.batches {
		switch {
		case staysApart(b):
			apart = append(apart, b)
		case target != nil && target.hasRoom(len(b.records), b.text, maxRows):
			target.absorb(b)
		default:
			joined = append(joined, b)
			if target == nil || len(b.records) < len(target.records) {
				target = b
			}
		}
	}
	l.batches = nil
	for _, b := range append(joined, apart...) {
		l.push(b, b.due)
	}
}
