package docevents

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// replayRows is how many rows are replayed before new rows are written.
const replayRows = 100

// spoolVersion is the version of the format of rows and files. The names of files
// depend on it, so files in another format are left alone.
const spoolVersion = "2"

// These are the flags of a row on disk.
const (
	rowWithoutDocument = 1 << iota
	rowWithoutUser
)

// hasRoomLocked reports whether rows of dead processes may be queued. They may fill
// only half of the queue, because they can wait on disk and new rows can't.
func (d *delivery) hasRoomLocked() bool {
	return d.cause == nil && 2*d.stats.Pending < int64(d.config.queueEvents) && 2*d.stats.PendingBytes < int64(d.config.queueBytes)
}

// replayLocked queues up to replayRows rows of dead processes.
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

// queueLocked queues a row of a dead process. A row that doesn't fit this process's
// columns stays in its file.
func (m *mirror) queueLocked(row []byte, columns string, now time.Time) error {
	d := m.delivery
	r, err := d.config.readRow(row, columns, m.columns)
	if err != nil {
		return m.spool.Keep()
	}
	if d.cause == nil { // once Close has stopped waiting, the row stays in its file
		d.number = nextNumber(d.number, now)
		r.number, r.block = d.number, m.files.Reading
		d.stats.Replayed++
		d.queueLocked(&r, now)
	}
	return nil
}

// appendRecord appends r in the format that readRecord reads. A NUL ends each text,
// since PostgreSQL allows none in a text. The field ids contains a NUL, so it comes
// last and has no end mark.
func appendRecord(buf []byte, r *record) []byte {
	buf = append(append(append(buf, r.id[:]...), r.documentID[:]...), r.userID[:]...)
	buf = binary.LittleEndian.AppendUint64(buf, uint64(r.createdAt))
	buf = binary.LittleEndian.AppendUint64(buf, uint64(r.duration))
	var flags byte
	if r.noDocument {
		flags |= rowWithoutDocument
	}
	if r.noUser {
		flags |= rowWithoutUser
	}
	buf = append(buf, flags)
	for _, text := range [...]string{string(r.eventType), r.stage, r.message, r.extra} {
		buf = append(append(buf, text...), 0)
	}
	return append(buf, r.ids...)
}

// readRecord reads any bytes without an error, and fields that are missing are
// zero. The spool's checksums have shown that these bytes were written.
func readRecord(b []byte) (r record) {
	var head [65]byte
	texts := string(b[copy(head[:], b):])
	r.id, r.documentID, r.userID = uuid.UUID(head[:16]), uuid.UUID(head[16:32]), uuid.UUID(head[32:48])
	r.createdAt = int64(binary.LittleEndian.Uint64(head[48:]))
	r.duration = time.Duration(binary.LittleEndian.Uint64(head[56:]))
	r.noDocument, r.noUser = head[64]&rowWithoutDocument != 0, head[64]&rowWithoutUser != 0
	for _, text := range []*string{(*string)(&r.eventType), &r.stage, &r.message, &r.extra} {
		*text, texts, _ = strings.Cut(texts, "\x00")
	}
	r.ids = texts
	return r
}

// inFile returns a description of the columns for the spool's files. If the
// descriptions of two processes are equal, one can read the other's rows unchanged.
func (c *columns) inFile() string {
	var names []string
	for _, name := range c.names() {
		names = append(names, *name)
	}
	return fmt.Sprint(strings.Join(append(names, c.Extra...), ","), ",", c.TextIDs, ",", c.own)
}

// readRow returns a row of a file. written is inFile of the process that wrote the
// row, and today is inFile of this process. If they differ, values move to the
// column of the same name: from a field that has no column now to Event.Extra, or
// from Event.Extra to a field that has a column now. If a value fits no column, or a
// column lacks a value, readRow returns an error.
func (c *config) readRow(b []byte, written, today string) (record, error) {
	r := readRecord(b)
	r.partial = len(c.columns.Extra) > 0
	if written == today {
		return r, nil
	}
	e, names := r.event(), strings.Split(written, ",")
	e.Extra = map[string]any{}
	for name, value := range decodeExtra(r.extra) {
		if value != nil || slices.Contains(c.columns.Extra, name) {
			e.Extra[name] = value
		}
	}
	for i, field := range [...]*string{1: &e.DocumentID, 2: &e.UserID, 3: (*string)(&e.Type), 5: &e.ErrorMessage, 6: &e.Stage} {
		if field == nil {
			continue
		}
		column := *c.columns.names()[i]
		if text, has := e.Extra[column].(string); has && *field == "" {
			*field = text
			delete(e.Extra, column)
		} else if column == noColumn && *field != "" {
			e.Extra[names[i]], *field = *field, ""
		}
	}
	if c.columns.Duration == noColumn && e.Duration > 0 {
		e.Extra[names[4]], e.Duration = e.Duration.Milliseconds(), 0
	}
	now := *c
	now.types.Open = true // the table decides
	return newRecord(&e, &now)
}
