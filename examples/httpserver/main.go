// Httpserver receives documents over HTTP and processes them in the background. It
// shows how to shut down without losing events: first stop uploads, then finish the
// documents, then wait until the last events are stored.
//
//	curl --data-binary @README.md http://127.0.0.1:8080/documents
//	curl http://127.0.0.1:8080/debug/vars
package main

import (
	"context"
	"errors"
	"expvar"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/docevents/docevents-go"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	client, err := docevents.NewFromEnv()
	if errors.Is(err, docevents.ErrNoSettings) {
		log.Print(err, "; no events are recorded") // a nil Client does nothing
	} else if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:8080")
	if err != nil {
		log.Fatal(err)
	}
	expvar.Publish("docevents", expvar.Func(func() any { return client.Stats() }))
	if err := serve(ctx, listener, &service{client: client}); err != nil {
		log.Fatal(err)
	}
}

// serve serves requests until ctx ends or the server fails, and then shuts down.
// SIGTERM ends ctx, and Kubernetes kills the process 30 s later. serve waits up to 15 s
// for running uploads and up to 5 s for the last events. That leaves 10 s to finish the
// documents.
func serve(ctx context.Context, listener net.Listener, s *service) error {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /documents", s.upload)
	mux.Handle("GET /debug/vars", expvar.Handler())
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}

	uploads, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	err = errors.Join(err, server.Shutdown(uploads)) // no uploads after this
	s.stop()                                         // no events after this
	events, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return errors.Join(err, s.client.Close(events))
}

const (
	maxUpload  = 10 << 20 // bytes
	maxRunning = 100      // documents
)

type service struct {
	client *docevents.Client

	mu      sync.Mutex // guards running and stopped
	running int
	stopped bool
	work    sync.WaitGroup
}

// upload receives a document, starts to process it in the background, and replies with
// status 202. The document's events show later whether the processing succeeded.
func (s *service) upload(w http.ResponseWriter, r *http.Request) {
	e := docevents.Event{DocumentID: uuid.NewString(), UserID: docevents.SystemUser, Type: docevents.UploadStarted}
	s.client.Record(e)
	began := time.Now()
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxUpload))
	status := http.StatusBadRequest
	if err == nil && !s.start(func() { _ = s.client.Step(e, func() error { return process(text) }) }) {
		err, status = errors.New("too many documents"), http.StatusServiceUnavailable
	}
	if err != nil {
		e.Type, e.Duration, e.ErrorMessage = docevents.Failed, time.Since(began), "upload: "+err.Error()
		s.client.Record(e)
		http.Error(w, err.Error(), status)
		return
	}
	w.WriteHeader(http.StatusAccepted)
	fmt.Fprintln(w, e.DocumentID)
}

// start runs the function work in a new goroutine and returns true. If too many
// documents are being processed, or the service shuts down, it returns false instead.
func (s *service) start(work func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped || s.running == maxRunning {
		return false
	}
	s.running++
	s.work.Go(func() {
		work()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.running--
	})
	return true
}

// stop refuses new work and waits for the running work.
func (s *service) stop() {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	s.work.Wait()
}

// process stands in for your app's work on a document.
func process(text []byte) error {
	if len(text) == 0 {
		return errors.New("the document is empty")
	}
	return nil
}
