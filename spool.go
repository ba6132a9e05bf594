package docevents

import (
	"encoding/binary"

	"github.com/google/uuid"
)

// parts are what a spool keeps of r. A new text goes to the end: rows without it
// are read as before.
func (r *record) parts() (ids [3]*uuid.UUID, numbers [2]*int64, texts [3]*string) {
	return [...]*uuid.UUID{&r.id, &r.documentID, &r.userID},
		[...]*int64{&r.createdAt, (*int64)(&r.duration)},
		[...]*string{(*string)(&r.eventType), &r.stage, &r.message}
}

// appendRecord appends what readRecord reads.
func appendRecord(buf []byte, r *record) []byte {
	ids, numbers, texts := r.parts()
	for _, id := range ids {
		buf = append(buf, id[:]...)
	}
	for _, number := range numbers {
		buf = binary.AppendVarint(buf, *number)
	}
	for _, text := range texts {
		buf = append(binary.AppendUvarint(buf, uint64(len(*text))), *text...)
	}
	return buf
}

// readRecord takes any bytes: that they are what was written is for the spool's
// checksums to tell.
func readRecord(b []byte) (r record) {
	ids, numbers, texts := r.parts()
	for _, id := range ids {
		b = b[copy(id[:], b):]
	}
	for _, number := range numbers {
		value, n := binary.Varint(b)
		*number, b = value, b[max(n, 0):]
	}
	for _, text := range texts {
		size, n := binary.Uvarint(b)
		b = b[max(n, 0):]
		size = min(size, uint64(len(b)))
		*text, b = string(b[:size]), b[size:]
	}
	return r
}
