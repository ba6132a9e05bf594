package docevents_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jarcoal/httpmock"

	"github.com/docevents/docevents-go"
)

// This prints the events of one document, the oldest first.
func ExampleClient_Timeline() {
	client := newExampleClient(docevents.WithTransport(always(httpmock.NewStringResponder(200, `[
		{"id":"0198a5e2-0000-7000-8000-00000000000b","document_id":"0198a5e2-0000-7000-8000-000000000001",
		 "user_id":"00000000-0000-0000-0000-000000000000","event_type":"failed","duration_ms":"45000",
		 "error_message":"page 3: too small","stage":"ocr","created_at":"2026-11-25T13:13:40+00:00"},
		{"id":"0198a5e2-0000-7000-8000-00000000000a","document_id":"0198a5e2-0000-7000-8000-000000000001",
		 "user_id":"00000000-0000-0000-0000-000000000000","event_type":"processing_started","duration_ms":null,
		 "error_message":null,"stage":"ocr","created_at":"2026-11-25T13:12:55+00:00"}]`))))
	events, err := client.Timeline(context.Background(), document)
	if err != nil && !errors.Is(err, docevents.ErrTruncated) { // with ErrTruncated, Timeline returns the newest events
		fmt.Println(err)
	}
	for _, e := range events {
		fmt.Println(e.CreatedAt.Format(time.TimeOnly), e.Stage, e.Type, e.Duration)
	}
	// Output:
	// 13:12:55 ocr processing_started 0s
	// 13:13:40 ocr failed 45s
}

// This reads all events of a document in pages of up to 1,000 events. The first page has
// the newest events.
func ExampleClient_TimelineBefore() {
	client := newExampleClient(docevents.WithTransport(always(httpmock.NewStringResponder(200, "[]"))))
	before := time.Now().Add(time.Hour)
	for {
		events, err := client.TimelineBefore(context.Background(), document, before)
		if err != nil && !errors.Is(err, docevents.ErrTruncated) {
			fmt.Println(err)
			return
		}
		fmt.Println(len(events), "events")
		if err == nil {
			return
		}
		before = events[0].CreatedAt
	}
	// Output:
	// 0 events
}

// This lists a tenant's documents that failed in the last 24 hours, page by page.
func ExampleClient_Documents() {
	client := newExampleClient(docevents.WithTransport(always(httpmock.NewStringResponder(200, `[
		{"document_id":"0198a5e2-0000-7000-8000-000000000001","user_id":null,"state":"failed","type":"failed","stage":"ocr",
		 "error":"page 3: too small","started":"2026-11-25T13:12:55+00:00","last_at":"2026-11-25T13:13:40+00:00"}]`))))
	query := docevents.DocumentsQuery{
		Query: docevents.Query{
			Since: time.Now().Add(-24 * time.Hour), Until: time.Now(),
			Where: map[string]string{"tenant_id": "acme"},
		},
		State: docevents.StateFailed,
	}
	for {
		page, err := client.Documents(context.Background(), query)
		if err != nil {
			fmt.Println(err)
			return
		}
		for _, d := range page.Documents {
			fmt.Println(d.ID, d.Stage, d.Error)
		}
		if query.Cursor = page.Next; query.Cursor == "" {
			return
		}
	}
	// Output:
	// 0198a5e2-0000-7000-8000-000000000001 ocr page 3: too small
}

// This looks at the documents of the last 24 hours. Here, the database lacks the functions
// of sql/014_create_docevents_reading.sql.
func ExampleClient_Summary() {
	client := newExampleClient(docevents.WithTransport(always(httpmock.NewStringResponder(404,
		`{"code":"PGRST202","message":"Could not find the function public.docevents_summary(since, source, stuck_after, until) in the schema cache"}`))))
	until := time.Now()
	summary, err := client.Summary(context.Background(), docevents.Query{Since: until.Add(-24 * time.Hour), Until: until})
	if err != nil {
		fmt.Println(err)
		return
	}
	if summary.StuckTotal > 0 || until.Sub(summary.LastCompleted) > time.Hour {
		fmt.Println("look at the documents:", summary.Stuck)
	}
	// Output:
	// docevents: Summary: HTTP 404 PGRST202: Could not find the function public.docevents_summary(since, source, stuck_after, until) in the schema cache; create the function: run sql/014_create_docevents_reading.sql in the project's database, again if an older version of it has run; it serves every table, including public.document_processing_events; if that is done, run: NOTIFY pgrst, 'reload schema'
}

func ExampleClient_Columns() {
	client := newExampleClient(docevents.WithColumns(docevents.Columns{ID: "event_id", UserID: "-"}))
	columns := client.Columns()
	fmt.Println(columns.ID, columns.UserID, columns.Stage)
	// Output: event_id - stage
}

func ExampleClient_EventTypes() {
	client := newExampleClient(docevents.WithEventTypes(docevents.EventTypes{Completed: []docevents.EventType{"done"}}))
	types := client.EventTypes()
	fmt.Println(types.Completed[0], types.Failed[0])
	// Output: done failed
}
