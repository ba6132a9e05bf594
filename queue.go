package docevents

import (
	"math/rand/v2"
	"slices"
	"time"
)

// maxBatchText bounds the text of a request's rows, in bytes.
const maxBatchText = 1 << 20

// A batch is what one request carries. It has no memory of its own: what
// happened to a row is kept in the row, so that rows can change batches.
//
// delivery.mu guards its fields; while it is in flight its sender alone reads
// the records, and nobody writes them.
type batch struct {
	records []record
	text    int  // bytes of text
	apart   bool // under suspicion, or too large for one request: never joined with others
	proven  bool // others were delivered since: apart through outages, too

	request int64       // number of the request that carries it
	sent    time.Time   // when that was sent
	known   int64       // the newest request that had delivered anything then
	timer   *time.Timer // while it waits on a time of its own
	due     time.Time   // likewise
	home    *batch      // of a probe: where its row came from
	twin    *batch      // the other half of a refused batch: where one half is fine, the other isn't
	refused time.Time   // when a row was first refused for its data
	refusal error       // why
	tried   bool        // a suspect that has failed since Close began
	gone    bool        // settled: delivered or dropped
}

func newBatch(records []record, apart, proven bool) *batch {
	b := &batch{records: records, apart: apart, proven: proven}
	for i := range records {
		b.text += records[i].text()
	}
	return b
}

// compact lets go of an array that is far too large for what is left in it.
func (b *batch) compact() {
	if cap(b.records) > 2*len(b.records) {
		b.records = slices.Clone(b.records)
	}
}

// halves cuts b in two, each with an array of its own: neither holds on to the
// other's rows.
func (b *batch) halves(proven bool) (first, second *batch) {
	for i := range b.records {
		b.records[i].strikes, b.records[i].tries = 0, 0 // each size is judged by itself
	}
	at := len(b.records) / 2
	return newBatch(slices.Clone(b.records[:at]), true, proven), newBatch(slices.Clone(b.records[at:]), true, proven)
}

// without splits the rows at the given places off b, each into a batch of its
// own.
func (b *batch) without(places []int, proven bool) (rest *batch, lone []*batch) {
	kept := make([]record, 0, len(b.records)-len(places))
	for i := range b.records {
		if slices.Contains(places, i) {
			r := b.records[i]
			r.strikes, r.tries, r.refused = 0, 1, true
			lone = append(lone, newBatch([]record{r}, true, proven))
		} else {
			kept = append(kept, b.records[i])
		}
	}
	return newBatch(kept, true, proven), lone
}

// A queue holds what is not in flight: the batches that can be sent, in order,
// and those that wait on a time of their own. delivery.mu guards it.
type queue struct {
	maxRows int
	ready   []*batch
	open    *batch // in ready, takes the next record; nil: none
	waiting map[*batch]bool
}

// add appends a copy of r.
func (q *queue) add(r *record) {
	text := r.text()
	b := q.open
	if full := b != nil && len(b.records) >= q.maxRows; b == nil || full || b.text+text > maxBatchText {
		b = &batch{}
		if full { // then so will this one be, most likely: nothing to copy as it grows
			b.records = make([]record, 0, q.maxRows)
		}
		q.open = b
		q.ready = append(q.ready, b)
	}
	b.records = append(b.records, *r)
	b.text += text
}

// take removes the batch at the head of the queue, joined by those behind it
// as far as one request may carry them, suspects between them passed over: what
// an outage or a search for a bad row leaves doesn't come back as requests of a
// few rows. Where no more suspects may be sent it is the first batch that isn't
// apart.
func (q *queue) take(suspects bool) *batch {
	at := 0
	for !suspects && at < len(q.ready) && q.ready[at].apart {
		at++
	}
	if at == len(q.ready) {
		return nil
	}
	b := q.ready[at]
	copy(q.ready[1:], q.ready[:at])
	q.ready[0] = b
	q.pop()
	if b.apart || len(b.records) >= q.maxRows { // as most are in a long queue
		return b
	}
	full := false
	q.ready = slices.DeleteFunc(q.ready, func(next *batch) bool {
		full = full || !next.apart && (len(b.records)+len(next.records) > q.maxRows || b.text+next.text > maxBatchText)
		if full || next.apart {
			return false
		}
		b.records = append(b.records, next.records...)
		b.text += next.text
		if next == q.open {
			q.open = nil
		}
		return true
	})
	return b
}

func (q *queue) pop() *batch {
	b := q.ready[0]
	q.ready[0] = nil // lets go of it: the slice moves on
	q.ready = q.ready[1:]
	if b == q.open {
		q.open = nil
	}
	return b
}

func (q *queue) push(batches ...*batch) { q.ready = append(q.ready, batches...) }

// insert puts b behind the next.
func (q *queue) insert(b *batch) { q.ready = slices.Insert(q.ready, min(1, len(q.ready)), b) }

// remove takes b out of the batches that can be sent, and says whether it was
// there.
func (q *queue) remove(b *batch) bool {
	i := slices.Index(q.ready, b)
	if i < 0 {
		return false
	}
	q.ready = slices.Delete(q.ready, i, i+1)
	if b == q.open {
		q.open = nil
	}
	return true
}

// end ends b's wait, if it is still waiting.
func (q *queue) end(b *batch) bool {
	if !q.waiting[b] {
		return false
	}
	delete(q.waiting, b)
	b.timer.Stop()
	return true
}

// wake ends every wait.
func (q *queue) wake() {
	for b := range q.waiting {
		q.end(b)
		q.push(b)
	}
}

// forgive takes back what was held against batches without proof: when an
// outage begins, it may have been the outage. What failed in it is as whole as
// before when it ends. Batches with proof go on waiting, or every outage would
// be one more failure of each. It returns when the first of those that waited
// was due; zero: none did.
func (q *queue) forgive() (due time.Time) {
	for b := range q.waiting {
		if due.IsZero() || b.due.Before(due) {
			due = b.due
		}
		if !b.proven {
			q.end(b)
			q.push(b)
		}
	}
	for _, b := range q.ready {
		b.forgive()
	}
	return due
}

func (b *batch) forgive() {
	b.refusal = nil
	if !b.proven {
		b.apart, b.twin = false, nil
	}
}

// draw takes out the row that tries whether an outage is over: drawn by lot, so
// that bad rows can't hold up the others wherever they stand; from what hasn't
// failed yet where there is such a batch, from lone suspects only where there
// is nothing else.
func (q *queue) draw() *batch {
	rows, best := 0, 0
	var home *batch
	for _, b := range q.ready {
		chance := 1
		if b.records[0].failed == 0 {
			chance = 2
		} else if len(b.records) == 1 && b.proven {
			chance = 0
		}
		if chance > best {
			rows, best = 0, chance
		}
		if chance == best {
			rows += len(b.records)
			if rand.IntN(rows) < len(b.records) {
				home = b
			}
		}
	}
	if home == nil || len(home.records) == 1 {
		if home != nil {
			q.remove(home)
		}
		return home
	}
	if home == q.open { // what comes next hasn't failed
		q.open = nil
	}
	// The last row takes its place: the array's size goes on telling what it holds.
	at, last := rand.IntN(len(home.records)), len(home.records)-1
	row := home.records[at]
	home.records[at], home.records[last] = home.records[last], record{}
	home.records = home.records[:last]
	home.text -= row.text()
	probe := newBatch([]record{row}, true, false)
	probe.home = home
	return probe
}

// giveBack puts the row of a failed probe to where it came from, if that is
// still waiting, and any other batch to the end.
func (q *queue) giveBack(b *batch) {
	home := b.home
	b.home = nil
	b.forgive()
	if home == nil || b.apart || !slices.Contains(q.ready, home) || len(home.records) >= q.maxRows || home.text+b.text > maxBatchText {
		q.push(b)
		return
	}
	home.records = append(home.records, b.records...)
	home.records[0], home.records[len(home.records)-1] = b.records[0], home.records[0] // it counts as failed from now on
	home.text += b.text
}
