package docevents

import (
	"crypto/sha256"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/docevents/docevents-go/internal/spool"
)

const (
	// spoolPause is how long the disk is not written after a failure, and the time
	// between two looks for files of dead processes.
	spoolPause = 30 * time.Second

	// bufferBytes bounds the rows that wait to be written.
	bufferBytes = 1 << 20

	// replayRows is how many rows are replayed before new ones are written.
	replayRows = 100

	firstBlock = 2
)

// A mirror writes pending rows to disk, and replays the rows that dead processes
// have left there. Without WithSpool it is nil, and does nothing.
//
//	addLocked -> block -> current file  -> removed, when no row is pending, or
//	               ^          |            when the pending ones have been copied
//	               |          | too large          ^
//	    copyLocked |          v                    |
//	               +----- other file --------------+
//	                          ^
//	                          | read to its end
//	               file of a dead process -> queue
//
// A block is the rows that are written at once. Rows come into one as they are
// recorded, or by copyLocked, which finds the pending rows that no current file
// has: those of other files, those of a failed write, and those that came while
// the buffer was full, because the disk was slow or had failed. So everything
// pending is on disk again once the disk is.
//
// record.block says where a row is:
//
//	0   on no disk
//	n   in block n: in the buffer, or in a current file, or, if n < first, in
//	    another file
//	-n  likewise, and in another file until block n is written
//
// One goroutine uses the disk, without the lock. It runs while there is something
// to do, so the spool's state is known also while the disk hangs.
type mirror struct {
	delivery *delivery
	columns  string       // of new rows
	spool    *spool.Spool // the goroutine's
	spare    []byte       // likewise, for the next block

	// delivery.mu guards these.
	running bool
	again   bool // something has changed since the goroutine's last step began
	closing bool // Close waits for the goroutine
	closed  bool // nothing more is written or removed

	rows    []byte // block next, the buffer
	behind  bool   // some pending rows are on no disk and not in the buffer
	first   int64  // current files have the blocks from first on
	written int64  // those below are on disk
	next    int64
	others  bool // there are files beside the current ones

	failed bool      // the disk is not written until due
	due    time.Time // when to look for files of dead processes
}

// openMirror is called before anything is recorded. It does no I/O: the goroutine
// looks for rows to replay.
func (d *delivery) openMirror(restURL string) {
	c := d.config
	if c.spoolDir == "" {
		return
	}
	project := sha256.Sum256([]byte(strings.Join([]string{spoolVersion, restURL, c.schema, c.table}, " ")))
	d.mirror = &mirror{delivery: d, columns: c.columns.inFile(), first: firstBlock, written: firstBlock, next: firstBlock}
	d.mirror.spool = spool.New(c.spoolFiles, c.spoolDir, project, d.mirror.columns, 2*int64(c.queueBytes))
	d.mirror.startLocked() // nobody else has d yet
}

// addLocked has r written.
func (m *mirror) addLocked(r *record) {
	if m == nil {
		return
	}
	if m.behind = m.behind || len(m.rows) >= bufferBytes; !m.behind {
		m.bufferLocked(r)
	}
	if !m.failed { // else the next answer, or the end of an outage, wakes it
		m.startLocked()
	}
}

// bufferLocked adds r to the next block, with the id that it is sent with.
func (m *mirror) bufferLocked(r *record) {
	r.identify()
	m.rows = spool.Frame(m.rows, func(buf []byte) []byte { return appendRecord(buf, r) })
	if r.block == 0 {
		r.block = m.next
	} else {
		r.block = -m.next
	}
}

// wakeLocked is called after each answer of the server: files may have to go, there is room for rows of dead processes, or time has passed.
func (m *mirror) wakeLocked() {
	if m != nil {
		m.startLocked()
	}
}

// lookLocked has files of dead processes looked for now.
func (m *mirror) lookLocked() {
	if m != nil && !m.failed {
		m.due = time.Time{}
		m.startLocked()
	}
}

// isBusyLocked reports whether more rows may be replayed, which Close waits for.
func (m *mirror) isBusyLocked() bool { return m != nil && m.running }

// closeLocked waits until the pending rows are on disk, or for deadline.
func (m *mirror) closeLocked(deadline time.Time) {
	if m == nil {
		return
	}
	m.closing, m.failed = true, false
	m.startLocked()
	for m.running && time.Now().Before(deadline) {
		m.delivery.changed.Wait()
	}
	m.closed = true
}

// holdsLocked reports whether the next process finds r, and whether it may, since
// the disk hangs.
func (m *mirror) holdsLocked(r *record) (holds, may bool) {
	if m == nil {
		return false, false
	}
	n := max(r.block, -r.block)
	holds = m.first <= n && n < m.written || m.others && (r.block < 0 || 0 < n && n < m.first)
	return holds, m.closed && m.running
}

func (m *mirror) startLocked() {
	m.again = true
	if !m.running && !m.closed {
		m.running = true
		go m.run()
	}
}

func (m *mirror) run() {
	d := m.delivery
	d.mu.Lock()
	defer d.mu.Unlock()
	for m.again && !m.closed {
		m.again = false
		m.stepLocked()
	}
	if m.closing {
		var current, others bool
		m.doLocked(func() error { current, others = m.spool.Close(); return nil })
		if !m.closed && !current {
			m.written = m.first
		}
		m.others = m.others && (m.closed || others)
		m.closed = true
	}
	m.running = false
	d.changed.Broadcast()
}

// doLocked uses the disk, without the lock.
func (m *mirror) doLocked(use func() error) error {
	m.delivery.mu.Unlock()
	err := use()
	_, others := m.spool.Others()
	m.delivery.mu.Lock()
	m.others = others
	return err
}

// checkLocked logs a failure of the disk, and has it left alone for a while.
func (m *mirror) checkLocked(err error) {
	if now := time.Now(); err != nil {
		m.failed, m.due = true, now.Add(spoolPause)
		m.delivery.report.fault(logSpool, err, now)
	}
}

// stepLocked does a part of what there is to do. It sets again if that isn't all.
func (m *mirror) stepLocked() {
	if now := time.Now(); !m.closing && !now.Before(m.due) {
		m.failed, m.due = false, now.Add(spoolPause)
		m.checkLocked(m.doLocked(m.spool.Look))
	}
	m.replayLocked()
	switch {
	case m.closed:
	case m.delivery.stats.Pending == 0: // no file but the one that is being read has pending rows
		m.rows, m.behind = m.rows[:0], false
		if retired, _ := m.spool.Others(); retired || m.first < m.next {
			m.first, m.written = m.next, m.next
			m.checkLocked(m.doLocked(func() error { m.spool.Retire(); return m.spool.Discard() }))
		}
	case !m.failed:
		m.writeLocked()
	}
}

// writeLocked writes a block, and removes or retires files.
func (m *mirror) writeLocked() {
	copied := m.copyLocked()
	if rows := m.rows; len(rows) > 0 {
		m.rows, m.spare = m.spare[:0], nil
		m.next++
		err := m.doLocked(func() error { return m.spool.Append(rows) })
		m.spare = rows
		switch {
		case m.closed:
			return
		case err != nil:
			m.forgetLocked(err)
			return
		}
		m.written = m.next
	}
	m.again = m.again || copied
	q, size := int64(m.delivery.config.queueBytes), m.spool.Size()
	switch retired, _ := m.spool.Others(); {
	case m.closing || retired && copied:
	case retired: // no pending row is in these files alone
		m.checkLocked(m.doLocked(m.spool.Discard))
	case size > min(q*7/4, min(q/4, 4<<20)+4*m.delivery.stats.PendingBytes): // much of it is not pending
		m.doLocked(func() error { m.spool.Retire(); return nil })
		m.first, m.again = m.written, true
	}
}

// copyLocked adds the pending rows that no current file has to the next block, and
// reports whether there were any.
func (m *mirror) copyLocked() (copied bool) {
	retired, _ := m.spool.Others()
	retired = retired && !m.closing
	if !m.behind && !retired {
		return false
	}
	m.behind = false
	m.delivery.eachPendingLocked(func(r *record) {
		n := max(r.block, -r.block)
		switch {
		case n >= m.first:
			r.block = n // on disk by now, if it is a copy
		case n > 0 && !retired:
		case len(m.rows) >= bufferBytes:
			m.behind, copied = m.behind || n == 0, true
		default:
			m.bufferLocked(r)
			copied = true
		}
	})
	return copied
}

// forgetLocked takes the blocks for lost that were not written, or, if the file was
// removed, all of the current files.
func (m *mirror) forgetLocked(err error) {
	lost := m.written
	if errors.Is(err, spool.ErrRemoved) {
		lost = m.first
		m.first, m.written = m.next, m.next
	}
	m.rows, m.behind = m.rows[:0], true
	m.delivery.eachPendingLocked(func(r *record) {
		if r.block >= lost {
			r.block = 0
		} else if r.block <= -lost {
			r.block = 1 // still in another file
		}
	})
	m.checkLocked(err)
}

// hasRoomLocked reports whether rows of dead processes may be queued. They can
// wait on disk: half of the queue is left to new rows.
func (d *delivery) hasRoomLocked() bool {
	return d.cause == nil && 2*d.stats.Pending < int64(d.config.queueEvents) && 2*d.stats.PendingBytes < int64(d.config.queueBytes)
}

// replayLocked queues rows of dead processes.
func (m *mirror) replayLocked() {
	d := m.delivery
	for range replayRows {
		if m.closing || !d.hasRoomLocked() {
			return
		}
		var row []byte
		var columns string
		err := m.doLocked(func() (err error) {
			row, columns, err = m.spool.Next()
			return err
		})
		if err == io.EOF {
			return
		}
		var r record
		if err == nil {
			r, err = d.config.readRow(row, columns, m.columns)
			switch {
			case err != nil:
				err = m.spool.Keep()
			case d.cause == nil: // else the next process reads it
				d.number = nextNumber(d.number, time.Now())
				r.number, r.block = d.number, 1
				d.stats.Replayed++
				d.queueLocked(&r, time.Now())
			}
		}
		if err != nil {
			d.report.fault(logReplay, err, time.Now())
		}
	}
	m.again = true
}

// eachPendingLocked calls f for every row that is queued or in flight.
func (d *delivery) eachPendingLocked(f func(*record)) {
	visit := func(b *batch) {
		for i := range b.records {
			if !b.gone {
				f(&b.records[i])
			}
		}
	}
	for _, b := range d.queue.ready {
		visit(b)
	}
	for b := range d.queue.waiting {
		visit(b)
	}
	for _, b := range d.inFlight {
		visit(b)
	}
}
