package docevents

import (
	"crypto/sha256"
	"errors"
	"strings"
	"time"

	"github.com/docevents/docevents-go/internal/row"
	"github.com/docevents/docevents-go/internal/spool"
)

const (
	// spoolPause is how long the mirror doesn't use the disk after a failure, and
	// how often it looks for files of dead processes while it is busy.
	spoolPause = 30 * time.Second

	// bufferBytes bounds the rows that wait to be written to disk.
	bufferBytes = 1 << 20

	// firstBlock is the number of the first block. It is far above the numbers of
	// the files of dead processes, which count from 1.
	firstBlock = 1 << 40
)

// A mirror keeps a copy of pending rows on disk, and replays the rows that dead
// processes left there. It is nil without WithSpool. A row takes this path:
//
//	addLocked -> block -> current file --> removed once no row is pending
//	               ^          |
//	    copyLocked |          | too large
//	               |          v
//	               +---- retired file ---> removed once its pending rows are copied
//	                          ^
//	                          | read to its end
//	         queue <- file of a dead process
//
// A block is the rows that are written with one call of Append. addLocked adds
// new rows to the next block. copyLocked adds pending rows that are in no current
// file: rows of retired files, rows of blocks that could not be written, and rows
// that were recorded while the buffer was full or the disk had failed. So every
// pending row gets to the disk once the disk works again.
//
// One goroutine uses the disk, without holding the lock. It runs while there is
// something to do. record.block is kept in memory, so the mirror knows which rows
// are on disk even if the disk hangs:
//
//	0   The row is not on disk.
//	n   The row is in block n. If first <= n < written, the block is in the current
//	    file. If n >= written, it is not on disk yet. If n < first, the row is in
//	    another file. If that is the file of a dead process, n is its number.
//	-n  The row is in another file and is copied to block n. It counts as a row of
//	    the other file until block n is written.
type mirror struct {
	delivery *delivery
	columns  string       // the columns of new rows
	spool    *spool.Spool // only the goroutine uses it
	spare    []byte       // only the goroutine uses it: the buffer for the next block

	// delivery.mu guards these.
	running bool // the goroutine exists
	again   bool // the goroutine has to take another step
	closing bool // Close waits until the goroutine has written every pending row
	closed  bool // nothing is written or removed from now on

	rows    []byte // the buffer, which holds the rows of block next
	behind  bool   // a pending row is neither on disk nor in the buffer
	first   int64  // the first block of the current file
	written int64  // the block after the last one on disk
	next    int64  // the block that is written next
	files   spool.State

	failed bool      // the disk failed, and isn't used before due
	due    time.Time // when to look for files of dead processes
}

// openMirror is called before the first event is recorded. It does no I/O. It
// starts the goroutine, which looks for rows to replay.
func (d *delivery) openMirror(restURL string) {
	c := d.config
	if c.spoolDir == "" {
		return
	}
	project := sha256.Sum256([]byte(strings.Join([]string{row.Version, restURL, c.schema, c.table}, " ")))
	const capacity = bufferBytes + bufferBytes/4 // room for another row of any size: growing takes long
	d.mirror = &mirror{
		delivery: d, columns: c.columns.inFile(), first: firstBlock, written: firstBlock, next: firstBlock,
		rows: make([]byte, 0, capacity), spare: make([]byte, 0, capacity),
	}
	d.mirror.spool = spool.New(c.spoolFiles, c.spoolDir, project, d.mirror.columns, 2*int64(c.queueBytes))
	d.mirror.startLocked() // nobody else has d yet
}

// addLocked buffers a recorded row, which the goroutine writes.
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

// bufferLocked adds r to the next block. It gives r its id, since the row on disk
// must have the id that is sent.
func (m *mirror) bufferLocked(r *record) {
	r.identify()
	m.rows = spool.Frame(m.rows, func(buf []byte) []byte { return r.Append(buf) })
	if r.block == 0 {
		r.block = m.next
	} else {
		r.block = -m.next
	}
}

// wakeLocked starts the goroutine. It is called after each answer of the server:
// files may be removed then, rows of dead processes may have room in the queue, or
// the pause after a failure may be over. If look is set, as by Close when it
// begins, the goroutine looks for files of dead processes now.
func (m *mirror) wakeLocked(look bool) {
	if m == nil {
		return
	}
	if look && !m.failed {
		m.due = time.Time{}
	}
	m.startLocked()
}

// isBusyLocked reports whether the goroutine may replay rows soon. Close waits for
// such rows.
func (m *mirror) isBusyLocked() bool { return m != nil && m.running }

// closeLocked waits until all pending rows are on disk, or until deadline.
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

// holdsLocked is called at the end of Close. holds reports whether r is on disk,
// where another process will find it. may reports whether r could still get there,
// because the disk hangs and a write may be under way.
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

// doLocked calls use, which does I/O, without holding the lock. It logs a failure,
// and nothing is written for spoolPause then.
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

// stepLocked takes one step: it looks for files if that is due, replays some rows,
// and then removes, retires or writes. It sets again if there may be more to do.
func (m *mirror) stepLocked() {
	if now := time.Now(); !now.Before(m.due) {
		m.failed, m.due = false, now.Add(spoolPause)
		m.doLocked(m.spool.Look)
	}
	m.replayLocked()
	stats, q := &m.delivery.stats, int64(m.delivery.config.queueBytes)
	switch {
	case m.closed:
	case stats.Pending == 0: // remove all files except the one that is being read
		m.rows, m.behind = m.rows[:0], false
		m.first, m.written = m.next, m.next
		if m.files.Current > 0 || m.files.Retired {
			m.doLocked(func() error { return errors.Join(m.spool.Retire(), m.spool.Discard()) })
		}
	case m.failed:
	case !m.copyLocked() && m.files.Retired: // the pending rows of retired files are in current files
		m.again = m.doLocked(m.spool.Discard) || m.again
	case !m.files.Retired && m.files.Current > min(q*7/4, min(q/4, 4<<20)+4*stats.PendingBytes): // most of its rows are stored
		m.doLocked(m.spool.Retire)
		m.first, m.again = m.written, true
	case len(m.rows) > 0:
		m.writeLocked()
	}
}

// writeLocked writes the buffer as block next.
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
	// The rows of some blocks are not on disk. copyLocked adds them to later blocks.
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
			r.block = firstBlock - 1 // the row is in a retired file
		}
	})
}

// copyLocked adds the pending rows that are in no current file to the next block,
// and reports whether there are any. It doesn't copy rows of the file that is being
// read, since that file is still there if this process dies.
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
				r.block = n // removes the minus sign, since the copy is on disk
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

// eachPendingLocked calls f for every pending row, queued or in flight.
func (d *delivery) eachPendingLocked(f func(*record)) {
	for _, b := range d.batchesLocked() {
		for i := range b.records {
			if !b.done {
				f(&b.records[i])
			}
		}
	}
}
