package row

import (
	"encoding/hex"
	"encoding/json"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
)

// TimeFormat is the format of times in requests: RFC 3339 in UTC, with microseconds, as
// PostgreSQL stores them. It ends in Z, because the + of +00:00 would have to be
// escaped in a URL's query.
const TimeFormat = "2006-01-02T15:04:05.000000Z"

// Encode returns the body of an insert request: a JSON array with an object for each
// row. It doesn't use encoding/json, which is too slow for requests with 1,000 rows.
func (c *Columns) Encode(rows []*Row) []byte {
	const room = 400 // more bytes than a row of the migration's table takes without its texts
	size := len("[]")
	for _, r := range rows {
		size += room + r.Text()
	}
	b := append(make([]byte, 0, size), '[')
	for i, r := range rows {
		if i > 0 {
			b = append(b, ',')
		}
		b = c.appendRow(b, r)
	}
	return append(b, ']')
}

func (c *Columns) appendRow(b []byte, r *Row) []byte {
	document, user := r.texts()
	separator := byte('{')
	for i, name := range c.names {
		if name == None {
			continue
		}
		b = appendKey(b, separator, name)
		separator = ','
		switch i {
		case fieldID:
			b = appendUUID(b, r.ID)
		case fieldDocument:
			b = appendID(b, r.DocumentID, document, r.NoDocument)
		case fieldUser:
			b = appendID(b, r.UserID, user, r.NoUser)
		case fieldType:
			b = appendText(b, r.Type)
		case fieldDuration:
			b = appendDuration(b, r.Duration)
		case fieldMessage:
			b = appendText(b, r.Message)
		case fieldStage:
			b = appendText(b, r.Stage)
		case fieldCreatedAt:
			b = time.UnixMicro(r.CreatedAt).UTC().AppendFormat(append(b, '"'), TimeFormat)
			b = append(b, '"')
		}
	}
	return append(append(b, r.Extra...), '}')
}

// appendKey appends the separator and the name of a column, as the key of a JSON
// object. Names of columns need no escaping.
func appendKey(b []byte, separator byte, name string) []byte {
	return append(append(append(b, separator, '"'), name...), `":`...)
}

// appendID appends the id of a document or a user to the JSON in b: null if isNull is
// true, the UUID in id if text is empty, and otherwise the string in text. The string
// is in quotes even for a column of numbers, because PostgreSQL converts it.
func appendID(b []byte, id uuid.UUID, text string, isNull bool) []byte {
	if isNull || text != "" {
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

// appendText appends s as a JSON string, or null if s is empty.
func appendText(b []byte, s string) []byte {
	if s == "" {
		return append(b, "null"...)
	}
	if !isPlain(s) {
		quoted, _ := json.Marshal(s) // a string can always be marshaled
		return append(b, quoted...)
	}
	return append(append(append(b, '"'), s...), '"')
}

// isPlain reports whether encoding/json would leave s as it is.
func isPlain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return false
		}
	}
	return true
}
