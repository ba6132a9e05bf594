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
	// spoolPause is how long the disk is left alone after a failure, and how often
	// the mirror looks for files of dead processes while it is busy.
	spoolPause = 30 * time.Second

	// bufferBytes bounds the rows that wait to be written.
	bufferBytes = 1 << 20

	// firstBlock is the number of the first block. Files of dead processes have
	// numbers from 1.
	firstBlock = 1 << 40
)

// A mirror keeps pending rows on disk, and replays the rows that dead processes
// left there. It is nil without WithSpool. This is the way of a row:
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
// A block is the rows that are written at once. addLocked adds new rows to the
// next block. copyLocked adds pending rows that are in no current file: the rows
// of retired files, of blocks that could not be written, and rows that were
// recorded while the buffer was full or the disk had failed. So everything that
// is pending gets to the disk once that works again.
//
// One goroutine uses the disk, without the lock, and runs while there is
// something to do. What is on disk is known even if it hangs: record.block is
//
//	0   for a row that is not on disk
//	n   for a row in block n. Blocks from first on are in the current file, if they
//	    are below written, or else not on disk. A lower n is a row in another file;
//	    if its process is dead, n is the file's number.
//	-n  for a row in block n that is in another file until that block is written
type mirror struct {
	delivery *delivery
	columns  string       // of new rows
	spool    *spool.Spool // the goroutine's
	spare    []byte       // likewise, for the next block

	// delivery.mu guards these.
	running bool
	again   bool // the goroutine has to take another step
	closing bool // Close waits until the goroutine has written everything
	closed  bool // nothing is written or removed from now on

	rows    []byte // the buffer: block next
	behind  bool   // a pending row is neither on disk nor in the buffer
	first   int64
	written int64
	next    int64
	files   spool.State

	failed bool      // nothing is written before due
	due    time.Time // when to look for files of dead processes
}

// openMirror is called before anything is recorded. It does no I/O, but starts the
// goroutine, which looks for rows to replay.
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

// addLocked is called for each recorded row. The goroutine writes it.
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

// bufferLocked adds r to the next block. The row gets its id, which is sent later.
func (m *mirror) bufferLocked(r *record) {
	r.identify()
	m.rows = spool.Frame(m.rows, func(buf []byte) []byte { return r.Append(buf) })
	if r.block == 0 {
		r.block = m.next
	} else {
		r.block = -m.next
	}
}

// wakeLocked is called after each answer of the server, since files may be removed
// then, rows of dead processes may have room, or a pause may be over. look: look
// for files of dead processes now, as Close does when it begins.
func (m *mirror) wakeLocked(look bool) {
	if m == nil {
		return
	}
	if look && !m.failed {
		m.due = time.Time{}
	}
	m.startLocked()
}

// isBusyLocked reports whether rows may be replayed soon. Close waits for them.
func (m *mirror) isBusyLocked() bool { return m != nil && m.running }

// closeLocked waits until all pending rows are on disk, until deadline at most.
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

// holdsLocked reports, at the end of Close, whether another process will find r on
// disk, and whether it may, since r may be written although the disk hangs.
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

// doLocked calls use, which does I/O, without the lock. After a failure, which it
// logs, nothing is written for a while.
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

// stepLocked does one thing, and sets again if there may be more to do.
func (m *mirror) stepLocked() {
	if now := time.Now(); !now.Before(m.due) {
		m.failed, m.due = false, now.Add(spoolPause)
		m.doLocked(m.spool.Look)
	}
	m.replayLocked()
	stats, q := &m.delivery.stats, int64(m.delivery.config.queueBytes)
	switch {
	case m.closed:
	case stats.Pending == 0: // remove all files but the one that is being read
		m.rows, m.behind = m.rows[:0], false
		m.first, m.written = m.next, m.next
		if m.files.Current > 0 || m.files.Retired {
			m.doLocked(func() error { return errors.Join(m.spool.Retire(), m.spool.Discard()) })
		}
	case m.failed:
	case !m.copyLocked() && m.files.Retired: // their pending rows are in current files
		m.again = m.doLocked(m.spool.Discard) || m.again
	case !m.files.Retired && m.files.Current > min(q*7/4, min(q/4, 4<<20)+4*stats.PendingBytes): // most of its rows are stored
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
	// The rows of some blocks are not on disk: copyLocked adds them to later ones.
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
			r.block = firstBlock - 1 // in a retired file
		}
	})
}

// copyLocked adds the pending rows that are in no current file to the next block,
// and reports whether there are any. A file that is being read keeps its rows: the
// next process would read them again.
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
				r.block = n // drops the sign: the copy is on disk
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
