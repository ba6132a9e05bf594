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
	"time"

	"github.com/google/uuid"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/examples/internal/wordcount"
)

// The steps of a document's way, as they are recorded.
const (
	stageUpload = "upload"
	stageQueue  = "queue"
	stageCount  = "count"
)

const maxUpload = 10 << 20 // bytes

var errNotSaved = errors.New("the document could not be saved")

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
	d := document{id: uuid.NewString(), begun: time.Now()}
	d.path = filepath.Join(s.dir, d.id)
	s.record(d.event(docevents.UploadStarted, ""))

	r.Body = http.MaxBytesReader(w, r.Body, maxUpload)
	err := save(d.path, r)
	stage, status := stageUpload, http.StatusBadRequest
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		status = http.StatusRequestEntityTooLarge
	}
	if withPath := (*fs.PathError)(nil); errors.As(err, &withPath) {
		err, status = errNotSaved, http.StatusInternalServerError
		slog.Error("saving a document", "error", withPath)
	}
	if err == nil {
		err = s.queue.add(d)
		stage, status = stageQueue, http.StatusServiceUnavailable
	}
	if err != nil {
		s.fail(d, stage, d.begun, err)
		http.Error(w, err.Error(), status)
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
		s.end(d, stageCount, start, nil)
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
	s.end(d, stage, start, err)
	slog.Error("failed", "document", d.id, "stage", stage, "error", err)
}

// end records the end of a step, and of the document with it: the event without
// a stage is about the whole of it, and so is its duration.
func (s *service) end(d document, stage string, start time.Time, err error) {
	e := d.event(docevents.Completed, stage)
	if err != nil {
		e.Type, e.ErrorMessage = docevents.Failed, err.Error()
	}
	e.Duration = time.Since(start)
	s.record(e)
	e.Stage, e.Duration = "", time.Since(d.begun)
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
type document struct {
	id, path string
	begun    time.Time
}

// event is one of the document's. An app with users names the one behind it.
func (d document) event(t docevents.EventType, stage string) docevents.Event {
	return docevents.Event{DocumentID: d.id, UserID: docevents.SystemUser, Type: t, Stage: stage}
}
