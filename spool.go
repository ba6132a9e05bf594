package docevents

import (
	"crypto/sha256"
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
)

// A mirror keeps a copy of pending rows on disk, and replays the rows that dead
// processes left there. It does nothing without WithSpool. A row takes this path:
//
//	addLocked -> buffer -> current file --> removed once no row is pending
//	               ^          |
//	    copyLocked |          | too large
//	               |          v
//	               +---- retired file ---> removed once its pending rows are copied
//	                          ^
//	                          | read to its end
//	         queue <- file of a dead process
//
// addLocked adds new rows to the buffer. copyLocked adds pending rows that are in no
// current file: rows in retired files, rows that could not be written, and rows that
// were recorded while the buffer was full or the disk had failed. So every pending
// row gets to the disk once the disk works again.
//
// One goroutine uses the disk, without holding the lock. It runs while there is
// something to do. It writes the buffer as a block, with one call of Append. The
// blocks are numbered from 1. record.block says which block a row is in, so the
// mirror knows which rows are on disk even if the disk hangs:
//
//	n >= written          The row is in the buffer, or it is being written.
//	first <= n < written  The row is in a current file.
//	0 < n < first         The row is in a retired file.
//	0                     The row is not on disk.
//	-n                    The row is in the n-th file of a dead process.
//
// A row that is copied is in two places. Then record.old is its first place.
type mirror struct {
	delivery *delivery
	columns  string       // the columns of new rows
	spool    *spool.Spool // only the goroutine uses it
	writing  []byte       // only the goroutine uses it: the rows that Append writes

	// delivery.mu guards these.
	open    bool // files may be written and removed: there is a spool, and Close has not ended
	running bool // the goroutine exists
	again   bool // the goroutine has to take another step
	closing bool // Close waits until the goroutine has written every pending row

	rows    []byte // the buffer
	behind  bool   // a pending row is neither on disk nor in the buffer
	first   int64  // the first block of the current files
	written int64  // the block after the last one on disk
	next    int64  // the block that the buffer becomes
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
	columns := c.columns.inFile()
	d.mirror = mirror{
		delivery: d, columns: columns, spool: spool.New(c.spoolFiles, c.spoolDir, project, columns, 2*int64(c.queueBytes)),
		open: true, first: 1, written: 1, next: 1,
	}
	d.mirror.wakeLocked(false) // nobody else has d yet
}

// addLocked buffers a recorded row, which the goroutine writes.
func (m *mirror) addLocked(r *record) {
	if !m.open {
		return
	}
	if m.behind = m.behind || len(m.rows) >= bufferBytes; !m.behind {
		m.bufferLocked(r)
	}
	m.wakeLocked(false)
}

// bufferLocked adds r to the buffer. It gives r its id, since the row on disk must
// have the id that is sent.
func (m *mirror) bufferLocked(r *record) {
	r.identify()
	m.rows = spool.Frame(m.rows, r.Append)
	r.block, r.old = m.next, r.block
}

// wakeLocked makes the goroutine take a step. It is called after each answer of the
// server, since files may be removed then, rows of dead processes may have room in
// the queue, or the pause after a failure may be over. If look is set, as by Close
// when it begins, the goroutine looks for files of dead processes now.
func (m *mirror) wakeLocked(look bool) {
	if look && !m.failed {
		m.due = time.Time{}
	}
	m.again = true
	if m.open && !m.running {
		m.running = true
		go m.run()
	}
}

// isBusyLocked reports whether the goroutine may replay rows soon. Close waits for
// such rows.
func (m *mirror) isBusyLocked() bool { return m.running }

// closeLocked waits until all pending rows are on disk, or until deadline.
func (m *mirror) closeLocked(deadline time.Time) {
	m.closing, m.failed = true, false
	m.wakeLocked(false)
	for m.running && time.Now().Before(deadline) {
		m.delivery.changed.Wait()
	}
	m.open = false
}

// holdsLocked is called at the end of Close. holds reports whether r is on disk,
// where another process will find it. may reports whether r could still get there,
// because the disk hangs and a write may be under way.
func (m *mirror) holdsLocked(r *record) (holds, may bool) {
	return m.hasLocked(r.block) || m.hasLocked(r.old), m.running
}

// hasLocked reports whether the rows of a place, as in record.block, are on disk.
func (m *mirror) hasLocked(block int64) bool {
	if block >= m.first {
		return block < m.written && m.files.Current > 0
	}
	return block != 0 && (m.files.Retired || m.files.Reading > 0)
}

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
	enough := min(q*7/4, min(q/4, 4<<20)+4*stats.PendingBytes) // in larger files, most rows are stored
	if stats.Pending == 0 {
		m.rows, m.behind, enough = m.rows[:0], false, 0
	}
	switch {
	case !m.open, m.failed && stats.Pending > 0:
	case m.files.Current > enough:
		m.doLocked(m.spool.Retire)
		m.first, m.again = m.written, true
	case !m.copyLocked() && m.files.Retired: // the pending rows of retired files are in current files
		m.again = m.doLocked(m.spool.Discard) || m.again
	case len(m.rows) > 0:
		m.writeLocked()
	}
}

// writeLocked writes the buffer as a block.
func (m *mirror) writeLocked() {
	m.rows, m.writing = m.writing[:0], m.rows
	m.next++
	if !m.doLocked(func() error { return m.spool.Append(m.writing) }) {
		m.rows, m.behind = m.rows[:0], true // copyLocked adds the rows to a later block
		m.delivery.eachPendingLocked(func(r *record) {
			if !m.hasLocked(r.block) {
				r.block, r.old = r.old, 0
			}
		})
	}
	m.written, m.again = m.next, true
}

// copyLocked adds the pending rows that are in no current file to the buffer, and
// reports whether there are any. It doesn't copy rows of the file that is being
// read, since that file is still there if this process dies.
func (m *mirror) copyLocked() (copied bool) {
	if !m.behind && !m.files.Retired {
		return false
	}
	m.behind = false
	m.delivery.eachPendingLocked(func(r *record) {
		switch {
		case r.block >= m.first, r.block < 0 && r.block == -m.files.Reading:
		case len(m.rows) >= bufferBytes:
			m.behind, copied = m.behind || r.block == 0, true
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
