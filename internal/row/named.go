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

// Named returns the indexes of the rows that caused an error. rows are all rows of the
// request, and details are the details in the server's answer. There are two kinds of
// details:
//
//   - "Key (document_id)=(...) is not present" contains the values of a key. Named
//     returns the index of each row with these values.
//   - "Failing row contains (...)" contains all values of one row. Named returns the
//     index of the row whose id is among these values. If the values contain the ids of
//     several rows, it is not clear which row failed, and Named returns nil.
//
// PostgreSQL may translate the details, so Named doesn't compare their words.
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

// hasKey reports whether r's columns have the values that an error of PostgreSQL lists,
// such as "Key (a, b)=(1, 2) is not present". columns are the columns of the key: a and b. values is the rest of
// the error, from the first value on: "1, 2) is not present". If a value contains ", " or
// ")", hasKey may report true for a wrong row. That does no harm, because the client only
// retries that row separately from the others.
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

// keyValue returns r's value in the given column, as PostgreSQL prints it in an error. It
// returns "" if r has no such value. values is the rest of the error, from the column's
// value on. It is used only for times, because PostgreSQL prints a time in any time zone:
// if values begins with a time that is equal to r's time, keyValue returns that text.
func (c *Columns) keyValue(r *Row, column, values string) string {
	switch slices.Index(c.names[:], column) {
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
	switch value := DecodeExtra(r.Extra)[column].(type) {
	case string:
		return value
	case json.Number:
		return value.String()
	}
	return ""
}
