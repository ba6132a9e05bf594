//go:build darwin || linux

package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/docevents/docevents-go"
)

// TestDrainAborts is of a queue that takes longer than the grace: its first
// document has no end. What is left is recorded as failed.
func TestDrainAborts(t *testing.T) {
	var events []docevents.Event
	s := &service{record: func(e docevents.Event) { events = append(events, e) }, dir: t.TempDir(), queue: newQueue()}
	for _, id := range []string{"1", "2"} {
		if err := s.queue.add(document{id: id, path: filepath.Join(s.dir, id)}); err != nil {
			t.Fatal(err)
		}
	}
	first := filepath.Join(s.dir, "1")
	if err := syscall.Mkfifo(first, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "2"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	processing, abort := context.WithCancelCause(t.Context())
	defer abort(nil)
	var workers, writer sync.WaitGroup
	workers.Go(func() { s.work(processing) })
	writer.Go(func() {
		f, err := os.OpenFile(first, os.O_WRONLY, 0) // waits for the worker
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		if _, err := io.Copy(f, endless{}); !errors.Is(err, syscall.EPIPE) {
			t.Error(err)
		}
	})

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := drain(ended, s.queue, &workers, abort); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	writer.Wait()
	if len(events) != 6 {
		t.Fatalf("got %+v, want three events of each document", events)
	}
	for i := range 2 {
		for j, stage := range []string{stageCount, ""} {
			if e := events[3*i+1+j]; e.Type != docevents.Failed || e.Stage != stage || e.ErrorMessage != errShutdown.Error() {
				t.Errorf("got %+v", e)
			}
		}
	}
	if files, err := os.ReadDir(s.dir); len(files) != 0 || err != nil {
		t.Errorf("left are %v, %v", files, err)
	}
	if s.queue.enter() {
		t.Error("a closed queue lets an upload in")
	}
}

func TestQueueIsBounded(t *testing.T) {
	q := newQueue()
	for range cap(q.documents) {
		if err := q.add(document{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.add(document{}); err == nil {
		t.Error("one too many was taken")
	}
}

// An upload that is under way when the queue closes still gets in.
func TestQueueWaitsForUploads(t *testing.T) {
	q := newQueue()
	if !q.enter() {
		t.Fatal("an open queue lets nobody in")
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		q.close()
	}()
	for q.enter() { // until the other goroutine has begun to close it
		q.leave()
	}
	if err := q.add(document{id: "late"}); err != nil {
		t.Error(err)
	}
	q.leave()
	<-closed
	if d, ok := <-q.documents; !ok || d.id != "late" {
		t.Errorf("got %+v, %v", d, ok)
	}
	if _, ok := <-q.documents; ok {
		t.Error("the queue is open")
	}
}

// The stages end in their order, at shares of the grace.
func TestStages(t *testing.T) {
	start := time.Now()
	s := stages{start: start, grace: 10 * time.Second}
	for _, share := range []float64{0.4, 0.8, 1} {
		failure := errors.New("failed")
		err := s.stage(share, func(ctx context.Context) error {
			if end, _ := ctx.Deadline(); end.Sub(start).Seconds() != share*10 {
				t.Errorf("share %g ends after %s", share, end.Sub(start))
			}
			return failure
		})
		if !errors.Is(err, failure) {
			t.Errorf("got %v", err)
		}
	}
}
