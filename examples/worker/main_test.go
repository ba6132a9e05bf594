package main

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/doceventstest"
)

const (
	first  = `{"id": "0198a5e2-0000-7000-8000-0000000000aa", "document_id": "0198a5e2-0000-7000-8000-000000000001", "file": "main.go"}`
	second = `{"id": "0198a5e2-0000-7000-8000-0000000000bb", "document_id": "0198a5e2-0000-7000-8000-000000000002", "file": "missing"}`
)

// TestDeliveredTwice checks that the events of a job that is delivered twice are
// stored once.
func TestDeliveredTwice(t *testing.T) {
	server := doceventstest.NewServer(t)
	if err := run(t.Context(), server.Client(), strings.NewReader(first+first+second), 2); err != nil {
		t.Fatal(err)
	}
	ends := map[docevents.EventType]int{}
	for _, e := range server.Events() {
		ends[e.Type]++
	}
	if ends[docevents.ProcessingStarted] != 2 || ends[docevents.Completed] != 1 || ends[docevents.Failed] != 1 {
		t.Errorf("%v, want two starts and two ends", ends)
	}
}

func TestEnds(t *testing.T) {
	if err := run(t.Context(), nil, strings.NewReader(first+"nonsense"), 1); err == nil {
		t.Error("run returned no error for invalid JSON")
	}
	ctx, stop := context.WithCancel(t.Context())
	queue, _ := io.Pipe() // has no job
	stop()
	if err := run(ctx, nil, queue, 1); err != nil {
		t.Error(err)
	}
}
