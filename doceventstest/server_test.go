package doceventstest_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/doceventstest"
)

var (
	document = uuid.NewString()
	longAgo  = time.Date(2025, 1, 2, 3, 4, 5, 678901000, time.UTC)
)

func event(stage string) docevents.Event {
	return docevents.Event{DocumentID: document, UserID: docevents.SystemUser, Type: docevents.Completed, Stage: stage}
}

func stages(events []docevents.Event) string {
	var names []string
	for _, e := range events {
		names = append(names, e.Stage)
	}
	return strings.Join(names, " ")
}

func flush(t *testing.T, c *docevents.Client) {
	t.Helper()
	if err := c.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestEventsComeBackAsStored(t *testing.T) {
	server := doceventstest.NewServer(t)
	client := server.Client()
	if err := client.Check(t.Context()); err != nil {
		t.Errorf("Check: %v", err)
	}
	if events := server.Events(); len(events) != 0 {
		t.Errorf("a new server holds %v", events)
	}
	full := docevents.Event{
		DocumentID: document, UserID: uuid.NewString(), Type: docevents.Failed,
		Duration: 1500 * time.Millisecond, ErrorMessage: "no \"text\" in it: <&>\n", Stage: "ocr", CreatedAt: longAgo,
	}
	client.Record(full)
	client.Record(event(""))
	events := server.WaitFor(2)
	if len(events) != 2 {
		t.Fatalf("got %+v, want two", events)
	}
	if id, err := uuid.Parse(events[0].ID); err != nil || id.Version() != 7 {
		t.Errorf("got the ID %q, want one of version 7", events[0].ID)
	}
	full.ID = events[0].ID
	if !reflect.DeepEqual(events[0], full) {
		t.Errorf("got %+v, want %+v", events[0], full)
	}
	if e := events[1]; e.Duration != 0 || e.ErrorMessage != "" || e.Stage != "" || time.Since(e.CreatedAt).Abs() > time.Hour {
		t.Errorf("got %+v", e)
	}
}

// TestEventsOfOneTime checks that events of the same microsecond keep the order of
// Record.
func TestEventsOfOneTime(t *testing.T) {
	server := doceventstest.NewServer(t)
	client := server.Client()
	var want []string
	for i := range 200 {
		e := event(strconv.Itoa(i))
		e.CreatedAt = longAgo
		client.Record(e)
		want = append(want, e.Stage)
	}
	if got := stages(server.WaitFor(len(want))); got != strings.Join(want, " ") {
		t.Errorf("got %s", got)
	}
}

// TestOtherTable checks that Client and the server agree about the table's schema,
// name and event types.
func TestOtherTable(t *testing.T) {
	server := doceventstest.NewServer(t)
	server.Schema, server.Table, server.EventTypes = "audit", "events", docevents.EventTypes{Completed: []docevents.EventType{"signed"}}
	client := server.Client()
	e := event("")
	e.Type = "signed"
	client.Record(e)
	if got := server.WaitFor(1)[0].Type; got != "signed" {
		t.Errorf("got %s", got)
	}
	e.Type = docevents.Completed
	lenient := server.Client(docevents.WithEventTypes(docevents.EventTypes{Open: true})) // the client takes any type, so the table decides
	lenient.Record(e)
	for e.Type = "signed"; lenient.Stats().Dropped.Rejected == 0; time.Sleep(10 * time.Millisecond) {
		lenient.Record(e) // shows that the table takes other rows
	}
	e.Type = docevents.Completed

	server = doceventstest.NewServer(t)
	server.EventTypes.Open = true // no CHECK
	server.Client().Record(e)
	e.Type = "anything"
	server.Client().Record(e)
	server.WaitFor(2)
}

// TestIDs checks that the table takes text ids and NULL if docevents.Columns allows
// them, and that Events returns them.
func TestIDs(t *testing.T) {
	for name, test := range map[string]struct {
		columns        docevents.Columns
		document, user string
		invalid        bool
	}{
		"the migration's UUIDs":   {docevents.Columns{}, document, docevents.SystemUser, false},
		"the migration's NULL":    {docevents.Columns{}, document, "", true},
		"text":                    {docevents.Columns{TextIDs: true}, "invoice-42", "ann", false},
		"text that is NULL":       {docevents.Columns{TextIDs: true}, "", "", false},
		"a UUID that is NULL":     {docevents.Columns{Stage: "step"}, document, "", false},
		"text in a uuid column":   {docevents.Columns{Stage: "step"}, "invoice-42", "", true},
		"a column under its name": {docevents.Columns{DocumentID: "file", TextIDs: true}, "42", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			server := doceventstest.NewServer(t)
			server.Columns = test.columns
			client := server.Client()
			e := event("")
			e.DocumentID, e.UserID = test.document, test.user
			client.Record(e)
			flush(t, client)
			if test.invalid {
				if got := client.Stats().Dropped.Invalid; got != 1 {
					t.Errorf("%d events are invalid, want 1", got)
				}
				return
			}
			if got := server.WaitFor(1)[0]; got.DocumentID != test.document || got.UserID != test.user {
				t.Errorf("got %q, %q", got.DocumentID, got.UserID)
			}
		})
	}
}

// TestTypesByMeaning checks that the table takes the types that the client records,
// including those of Step.
func TestTypesByMeaning(t *testing.T) {
	server := doceventstest.NewServer(t)
	server.EventTypes = docevents.EventTypes{
		Started: []docevents.EventType{"begun"}, Completed: []docevents.EventType{"done"}, Skipped: []docevents.EventType{"cancelled"},
	}
	client := server.Client(docevents.WithMaxInFlight(1))
	if err := client.Step(event("ocr"), func() error { return nil }); err != nil {
		t.Error(err)
	}
	for _, kept := range []docevents.EventType{"cancelled", docevents.UploadStarted, docevents.Failed} {
		e := event("")
		e.Type = kept
		client.Record(e)
	}
	var got []string
	for _, e := range server.WaitFor(5) {
		got = append(got, string(e.Type))
	}
	if want := "begun done cancelled upload_started failed"; strings.Join(got, " ") != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFailNext(t *testing.T) {
	server := doceventstest.NewServer(t)
	client := server.Client()
	for _, failure := range []struct {
		status int
		code   string
	}{{503, ""}, {503, "PGRST000"}, {500, "57014"}, {409, "23503"}} {
		before := len(server.Events())
		server.FailNext(failure.status, failure.code)
		client.Record(event("first"))
		client.Record(event("second"))
		if err := client.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		// They are in the order of Record, in whatever order they were retried.
		if got := stages(server.Events()[before:]); got != "first second" {
			t.Errorf("after %v there is %q, want both events", failure, got)
		}
	}
	if stats := client.Stats(); stats.Retries < 4 || stats.Delivered != 8 {
		t.Errorf("got %+v, want four failures", stats)
	}
	server.FailNext(400, "22P02") // a single refusal of all rows doesn't drop them
	client.Record(event("refused once"))
	server.FailNext(503, "one")
	server.FailNext(401, "two")
	client.Record(event(""))
	if err := client.Close(t.Context()); err != nil { // retries
		t.Error(err)
	}
	if stats := client.Stats(); stats.Delivered != 10 {
		t.Errorf("got %+v", stats)
	}
}

func TestSettingsAreChecked(t *testing.T) {
	server := doceventstest.NewServer(t)
	for _, test := range []struct {
		name string
		key  string
		opt  docevents.Option
		want string
	}{
		{"wrong key", "sb_secret_wrong", docevents.WithTable(server.Table), "HTTP 401: Invalid API key"},
		{"a key of the old kind", "a.b.c", docevents.WithTable(server.Table), "HTTP 401: Invalid API key"},
		{"wrong table", server.Key, docevents.WithTable("nope"), "HTTP 404 PGRST205: Could not find the table 'public.nope' in the schema cache"},
		{"wrong schema", server.Key, docevents.WithSchema("nope"), "HTTP 406 PGRST106: Invalid schema: nope"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel() // each waits for its deadline
			client, err := docevents.New(server.URL, test.key, test.opt)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close(t.Context())
			ctx, cancel := context.WithTimeout(t.Context(), time.Second) // otherwise Check retries for 5 s
			defer cancel()
			if err := client.Check(ctx); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

func TestPurge(t *testing.T) {
	for name, test := range map[string]struct {
		opt   docevents.Option
		fails string
	}{
		"at once":                  {nil, ""},
		"in steps":                 {docevents.WithPurgeBatch(2), ""},
		"in steps after a timeout": {nil, "57014"},
	} {
		t.Run(name, func(t *testing.T) {
			server := doceventstest.NewServer(t)
			client := server.Client(test.opt)
			cutoff := longAgo.Add(5 * time.Hour)
			// The events are not in the order of time. The event at the cutoff stays.
			for _, hours := range []int{5, 4, 0, 9, 2, 1, 3, 3, 3} {
				e := event(string(rune('0' + hours)))
				e.CreatedAt = longAgo.Add(time.Duration(hours) * time.Hour)
				client.Record(e)
			}
			flush(t, client)
			if test.fails != "" {
				server.FailNext(500, test.fails)
			}
			n, err := client.PurgeBefore(t.Context(), cutoff)
			if n != 7 || err != nil {
				t.Errorf("purged %d, %v, want 7", n, err)
			}
			if got := stages(server.Events()); got != "5 9" {
				t.Errorf("left are %s, want 5 9", got)
			}
			if n, err = client.PurgeBefore(t.Context(), cutoff); n != 0 || err != nil {
				t.Errorf("then purged %d, %v", n, err)
			}
		})
	}
}

// TestRefusals checks that the server refuses bad requests with the statuses and
// codes of PostgREST.
func TestRefusals(t *testing.T) {
	server := doceventstest.NewServer(t)
	const all = "?columns=id,document_id,user_id,event_type,duration_ms,error_message,stage,created_at"
	good := map[string]any{
		"id": uuid.NewString(), "document_id": document, "user_id": docevents.SystemUser, "event_type": "completed",
		"duration_ms": 12, "error_message": nil, "stage": "ocr", "created_at": "2026-01-02T03:04:05.678901Z",
	}
	with := func(column string, value any) string {
		bad := maps.Clone(good)
		bad["id"] = uuid.NewString()
		bad[column] = value
		body, err := json.Marshal([]any{good, bad})
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	const table = "/rest/v1/document_processing_events"
	for _, test := range []struct {
		name, method, path, body string
		status                   int
		code                     string
	}{
		{"broken JSON", "POST", table + all, "{", 400, "22P02"},
		{"wrong UUID", "POST", table + all, with("document_id", "not-a-uuid"), 400, "22P02"},
		{"no UUID", "POST", table + all, with("user_id", nil), 400, "23502"},
		{"number for a UUID", "POST", table + all, with("id", 7), 400, "22P02"},
		{"wrong type", "POST", table + all, with("event_type", "nope"), 400, "23514"},
		{"NUL", "POST", table + all, with("error_message", "a\x00b"), 400, "22P05"},
		{"overflow", "POST", table + all, with("duration_ms", int64(3000000000)), 400, "22003"},
		{"fraction", "POST", table + all, with("duration_ms", 1.5), 400, "22P02"},
		{"bad time", "POST", table + all, with("created_at", "yesterday-ish"), 400, "22007"},
		{"same id twice", "POST", table + all, with("id", good["id"]), 409, "23505"},
		{"null id after a good row", "POST", table + all, with("id", nil), 400, "23502"},
		{"another column's conflict", "POST", table + all + "&on_conflict=stage", "[]", 400, "42P10"},
		{"unknown column", "POST", table + all + ",nope", with("nope", 1), 400, "PGRST204"},
		{"unknown table", "POST", "/rest/v1/nope" + all, "[]", 404, "PGRST205"},
		{"unknown path", "POST", "/auth/v1/token", "[]", 404, ""},
		{"unknown method", "PATCH", table, "{}", 405, "PGRST117"},
		{"bad time in a filter", "DELETE", table + "?created_at=lt.nonsense", "", 400, "22007"},
		{"bad time in a group", "GET", table + "?and=(created_at.gt.2025-01-01T00:00:00Z,created_at.lt.nonsense)", "", 400, "22007"},
		{"bad id in a filter", "DELETE", table + "?id=eq.7", "", 400, "22P02"},
		{"unknown column in a filter", "DELETE", table + "?nope=eq.7", "", 400, "42703"},
		{"unknown column in a selection", "GET", table + "?select=id,nope", "", 400, "42703"},
		{"unknown column in an order", "GET", table + "?order=nope.desc", "", 400, "42703"},
		{"another operator", "DELETE", table + "?id=neq.7", "", 400, "PGRST100"},
		{"another cast", "GET", table + "?select=id::bytea", "", 501, ""},
		{"a negative limit", "GET", table + "?limit=-1", "", 416, "PGRST103"},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, text := send(t, server, test.method, test.path, test.body)
			var body struct{ Code, Message string }
			if err := json.Unmarshal([]byte(text), &body); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			if status != test.status || body.Code != test.code || body.Message == "" {
				t.Errorf("got %d %s, want %d %s", status, text, test.status, test.code)
			}
			if events := server.Events(); len(events) != 0 {
				t.Errorf("stored %v", events)
			}
		})
	}
}

// send sends a request without a client, and returns the answer's status and body.
func send(t *testing.T, server *doceventstest.Server, method, path, body string) (status int, answer string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{"Apikey": {server.Key}, "Content-Profile": {server.Schema}, "Accept-Profile": {server.Schema}}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// TestEventsAreStoredOnce checks that if the answer to an insert is lost, the event is
// retried and stored once.
func TestEventsAreStoredOnce(t *testing.T) {
	server := doceventstest.NewServer(t)
	client := server.Client(docevents.WithTransport(&forgetful{}))
	client.Record(event("once"))
	flush(t, client)
	if got := stages(server.Events()); got != "once" || client.Stats().Requests != 2 {
		t.Errorf("got %q after %d requests, want it once after 2", got, client.Stats().Requests)
	}
}

// A forgetful transport loses the first answer.
type forgetful struct{ requests int }

func (f *forgetful) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(req)
	if f.requests++; f.requests == 1 && err == nil {
		resp.Body.Close()
		return nil, io.ErrUnexpectedEOF
	}
	return resp, err
}

// TestColumns checks a table with other columns, where the client has the Columns
// of the server.
func TestColumns(t *testing.T) {
	server := doceventstest.NewServer(t)
	server.Columns = docevents.Columns{
		ID: "event_id", DocumentID: "-", UserID: "-", Type: "kind", Duration: "ms", ErrorMessage: "-", Stage: "step", CreatedAt: "at",
		Extra: []string{"stage", "metadata", "document_id"},
	}
	client := server.Client()
	if err := client.Check(t.Context()); err != nil {
		t.Error(err)
	}
	full := docevents.Event{
		ID: uuid.NewString(), Type: docevents.Failed, Duration: time.Second, Stage: "ocr", CreatedAt: longAgo,
		Extra: map[string]any{"stage": nil, "metadata": map[string]any{"pages": 3}, "document_id": "invoice-42"},
	}
	bare := docevents.Event{ID: uuid.NewString(), Type: docevents.Completed, CreatedAt: longAgo.Add(time.Hour)}
	client.Record(full)
	client.Record(bare)
	client.Record(bare)
	flush(t, client)
	full.Extra["metadata"] = map[string]any{"pages": json.Number("3")}
	if got, want := server.Events(), []docevents.Event{full, bare}; !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if n, err := client.PurgeBefore(t.Context(), longAgo.Add(time.Minute)); n != 1 || err != nil {
		t.Errorf("purged %d, %v", n, err)
	}

	// For a client with the default columns, Check's error names the option to set.
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err := server.Client(docevents.WithColumns(docevents.Columns{})).Check(ctx)
	if err == nil || !strings.Contains(err.Error(), "with WithColumns") {
		t.Errorf("got %v", err)
	}
}

// TestCheckFindsMissingType checks that the server refuses Check's insert because of
// the first bad row, as PostgreSQL does, and that it stores nothing.
func TestCheckFindsMissingType(t *testing.T) {
	server := doceventstest.NewServer(t)
	err := server.Client(docevents.WithEventTypes(docevents.EventTypes{Notes: []docevents.EventType{"retried"}})).Check(t.Context())
	if err == nil || !strings.Contains(err.Error(), `no event of type "retried":`) {
		t.Errorf("got %v", err)
	}
	if events := server.Events(); len(events) != 0 {
		t.Errorf("stored %v", events)
	}
}

func TestTimeline(t *testing.T) {
	server := doceventstest.NewServer(t)
	server.Columns.Extra = []string{"tenant"}
	client := server.Client()
	for i := range 1001 {
		e := event(strconv.Itoa(i))
		e.CreatedAt = longAgo.Add(time.Duration(-i) * time.Second)
		client.Record(e)
	}
	other := docevents.Event{
		ID: uuid.NewString(), DocumentID: uuid.NewString(), UserID: docevents.SystemUser, Type: docevents.Failed,
		ErrorMessage: "no text", CreatedAt: longAgo, Extra: map[string]any{"tenant": "t1"},
	}
	client.Record(other)
	flush(t, client)
	events, err := client.Timeline(t.Context(), document)
	if !errors.Is(err, docevents.ErrTruncated) || len(events) != 1000 || events[0].Stage != "999" || events[999].Stage != "0" {
		t.Errorf("%d events, %v", len(events), err)
	}
	events, err = client.TimelineBefore(t.Context(), document, events[0].CreatedAt)
	if err != nil || len(events) != 1 || events[0].Stage != "1000" {
		t.Errorf("the earlier events: %d, %v", len(events), err)
	}
	if events, err = client.Timeline(t.Context(), other.DocumentID); err != nil || !reflect.DeepEqual(events, []docevents.Event{other}) {
		t.Errorf("%+v, %v; want %+v", events, err, other)
	}
	if events, err = client.Timeline(t.Context(), uuid.NewString()); err != nil || len(events) > 0 {
		t.Errorf("of a document without events: %v, %v", events, err)
	}
	_, err = client.Summary(t.Context(), docevents.Query{Since: longAgo, Until: longAgo.Add(time.Hour)})
	if err == nil || !strings.Contains(err.Error(), "run sql/014") {
		t.Errorf("Summary: %v", err)
	}
}

// TestDescription checks the description at GET /, with columns of other names, and the
// answer if the description is disabled.
func TestDescription(t *testing.T) {
	server := doceventstest.NewServer(t)
	server.Columns = docevents.Columns{ID: "event_id", UserID: "-", Extra: []string{"metadata"}}
	status, body := send(t, server, "GET", "/rest/v1/", "")
	for _, want := range []string{
		`"required":["event_id","event_type","created_at"]`, `"metadata":{"format":"jsonb"}`,
		`"event_id":{"default":"gen_random_uuid()","description":"Note:\nThis is a Primary Key.<pk/>","format":"uuid","type":"string"}`,
	} {
		if status != 200 || !strings.Contains(body, want) {
			t.Errorf("%d %s, want %s", status, body, want)
		}
	}
	server.FailNext(404, "PGRST126")
	if status, body := send(t, server, "GET", "/rest/v1/", ""); status != 404 || !strings.Contains(body, "PGRST126") {
		t.Errorf("%d %s", status, body)
	}
}
