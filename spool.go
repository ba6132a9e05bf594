package docevents

import (
	"crypto/sha256"
	"encoding/binary"
	"io"
	"time"

	"github.com/docevents/docevents-go/internal/spool"
	"github.com/google/uuid"
)

const (
	// replayRows is how many rows are replayed before the mirror looks for
	// others to write.
	replayRows = 1000

	// pageRows is when a page is full: nothing is copied as pages become more.
	pageRows = 256
	maxSpare = 32 // pages that are kept for the next rows, some 1.5 MiB
)

// A mirror has what is pending on disk, too, and replays what dead processes
// have left there. The delivery calls addLocked for a new row, settleLocked for
// a settled one, and closeLocked and holdsLocked as it ends. Its goroutine ends
// when there is nothing to do. Without WithSpool it is nil, and does nothing.
type mirror struct {
	delivery *delivery
	spool    *spool.Spool // the goroutine's, until closed is set
	rows     []byte       // the goroutine's, as are these, for the next page
	numbers  []int64

	// delivery.mu guards these; the spool is not used under it.
	running bool
	closing bool
	closed  bool
	full    [][]record // pages, to be written
	fresh   []record   // the page behind them
	spare   [][]record // for the next
	bytes   int        // of all that
	settled []int64    // numbers
}

// openMirror is called before anything is recorded. It does no I/O: that is for
// the goroutine, which looks for rows to replay.
func (d *delivery) openMirror(restURL string) {
	if d.config.spoolDir == "" {
		return
	}
	project := sha256.Sum256([]byte(restURL + " " + d.config.schema + " " + d.config.table))
	d.mirror = &mirror{delivery: d, spool: spool.New(d.config.spoolDir, project), running: true}
	go d.mirror.run()
}

// addLocked has a copy of r written, with the id that it is sent by. Copies are
// bounded as the queue is: while the disk hangs, further ones are not made.
func (m *mirror) addLocked(r *record) {
	if m == nil {
		return
	}
	r.identify()
	if m.bytes += recordBytes + r.text(); m.bytes <= m.delivery.config.queueBytes {
		if len(m.fresh) == cap(m.fresh) {
			if len(m.fresh) > 0 {
				m.full = append(m.full, m.fresh)
			}
			if n := len(m.spare) - 1; n >= 0 {
				m.fresh, m.spare = m.spare[n], m.spare[:n]
			} else {
				m.fresh = make([]record, 0, pageRows)
			}
		}
		m.fresh = append(m.fresh, *r)
	}
	m.startLocked()
}

func (m *mirror) settleLocked(r *record) {
	if m != nil {
		m.settled = append(m.settled, r.number)
		m.startLocked()
	}
}

func (m *mirror) startLocked() {
	if !m.running && !m.closed {
		m.running = true
		go m.run()
	}
}

func (m *mirror) run() {
	d := m.delivery
	d.mu.Lock()
	defer d.mu.Unlock()
	for more := true; more || len(m.fresh)+len(m.settled) > 0; {
		pages, settled, room := append(m.full, m.fresh), m.settled, d.hasRoomLocked()
		m.full, m.fresh, m.bytes, m.settled = nil, nil, 0, nil
		d.mu.Unlock()
		for _, p := range pages {
			m.write(p)
		}
		m.spool.Settle(settled) // what was added before it was settled is written by now
		more = room && m.replay()
		d.mu.Lock()
		for _, p := range pages {
			if cap(p) > 0 && len(m.spare) < maxSpare {
				m.spare = append(m.spare, p[:0])
			}
		}
	}
	if m.closing {
		d.mu.Unlock()
		m.spool.Close()
		d.mu.Lock()
		m.closed = true
	}
	m.running = false
	d.changed.Broadcast()
}

// write writes a page.
func (m *mirror) write(p []record) {
	m.rows, m.numbers = m.rows[:0], m.numbers[:0]
	for i := range p {
		m.rows = spool.Frame(m.rows, func(buf []byte) []byte { return appendRecord(buf, &p[i]) })
		m.numbers = append(m.numbers, p[i].number)
	}
	if err := m.spool.Append(m.rows, m.numbers); err != nil {
		m.delivery.report.fault(logSpool, err, time.Now())
	}
	clear(p) // lets go of their text
}

// replay queues rows of dead processes, and says whether to go on.
func (m *mirror) replay() (more bool) {
	d := m.delivery
	more = true
	for n := 0; more && n < replayRows; n++ {
		row, err := m.spool.Next()
		if err == io.EOF {
			return false
		} else if err != nil {
			d.report.fault(logReplay, err, time.Now())
			continue
		}
		r := readRecord(row)
		columns := &d.config.columns // which may have changed
		r.partial = len(columns.Extra) > 0
		r.noDocument, r.noUser = columns.DocumentID == noColumn, columns.UserID == noColumn
		d.mu.Lock()
		d.stats.Replayed++
		d.number = nextNumber(d.number, time.Now())
		r.number = d.number
		d.queueLocked(&r, time.Now())
		more = d.hasRoomLocked()
		d.mu.Unlock()
		m.spool.Keep(r.number)
	}
	return more
}

// hasRoomLocked says whether rows of dead processes may be queued. They can wait
// on disk: half of the queue is left to new ones.
func (d *delivery) hasRoomLocked() bool {
	return !d.closed && 2*d.stats.Pending < int64(d.config.queueEvents) && 2*d.stats.PendingBytes < int64(d.config.queueBytes)
}

// closeLocked waits until what is pending is on disk, or for deadline.
func (m *mirror) closeLocked(deadline time.Time) {
	if m == nil {
		return
	}
	m.closing = true
	m.startLocked()
	for !m.closed && time.Now().Before(deadline) {
		m.delivery.changed.Wait()
	}
}

// holdsLocked says whether the next process finds r.
func (m *mirror) holdsLocked(r *record) bool {
	return m != nil && m.closed && m.spool.Holds(r.number)
}

// appendRecord appends what readRecord reads. A new text goes to the end: rows
// without it are read as before.
func appendRecord(buf []byte, r *record) []byte {
	buf = append(buf, r.id[:]...)
	buf = append(buf, r.documentID[:]...)
	buf = append(buf, r.userID[:]...)
	buf = binary.LittleEndian.AppendUint64(buf, uint64(r.createdAt))
	buf = binary.LittleEndian.AppendUint64(buf, uint64(r.duration))
	buf = appendString(buf, string(r.eventType))
	buf = appendString(buf, r.stage)
	buf = appendString(buf, r.message)
	return appendString(buf, r.extra)
}

func appendString(buf []byte, text string) []byte {
	return append(binary.LittleEndian.AppendUint32(buf, uint32(len(text))), text...)
}

// readRecord takes any bytes, what is missing being zero: that they are what was
// written is for the spool's checksums to tell.
func readRecord(b []byte) (r record) {
	for _, id := range []*uuid.UUID{&r.id, &r.documentID, &r.userID} {
		b = b[copy(id[:], b):]
	}
	for _, number := range []*int64{&r.createdAt, (*int64)(&r.duration)} {
		n := [8]byte{}
		b = b[copy(n[:], b):]
		*number = int64(binary.LittleEndian.Uint64(n[:]))
	}
	for _, text := range []*string{(*string)(&r.eventType), &r.stage, &r.message, &r.extra} {
		n := [8]byte{}
		b = b[copy(n[:4], b):]
		size := min(int(binary.LittleEndian.Uint64(n[:])), len(b))
		*text, b = string(b[:size]), b[size:]
	}
	return r
}
