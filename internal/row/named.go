package row

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"time"
)

var (
	uuidFormat = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)
	keyFormat  = regexp.MustCompile(`^[^(]*\(([^()]+)\)=\(`)
)

// Named returns the places of the rows that the details of an answer name, in any
// language. The details are of two kinds:
//
//   - "Key (document_id)=(...) is not present" has the values of a key. Several rows
//     may have the same key.
//   - "Failing row contains (...)" has all values of one row. Its id identifies it. If
//     the ids of several rows are there, a text in the row contains the others, and
//     Named returns nil.
func (c *Columns) Named(rows []*Row, details string) (places []int) {
	key := keyFormat.FindStringSubmatch(details)
	ids := uuidFormat.FindAllString(details, -1)
	for i, r := range rows {
		if key != nil && c.hasKey(r, strings.Split(key[1], ", "), details[len(key[0]):]) ||
			key == nil && slices.Contains(ids, r.ID.String()) {
			places = append(places, i)
		}
	}
	if key == nil && len(places) > 1 {
		return nil
	}
	return places
}

// hasKey reports whether values begin with r's values in the columns of a key, as
// PostgreSQL prints them: joined by ", " and followed by ")". It may be wrong for a
// text that holds a parenthesis. Then one row more is sent apart from the others.
func (c *Columns) hasKey(r *Row, columns []string, values string) bool {
	for i, name := range columns {
		end := ", "
		if i == len(columns)-1 {
			end = ")"
		}
		value := c.keyValue(r, strings.Trim(name, `"`), values)
		var same bool
		if values, same = strings.CutPrefix(values, value+end); value == "" || !same {
			return false
		}
	}
	return true
}

// keyValue returns r's value in a column, as PostgreSQL prints it, or "". PostgreSQL
// prints a time in the session's time zone. So for a time, keyValue returns the
// beginning of values if that is the same time.
func (c *Columns) keyValue(r *Row, name, values string) string {
	switch slices.Index(c.names[:], name) {
	case fieldID:
		return r.ID.String()
	case fieldDocument:
		return r.Document()
	case fieldUser:
		return r.User()
	case fieldType:
		return r.Type
	case fieldStage:
		return r.Stage
	case fieldCreatedAt: // part of the primary key of a partitioned table
		value := values[:max(0, strings.IndexAny(values, ",)"))]
		for _, layout := range []string{"2006-01-02 15:04:05-07", "2006-01-02 15:04:05-07:00", "2006-01-02 15:04:05"} {
			if at, err := time.Parse(layout, value); err == nil && at.UnixMicro() == r.CreatedAt {
				return value
			}
		}
		return ""
	}
	switch value := DecodeExtra(r.Extra)[name].(type) {
	case string:
		return value
	case json.Number:
		return value.String()
	}
	return ""
}
