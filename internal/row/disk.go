package row

import (
	"encoding/binary"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Version is the version of the format that Append writes. The names of the spool's
// files depend on it, so that a client ignores files in another format.
const Version = "2"

// The flags of a row on disk.
const (
	withoutDocument = 1 << iota
	withoutUser
)

// Append appends r to buf in the format that Read reads. Each text but the last ends
// with a NUL, which text in PostgreSQL can't contain. The last one is textIDs, because
// it does contain a NUL, between its two ids.
func (r *Row) Append(buf []byte) []byte {
	buf = append(append(append(buf, r.ID[:]...), r.DocumentID[:]...), r.UserID[:]...)
	buf = binary.LittleEndian.AppendUint64(buf, uint64(r.CreatedAt))
	buf = binary.LittleEndian.AppendUint64(buf, uint64(r.Duration))
	var flags byte
	if r.NoDocument {
		flags |= withoutDocument
	}
	if r.NoUser {
		flags |= withoutUser
	}
	buf = append(buf, flags)
	for _, text := range [...]string{r.Type, r.Stage, r.Message, r.Extra} {
		buf = append(append(buf, text...), 0)
	}
	return append(buf, r.textIDs...)
}

// Read decodes the row in b. It doesn't check b, because the spool's checksums have
// already shown that Append wrote b.
func Read(b []byte) (r Row) {
	var head [65]byte
	texts := string(b[copy(head[:], b):])
	r.ID, r.DocumentID, r.UserID = uuid.UUID(head[:16]), uuid.UUID(head[16:32]), uuid.UUID(head[32:48])
	r.CreatedAt = int64(binary.LittleEndian.Uint64(head[48:]))
	r.Duration = time.Duration(binary.LittleEndian.Uint64(head[56:]))
	r.NoDocument, r.NoUser = head[64]&withoutDocument != 0, head[64]&withoutUser != 0
	for _, text := range []*string{&r.Type, &r.Stage, &r.Message, &r.Extra} {
		*text, texts, _ = strings.Cut(texts, "\x00")
	}
	r.textIDs = texts
	return r
}
