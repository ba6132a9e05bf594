package docevents_test

import (
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/docevents/docevents-go"
)

// Columns and EventTypes return copies of the client's settings.
func TestColumnsAndEventTypes(t *testing.T) {
	client, err := docevents.New("https://project.supabase.test", testKey,
		docevents.WithColumns(docevents.Columns{DocumentID: "doc", UserID: "-", TextIDs: true, Extra: []string{"tenant_id"}}),
		docevents.WithEventTypes(docevents.EventTypes{Failed: []docevents.EventType{"broken"}, Skipped: []docevents.EventType{"cancelled"}, Open: true}))
	if err != nil {
		t.Fatal(err)
	}
	columns := docevents.Columns{
		ID: "id", DocumentID: "doc", UserID: "-", Type: "event_type", Duration: "duration_ms",
		ErrorMessage: "error_message", Stage: "stage", CreatedAt: "created_at", TextIDs: true, Extra: []string{"tenant_id"},
	}
	types := docevents.EventTypes{
		Arrived: []docevents.EventType{"upload_started"}, Started: []docevents.EventType{"processing_started"}, Completed: []docevents.EventType{"completed"},
		Failed: []docevents.EventType{"broken"}, Skipped: []docevents.EventType{"cancelled"}, Open: true,
	}
	for range 2 {
		if got := client.Columns(); !reflect.DeepEqual(got, columns) {
			t.Errorf("columns %+v, want %+v", got, columns)
		}
		if got := client.EventTypes(); !reflect.DeepEqual(got, types) {
			t.Errorf("types %+v, want %+v", got, types)
		}
		client.Columns().Extra[0] = "changed"
		client.EventTypes().Failed[0] = "changed"
	}
	var none *docevents.Client
	if got := none.Columns(); !reflect.DeepEqual(got, docevents.Columns{}) {
		t.Errorf("a nil client's columns: %+v", got)
	}
	if got := none.EventTypes(); !reflect.DeepEqual(got, docevents.EventTypes{}) {
		t.Errorf("a nil client's types: %+v", got)
	}
}

// ErrOtherAnswer distinguishes the answer of another service or another version
// from a network error.
func TestErrOtherAnswer(t *testing.T) {
	for body, want := range map[string]bool{
		`{"hello":"world"}`: true, `"text"`: true, "null": true, "no JSON": true,
		`{"code":"PGRST202","message":"x"}`: true, "": false, `[{"document_id":`: false,
	} {
		client, _ := newClient(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: req}, nil
		}))
		now := time.Now()
		q := docevents.Query{Since: now.Add(-time.Hour), Until: now}
		_, err := client.Summary(t.Context(), q)
		_, alsoErr := client.Documents(t.Context(), docevents.DocumentsQuery{Query: q})
		_, lastErr := client.Timeline(t.Context(), docevents.SystemUser)
		for method, err := range map[string]error{"Summary": err, "Documents": alsoErr, "Timeline": lastErr} {
			if err == nil || errors.Is(err, docevents.ErrOtherAnswer) != want {
				t.Errorf("%s of %q: %v", method, body, err)
			}
		}
	}
}
