package row

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"
)

// Selection returns the value of the query parameter select with which PostgREST
// returns the rows that Decode reads. It casts columns to text. The time is not cast,
// because JSON has it in ISO 8601, and a cast would follow the database's DateStyle.
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

// Decode returns the texts of a row's fields and the values of Extra. The text of NULL
// is "". If the row lacks a column, missing is its name.
func (c *Columns) Decode(row map[string]json.RawMessage) (texts [Fields]string, extra map[string]any, missing string) {
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

// valueText returns the content of a string, "" for NULL, and the JSON of any other
// value.
func valueText(value json.RawMessage) string {
	var text string
	if json.Unmarshal(value, &text) == nil || len(value) == 0 { // null leaves text empty
		return text
	}
	return string(bytes.TrimSpace(value))
}

// timeFormats are PostgreSQL's formats of a time. The first two have a zone; before
// about 1900, its offset may have seconds. The others are in UTC.
var timeFormats = []string{"2006-01-02T15:04:05Z07:00", "2006-01-02T15:04:05Z07:00:00", "2006-01-02T15:04:05", "2006-01-02"}

// ParseTime returns the time that PostgreSQL printed as text. It returns the zero time
// if Go can't parse it, such as "infinity" or a year with five digits.
func ParseTime(text string) time.Time {
	text = strings.Replace(text, " ", "T", 1)
	for _, format := range timeFormats {
		if at, err := time.Parse(format, text); err == nil {
			return at.UTC()
		}
	}
	return time.Time{}
}
