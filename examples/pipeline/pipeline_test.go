package main

import (
	"context"
	"path/filepath"
	"reflect"
	"sync"
	"testing"

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
	wantEnds := map[string]docevents.Event{
		documents[0].id: {Type: docevents.Completed, Stage: "summarize"},
		documents[1].id: {Type: docevents.Failed, Stage: "extract", ErrorMessage: "gzip: unexpected EOF"},
		documents[2].id: {Type: docevents.Failed, Stage: "summarize", ErrorMessage: "no words in it"},
		documents[3].id: {Type: docevents.Failed, Stage: "extract", ErrorMessage: "open: no such file or directory"},
	}
	for _, workers := range []int{1, 3, 10} {
		var r recorder
		done := 0
		p := newPipeline(docevents.SystemUser, r.record, func(result) { done++ })
		results := p.run(t.Context(), documents, workers)
		if len(results) != 4 || done != 4 || len(r.events) != 4 {
			t.Fatalf("%d workers: %d results, %d done, %d documents recorded, want 4", workers, len(results), done, len(r.events))
		}
		for id, want := range wantEnds {
			events := r.events[id]
			if len(events) != 3 || events[0].Type != docevents.UploadStarted || events[1].Type != docevents.ProcessingStarted ||
				events[1].Stage != "extract" {
				t.Errorf("%d workers: %s: got %+v", workers, id, events)
				continue
			}
			end := events[2]
			if end.Duration <= 0 {
				t.Errorf("%s: duration %s", id, end.Duration)
			}
			want.DocumentID, want.UserID, want.Duration = id, docevents.SystemUser, end.Duration
			if !reflect.DeepEqual(end, want) {
				t.Errorf("%d workers: got %+v, want %+v", workers, end, want)
			}
		}
		if got := p.recorded; got[docevents.UploadStarted] != 4 || got[docevents.ProcessingStarted] != 4 ||
			got[docevents.Completed] != 1 || got[docevents.Failed] != 3 || got.total() != 12 {
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
	if p.recorded[docevents.UploadStarted] != p.recorded[docevents.Completed] {
		t.Errorf("documents were begun and not ended: %v", p.recorded)
	}
	for range 100 { // a matter of chance, where it isn't looked after
		again := newPipeline(docevents.SystemUser, r.record, func(result) {}).run(ctx, documents, workers)
		if len(again) != 0 {
			t.Fatalf("%d documents were processed after the interrupt", len(again))
		}
	}
}
