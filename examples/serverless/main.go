// Serverless is an HTTP service for a platform, such as Cloud Run, that may freeze or
// end the process after each reply. So before it replies, the service waits up to 2 s
// for its events to be stored.
//
//	curl --data-binary @README.md http://127.0.0.1:8081/documents/0198a5e2-0000-7000-8000-000000000001
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/docevents/docevents-go"
)

func main() {
	client, err := docevents.NewFromEnv() // one client for all requests, to reuse its connections
	if err != nil {
		log.Fatal(err)
	}
	http.Handle("POST /documents/{id}", handler(client))
	addr := "127.0.0.1:8081"
	if port := os.Getenv("PORT"); port != "" { // set by the platform
		addr = ":" + port
	}
	log.Fatal(http.ListenAndServe(addr, nil))
}

func handler(client *docevents.Client) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var size int
		err := client.Step(docevents.Event{DocumentID: r.PathValue("id"), UserID: docevents.SystemUser}, func() (err error) {
			size, err = process(http.MaxBytesReader(w, r.Body, 1<<20))
			return err
		})

		// Flush waits up to 2 s for the events to be stored, even if the caller has
		// closed the connection. Events that aren't stored by then stay queued, and are
		// sent if the process runs again.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), 2*time.Second)
		defer cancel()
		if err := client.Flush(ctx); err != nil {
			log.Print("events are not stored yet, replying anyway: ", err)
		}

		if err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		fmt.Fprintln(w, size, "bytes")
	})
}

// process stands in for your app's work on a document.
func process(document io.Reader) (size int, err error) {
	text, err := io.ReadAll(document)
	if err == nil && len(text) == 0 {
		err = errors.New("the document is empty")
	}
	return len(text), err
}
