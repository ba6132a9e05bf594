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
// language. The details hold the values of a key, which several rows may have ("Key
// (document_id)=(...) is not present"), or all values of one row ("Failing row contains
// (...)"), which is found by its id. The text of a row may look like an id or like the
// details of a key, so an id counts only if no other row's id is there.
func (c *Columns) Named(rows []*Row, details string) (places []int) {
	if key := keyFormat.FindStringSubmatch(details); key != nil {
		names, values, longest := strings.Split(key[1], ", "), details[len(key[0]):], 0
		for i, r := range rows {
			// A text may hold a parenthesis: "a" matches the beginning of "a) b".
			switch n := c.matchKey(r, names, values); {
			case n > longest:
				longest, places = n, []int{i}
			case n > 0 && n == longest:
				places = append(places, i)
			}
		}
		return places
	}
	ids := uuidFormat.FindAllString(details, -1)
	for i, r := range rows {
		if slices.Contains(ids, r.ID.String()) {
			places = append(places, i)
		}
	}
	if len(places) > 1 {
		return nil
	}
	return places
}

// matchKey returns the length of r's key in these columns, as PostgreSQL prints it at
// the beginning of values, with the parenthesis at its end. It returns 0 if r has
// another key.
func (c *Columns) matchKey(r *Row, names []string, values string) int {
	rest := values
	for i, name := range names {
		same := i == 0
		if !same {
			rest, same = strings.CutPrefix(rest, ", ")
		}
		value := c.keyValue(r, strings.Trim(name, `"`), rest)
		if !same || value == "" || !strings.HasPrefix(rest, value) {
			return 0
		}
		rest = rest[len(value):]
	}
	if !strings.HasPrefix(rest, ")") {
		return 0
	}
	return len(values) - len(rest) + 1
}

// keyValue returns r's value in a column, as PostgreSQL prints it. values begin with
// the value in the answer, which shows the format of a time.
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
	case fieldCreatedAt: // in every key of a partitioned table
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
