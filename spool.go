package docevents

import (
	"crypto/sha256"
	"encoding/binary"
	"io"
	"strings"
	"time"

	"github.com/docevents/docevents-go/internal/spool"
	"github.com/google/uuid"
)

const (
	// replayRows is how many rows are replayed before the mirror looks for
	// others to write.
	replayRows = 100

	// pageBytes are written at once. Nothing is copied as pages become more.
	pageBytes = 64 << 10
)

// A mirror has what is pending on disk, too, and replays what dead processes
// have left there. The delivery calls addLocked for a new row, settleLocked for
// a settled one, and closeLocked and holdsLocked as it ends. Its goroutine ends
// when there is nothing to do. Without WithSpool it is nil, and does nothing.
type mirror struct {
	delivery *delivery
	spool    *spool.Spool // the goroutine's, until closed is set
	spare    []byte       // likewise, for the next page

	// delivery.mu guards these; the spool is not used under it.
	running bool
	closing bool
	closed  bool
	full    [][]byte // pages, to be written
	fresh   []byte   // the page behind them
	page    uint32   // the number of the first of these
	settled []uint32 // numbers of the rows' pages
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

// addLocked has r written, with the id that it is sent by. Pages are bounded as
// the queue is: while the disk hangs, further ones are not made.
func (m *mirror) addLocked(r *record) {
	if m == nil {
		return
	}
	r.identify()
	if len(m.full)*pageBytes < m.delivery.config.queueBytes {
		if most := recordBytes + r.text(); cap(m.fresh)-len(m.fresh) < most {
			m.full = append(m.full, m.fresh)
			m.fresh = make([]byte, 0, max(pageBytes, most))
		}
		m.fresh = spool.Frame(m.fresh, func(buf []byte) []byte { return appendRecord(buf, r) })
		r.page = m.page + uint32(len(m.full))
	}
	m.startLocked()
}

func (m *mirror) settleLocked(r *record) {
	if m != nil {
		m.settled = append(m.settled, r.page)
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
		pages, page, settled, room := append(m.full, m.fresh), m.page, m.settled, d.hasRoomLocked()
		m.full, m.fresh, m.settled = nil, m.spare[:0], nil
		m.page += uint32(len(pages))
		d.mu.Unlock()
		for _, rows := range pages {
			if err := m.spool.Append(rows, page); err != nil {
				d.report.fault(logSpool, err, time.Now())
			}
			m.spare = rows
			page++
		}
		m.spool.Settle(settled) // what was added before it was settled is written by now
		more = room && m.replay()
		d.mu.Lock()
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

// replay queues rows of dead processes, and says whether to go on.
func (m *mirror) replay() (more bool) {
	d := m.delivery
	more = true
	for n := 0; more && n < replayRows; n++ {
		row, key, err := m.spool.Next()
		if err == io.EOF {
			return false
		} else if err != nil {
			d.report.fault(logReplay, err, time.Now())
			continue
		}
		r := readRecord(row)
		columns := &d.config.columns // which may have changed
		r.partial = len(columns.Extra) > 0
		r.noDocument = r.noDocument || columns.DocumentID == noColumn
		r.noUser = r.noUser || columns.UserID == noColumn
		d.mu.Lock()
		d.number = nextNumber(d.number, time.Now())
		r.number, r.page = d.number, key
		if !d.closed { // else it stays for the next process
			d.stats.Replayed++
			d.queueLocked(&r, time.Now())
		}
		more = d.hasRoomLocked()
		d.mu.Unlock()
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
	return m != nil && m.closed && m.spool.Holds(r.page)
}

// appendRecord appends what readRecord reads. No text has a NUL in it, since
// PostgreSQL takes none. A new text goes to the end: rows without it are read as
// before.
func appendRecord(buf []byte, r *record) []byte {
	buf = append(append(append(buf, r.id[:]...), r.documentID[:]...), r.userID[:]...)
	buf = binary.LittleEndian.AppendUint64(buf, uint64(r.createdAt))
	buf = binary.LittleEndian.AppendUint64(buf, uint64(r.duration))
	for _, text := range [...]string{string(r.eventType), r.stage, r.message, r.extra} {
		buf = append(append(buf, text...), 0)
	}
	document, user := r.textIDs()
	return appendSpooledID(appendSpooledID(buf, document, r.noDocument), user, r.noUser)
}

// appendSpooledID appends "-" for NULL, "=" and the id for text, and nothing if
// the id is a UUID, each with a NUL at its end.
func appendSpooledID(buf []byte, text string, null bool) []byte {
	switch {
	case null:
		buf = append(buf, '-')
	case text != "":
		buf = append(append(buf, '='), text...)
	}
	return append(buf, 0)
}

// readRecord takes any bytes, what is missing being zero: that they are what was
// written is for the spool's checksums to tell.
func readRecord(b []byte) (r record) {
	var head [64]byte
	texts := string(b[copy(head[:], b):])
	r.id, r.documentID, r.userID = uuid.UUID(head[:16]), uuid.UUID(head[16:32]), uuid.UUID(head[32:48])
	r.createdAt = int64(binary.LittleEndian.Uint64(head[48:]))
	r.duration = time.Duration(binary.LittleEndian.Uint64(head[56:]))
	for _, text := range []*string{(*string)(&r.eventType), &r.stage, &r.message, &r.extra} {
		*text, texts, _ = strings.Cut(texts, "\x00")
	}
	document, texts, _ := strings.Cut(texts, "\x00")
	user, _, _ := strings.Cut(texts, "\x00")
	r.noDocument, r.noUser = document == "-", user == "-"
	if document, user = readSpooledID(document), readSpooledID(user); document+user != "" {
		r.ids = document + "\x00" + user
	}
	return r
}

// readSpooledID returns the id if it is text.
func readSpooledID(s string) string {
	if text, ok := strings.CutPrefix(s, "="); ok {
		return text
	}
	return ""
}
