// Package likeness_test compares the server of doceventstest with the local stack,
// which has a real PostgreSQL. The tests send the same requests to both servers. The
// answers must be equal, and afterwards the tables too.
package likeness_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/doceventstest"
	"github.com/docevents/docevents-go/integration/localstack"
)

func TestMain(m *testing.M) { localstack.Main(m) }

// A pair is an http.RoundTripper that sends each request to both servers, one at a
// time, and compares the answers.
type pair struct {
	t     *testing.T
	stack *localstack.Stack
	fake  *doceventstest.Server

	mu   sync.Mutex
	seen map[string]int // requests by method and status
}

func newPair(t *testing.T) *pair {
	p := &pair{t: t, stack: localstack.Shared(t), fake: doceventstest.NewServer(t), seen: map[string]int{}}
	p.fake.Table = p.stack.Table(t)
	return p
}

func (p *pair) client(opts ...docevents.Option) *docevents.Client {
	p.t.Helper()
	opts = append([]docevents.Option{docevents.WithTransport(p), docevents.WithTable(p.fake.Table)}, opts...)
	return p.fake.Client(opts...)
}

func (p *pair) RoundTrip(req *http.Request) (*http.Response, error) {
	var body []byte
	if req.Body != nil {
		var err error
		if body, err = io.ReadAll(req.Body); err != nil {
			return nil, err
		}
		req.Body.Close()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	want, resp, err := p.send(req, body, p.stack.URL, p.stack.ServiceRoleKey)
	if err != nil {
		return nil, err
	}
	got, _, err := p.send(req, body, p.fake.URL, p.fake.Key)
	if err != nil {
		return nil, err
	}
	p.seen[fmt.Sprintf("%s %d", req.Method, want.status)]++
	if strings.HasSuffix(req.URL.Path, "/rest/v1/") { // the stack has more tables, so compare only this one
		got.body, want.body = p.definition(got.body), p.definition(want.body)
	}
	if !reflect.DeepEqual(got, want) {
		got.body, want.body = without(got.body, want.body), without(want.body, got.body)
		p.t.Errorf("%s %s: doceventstest answers %+v, the stack %+v", req.Method, req.URL.RequestURI(), got, want)
	}
	return resp, nil
}

// definition returns the table's definition in a description.
func (p *pair) definition(description any) any {
	whole, _ := description.(map[string]any)
	definitions, _ := whole["definitions"].(map[string]any)
	return definitions[p.fake.Table]
}

// A reply is the part of an answer that is compared.
type reply struct {
	status                                 int
	contentType, contentRange, proxyStatus string
	body                                   any
}

// generated matches the names of constraints, which differ between the servers.
var generated = regexp.MustCompile(`(constraint) "\w+"`)

// send sends the request to a server, with its key.
func (p *pair) send(original *http.Request, body []byte, base, key string) (reply, *http.Response, error) {
	req := original.Clone(original.Context())
	target, err := url.Parse(base)
	if err != nil {
		return reply{}, nil, err
	}
	req.URL.Scheme, req.URL.Host, req.Host = target.Scheme, target.Host, target.Host
	req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	if req.Header.Get("Apikey") == p.fake.Key { // a wrong key stays wrong for both servers
		req.Header.Set("Apikey", key)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return reply{}, nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return reply{}, nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(text))
	r := reply{
		status:      resp.StatusCode,
		contentType: resp.Header.Get("Content-Type"),
		proxyStatus: resp.Header.Get("Proxy-Status"),
	}
	if req.Method != http.MethodGet { // docevents ignores the Content-Range of reads
		r.contentRange = resp.Header.Get("Content-Range")
	}
	if len(text) > 0 {
		if err := json.Unmarshal(text, &r.body); err != nil {
			return reply{}, nil, fmt.Errorf("%s: %w", text, err)
		}
	}
	switch body := r.body.(type) {
	case map[string]any: // details and hint differ between versions, and docevents doesn't depend on them
		if body["code"] != "PGRST116" { // its details have the number of rows, which docevents reads
			delete(body, "details")
		}
		delete(body, "hint")
		body["message"] = generated.ReplaceAllString(fmt.Sprint(body["message"]), "$1")
	case []any: // rows with the same time are in no particular order
		slices.SortFunc(body, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	}
	return r, resp, nil
}

// without returns the rows of body that other lacks, if body is a list.
func without(body, other any) any {
	rows, isList := body.([]any)
	others, _ := other.([]any)
	if !isList {
		return body
	}
	return slices.DeleteFunc(slices.Clone(rows), func(row any) bool {
		return slices.ContainsFunc(others, func(o any) bool { return reflect.DeepEqual(row, o) })
	})
}

// do sends a request to both servers.
func (p *pair) do(method, path, body string, headers ...string) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.fake.URL+"/rest/v1/"+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	for name, value := range map[string]string{
		"Apikey": p.fake.Key, "Content-Type": "application/json", "Content-Profile": "public", "Accept-Profile": "public",
	} {
		req.Header.Set(name, value)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := p.RoundTrip(req)
	if err != nil {
		p.t.Fatal(err)
	}
	resp.Body.Close()
}

// compareTables compares the tables of both servers, up to 1,000 rows.
func (p *pair) compareTables() {
	p.t.Helper()
	p.do(http.MethodGet, p.fake.Table+"?order=created_at.asc.nullslast&limit=1000", "")
}

func (p *pair) wantSeen(kinds ...string) {
	p.t.Helper()
	for _, kind := range kinds {
		if p.seen[kind] == 0 {
			p.t.Errorf("the client sent no %s, only %v", kind, p.seen)
		}
	}
}

// TestClient compares the answers to the client's own requests.
func TestClient(t *testing.T) {
	p := newPair(t)
	client := p.client(docevents.WithEventTypes(docevents.EventTypes{Open: true})) // so that only the table rejects types
	if err := client.Check(t.Context()); err != nil {
		t.Error(err)
	}
	p.wantSeen("GET 200", "POST 406", "DELETE 204") // the rehearsal is rolled back
	for i, e := range []docevents.Event{
		{},
		{Type: docevents.Failed, Duration: 1500 * time.Millisecond, ErrorMessage: "no \"text\" in it: <&>\n\x00\xff ünïcode \U0001F600", Stage: `a\b`},
		{Duration: 1<<63 - 1, Stage: strings.Repeat("long ", 1000)},
		{Duration: time.Nanosecond, ErrorMessage: strings.Repeat("ö", 100_000)},
		{Duration: -1, CreatedAt: time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)},
		{CreatedAt: time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC)},
		{CreatedAt: time.Date(2025, 6, 7, 8, 9, 10, 120_000_000, time.FixedZone("", 5*3600+1800))},
		{Type: "nope"}, // the table rejects only this event
		{},
	} {
		e.DocumentID, e.UserID = uuid.NewString(), docevents.SystemUser
		if e.Type == "" {
			e.Type = docevents.Completed
		}
		if e.CreatedAt.IsZero() && i != 4 {
			e.CreatedAt = time.Now().Add(-time.Duration(i) * time.Hour)
		}
		client.Record(e)
	}
	if err := client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := client.Stats(); s.Delivered != 8 || s.Dropped.Rejected != 1 {
		t.Errorf("got %+v", s)
	}
	p.wantSeen("POST 400")
	p.compareTables()
	p.wantSeen("GET 200")
}

// TestReads compares the reads of Timeline, and a call of a missing function.
func TestReads(t *testing.T) {
	p := newPair(t)
	client := p.client()
	now := time.Now()
	for i := range 1200 {
		client.Record(docevents.Event{
			DocumentID: uuid.Max.String(), UserID: docevents.SystemUser, Type: docevents.Failed, Stage: "ocr",
			Duration: time.Second, ErrorMessage: "page " + strconv.Itoa(i), CreatedAt: now.Add(time.Duration(i%400) * time.Second),
		})
	}
	if err := client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if events, err := client.Timeline(t.Context(), uuid.Max.String()); len(events) != 1000 || !errors.Is(err, docevents.ErrTruncated) {
		t.Errorf("%d events, %v", len(events), err)
	}
	if events, err := client.Timeline(t.Context(), uuid.NewString()); len(events) != 0 || err != nil {
		t.Errorf("timeline of an unknown document: %d events, %v", len(events), err)
	}
	p.do(http.MethodGet, "rpc/no_function?b=1&a=2", "")
	p.wantSeen("GET 200", "GET 206", "GET 404")
}

// TestPurges compares purges of 400 rows, some of which have the same time.
func TestPurges(t *testing.T) {
	p := newPair(t)
	now := time.Now().Truncate(time.Microsecond) // the precision of a stored time
	for _, test := range []struct {
		name string
		opts []docevents.Option
		want string
	}{
		{"at once", nil, "DELETE 200"},
		{"in steps", []docevents.Option{docevents.WithPurgeBatch(70)}, "DELETE 204"},
		{"in one step", []docevents.Option{docevents.WithPurgeBatch(10_000)}, "DELETE 204"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p.t, p.seen = t, map[string]int{}
			client := p.client(test.opts...)
			for i := range 500 {
				client.Record(docevents.Event{
					DocumentID: uuid.NewString(), UserID: docevents.SystemUser, Type: docevents.Completed,
					CreatedAt: now.Add(-time.Duration(i/7) * time.Minute),
				})
			}
			if err := client.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			n, err := client.PurgeBefore(t.Context(), now.Add(-14*time.Minute))
			if n != 500-15*7 || err != nil {
				t.Errorf("purged %d, %v", n, err)
			}
			p.wantSeen(test.want)
			p.compareTables()
			if n, err := client.PurgeBefore(t.Context(), now); n != 14*7 || err != nil {
				t.Errorf("the second purge deleted %d, %v", n, err)
			}
			p.do(http.MethodDelete, p.fake.Table+"?created_at=gt.-infinity", "", "Prefer", "return=minimal,count=exact")
			if n := len(p.fake.Events()); n != 0 {
				t.Errorf("%d rows left", n)
			}
		})
	}
}

// TestRequests compares the answers to many kinds of requests, such as inserts of rows
// that Record would drop, requests with wrong settings, and reads with many filters.
func TestRequests(t *testing.T) {
	p := newPair(t)
	table := p.fake.Table
	const columns = "?columns=id,document_id,user_id,event_type,duration_ms,error_message,stage,created_at"
	row := func(id int, change string, value any) string {
		r := map[string]any{
			"id":          fmt.Sprintf("aaaaaaaa-0000-4000-8000-%012d", id),
			"document_id": "11111111-1111-4111-8111-111111111111", "user_id": "22222222-2222-4222-8222-222222222222",
			"event_type": "completed", "duration_ms": 12, "error_message": nil, "stage": "ocr", "created_at": "2026-01-02T03:04:05.678901Z",
		}
		r[change] = value
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	const single = "application/vnd.pgrst.object+json"
	ignore := []string{"Prefer", "return=minimal,resolution=ignore-duplicates"}
	for _, test := range []struct {
		name, method, path, body string
		headers                  []string
		status                   int
	}{
		{"no rows", "POST", table + columns, "[]", ignore, 201},
		{"one row", "POST", table + columns, "[" + row(1, "stage", nil) + "]", ignore, 201},
		{"a duplicate and a new row", "POST", table + columns, "[" + row(1, "stage", "other") + "," + row(2, "stage", "") + "]", ignore, 201},
		{"duplicates in a request", "POST", table + columns, "[" + row(3, "stage", "a") + "," + row(3, "stage", "b") + "]", ignore, 201},
		{"counted", "POST", table + columns, "[" + row(3, "stage", "a") + "," + row(4, "stage", "b") + "]", []string{"Prefer", "resolution=ignore-duplicates,count=exact"}, 201},
		{"duplicate", "POST", table + columns, "[" + row(5, "stage", nil) + "," + row(1, "stage", nil) + "]", nil, 409},
		{"a number for a text", "POST", table + columns, "[" + row(6, "stage", 7) + "]", ignore, 201},
		{"a text for a number", "POST", table + columns, "[" + row(7, "duration_ms", "7") + "]", ignore, 201},
		{"another offset", "POST", table + columns, "[" + row(8, "created_at", "2026-01-02T03:04:05.1+05:30") + "]", ignore, 201},
		{"UUID without hyphens", "POST", table + columns, "[" + row(9, "user_id", "22222222222242228222222222222222") + "]", ignore, 201},
		{"UUID in upper case", "POST", table + columns, "[" + row(14, "user_id", "AAAAAAAA-1111-4111-8111-111111111111") + "]", ignore, 201},
		{"key that is not in columns", "POST", table + columns, "[" + row(10, "nope", 1) + "]", ignore, 201},
		{"type that the CHECK rejects", "POST", table + columns, "[" + row(11, "stage", nil) + "," + row(12, "event_type", "nope") + "]", ignore, 400},
		{"invalid UUID", "POST", table + columns, "[" + row(11, "stage", nil) + "," + row(12, "document_id", "not-a-uuid") + "]", ignore, 400},
		{"UUID is null", "POST", table + columns, "[" + row(12, "user_id", nil) + "]", ignore, 400},
		{"id is null", "POST", table + columns, "[" + row(12, "id", nil) + "]", ignore, 400},
		{"created_at is null", "POST", table + columns, "[" + row(12, "created_at", nil) + "]", ignore, 400},
		{"null, and a wrong type in a later row", "POST", table + columns, "[" + row(12, "id", nil) + "," + row(13, "created_at", "x") + "]", ignore, 400},
		{"null, and the CHECK in a later row", "POST", table + columns, "[" + row(12, "user_id", nil) + "," + row(13, "event_type", "x") + "]", ignore, 400},
		{"CHECK and duplicate in one row", "POST", table + columns, "[" + row(1, "event_type", "x") + "]", nil, 400},
		{"duplicate, and the CHECK in a later row", "POST", table + columns, "[" + row(1, "stage", "x") + "," + row(12, "event_type", "x") + "]", nil, 409},
		{"NUL byte", "POST", table + columns, "[" + row(12, "error_message", "a\x00b") + "]", ignore, 400},
		{"text of an escaped NUL", "POST", table + columns, "[" + row(12, "error_message", `a\u0000b`) + "]", ignore, 201},
		{"overflow", "POST", table + columns, "[" + row(13, "duration_ms", int64(1<<31)) + "]", ignore, 400},
		{"fraction", "POST", table + columns, "[" + row(13, "duration_ms", 1.5) + "]", ignore, 400},
		{"bad time", "POST", table + columns, "[" + row(13, "created_at", "yesterday-ish") + "]", ignore, 400},
		{"broken JSON", "POST", table + columns, "{", ignore, 400},
		{"empty body", "POST", table + columns, "", ignore, 400},
		{"unknown column", "POST", table + columns + ",nope", "[]", ignore, 400},
		{"unknown table", "POST", "nope_" + table + columns, "[]", ignore, 404},
		{"unknown schema", "POST", table + columns, "[]", []string{"Content-Profile", "nope"}, 406},
		{"wrong key", "POST", table + columns, "[" + row(13, "stage", nil) + "]", []string{"Apikey", "sb_secret_wrong"}, 401},
		{"wrong method", "OPTIONS", "nope_" + table, "", nil, 404},
		{"rehearsed", "POST", table + columns, "[" + row(13, "stage", nil) + "," + row(14, "stage", "b") + "," + row(15, "stage", "c") + "," + row(15, "stage", "d") + "]", append(ignore, "Accept", single), 406},
		{"rehearsed, a type that the CHECK rejects", "POST", table + columns, "[" + row(13, "stage", nil) + "," + row(15, "event_type", "x") + "]", append(ignore, "Accept", single), 400},
		{"rehearsed without rows", "POST", table + columns, "[]", append(ignore, "Accept", single), 406},
		{"a single row", "POST", table + columns, "[" + row(15, "stage", nil) + "]", []string{"Prefer", "return=representation", "Accept", single}, 201},
		{"a single row read", "GET", table + "?created_at=gt.2026-01-02T03:04:04Z&limit=1&order=created_at.desc,id.desc", "", []string{"Accept", single}, 200},
		{"many rows read", "GET", table + "?select=id", "", []string{"Accept", single}, 406},
		{"as text", "GET", table + "?select=id::text,document_id::text,duration_ms::text,stage::text,created_at::text&order=created_at.desc,id.desc", "", nil, 200},
		{"by stage", "GET", table + "?stage=eq.7", "", nil, 200},
		{"by duration", "GET", table + "?duration_ms=lt.12&duration_ms=gte.7&order=duration_ms.asc", "", nil, 200},
		{"by type and id", "GET", table + "?event_type=in.(completed,failed)&id=gt.aaaaaaaa-0000-4000-8000-000000000003&order=id.asc", "", nil, 200},
		{"by null", "GET", table + "?error_message=is.null&stage=is.null&order=id.asc", "", nil, 200},
		{"nulls in order", "GET", table + "?select=id,stage&order=stage.desc,id.asc&limit=4", "", nil, 200},
		{"nulls last", "GET", table + "?select=id,stage&order=stage.desc.nullslast,id.asc&limit=4", "", nil, 200},
		{"bad number in a filter", "GET", table + "?duration_ms=eq.x", "", nil, 400},
		{"unknown column in a filter", "GET", table + "?nope=eq.x", "", nil, 400},
		{"offset after the end", "GET", table + "?offset=100", "", []string{"Prefer", "count=exact"}, 416},
		{"a misspelt table", "GET", table[:len(table)-1] + "?limit=1", "", nil, 404},
		{"many rows deleted", "DELETE", table + "?created_at=lt.2027-06-01T00:00:00Z", "", []string{"Prefer", "return=minimal", "Accept", single}, 406},
		{"boundary", "GET", table + "?select=created_at&created_at=lt.2027-01-01T00:00:00Z&order=created_at.asc.nullslast&offset=1&limit=1", "", nil, 200},
		{"no boundary", "GET", table + "?select=created_at&created_at=lt.2027-01-01T00:00:00Z&order=created_at.asc.nullslast&offset=100&limit=1", "", nil, 200},
		{"a group", "GET", table + "?select=id&and=(created_at.gt.-infinity,created_at.lte.2026-01-01T23:00:00%2B00:00)&order=created_at.asc.nullslast&limit=5", "", nil, 200},
		{"bad time in a filter", "DELETE", table + "?created_at=lt.nonsense", "", nil, 400},
		{"offset not escaped", "DELETE", table + "?created_at=lt.2027-06-01T00:00:00+00:00", "", nil, 400},
		{"nothing matches", "DELETE", table + "?created_at=lt.2020-01-01T00:00:00Z&select=id", "", []string{"Prefer", "return=representation"}, 200},
		{"nothing matches, counted", "DELETE", table + "?created_at=lt.-infinity", "", []string{"Prefer", "return=minimal,count=exact"}, 204},
		{"a limit is ignored", "DELETE", table + "?created_at=lt.2026-01-02T03:04:05Z&limit=1", "", []string{"Prefer", "count=exact"}, 204},
		{"whole rows", "DELETE", table + "?created_at=lte.2026-01-02T03:04:05.678901Z", "", []string{"Prefer", "return=representation,count=exact"}, 200},
	} {
		t.Run(test.name, func(t *testing.T) {
			p.t, p.seen = t, map[string]int{}
			p.do(test.method, test.path, test.body, test.headers...)
			p.wantSeen(fmt.Sprintf("%s %d", test.method, test.status))
			p.compareTables()
		})
	}
	if n := len(p.fake.Events()); n != 0 {
		t.Errorf("%d rows left", n)
	}
}
