package docevents_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/docevents/docevents-go"
)

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
