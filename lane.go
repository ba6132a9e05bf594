package docevents

import (
	"math/rand/v2"
	"slices"
	"sort"
	"time"
)

const (
	// maxBatchText is the maximum size of the text in one request, in bytes.
	maxBatchText = 1 << 20

	// openAfter is how many failures in a row open a lane's circuit breaker.
	openAfter = 5
)

// A batch is the rows of one request, with the history of their failures. delivery.mu
// guards its fields.
//
// While a batch is in flight, its records are read without the mutex, so they must not
// be changed. Only record.block and record.old may change, because they aren't sent:
// they are places in the spool.
type batch struct {
	records []record
	text    int // the size of the records' text, in bytes
	history

	due  time.Time // its rows are not sent before this time, except as a probe
	done bool      // all rows are stored, dropped or kept, so a late answer changes nothing

	// The last request that carried the batch.
	request        int64     // the number of that request; the first request has number 1
	sent           time.Time // when that request was sent
	storedWhenSent int64     // the newest request that had stored rows by then
}

// newBatch returns a batch of records that come from another batch, parent. The new
// batch inherits a part of parent's history (see ofPart).
func newBatch(records []record, parent *batch) *batch {
	b := &batch{records: records, history: parent.history.ofPart()}
	for i := range records {
		b.text += records[i].Text()
	}
	return b
}

// hasRoom reports whether b still fits into one request after moreRows rows with
// moreText bytes of text are added to it.
func (b *batch) hasRoom(moreRows, moreText, maxRows int) bool {
	return len(b.records)+moreRows <= maxRows && b.text+moreText <= maxBatchText
}

// isSuspect reports whether b is a suspect: a single row that has a strike, or that was
// rejected alone before other rows were stored. lastStored is health.stored.
func (b *batch) isSuspect(lastStored int64) bool {
	return len(b.records) == 1 && (b.strikes > 0 || b.aloneMark > 0 && lastStored > b.aloneMark)
}

// keepsFailing reports whether b is a single row that has failed although other rows
// were stored. That includes rows that aren't suspects yet, because a rejected row
// can't become a suspect if no good rows are left. lastStored is health.stored.
func (b *batch) keepsFailing(lastStored int64) bool {
	return b.isSuspect(lastStored) || len(b.records) == 1 && b.isRetry() && lastStored >= b.failMark
}

// mayBeBad reports whether b is a single row that has a strike or was rejected alone.
func (b *batch) mayBeBad() bool { return b.strikes > 0 || b.aloneMark > 0 }

// isRetry reports whether b has failed before.
func (b *batch) isRetry() bool { return b.failMark > 0 }

// cut divides b into two batches. isFirst reports whether the row at an index belongs
// to the first batch. The batches don't share an array, so the text of one batch can be
// garbage collected while the other still waits.
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

// absorb appends the rows of another batch to b. It erases b's rejections and
// closeTries, because the new rows were not part of these failures.
func (b *batch) absorb(other *batch) {
	b.records = append(b.records, other.records...)
	b.text += other.text
	b.failMark = max(b.failMark, other.failMark)
	b.aloneMark, b.rejectMark, b.rejection, b.closeTries = 0, 0, "", 0
}

// A lane is a queue of batches, sorted by the time at which they are due. Each lane has
// a circuit breaker. There are two lanes: the fresh lane for rows that were never sent,
// and the retry lane for rows that have failed. delivery.mu guards both.
type lane struct {
	batches []*batch

	// failures is the number of consecutive failures that blame the server. It returns
	// to 0 when the server stores a row.
	failures int
}

// isOpen reports whether the lane's breaker is open. Then only probes are sent from the
// lane.
func (l *lane) isOpen() bool { return l.failures >= openAfter }

// add appends a copy of r to the last batch, or to a new batch if the last one is full.
func (l *lane) add(r *record, maxRows int) {
	var last *batch
	if n := len(l.batches); n > 0 {
		last = l.batches[n-1]
	}
	if last == nil || !last.hasRoom(1, r.Text(), maxRows) {
		full := last != nil && len(last.records) >= maxRows
		last = &batch{}
		if full { // the new batch will probably fill up as well, so allocate all of it now
			last.records = make([]record, 0, maxRows)
		}
		l.batches = append(l.batches, last)
	}
	last.records = append(last.records, *r)
	last.text += r.Text()
}

// push sets b.due, and adds b to the lane, which is sorted by due times.
func (l *lane) push(b *batch, due time.Time) {
	b.due = due
	at := sort.Search(len(l.batches), func(i int) bool { return l.batches[i].due.After(due) })
	l.batches = slices.Insert(l.batches, at, b)
}

// take removes a batch that is due and returns it. If no batch is due, it returns nil.
// Batches of several rows come first. Single rows that have already been sent alone
// come last, because they are probably bad.
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

// due returns the time at which the first batch is due, or zero if the lane is empty.
func (l *lane) due() time.Time {
	if len(l.batches) == 0 {
		return time.Time{}
	}
	return l.batches[0].due
}

// draw removes one row from the lane for a probe, even if the row isn't due. It avoids
// rows that may be bad, unless the lane has no others. It takes the last row if newest
// is true, and otherwise a random one. If the lane is empty, draw returns nil.
func (l *lane) draw(newest bool) *batch {
	// A probe with a bad row fails even if the server works.
	from := slices.DeleteFunc(slices.Clone(l.batches), func(b *batch) bool {
		return b.mayBeBad() || len(b.records) == 1 && b.request > 0
	})
	if len(from) == 0 {
		from = l.batches
	}
	if len(from) == 0 {
		return nil
	}
	pick := rand.IntN
	if newest {
		pick = func(n int) int { return n - 1 }
	}
	b := from[pick(len(from))]
	if len(b.records) == 1 {
		return l.remove(slices.Index(l.batches, b))
	}
	at, end := pick(len(b.records)), len(b.records)-1
	row := newBatch([]record{b.records[at]}, b)
	b.records[at], b.records[end] = b.records[end], record{} // the last row fills the gap
	b.records = b.records[:end]
	b.text -= row.text
	return row
}

// join merges small batches into larger ones, up to the size of a request. Batches for
// which staysApart returns true are not merged. When the server starts to fail, batches
// of good rows are split, because they seem to contain a bad row. join undoes these
// splits.
func (l *lane) join(maxRows int, staysApart func(*batch) bool) {
	var joined, apart []*batch
	var target *batch // if the next batch fits, it is added to this one
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
