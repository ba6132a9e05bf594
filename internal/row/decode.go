package row

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"
)

// Selection returns the columns that Decode needs, for the query. PostgREST casts them
// to text, except for the time, which in JSON is ISO 8601 whatever the database's
// DateStyle.
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

// Decode returns the texts of a row's fields, in the order of the names, and the values
// of Extra. NULL is "". missing is a column that the row lacks, or "".
func (c *Columns) Decode(row map[string]json.RawMessage) (texts [Fields]string, extra map[string]any, missing string) {
	for i, name := range c.names {
		value, ok := row[name]
		if !ok && name != None {
			return texts, nil, name
		}
		texts[i] = valueText(value)
	}
	var encoded []byte // as EncodeExtra does
	for i, name := range c.extra {
		value, ok := row[name]
		if !ok {
			return texts, nil, name
		}
		encoded = append(append(encoded, c.extraKeys[i]...), value...)
	}
	return texts, DecodeExtra(string(encoded)), ""
}

// valueText returns the content of a string, "" for NULL, and the JSON of any other
// value.
func valueText(value json.RawMessage) string {
	var text string
	if json.Unmarshal(value, &text) == nil || len(value) == 0 { // null leaves text as it is
		return text
	}
	return string(bytes.TrimSpace(value))
}

// timeFormats are PostgreSQL's formats of a time: with a zone, whose offset has seconds
// before about 1900, and without a zone, in UTC.
var timeFormats = []string{"2006-01-02T15:04:05Z07:00", "2006-01-02T15:04:05Z07:00:00", "2006-01-02T15:04:05", "2006-01-02"}

// ParseTime returns the time in a row. It returns the zero time for a text that isn't a
// time, or that Go can't hold.
func ParseTime(text string) time.Time {
	text = strings.Replace(text, " ", "T", 1)
	for _, format := range timeFormats {
		if at, err := time.Parse(format, text); err == nil {
			return at.UTC()
		}
	}
	return time.Time{}
}
