package docevents

import (
	"encoding/json"
	"io"
	"slices"
	"time"

	"github.com/docevents/docevents-go/internal/row"
)

// replayRows bounds the rows that are replayed in one step of the mirror, because new
// rows are written between two steps.
const replayRows = 100

// hasRoomLocked reports whether rows of dead processes may be queued. Half of the
// queue is left to new rows, because rows of dead processes can wait on disk.
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
		var b []byte
		var columns string
		var err error
		m.doLocked(func() error {
			b, columns, err = m.spool.Next()
			return nil
		})
		if err == io.EOF {
			return
		}
		now := time.Now()
		if err == nil {
			err = m.queueLocked(b, columns, now)
		}
		if err != nil {
			d.report.fault(logReplay, err, now)
		}
	}
	m.again = true
}

// queueLocked queues a row of a dead process. b is the row in a segment, and columns
// describes the columns of that process. If the row doesn't fit this process's columns,
// it isn't queued, and its segment stays on disk.
func (m *mirror) queueLocked(b []byte, columns string, now time.Time) error {
	d := m.delivery
	r, err := d.config.readRow(b, columns, m.columns)
	if err != nil {
		return m.spool.Keep()
	}
	if d.cause == nil { // otherwise Close has stopped waiting, and the row stays in its segment
		d.number = nextNumber(d.number, now)
		r.number, r.block = d.number, -m.files.Reading
		d.stats.Replayed++
		d.queueLocked(&r, now)
	}
	return nil
}

// inFile returns a description of the columns, as JSON, for the spool's segments. If the
// descriptions of two processes are equal, each process can send the rows of the other
// without changes.
func (c *columns) inFile() string {
	b, _ := json.Marshal(c.Columns) // can't fail
	return string(b)
}

// readRow decodes the row b of a segment. oldColumns is the result of inFile in the
// process that wrote the row, and newColumns is the result of inFile in this process. If
// they differ, values move:
//
//   - If a field has no column now, its value moves to Event.Extra, under the name that
//     its column had.
//   - If Event.Extra has a value for a column that now belongs to a field, the value
//     moves to that field.
//
// If the row doesn't fit the new columns even so, readRow returns an error.
func (c *config) readRow(b []byte, oldColumns, newColumns string) (record, error) {
	r := record{Row: row.Read(b)}
	r.Partial = len(c.columns.Extra) > 0
	if oldColumns == newColumns {
		return r, nil
	}
	var before Columns
	_ = json.Unmarshal([]byte(oldColumns), &before) // inFile's text is valid
	now, e := c.columns.Columns, r.event()
	e.Extra = map[string]any{}
	for name, value := range row.DecodeExtra(r.Extra) {
		if value != nil || slices.Contains(now.Extra, name) { // NULL needs no column
			e.Extra[name] = value
		}
	}
	for _, field := range []struct {
		text    *string
		was, is string // its columns
	}{
		{&e.DocumentID, before.DocumentID, now.DocumentID},
		{&e.UserID, before.UserID, now.UserID},
		{(*string)(&e.Type), before.Type, now.Type},
		{&e.ErrorMessage, before.ErrorMessage, now.ErrorMessage},
		{&e.Stage, before.Stage, now.Stage},
	} {
		if text, has := e.Extra[field.is].(string); has && *field.text == "" {
			*field.text = text
			delete(e.Extra, field.is)
		} else if field.is == noColumn && *field.text != "" {
			e.Extra[field.was], *field.text = *field.text, ""
		}
	}
	if now.Duration == noColumn && e.Duration > 0 {
		e.Extra[before.Duration], e.Duration = e.Duration.Milliseconds(), 0
	}
	open := *c
	open.types.Open = true // the table decides
	return newRecord(&e, &open)
}
