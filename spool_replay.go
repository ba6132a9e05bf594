package docevents

import (
	"encoding/json"
	"io"
	"slices"
	"time"

	"github.com/docevents/docevents-go/internal/row"
)

// replayRows is the maximum number of rows of dead processes that the mirror queues in
// one step. This number is small, because the step queues them before it writes new
// rows to disk.
const replayRows = 100

// hasRoomLocked reports whether rows of dead processes may be queued. Once Close has
// stopped waiting, it returns false. Half of the queue is left for new rows, because
// rows of dead processes can wait on disk.
func (d *delivery) hasRoomLocked() bool {
	return d.cause == nil && 2*d.stats.Pending < int64(d.config.queueEvents) && 2*d.stats.PendingBytes < int64(d.config.queueBytes)
}

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

// queueLocked queues a row of a dead process. b is the encoded row, and oldColumns
// describes the columns of that process. If the row doesn't fit this process's columns,
// queueLocked doesn't queue it, and the spool keeps the row's file and adds .kept to
// its name.
func (m *mirror) queueLocked(b []byte, oldColumns string, now time.Time) error {
	d := m.delivery
	r, err := d.config.readRow(b, oldColumns, m.columns)
	if err != nil {
		return m.spool.Keep()
	}
	if d.cause == nil { // if Close has stopped waiting, the row stays in its segment
		d.number = nextNumber(d.number, now)
		r.number, r.block = d.number, -m.files.Reading
		d.stats.Replayed++
		d.queueLocked(&r, now)
	}
	return nil
}

// inFile describes the columns as JSON, for the spool's segments. If two processes have
// the same description, each can send the other's rows unchanged.
func (c *columns) inFile() string {
	b, _ := json.Marshal(c.Columns) // can't fail
	return string(b)
}

// readRow decodes b, a row that another process has written. oldColumns and newColumns
// are the results of inFile in that process and in this one. If they differ, values
// move:
//
//   - If a field no longer has a column, its value moves to Extra, under the name of
//     its former column.
//   - If a column of Extra now belongs to a field and contains a string, the string
//     moves to that field.
//
// If the row still doesn't fit the new columns, readRow returns an error.
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
	open.types.Open = true // the table decides whether the type is valid
	return newRecord(&e, &open)
}
