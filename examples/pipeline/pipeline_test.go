package main

import (
	"context"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/docevents/docevents-go"
)

// recorder keeps the events by document.
type recorder struct {
	mu     sync.Mutex
	events map[string][]docevents.Event
}

func (r *recorder) record(e docevents.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.events == nil {
		r.events = make(map[string][]docevents.Event)
	}
	r.events[e.DocumentID] = append(r.events[e.DocumentID], e)
}

func TestPipelineRecords(t *testing.T) {
	root := t.TempDir()
	documents := []document{
		{"00000000-0000-4000-8000-000000000001", file(t, "good.md", "# Title\ntext"), "good.md"},
		{"00000000-0000-4000-8000-000000000002", file(t, "cut.gz", packed(t, "text")[:12]), "cut.gz"},
		{"00000000-0000-4000-8000-000000000003", file(t, "empty.txt", ""), "empty.txt"},
		{"00000000-0000-4000-8000-000000000004", filepath.Join(root, "gone.txt"), "gone.txt"},
	}
	const started, completed, failed = docevents.ProcessingStarted, docevents.Completed, docevents.Failed
	upload := docevents.Event{Type: docevents.UploadStarted}
	extract := []docevents.Event{upload, {Type: started, Stage: "extract"}, {Type: completed, Stage: "extract"}}
	fails := func(before []docevents.Event, stage, message string) []docevents.Event {
		return append(slices.Clip(before), docevents.Event{Type: started, Stage: stage},
			docevents.Event{Type: failed, Stage: stage, ErrorMessage: message}, docevents.Event{Type: failed, ErrorMessage: message})
	}
	wants := [][]docevents.Event{
		append(slices.Clip(extract), docevents.Event{Type: started, Stage: "summarize"},
			docevents.Event{Type: completed, Stage: "summarize"}, docevents.Event{Type: completed}),
		fails([]docevents.Event{upload}, "extract", "gzip: unexpected EOF"),
		fails(extract, "summarize", "no words in it"),
		fails([]docevents.Event{upload}, "extract", "open: no such file or directory"),
	}
	for _, workers := range []int{1, 3, 10} {
		var r recorder
		done := 0
		p := newPipeline(docevents.SystemUser, r.record, func(result) { done++ })
		results := p.run(t.Context(), documents, workers)
		if len(results) != 4 || done != 4 || len(r.events) != 4 {
			t.Fatalf("%d workers: %d results, %d done, %d documents recorded, want 4", workers, len(results), done, len(r.events))
		}
		for i, want := range wants {
			got := r.events[documents[i].id]
			if len(got) != len(want) {
				t.Errorf("%d workers: %s: got %+v, want %+v", workers, documents[i].name, got, want)
				continue
			}
			var steps time.Duration
			for j, e := range got {
				want[j].DocumentID, want[j].UserID, want[j].Duration = documents[i].id, docevents.SystemUser, e.Duration
				if !reflect.DeepEqual(e, want[j]) {
					t.Errorf("%d workers: %s: got %+v, want %+v", workers, documents[i].name, e, want[j])
				}
				if isEnd := e.Type == completed || e.Type == failed; isEnd != (e.Duration > 0) {
					t.Errorf("%s: %+v has the duration %s", documents[i].name, e, e.Duration)
				}
				if e.Stage != "" {
					steps += e.Duration
				}
			}
			if whole := got[len(got)-1].Duration; whole < steps {
				t.Errorf("%s took %s, its steps %s", documents[i].name, whole, steps)
			}
		}
		if got := p.recorded; got[docevents.UploadStarted] != 4 || got[started] != 6 || got[completed] != 4 || got[failed] != 6 || got.total() != 20 {
			t.Errorf("%d workers: counted %v", workers, got)
		}
	}
}

// After an interrupt nothing new is begun, and what was begun gets its end.
func TestPipelineInterrupted(t *testing.T) {
	var documents []document
	for range 100 {
		documents = append(documents, document{docevents.SystemUser, file(t, "good.md", "text"), "good.md"})
	}
	ctx, cancel := context.WithCancel(t.Context())
	var r recorder
	p := newPipeline(docevents.SystemUser, r.record, func(result) { cancel() })
	const workers = 2
	results := p.run(ctx, documents, workers)
	// At the first end each of the others has one, and the channel may have given out one more each.
	if n := len(results); n < 1 || n > 2*workers+1 {
		t.Errorf("%d documents were processed after an interrupt at the first", n)
	}
	if 3*p.recorded[docevents.UploadStarted] != p.recorded[docevents.Completed] { // each step's, and its own
		t.Errorf("documents were begun and not ended: %v", p.recorded)
	}
	for range 100 { // a matter of chance, where it isn't looked after
		again := newPipeline(docevents.SystemUser, r.record, func(result) {}).run(ctx, documents, workers)
		if len(again) != 0 {
			t.Fatalf("%d documents were processed after the interrupt", len(again))
		}
	}
}
