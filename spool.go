package docevents

import (
	"crypto/sha256"
	"strings"
	"time"

	"github.com/docevents/docevents-go/internal/row"
	"github.com/docevents/docevents-go/internal/spool"
)

const (
	// spoolPause is the time between two searches for files of dead processes. After a
	// failure, the mirror waits just as long before it writes to the disk again.
	spoolPause = 30 * time.Second

	// No row is added to a buffer of bufferBytes or more.
	bufferBytes = 1 << 20
)

// A mirror keeps a copy of every pending row on disk, in files that are called
// segments. It also replays rows: it queues the rows that dead processes left on disk.
// Without WithSpool, it does nothing.
//
//	addLocked --> buffer --> current segment
//	                ^               |
//	     copyLocked |               | it is too large, or no row is pending
//	                |               v
//	                +------- retired segment --> removed when its pending rows are copied
//	                                ^
//	                                | it was read to its end
//	             queue <-- segment of a dead process
//
// Only current segments take new rows. copyLocked adds two kinds of pending rows to the
// buffer: rows of retired segments, and rows that aren't on disk because a write failed
// or the buffer was full.
//
// One goroutine uses the disk, without holding the mutex, and ends when there is
// nothing to do. It writes the buffer with one call to Append, as a block. Blocks are
// numbered from 1.
//
// record.block is the place of a pending row. If the row was copied, record.old is its
// previous place. A place is a number n. If n is positive, it is the number of a block,
// and the fields "first" and "written" tell where this block is:
//
//	n >= written          in the buffer, or in the block that is being written
//	first <= n < written  in a current segment
//	0 < n < first         in a retired segment
//	n == 0                not on disk
//	n < 0                 in a segment of a dead process; -1 is the first segment read
type mirror struct {
	delivery *delivery
	columns  string // describes the columns of new rows, as inFile does

	// Only the goroutine uses these.
	spool   *spool.Spool
	writing []byte // the block that is being written, or an unused buffer

	// delivery.mu guards these.
	open    bool // segments may be written and removed; false without WithSpool and after Close
	running bool // the goroutine exists
	again   bool // the goroutine must take another step before it ends
	closing bool // the goroutine must write every pending row, and then close the spool

	rows    []byte      // the buffer
	behind  bool        // at least one pending row is neither on disk nor in the buffer
	first   int64       // the first block of the current segments
	written int64       // the block after their last block
	next    int64       // the block that the buffer becomes when it is written
	files   spool.State // the spool's state after the last use of the disk

	failed bool      // the disk failed, so nothing is written until m.due
	due    time.Time // when to look for segments of dead processes
}

// openMirror starts the mirror if there is a spool. It does no I/O: the goroutine looks
// for rows to replay.
func (d *delivery) openMirror(restURL string) {
	c := d.config
	if c.spoolDir == "" {
		return
	}
	project := sha256.Sum256([]byte(strings.Join([]string{row.Version, restURL, c.schema, c.table}, " ")))
	columns := c.columns.inFile()
	d.mirror = mirror{
		delivery: d, columns: columns, spool: spool.New(c.spoolFiles, c.spoolDir, project, columns, 2*int64(c.queueBytes)),
		open: true, first: 1, written: 1, next: 1,
	}
	d.mirror.wakeLocked(false) // no other goroutine has d yet, so the lock isn't needed
}

// addLocked adds a new row to the buffer and wakes the goroutine to write it. If the
// buffer is full, or older rows are still waiting for room in the buffer, copyLocked
// adds the row later.
func (m *mirror) addLocked(r *record) {
	if !m.open {
		return
	}
	if m.behind = m.behind || len(m.rows) >= bufferBytes; !m.behind {
		m.bufferLocked(r)
	}
	if !m.failed || !time.Now().Before(m.due) { // while the disk fails, the goroutine would have nothing to do
		m.wakeLocked(false)
	}
}

func (m *mirror) bufferLocked(r *record) {
	m.rows = spool.Frame(m.rows, r.Append)
	r.block, r.old = m.next, r.block
}

// wakeLocked makes the goroutine take a step. If search is true and the disk works, the
// step looks for segments of dead processes, even before m.due.
func (m *mirror) wakeLocked(search bool) {
	if search && !m.failed {
		m.due = time.Time{}
	}
	m.again = true
	if m.open && !m.running {
		m.running = true
		go m.run()
	}
}

// isBusyLocked reports whether the goroutine is at work. Close waits for the goroutine,
// because it may still queue rows of dead processes.
func (m *mirror) isBusyLocked() bool { return m.running }

// closeLocked makes the goroutine write all pending rows. It waits until the goroutine
// has ended, or until deadline. After deadline, the goroutine begins no further read or
// write of rows. But a write that hangs may still succeed.
func (m *mirror) closeLocked(deadline time.Time) {
	m.closing, m.failed = true, false
	m.wakeLocked(false)
	for m.running && time.Now().Before(deadline) {
		m.delivery.changed.Wait()
	}
	m.open = false
}

// holdsLocked returns two results. onDisk is true if r is on disk, so another process
// will find it there. mayBeOnDisk is true if Close has stopped waiting for the
// goroutine because the disk hangs, so r may still get to the disk.
func (m *mirror) holdsLocked(r *record) (onDisk, mayBeOnDisk bool) {
	return m.hasLocked(r.block) || m.hasLocked(r.old), m.running && !m.open
}

// hasLocked reports whether a row with the given place is on disk.
func (m *mirror) hasLocked(block int64) bool {
	if block >= m.first {
		return block < m.written && m.files.Current > 0
	}
	return block != 0 && (m.files.Retired || m.files.Reading > 0)
}

// run is the body of the goroutine. It takes steps until there is nothing to do.
func (m *mirror) run() {
	d := m.delivery
	d.mu.Lock()
	defer d.mu.Unlock()
	for m.again && m.open {
		m.again = false
		m.stepLocked()
	}
	if m.closing {
		m.doLocked(m.spool.Close)
		m.open = false
	}
	m.running = false
	d.changed.Broadcast()
}

// doLocked calls doIO without the lock. If doIO fails, doLocked logs the failure, and
// nothing is written for spoolPause.
func (m *mirror) doLocked(doIO func() error) (ok bool) {
	m.delivery.mu.Unlock()
	err := doIO()
	files := m.spool.State()
	m.delivery.mu.Lock()
	m.files = files
	if now := time.Now(); err != nil {
		m.failed, m.due = true, now.Add(spoolPause)
		m.delivery.report.fault(logSpool, err, now)
	}
	return err == nil
}

// stepLocked looks for segments of dead processes if that is due, and queues some of
// their rows. Then it retires segments, removes retired segments, or writes the buffer.
// If there may be more to do, it sets m.again.
func (m *mirror) stepLocked() {
	if now := time.Now(); !now.Before(m.due) {
		m.failed, m.due = false, now.Add(spoolPause)
		m.doLocked(m.spool.Look)
	}
	m.replayLocked()
	stats, q := &m.delivery.stats, int64(m.delivery.config.queueBytes)
	// The current segments are retired when their size in bytes exceeds retireAt.
	// Unless the queue is almost full, retireAt is much larger than all pending rows
	// together, so most rows of the segments that are retired are already stored.
	// retireAt is always below the spool's own limit of 2*q.
	retireAt := min(q*7/4, min(q/4, 4<<20)+4*stats.PendingBytes)
	if stats.Pending == 0 {
		// All segments can be removed, and the rows in the buffer needn't be written.
		m.rows, m.behind, retireAt = m.rows[:0], false, 0
	}
	switch {
	case !m.open, m.failed && stats.Pending > 0:
	case m.files.Current > retireAt && !m.files.Retired: // wait until retired segments are removed, because the limit doesn't include them
		m.doLocked(m.spool.Retire)
		m.first, m.again = m.written, true
	case !m.copyLocked() && m.files.Retired: // no pending row is only in a retired segment
		m.again = m.doLocked(m.spool.Discard) || m.again
	case len(m.rows) > 0:
		m.writeLocked()
	}
}

// writeLocked writes the buffer to disk as a block. New rows may be added to the buffer
// during the write. If the write fails, the rows of the block and of the buffer get
// back their previous places. Then copyLocked adds these rows to a later block.
func (m *mirror) writeLocked() {
	m.rows, m.writing = m.writing[:0], m.rows
	m.next++
	if !m.doLocked(func() error { return m.spool.Append(m.writing) }) {
		m.rows, m.behind = m.rows[:0], true
		m.delivery.eachPendingLocked(func(r *record) {
			if !m.hasLocked(r.block) {
				r.block, r.old = r.old, 0
			}
		})
	}
	m.written, m.again = m.next, true
}

// copyLocked adds pending rows to the buffer until it is full, except rows that are
// already in the buffer, in a current segment, or in the segment that is being read.
// hadRows is true if there were rows to add, even if the buffer was full.
func (m *mirror) copyLocked() (hadRows bool) {
	if !m.behind && !m.files.Retired {
		return false
	}
	m.behind = false
	m.delivery.eachPendingLocked(func(r *record) {
		switch {
		case r.block >= m.first, r.block < 0 && r.block == -m.files.Reading: // the segment that is being read stays on disk until all its rows are queued
		case len(m.rows) >= bufferBytes:
			m.behind, hadRows = m.behind || r.block == 0, true
		default:
			m.bufferLocked(r)
			hadRows = true
		}
	})
	return hadRows
}

func (d *delivery) eachPendingLocked(f func(*record)) {
	for _, b := range d.batchesLocked() {
		for i := range b.records {
			if !b.done {
				f(&b.records[i])
			}
		}
	}
}
