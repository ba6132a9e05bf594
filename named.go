package docevents

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

// named returns the places of the rows that an answer's details name, in
// whatever language: those with the values of a key ("Key (document_id)=(...)
// is not present"), or the one whose id is among the values of a row ("Failing
// row contains (...)"). What stands in a row's text is no name, be it an id or a
// key's details.
func named(records []record, details string, c *columns) (places []int) {
	if key := keyFormat.FindStringSubmatch(details); key != nil {
		columns, values, longest := strings.Split(key[1], ", "), details[len(key[0]):], 0
		for i := range records {
			// A text may hold a parenthesis: "a" begins as "a) b" does.
			switch n := c.matchKey(&records[i], columns, values); {
			case n > longest:
				longest, places = n, []int{i}
			case n > 0 && n == longest:
				places = append(places, i)
			}
		}
		return places
	}
	ids := uuidFormat.FindAllString(details, -1)
	for i := range records {
		if slices.Contains(ids, records[i].id.String()) {
			places = append(places, i)
		}
	}
	if len(places) > 1 {
		return nil
	}
	return places
}

// matchKey returns how many bytes of values are r's key in these columns, as
// PostgreSQL lists it, with the parenthesis at its end. It returns 0 if r has
// another key.
func (c *columns) matchKey(r *record, names []string, values string) int {
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

// keyValue returns r's value in a column, as PostgreSQL prints it. values are
// those of a key, from this column on: they show how a time is printed.
func (c *columns) keyValue(r *record, name, values string) string {
	switch name {
	case c.ID:
		return r.id.String()
	case c.DocumentID:
		return r.document()
	case c.UserID:
		return r.user()
	case c.Type:
		return string(r.eventType)
	case c.Stage:
		return r.stage
	case c.CreatedAt: // a part of every key of a partitioned table
		value := values[:max(0, strings.IndexAny(values, ",)"))]
		for _, layout := range []string{"2006-01-02 15:04:05-07", "2006-01-02 15:04:05-07:00", "2006-01-02 15:04:05"} {
			if at, err := time.Parse(layout, value); err == nil && at.UnixMicro() == r.createdAt {
				return value
			}
		}
		return ""
	}
	switch value := decodeExtra(r.extra)[name].(type) {
	case string:
		return value
	case json.Number:
		return value.String()
	}
	return ""
}
