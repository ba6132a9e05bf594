package docevents

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/google/uuid"
)

var errNoRecord = errors.New("the spool holds a row that this version can't read")

// texts are r's in the order in which a spool keeps them. A new one goes to the
// end: rows without it are read as before.
func (r *record) texts() []*string {
	return []*string{(*string)(&r.eventType), &r.stage, &r.message}
}

// appendRecord appends what a spool keeps of r: ids, numbers, and each text
// behind its length.
func appendRecord(buf []byte, r *record) []byte {
	for _, id := range []uuid.UUID{r.id, r.documentID, r.userID} {
		buf = append(buf, id[:]...)
	}
	buf = binary.BigEndian.AppendUint64(buf, uint64(r.createdAt))
	buf = binary.BigEndian.AppendUint64(buf, uint64(r.duration))
	for _, text := range r.texts() {
		buf = append(binary.AppendUvarint(buf, uint64(len(*text))), *text...)
	}
	return buf
}

// readRecord reads what appendRecord wrote.
func readRecord(b []byte) (r record, err error) {
	const fixed = 3*len(r.id) + 8 + 8
	if len(b) < fixed {
		return record{}, errNoRecord
	}
	copy(r.id[:], b)
	copy(r.documentID[:], b[16:])
	copy(r.userID[:], b[32:])
	r.createdAt = int64(binary.BigEndian.Uint64(b[48:]))
	r.duration = time.Duration(binary.BigEndian.Uint64(b[56:]))
	b = b[fixed:]
	for _, text := range r.texts() {
		size, n := binary.Uvarint(b)
		if n < 0 || size > uint64(len(b)-n) {
			return record{}, errNoRecord
		}
		*text, b = string(b[n:n+int(size)]), b[n+int(size):]
	}
	if len(b) > 0 {
		return record{}, errNoRecord
	}
	return r, nil
}
