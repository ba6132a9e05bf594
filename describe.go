package docevents

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"
)

const (
	// A description has about 3 KB for each table, and PostgREST takes 0.4 s for
	// that of 1,000 tables.
	describeTimeout     = 5 * time.Second
	maxDescriptionBytes = 64 << 20
)

// A definition describes a table or a view in PostgREST's OpenAPI description. It
// lists no NOT NULL columns for a view. For a domain it has the base type. It has
// neither CHECKs nor UNIQUE constraints.
type definition struct {
	Required   []string // the columns that are NOT NULL
	Properties map[string]struct {
		Format      string   // the type
		Enum        []string // the words of an enum type
		MaxLength   int      // in characters; 0 means no limit
		Description string   // contains <pk/> for a column of the primary key
	}
}

// describe reads PostgREST's description of the table into r.about. Some servers
// have the description switched off, and then Check finds fewer problems.
func (r *rehearsal) describe(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, min(describeTimeout, r.config.requestTimeout))
	defer cancel()
	_ = r.readOnce(ctx, reading{path: "/", schema: r.config.schema, accept: "application/openapi+json"}, func(resp *http.Response) error {
		var about definition
		dec := json.NewDecoder(io.LimitReader(resp.Body, maxDescriptionBytes))
		if enter(dec, "definitions") && enter(dec, r.config.table) && dec.Decode(&about) == nil {
			r.about = about
		}
		return nil
	})
}

// enter reads the object that comes next up to the value of key, and reports whether
// the object has that key. It holds one value at a time in memory.
func enter(dec *json.Decoder, key string) bool {
	if token, err := dec.Token(); err != nil || token != json.Delim('{') {
		return false
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil || name == key {
			return err == nil
		}
		if dec.Decode(new(json.RawMessage)) != nil {
			return false
		}
	}
	return false
}
