package docevents

import (
	"encoding/json"
	"io"
	"slices"
	"time"
)

const (
	// A description takes about 3 KB a table, and 0.4 s for 1,000 tables.
	describeTimeout     = 5 * time.Second
	maxDescriptionBytes = 64 << 20
)

// A definition is what PostgREST's OpenAPI description says of a table or a view.
// It has no NOT NULL columns for a view. It shows the base type of a domain, and
// neither CHECKs nor UNIQUE constraints.
type definition struct {
	Required   []string // the columns that are NOT NULL
	Properties map[string]struct {
		Format      string // the type
		Enum        []any  // the words of an enum type
		Description string // holds <pk/>, and <fk table='...' column='...'/>
	}
}

// isView reports whether the definition looks like a view's.
func (d *definition) isView() bool { return d.Properties != nil && len(d.Required) == 0 }

// readDefinition finds a table in a description without holding the others in
// memory. It returns an empty definition if the table isn't there or the answer is
// something else.
func readDefinition(body io.Reader, table string) definition {
	dec := json.NewDecoder(body)
	var d definition
	if !enter(dec, "definitions") || !enter(dec, table) || dec.Decode(&d) != nil {
		return definition{}
	}
	return d
}

// enter moves into the object that comes next, up to the value of key.
func enter(dec *json.Decoder, key string) bool {
	if start, err := dec.Token(); err != nil || start != json.Delim('{') {
		return false
	}
	for dec.More() {
		if name, err := dec.Token(); err != nil {
			return false
		} else if name == key {
			return true
		}
		if !skip(dec) {
			return false
		}
	}
	return false
}

// skip reads past the value that comes next.
func skip(dec *json.Decoder) bool {
	for depth := 0; ; {
		token, err := dec.Token()
		if err != nil {
			return false
		}
		if delim, is := token.(json.Delim); is && slices.Contains([]json.Delim{'{', '['}, delim) {
			depth++
		} else if is {
			depth--
		}
		if depth == 0 {
			return true
		}
	}
}
