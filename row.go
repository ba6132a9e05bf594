package docevents

import (
	"encoding/hex"
	"encoding/json"
	"math"
	"strconv"
	"time"

	"github.com/google/uuid"
)

// body is the rows as PostgREST takes them: byte for byte what encoding/json
// would make of them.
func (c *columns) body(records []record) []byte {
	const row = 400 // bytes of a row of the migration's table, and some more
	size := len("[]")
	for i := range records {
		size += row + records[i].text()
	}
	b := append(make([]byte, 0, size), '[')
	for i := range records {
		if i > 0 {
			b = append(b, ',')
		}
		b = c.appendRow(b, &records[i])
	}
	return append(b, ']')
}

func (c *columns) appendRow(b []byte, r *record) []byte {
	document, user := r.textIDs()
	for i, key := range c.keys {
		if key == "" {
			continue
		}
		b = append(b, key...)
		switch base[i].field {
		case "ID":
			if r.id == uuid.Nil { // a rehearsal's last
				b = append(b, "null"...)
			} else {
				b = appendUUID(b, r.id)
			}
		case "DocumentID":
			b = appendID(b, r.documentID, document, r.noDocument)
		case "UserID":
			b = appendID(b, r.userID, user, r.noUser)
		case "Type":
			b = appendText(b, string(r.eventType))
		case "Duration":
			b = appendDuration(b, r.duration)
		case "ErrorMessage":
			b = appendText(b, r.message)
		case "Stage":
			b = appendText(b, r.stage)
		case "CreatedAt":
			b = time.UnixMicro(r.createdAt).UTC().AppendFormat(append(b, '"'), timeFormat)
			b = append(b, '"')
		}
	}
	return append(append(b, r.extra...), '}')
}

// appendID appends a document's or a user's id. PostgreSQL reads a number from
// a JSON string as well.
func appendID(b []byte, id uuid.UUID, text string, null bool) []byte {
	if null || text != "" {
		return appendText(b, text)
	}
	return appendUUID(b, id)
}

func appendUUID(b []byte, id uuid.UUID) []byte {
	b = hex.AppendEncode(append(b, '"'), id[:4])
	for _, part := range [][]byte{id[4:6], id[6:8], id[8:10], id[10:]} {
		b = hex.AppendEncode(append(b, '-'), part)
	}
	return append(b, '"')
}

func appendDuration(b []byte, d time.Duration) []byte {
	if d <= 0 {
		return append(b, "null"...)
	}
	return strconv.AppendInt(b, min(d.Milliseconds(), math.MaxInt32), 10)
}

// appendText leaves what needs escaping to encoding/json.
func appendText(b []byte, s string) []byte {
	if s == "" {
		return append(b, "null"...)
	}
	if !isPlain(s) {
		quoted, _ := json.Marshal(s) // a string is no error
		return append(b, quoted...)
	}
	return append(append(append(b, '"'), s...), '"')
}
