package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/doceventstest"
)

// history returns the types of a document's events.
func history(events []docevents.Event, document string) (types []docevents.EventType) {
	for _, e := range events {
		if e.DocumentID == document {
			types = append(types, e.Type)
		}
	}
	return types
}

// TestShutdown checks that a shutdown during an upload lets the upload finish and
// stores its events.
func TestShutdown(t *testing.T) {
	server := doceventstest.NewServer(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, shutDown := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, listener, &service{client: server.Client()}) }()

	body, half := io.Pipe()
	go func() {
		fmt.Fprint(half, "the first half, ")
		server.WaitFor(1)
		shutDown()
		fmt.Fprint(half, "and the second")
		half.Close()
	}()
	resp, err := http.Post("http://"+listener.Addr().String()+"/documents", "text/plain", body)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	id, _ := io.ReadAll(resp.Body)
	if err := <-ended; err != nil || resp.StatusCode != http.StatusAccepted {
		t.Errorf("%d %s, %v", resp.StatusCode, id, err)
	}
	want := []docevents.EventType{docevents.UploadStarted, docevents.ProcessingStarted, docevents.Completed}
	if got := history(server.Events(), strings.TrimSpace(string(id))); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestShutdownWaitsForWork checks that a shutdown waits for the work in the
// background before it closes the client.
func TestShutdownWaitsForWork(t *testing.T) {
	server := doceventstest.NewServer(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &service{client: server.Client()}
	ctx, shutDown := context.WithCancel(t.Context())
	s.start(func() {
		time.Sleep(50 * time.Millisecond) // longer than a shutdown that doesn't wait
		s.client.Record(docevents.Event{DocumentID: docevents.SystemUser, UserID: docevents.SystemUser, Type: docevents.Completed})
	})
	shutDown()
	if err := serve(ctx, listener, s); err != nil {
		t.Error(err)
	}
	if n := len(server.Events()); n != 1 {
		t.Errorf("%d events are stored, want 1", n)
	}
}
