package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/examples/internal/wordcount"
)

// flushTimeout is how much later a reply may come for its events' sake.
const flushTimeout = 2 * time.Second

const maxDocument = 1 << 20 // bytes

func handler(client *docevents.Client) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /documents/{id}", func(w http.ResponseWriter, r *http.Request) {
		id, err := uuid.Parse(r.PathValue("id"))
		if err != nil {
			http.Error(w, "the document's id is not a UUID", http.StatusBadRequest)
			return
		}
		counts, err := count(client, id.String(), w, r)

		flush(r.Context(), client) // now: after the reply it may be too late

		if err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(counts) // the caller may be gone
	})
	return mux
}

// count counts the words of the document and records that, in events without a
// Stage: they are about the whole document.
func count(client *docevents.Client, id string, w http.ResponseWriter, r *http.Request) (wordcount.Counts, error) {
	start := time.Now()
	e := docevents.Event{DocumentID: id, UserID: docevents.SystemUser, Type: docevents.ProcessingStarted}
	client.Record(e)
	counts, err := wordcount.Count(r.Context(), http.MaxBytesReader(w, r.Body, maxDocument))
	e.Type, e.Duration = docevents.Completed, time.Since(start)
	if err != nil {
		e.Type, e.ErrorMessage = docevents.Failed, err.Error()
	}
	client.Record(e)
	return counts, err
}

// flush waits for the delivery of what has been recorded, whether or not the
// caller still waits for the reply, but not for long. What is left then stays
// queued, and is sent later if the process lives on.
func flush(ctx context.Context, client *docevents.Client) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	if err := client.Flush(ctx); err != nil {
		slog.Warn("replying before the events are delivered", "error", err)
	}
}
