package docevents_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/jarcoal/httpmock"

	"github.com/docevents/docevents-go"
)

// Tests that mock HTTP with httpmock need nothing else for docevents, but they
// know then how it talks to the server. A test of what an app records is simpler
// with package doceventstest.
//
// New looks at http.DefaultTransport once, so Activate comes before it.
func ExampleNew_httpmock() {
	httpmock.Activate() // in a test: httpmock.Activate(t), which also deactivates
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
	if err := client.Close(ctx); err != nil { // before the deactivation
		fmt.Println(err)
	}

	fmt.Println(httpmock.GetTotalCallCount(), "request,", client.Stats().Delivered, "event")
	// Output: 1 request, 1 event
}

// A mock of this client's own leaves http.DefaultTransport alone, and so does
// for tests that run in parallel. It reads what was sent.
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

// A refusal, as PostgREST words it. The error's text also says what to do.
func ExampleClient_Check_httpmock() {
	mock := httpmock.NewMockTransport()
	mock.RegisterResponder(http.MethodPost, "/rest/v1/document_processing_events",
		httpmock.NewJsonResponderOrPanic(http.StatusForbidden, map[string]any{
			"code": "42501", "message": "permission denied for table document_processing_events", "details": nil, "hint": nil,
		}))
	client, err := docevents.New("https://abcdefgh.supabase.co", "sb_secret_of_this_project", docevents.WithTransport(mock))
	if err != nil {
		fmt.Println(err)
		return
	}

	ctx, cancel := context.WithTimeout(context.Background(), time.Second) // 5 s at most, whatever ctx
	defer cancel()
	err = client.Check(ctx)

	if e := (*docevents.Error)(nil); errors.As(err, &e) {
		fmt.Println(e.Status, e.Code, e.Message)
	}
	// Output: 403 42501 permission denied for table document_processing_events
}

// A purge counts the ids that the server returns.
func ExampleClient_PurgeOlderThan_httpmock() {
	mock := httpmock.NewMockTransport()
	mock.RegisterResponder(http.MethodDelete, "/rest/v1/document_processing_events",
		httpmock.NewStringResponder(http.StatusOK, `[{"id":"0198a5e2-0000-7000-8000-000000000001"}]`))
	client, err := docevents.New("https://abcdefgh.supabase.co", "sb_secret_of_this_project", docevents.WithTransport(mock))
	if err != nil {
		fmt.Println(err)
		return
	}

	fmt.Println(client.PurgeOlderThan(context.Background(), 30))
	// Output: 1 <nil>
}
