package docevents

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
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

// describe reads PostgREST's description of the table, without holding those of
// others in memory. Without one Check knows less: a server may not give it.
func (r *rehearsal) describe(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, min(describeTimeout, r.config.requestTimeout))
	defer cancel()
	r.get(ctx, "/", "", "application/openapi+json", func(body io.Reader) {
		dec := json.NewDecoder(io.LimitReader(body, maxDescriptionBytes))
		var about definition
		if enter(dec, "definitions") && enter(dec, r.config.table) && dec.Decode(&about) == nil {
			r.about = about
		}
	})
}

// parent returns a value of a column in another table, nil if none can be had.
func (r *rehearsal) parent(ctx context.Context, table, column string) any {
	ctx, cancel := context.WithTimeout(ctx, r.config.requestTimeout)
	defer cancel()
	rows := make([]map[string]any, 1)
	r.get(ctx, table, url.Values{"select": {column}, "limit": {"1"}}.Encode(), "application/json", func(body io.Reader) {
		_ = json.NewDecoder(io.LimitReader(body, maxErrorBytes)).Decode(&rows)
	})
	return append(rows, nil)[0][column]
}

// get hands the body of an answer to use, if there is one.
func (r *rehearsal) get(ctx context.Context, path, query, accept string, use func(io.Reader)) {
	u, err := url.Parse(r.restURL)
	if err != nil {
		return // unreachable: the URL is parseURL's
	}
	u = u.JoinPath(path)
	u.RawQuery = query
	req := (&http.Request{Method: http.MethodGet, URL: u, Header: http.Header{"Accept": {accept}, "Accept-Profile": {r.config.schema}}}).WithContext(ctx)
	for name, value := range r.headers {
		req.Header.Set(name, value)
	}
	if resp, err := (&http.Client{Transport: r.transport}).Do(req); err == nil {
		defer resp.Body.Close()
		use(resp.Body)
	}
}

// enter moves into the object that comes next, up to the value of key.
func enter(dec *json.Decoder, key string) bool {
	isKey := true // or a value, at depth 1
	for depth := 0; ; {
		switch token, err := dec.Token(); {
		case err != nil, depth == 0 && token != json.Delim('{'):
			return false
		case token == json.Delim('{'), token == json.Delim('['):
			depth++
		case token == json.Delim('}'), token == json.Delim(']'):
			depth, isKey = depth-1, true
		case depth == 1 && isKey && token == key:
			return true
		case depth == 1:
			isKey = !isKey
		}
		if depth == 0 {
			return false
		}
	}
}
