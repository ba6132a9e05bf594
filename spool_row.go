package docevents

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// spoolVersion is a part of the names of the spool's files, so that a version of
// this library reads no rows of another form.
const spoolVersion = "2"

// What a row's flags in the spool say.
const (
	rowWithoutDocument = 1 << iota
	rowWithoutUser
)

// appendRecord appends r in the form that readRecord reads. No text but ids has a
// NUL, since PostgreSQL takes none.
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

// readRecord takes any bytes; what is missing is zero. The spool's checksums
// tell whether they are the bytes that were written.
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

// inFile describes the columns, for the spool's files.
func (c *columns) inFile() string {
	var names []string
	for _, name := range c.names() {
		names = append(names, *name)
	}
	return fmt.Sprint(strings.Join(append(names, c.Extra...), ","), ",", c.TextIDs, ",", c.own)
}

// readRow returns a row that was written under the columns that inFile described.
// If these are not today's, a value whose field has lost its column, or has got
// one, moves to the column of the same name. The error is about a value that no
// column takes, or a column that needs one.
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
	any := *c
	any.types.Open = true // the table decides
	return newRecord(&e, &any)
}
