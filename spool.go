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

	// firstBlock is the number of the first block. Files of dead processes have
	// numbers from 1.
	firstBlock = 1 << 40
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
//	n   in block n: in the buffer or in a current file; if n < first, in another
//	    file, of which n may be the number
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
	files   spool.State

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
	const capacity = bufferBytes + bufferBytes/4 // they don't grow, since that takes long
	d.mirror = &mirror{
		delivery: d, columns: c.columns.inFile(), first: firstBlock, written: firstBlock, next: firstBlock,
		rows: make([]byte, 0, capacity), spare: make([]byte, 0, capacity),
	}
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
	if !m.failed || !time.Now().Before(m.due) {
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

// wakeLocked is called after each answer of the server: files may have to go,
// there is room for rows of dead processes, or time has passed. As Close begins,
// it has files of dead processes looked for.
func (m *mirror) wakeLocked(look bool) {
	if m == nil {
		return
	}
	if look && !m.failed {
		m.due = time.Time{}
	}
	m.startLocked()
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
	current := m.files.Current > 0 && m.first <= n && n < m.written
	other := (m.files.Retired || m.files.Reading > 0) && (r.block < 0 || 0 < n && n < m.first)
	return current || other, m.closed && m.running
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
		m.doLocked(m.spool.Close)
		m.closed = true
	}
	m.running = false
	d.changed.Broadcast()
}

// doLocked uses the disk, without the lock. A failure is logged, and the disk is
// left alone for a while.
func (m *mirror) doLocked(use func() error) (ok bool) {
	m.delivery.mu.Unlock()
	err := use()
	files := m.spool.State()
	m.delivery.mu.Lock()
	m.files = files
	if now := time.Now(); err != nil {
		m.failed, m.due = true, now.Add(spoolPause)
		m.delivery.report.fault(logSpool, err, now)
	}
	return err == nil
}

// stepLocked does a part of what there is to do. It sets again if there is more.
func (m *mirror) stepLocked() {
	if now := time.Now(); !now.Before(m.due) {
		m.failed, m.due = false, now.Add(spoolPause)
		m.doLocked(m.spool.Look)
	}
	m.replayLocked()
	stats, q := &m.delivery.stats, int64(m.delivery.config.queueBytes)
	switch {
	case m.closed:
	case stats.Pending == 0: // so all files go but the one that is being read
		m.rows, m.behind = m.rows[:0], false
		m.first, m.written = m.next, m.next
		if m.files.Current > 0 || m.files.Retired {
			m.doLocked(func() error { return errors.Join(m.spool.Retire(), m.spool.Discard()) })
		}
	case m.failed:
	case !m.copyLocked() && m.files.Retired: // no pending row is in these alone
		m.again = m.doLocked(m.spool.Discard) || m.again
	case !m.files.Retired && m.files.Current > min(q*7/4, min(q/4, 4<<20)+4*stats.PendingBytes): // much is not pending
		m.doLocked(m.spool.Retire)
		m.first, m.again = m.written, true
	case len(m.rows) > 0:
		m.writeLocked()
	}
}

// writeLocked writes a block.
func (m *mirror) writeLocked() {
	rows := m.rows
	m.rows, m.spare = m.spare[:0], nil
	m.next++
	ok := m.doLocked(func() error { return m.spool.Append(rows) })
	m.spare = rows
	if m.closed {
		return
	}
	if ok {
		m.written, m.again = m.next, true
		return
	}
	// Some blocks are lost: their rows are copied when the disk is used again.
	lost := m.written
	if m.files.Current == 0 {
		lost = m.first
		m.first, m.written = m.next, m.next
	}
	m.rows, m.behind = m.rows[:0], true
	m.delivery.eachPendingLocked(func(r *record) {
		if r.block >= lost {
			r.block = 0
		} else if r.block <= -lost {
			r.block = firstBlock - 1 // still in another file
		}
	})
}

// copyLocked adds the pending rows that no current file has to the next block, and
// reports whether there were any.
func (m *mirror) copyLocked() (copied bool) {
	if !m.behind && !m.files.Retired {
		return false
	}
	m.behind = false
	m.delivery.eachPendingLocked(func(r *record) {
		n := max(r.block, -r.block)
		switch {
		case n >= m.first:
			if n < m.written {
				r.block = n // the copy is on disk
			}
		case n > 0 && (!m.files.Retired || n == m.files.Reading):
		case len(m.rows) >= bufferBytes:
			m.behind, copied = m.behind || n == 0, true
		default:
			m.bufferLocked(r)
			copied = true
		}
	})
	return copied
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
		var err error
		m.doLocked(func() error {
			row, columns, err = m.spool.Next()
			return nil
		})
		if err == io.EOF {
			return
		}
		now := time.Now()
		if err == nil {
			err = m.queueLocked(row, columns, now)
		}
		if err != nil {
			d.report.fault(logReplay, err, now)
		}
	}
	m.again = true
}

// queueLocked queues a row of a dead process, unless no column takes its values.
func (m *mirror) queueLocked(row []byte, columns string, now time.Time) error {
	d := m.delivery
	r, err := d.config.readRow(row, columns, m.columns)
	if err != nil {
		return m.spool.Keep()
	}
	if d.cause == nil { // else the next process reads it
		d.number = nextNumber(d.number, now)
		r.number, r.block = d.number, m.files.Reading
		d.stats.Replayed++
		d.queueLocked(&r, now)
	}
	return nil
}

// eachPendingLocked calls f for every row that is queued or in flight.
func (d *delivery) eachPendingLocked(f func(*record)) {
	for _, b := range d.batchesLocked() {
		for i := range b.records {
			if !b.done {
				f(&b.records[i])
			}
		}
	}
}
