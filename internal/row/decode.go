package row

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"
)

// Selection returns the value of the query parameter "select", with which PostgREST
// returns the columns that Decode needs. The columns of the event's fields are cast to
// text, except the time. Without a cast, the time is in ISO 8601, whatever the
// database's DateStyle is.
func (c *Columns) Selection() string {
	var list []string
	for i, name := range c.names {
		switch {
		case i == fieldCreatedAt:
			list = append(list, name)
		case name != None:
			list = append(list, name+"::text")
		}
	}
	return strings.Join(append(list, c.extra...), ",")
}

// Decode reads a row that PostgREST returned. The keys of row are the names of the
// columns. The array texts contains the value of each field, or "" for NULL. The map
// extra contains the values for Event.Extra. If a column isn't in row, missingColumn is
// its name, and the other results are incomplete.
func (c *Columns) Decode(row map[string]json.RawMessage) (texts [Fields]string, extra map[string]any, missingColumn string) {
	for i, name := range c.names {
		value, ok := row[name]
		if !ok && name != None {
			return texts, nil, name
		}
		texts[i] = valueText(value)
	}
	var encoded []byte // in the format of EncodeExtra
	for _, name := range c.extra {
		value, ok := row[name]
		if !ok {
			return texts, nil, name
		}
		encoded = append(appendKey(encoded, ',', name), value...)
	}
	return texts, DecodeExtra(string(encoded)), ""
}

// valueText returns a JSON value as text. A string is decoded, and null becomes "". Any
// other value stays as it is in JSON.
func valueText(value json.RawMessage) string {
	var text string
	if json.Unmarshal(value, &text) == nil || len(value) == 0 { // null leaves text empty
		return text
	}
	return string(bytes.TrimSpace(value))
}

// timeFormats are the formats in which PostgreSQL prints a time. The one with Z07:00:00
// is for times before about 1900, when offsets from UTC could contain seconds. The last
// two are for columns without a time zone, whose times are taken as UTC.
var timeFormats = []string{"2006-01-02T15:04:05Z07:00", "2006-01-02T15:04:05Z07:00:00", "2006-01-02T15:04:05", "2006-01-02"}

// ParseTime parses a time in a format of PostgreSQL. It returns the zero time if text
// can't be parsed, for example if it is "infinity" or its year has five digits.
func ParseTime(text string) time.Time {
	text = strings.Replace(text, " ", "T", 1)
	for _, format := range timeFormats {
		if at, err := time.Parse(format, text); err == nil {
			return at.UTC()
		}
	}
	return time.Time{}
}
