// Package rest sends requests to PostgREST, reads the answers, and decides what they
// mean. Of the fields of an [Error], only Details may contain values of a row.
package rest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"

	"github.com/supabase-community/postgrest-go"
)

// Config describes where a table is and how to reach it.
type Config struct {
	URL                     string            // the URL of the API, which must be valid
	Header                  map[string]string // sent with each request; the header apikey contains the key
	Schema, Table, IDColumn string
	MaxInFlight             int // how many inserts may be in flight

	// Transport sends the requests. If it is nil, clones of http.DefaultTransport send
	// them. If http.DefaultTransport isn't an *http.Transport, it can't be cloned, and
	// sends the requests itself.
	Transport http.RoundTripper
}

// A Client sends requests about one table. Its methods are safe for concurrent use.
// They set no timeout: a request may take until its context ends.
type Client struct {
	Config
	transport *transport
}

// New returns a Client. It does no I/O.
func New(c Config) *Client {
	t := &transport{inserts: c.Transport, others: c.Transport, key: c.Header["apikey"], idColumn: c.IDColumn}
	if c.Transport == nil {
		t.inserts, t.others = http.DefaultTransport, http.DefaultTransport
		if t.own = newConnections(c.MaxInFlight); t.own != nil {
			t.inserts, t.others = t.own.inserts, t.own.others
		}
	}
	return &Client{c, t}
}

// Close closes the connections for inserts, and the idle connections for other
// requests. GET and DELETE requests in flight continue. A later request opens a new
// connection. Close does nothing if the requests use a transport of the app.
func (c *Client) Close() { c.transport.own.close() }

// From returns a query on the table. Its errors may contain the URL, which may contain
// values of a row. So don't log the errors directly, but log the result of
// [Client.Loggable].
func (c *Client) From() *postgrest.QueryBuilder { return c.postgrest(c.transport).From(c.Table) }

// postgrest returns a postgrest.Client that sends requests through rt. Use it for one
// request only: after an error, its later requests return the same error.
func (c *Client) postgrest(rt http.RoundTripper) *postgrest.Client {
	pg, err := postgrest.NewClientWithError(c.URL, c.Schema, c.Header)
	if err != nil {
		panic(err) // unreachable: the URL is valid
	}
	pg.Transport.Parent = rt
	return pg
}

// An Insertion is the insert of some rows.
type Insertion struct {
	Columns  string // the names of the columns, joined by commas
	Conflict string // the column that makes a row unique; "" means the primary key
	Rows     []byte // a JSON array
	Partial  bool   // some rows lack a column, which then gets its default
	Accept   string // "" means application/json
}

// Insert sends one insert request. It is safe to send the same rows again, because the
// server ignores a row if its id is already in the table.
//
// The request's URL lists the columns. Without that list, PostgREST takes them from the
// JSON of the rows, which is slower and requires that all rows have the same columns.
func (c *Client) Insert(ctx context.Context, i Insertion) error {
	query := "columns=" + i.Columns
	if i.Conflict != "" {
		query = "on_conflict=" + i.Conflict + "&" + query
	}
	pg := c.postgrest(&insertion{c.transport, query, i.Rows})
	if i.Partial {
		pg.Transport.SetHeader("Prefer", "missing=default") // only if needed: with it, a burst is stored up to 40 % slower
	}
	if i.Accept != "" {
		pg.Transport.SetHeader("Accept", i.Accept)
	}
	_, _, err := pg.From(c.Table).Insert(nil, false, "", "minimal", "").ExecuteWithContext(ctx)
	if e, answered := errors.AsType[*Error](err); answered && e.meaning == StoredBefore && c.isForeign(e.Details, i.Rows) {
		e.meaning = Accepted // the code decides
	}
	return err
}

// isForeign reports whether an insert violated a key of another table, into which a
// trigger inserts. The arguments are the error's details and the JSON of the inserted
// rows. If the key is another table's, the details contain a key, but none of the rows'
// ids.
func (c *Client) isForeign(details string, rows []byte) bool {
	return KeyColumns(details) != nil && !slices.ContainsFunc(uuidFormat.FindAllString(details, -1), func(id string) bool {
		return bytes.Contains(rows, []byte(`"`+c.transport.idColumn+`":"`+id+`"`))
	})
}

var uuidFormat = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)

// An insertion is a RoundTripper that replaces the query and the body of an insert
// request. postgrest-go doesn't get the rows, because it would parse and copy them,
// which takes longer than encoding them.
type insertion struct {
	http.RoundTripper
	query string
	rows  []byte
}

func (i *insertion) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.WithContext(req.Context()) // a shallow copy
	u := *req.URL
	u.RawQuery = i.query
	req.URL, req.ContentLength = &u, int64(len(i.rows))
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(i.rows)), nil }
	req.Body, _ = req.GetBody()
	return i.RoundTripper.RoundTrip(req)
}

// A Reading is a GET of the table, of a function, or of the API's description.
type Reading struct {
	Path, Schema string
	Prefer       string
	Accept       string // "" means application/json
	Query        url.Values
}

// Get sends a GET. If the answer is a success, Get passes it to readAnswer, and returns
// readAnswer's error. Get doesn't use postgrest-go, which reads answers of any size
// into memory and hides the errors of SQL functions.
func (c *Client) Get(ctx context.Context, r Reading, readAnswer func(*http.Response) error) error {
	u, err := url.Parse(c.URL)
	if err != nil {
		return err
	}
	u = u.JoinPath(r.Path)
	u.RawQuery = r.Query.Encode()
	req := (&http.Request{Method: http.MethodGet, URL: u, Header: http.Header{}}).WithContext(ctx)
	for name, value := range c.Header {
		req.Header.Set(name, value)
	}
	req.Header.Set("Accept", cmp.Or(r.Accept, "application/json"))
	req.Header.Set("Accept-Profile", r.Schema)
	if r.Prefer != "" {
		req.Header.Set("Prefer", r.Prefer)
	}
	resp, err := (&http.Client{Transport: c.transport}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return readAnswer(resp)
}
