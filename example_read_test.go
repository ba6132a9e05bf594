package docevents_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jarcoal/httpmock"

	"github.com/docevents/docevents-go"
)

// What happened to one document, step by step.
func ExampleClient_Timeline() {
	client := newExampleClient(docevents.WithTransport(always(httpmock.NewStringResponder(200, `[
		{"id":"0198a5e2-0000-7000-8000-00000000000a","document_id":"0198a5e2-0000-7000-8000-000000000001",
		 "user_id":"00000000-0000-0000-0000-000000000000","event_type":"processing_started","duration_ms":null,
		 "error_message":null,"stage":"ocr","created_at":"2026-11-25T13:12:55+00:00"},
		{"id":"0198a5e2-0000-7000-8000-00000000000b","document_id":"0198a5e2-0000-7000-8000-000000000001",
		 "user_id":"00000000-0000-0000-0000-000000000000","event_type":"failed","duration_ms":45000,
		 "error_message":"page 3: too small","stage":"ocr","created_at":"2026-11-25T13:13:40+00:00"}]`))))
	events, err := client.Timeline(context.Background(), document)
	if err != nil && !errors.Is(err, docevents.ErrTruncated) { // of which the oldest 1,000 come all the same
		fmt.Println(err)
	}
	for _, e := range events {
		fmt.Println(e.CreatedAt.Format(time.TimeOnly), e.Stage, e.Type, e.Duration)
	}
	// Output:
	// 13:12:55 ocr processing_started 0s
	// 13:13:40 ocr failed 45s
}

// How the last day went, for an alert.
func ExampleClient_Summary() {
	client := newExampleClient(docevents.WithTransport(always(httpmock.NewStringResponder(404,
		`{"code":"PGRST202","message":"Could not find the function public.document_processing_events_summary(since, until) in the schema cache"}`))))
	until := time.Now()
	summary, err := client.Summary(context.Background(), until.Add(-24*time.Hour), until)
	if err != nil {
		fmt.Println(err)
		return
	}
	if summary.StuckTotal > 0 || until.Sub(summary.LastCompleted) > time.Hour {
		fmt.Println("look at the documents:", summary.Stuck)
	}
	// Output:
	// docevents: Summary: HTTP 404 PGRST202: Could not find the function public.document_processing_events_summary(since, until) in the schema cache; create the function: run sql/014_create_document_processing_events_summary.sql; if that is done, run: NOTIFY pgrst, 'reload schema'
}
