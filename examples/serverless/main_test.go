package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/doceventstest"
)

const path = "/documents/0198a5e2-0000-7000-8000-000000000001"

func post(client *docevents.Client, r *http.Request) *httptest.ResponseRecorder {
	mux := http.NewServeMux()
	mux.Handle("POST /documents/{id}", handler(client))
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	return w
}

// TestStoredBeforeTheReply checks that the events are stored before the reply, even
// if the caller has gone.
func TestStoredBeforeTheReply(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range []struct {
		ctx    context.Context
		text   string
		status int
		end    docevents.EventType
	}{
		{t.Context(), "text", http.StatusOK, docevents.Completed},
		{t.Context(), "", http.StatusUnprocessableEntity, docevents.Failed},
		{t.Context(), strings.Repeat("x", 1<<20+1), http.StatusUnprocessableEntity, docevents.Failed},
		{gone, "text", http.StatusOK, docevents.Completed},
	} {
		server := doceventstest.NewServer(t)
		w := post(server.Client(), httptest.NewRequestWithContext(test.ctx, http.MethodPost, path, strings.NewReader(test.text)))
		events := server.Events() // doesn't wait
		if w.Code != test.status || len(events) != 2 || events[1].Type != test.end {
			t.Errorf("%d %s, %+v", w.Code, w.Body, events)
		}
	}
}

// TestReplyDespiteARefusal checks that the reply is sent and no event is dropped if
// the server refuses the events.
func TestReplyDespiteARefusal(t *testing.T) {
	t.Parallel()
	server := doceventstest.NewServer(t)
	client := server.Client()
	for range 100 { // more than the client sends in this test
		server.FailNext(http.StatusUnauthorized, "")
	}
	w := post(client, httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader("text")))
	if stats := client.Stats(); w.Code != http.StatusOK || stats.Pending != 2 {
		t.Errorf("%d %s, %+v", w.Code, w.Body, stats)
	}
}
