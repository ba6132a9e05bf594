package docevents_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/docevents/docevents-go"
)

const documentRow = `{"document_id":"42","user_id":null,"state":"stuck","type":"progress","stage":"ocr","error":null,` +
	`"started":"2026-01-01T00:00:00Z","last_at":"2026-01-01T00:30:00.000001Z"}`

func TestDocuments(t *testing.T) {
	s := &script{answers: []answer{{body: "[" + documentRow + ", " + documentRow + "]"}, {body: "[]"}}}
	c, _ := newClient(t, s)
	since := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	q := docevents.DocumentsQuery{Query: docevents.Query{Since: since, Until: since.Add(time.Hour)}, State: docevents.StateStuck, Stage: "ocr", Limit: 1}
	page, err := c.Documents(t.Context(), q)
	want := []docevents.Document{{ID: "42", State: docevents.StateStuck, Type: "progress", Stage: "ocr", Started: since, LastAt: since.Add(30*time.Minute + time.Microsecond)}}
	if err != nil || page.Next == "" || !reflect.DeepEqual(page.Documents, want) {
		t.Errorf("got  %+v, %v\nwant %+v", page, err, want)
	}
	if got := s.requests[0].Method + " " + s.requests[0].URL.Path; got != "GET /rest/v1/rpc/docevents_documents" {
		t.Error(got)
	}
	arguments := map[string]string{
		"since": "2026-01-01T00:00:00.000000Z", "until": "2026-01-01T01:00:00.000000Z", "stuck_after": "1800000000 microseconds",
		"state": "stuck", "stage": "ocr", "max": "2",
	}
	wantArguments(t, s.requests[0], arguments, migrationSource)

	// The next page begins after the last document, and has the range of the first page.
	q.Cursor, q.Since, q.Until = page.Next, since.Add(time.Minute), time.Time{}
	if page, err = c.Documents(t.Context(), q); err != nil || page.Next != "" || len(page.Documents) != 0 {
		t.Errorf("%+v, %v", page, err)
	}
	arguments["before_at"], arguments["before_id"] = "2026-01-01T00:30:00.000001Z", "42"
	wantArguments(t, s.requests[1], arguments, migrationSource)

	s.requests = nil
	if _, err = c.Documents(t.Context(), docevents.DocumentsQuery{Query: q.Query, Cursor: q.Cursor, Error: "page #"}); err != nil {
		t.Error(err)
	}
	if got := s.requests[0].URL.Query(); got.Get("max") != "51" || got.Has("state") || got.Has("stage") || got.Get("error") != "page #" {
		t.Errorf("defaults: %v", got)
	}
}

func TestQueryArguments(t *testing.T) {
	s := &script{answers: []answer{{body: "[]"}}}
	c, _ := newClient(t, s)
	where := func(column, value string) func(*docevents.DocumentsQuery) {
		return func(q *docevents.DocumentsQuery) { q.Where = map[string]string{column: value} }
	}
	for want, change := range map[string]func(*docevents.DocumentsQuery){
		"is not a State":                   func(q *docevents.DocumentsQuery) { q.State = "done" },
		"Limit must be from 1 to 500":      func(q *docevents.DocumentsQuery) { q.Limit = 501 },
		"or 0 for 50, not -1":              func(q *docevents.DocumentsQuery) { q.Limit = -1 },
		"the Cursor is not valid":          func(q *docevents.DocumentsQuery) { q.Cursor = "e30=" },
		"Stage or Error is not valid text": func(q *docevents.DocumentsQuery) { q.Error = "\x00" },
		"StuckAfter is negative":           func(q *docevents.DocumentsQuery) { q.StuckAfter = -1 },
		"since must be before until":       func(q *docevents.DocumentsQuery) { q.Until = q.Since },
		`in Where "\xff" or its value is`:  where("\xff", "1"),
		`in Where "tenant_id" or its val`:  where("tenant_id", "a\x00"),
		"make a query of ":                 where("tenant_id", strings.Repeat("x", 8<<10)),
	} {
		q := docevents.DocumentsQuery{Query: lastHour()}
		change(&q)
		if _, err := c.Documents(t.Context(), q); err == nil || !strings.HasPrefix(err.Error(), "docevents: Documents: ") || !strings.Contains(err.Error(), want) || len(s.requests) > 0 {
			t.Errorf("want %q: %d requests, %v", want, len(s.requests), err)
		}
	}
	long := docevents.DocumentsQuery{Query: lastHour(), Limit: 500}
	where("tenant id", strings.Repeat("x", 5<<10))(&long)
	if _, err := c.Documents(t.Context(), long); err != nil {
		t.Errorf("a long query: %v", err)
	}
	c, _ = newClient(t, s, docevents.WithColumns(docevents.Columns{DocumentID: "-"}))
	if _, err := c.Documents(t.Context(), docevents.DocumentsQuery{Query: lastHour()}); err == nil || !strings.Contains(err.Error(), "no column for DocumentID") {
		t.Errorf("without a column for documents: %v", err)
	}
}

// Documents returns an error for a cursor that isn't valid, and a page for any other
// cursor.
func FuzzCursor(f *testing.F) {
	for _, cursor := range []string{"", "e30", "eyJTaW5jZSI6MSwiVW50aWwiOjIsIkF0IjoxLCJJRCI6IjQyIn0", "bnVsbA", "W10"} {
		f.Add(cursor)
	}
	f.Fuzz(func(t *testing.T, cursor string) {
		s := &script{answers: []answer{{body: "[]"}}}
		c, _ := newClient(t, s)
		page, err := c.Documents(t.Context(), docevents.DocumentsQuery{Query: lastHour(), Cursor: cursor})
		if (err == nil) != (len(s.requests) == 1) || err == nil && !reflect.DeepEqual(page, &docevents.DocumentsPage{Documents: []docevents.Document{}}) {
			t.Errorf("%d requests, %+v, %v", len(s.requests), page, err)
		}
	})
}
