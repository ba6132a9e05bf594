package main

import (
	"context"
	"encoding/json"
	"errors"
	"expvar"
	"io"
	"io/fs"
	"log/slog"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/examples/internal/wordcount"
)

// The stages of a document's way, as they are recorded.
const (
	stageUpload = "upload"
	stageQueue  = "queue"
	stageCount  = "count"
)

const maxUpload = 10 << 20 // bytes

// A service takes documents and processes them.
type service struct {
	record func(docevents.Event)
	dir    string // where the documents wait
	queue  *queue
}

func (s *service) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /documents", s.upload)
	mux.Handle("GET /debug/vars", expvar.Handler())
	return mux
}

// upload accepts a document with a 202 when it is queued. From then on its
// events tell what becomes of it.
func (s *service) upload(w http.ResponseWriter, r *http.Request) {
	if !s.queue.enter() {
		http.Error(w, errShutdown.Error(), http.StatusServiceUnavailable)
		return
	}
	defer s.queue.leave()
	start := time.Now()
	d := document{id: uuid.NewString()}
	d.path = filepath.Join(s.dir, d.id)
	s.record(d.event(docevents.UploadStarted, stageUpload))
	r.Body = http.MaxBytesReader(w, r.Body, maxUpload)
	err := save(d.path, r)
	stage, status := stageUpload, http.StatusBadRequest
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		status = http.StatusRequestEntityTooLarge
	}
	if err == nil {
		err = s.queue.add(d)
		stage, status = stageQueue, http.StatusServiceUnavailable
	}
	if err != nil {
		s.fail(d, stage, start, err)
		http.Error(w, http.StatusText(status), status)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	_ = json.NewEncoder(w).Encode(map[string]string{"id": d.id}) // the client may be gone
}

// save writes the uploaded document, the request's body or the form's field
// "file", to a file.
func save(path string, r *http.Request) error {
	body := io.Reader(r.Body)
	switch form, err := r.MultipartReader(); {
	case err == nil:
		if body, err = formFile(form); err != nil {
			return err
		}
	case !errors.Is(err, http.ErrNotMultipart):
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, body)
	return errors.Join(err, f.Close())
}

func formFile(form *multipart.Reader) (io.Reader, error) {
	for {
		part, err := form.NextPart()
		switch {
		case errors.Is(err, io.EOF):
			return nil, errors.New(`the form has no field "file"`)
		case err != nil:
			return nil, err
		case part.FormName() == "file":
			return part, nil
		}
	}
}

// work processes queued documents until the queue is closed and empty. When ctx
// ends it fails those that are left.
func (s *service) work(ctx context.Context) {
	for d := range s.queue.documents {
		start := time.Now()
		s.record(d.event(docevents.ProcessingStarted, stageCount))
		counts, err := count(ctx, d.path)
		if err != nil {
			s.fail(d, stageCount, start, err)
			continue
		}
		e := d.event(docevents.Completed, stageCount)
		e.Duration = time.Since(start)
		s.record(e)
		remove(d)
		slog.Info("counted", "document", d.id, "words", counts.Words)
	}
}

func count(ctx context.Context, path string) (wordcount.Counts, error) {
	f, err := os.Open(path)
	if err != nil {
		return wordcount.Counts{}, err
	}
	defer f.Close()
	return wordcount.Count(ctx, f)
}

func (s *service) fail(d document, stage string, start time.Time, err error) {
	e := d.event(docevents.Failed, stage)
	e.Duration = time.Since(start)
	e.ErrorMessage = err.Error()
	s.record(e)
	remove(d)
}

// remove removes a document's file, if there is one.
func remove(d document) {
	if err := os.Remove(d.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		slog.Error("removing a document", "error", err)
	}
}

// A document is queued.
type document struct{ id, path string }

// event is one of the document's. An app with users names the one behind it.
func (d document) event(t docevents.EventType, stage string) docevents.Event {
	return docevents.Event{DocumentID: d.id, UserID: docevents.SystemUser, Type: t, Stage: stage}
}

// A queue holds the documents that wait for a worker. It is bounded: beyond
// that, uploads are refused.
type queue struct {
	documents chan document

	mu      sync.Mutex // guards closed
	closed  bool
	uploads sync.WaitGroup // under way
}

func newQueue() *queue { return &queue{documents: make(chan document, 1000)} }

// enter lets an upload begin, unless the queue is closed. It ends with leave.
func (q *queue) enter() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.uploads.Add(1)
	}
	return !q.closed
}

func (q *queue) leave() { q.uploads.Done() }

func (q *queue) add(d document) error {
	select {
	case q.documents <- d:
		return nil
	default:
		return errors.New("too many documents are waiting")
	}
}

// close ends the queue when the uploads under way have ended: http.Server's
// Shutdown and Close don't wait for every handler.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.uploads.Wait()
	close(q.documents)
}
