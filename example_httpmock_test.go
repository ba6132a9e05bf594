package docevents_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/jarcoal/httpmock"

	"github.com/docevents/docevents-go"
)

// Tests that already use httpmock can mock this package's requests as well, but
// then they depend on its HTTP requests. To test which events an app records,
// package doceventstest is simpler.
//
// Call Activate before New, because New reads http.DefaultTransport only once.
func ExampleNew_httpmock() {
	httpmock.Activate() // a test calls httpmock.Activate(t), which also deactivates it
	defer httpmock.DeactivateAndReset()
	httpmock.RegisterResponder(http.MethodPost, "https://abcdefgh.supabase.co/rest/v1/document_processing_events",
		httpmock.NewStringResponder(http.StatusCreated, ""))

	client, err := docevents.New("https://abcdefgh.supabase.co", "sb_secret_of_this_project")
	if err != nil {
		fmt.Println(err)
		return
	}
	client.Record(docevents.Event{
		DocumentID: "0198a5e2-0000-7000-8000-000000000001", UserID: docevents.SystemUser, Type: docevents.Completed,
	})
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := client.Close(ctx); err != nil { // sends the event before httpmock is deactivated
		fmt.Println(err)
	}

	fmt.Println(httpmock.GetTotalCallCount(), "request,", client.Stats().Delivered, "event")
	// Output: 1 request, 1 event
}

// A mock transport that only this client uses doesn't change http.DefaultTransport,
// so tests can run in parallel. This mock also decodes the rows.
func ExampleWithTransport_httpmock() {
	mock := httpmock.NewMockTransport()
	mock.RegisterResponder(http.MethodPost, "/rest/v1/document_processing_events", func(req *http.Request) (*http.Response, error) {
		var rows []struct {
			EventType  string `json:"event_type"`
			DurationMS *int   `json:"duration_ms"`
		}
		if err := json.NewDecoder(req.Body).Decode(&rows); err != nil {
			return nil, err
		}
		for _, row := range rows {
			fmt.Println(row.EventType, row.DurationMS == nil)
		}
		return httpmock.NewStringResponse(http.StatusCreated, ""), nil
	})
	client, err := docevents.New("https://abcdefgh.supabase.co", "sb_secret_of_this_project", docevents.WithTransport(mock))
	if err != nil {
		fmt.Println(err)
		return
	}

	client.Record(docevents.Event{
		DocumentID: "0198a5e2-0000-7000-8000-000000000001", UserID: docevents.SystemUser, Type: docevents.UploadStarted,
	})

	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := client.Close(ctx); err != nil {
		fmt.Println(err)
	}
	// Output: upload_started true
}
