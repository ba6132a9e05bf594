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

// Named finds out which rows of a request caused an error, and returns their indices.
// The result depends on details, the field "details" of the server's error:
//
//   - If the details contain the values of a key, as in "Key (document_id)=(...) is not
//     present", Named returns the index of each row with these values.
//   - Other details, such as "Failing row contains (...)", may contain the id of a row.
//     Then Named returns the index of that row. If they contain the ids of several
//     rows, it isn't clear which row failed, so Named returns nil.
//
// Named doesn't compare the words of the details, because PostgreSQL may translate
// them.
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

// hasKey reports whether r has the values of a key in an error's details, such as "Key
// (a, b)=(1, 2) is not present". For this example, the parameter columns contains a and
// b, and the parameter values is "1, 2) is not present". If a value contains ", " or
// ")", hasKey may report true for a row with other values. That does no harm, because
// the client only retries that row separately.
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

// keyValue returns r's value in the given column, as PostgreSQL prints it in an error's
// details, or "". The parameter rest is the part of the details that hasKey hasn't
// compared yet. PostgreSQL can print a time in any time zone: if rest begins with a
// time that is equal to r's, keyValue returns the text of that time.
func (c *Columns) keyValue(r *Row, column, rest string) string {
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
		value := rest[:max(0, strings.IndexAny(rest, ",)"))]
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
