// Package doceventstest provides a server for tests of an app that records events.
// The server accepts the requests that a docevents client sends, as a Supabase project
// does, and returns the events that it has stored.
//
//	func TestUpload(t *testing.T) {
//		server := doceventstest.NewServer(t)
//		app := newApp(server.Client())
//		app.upload("invoice.pdf")
//		if events := server.WaitFor(2); events[1].Type != docevents.Completed {
//			t.Errorf("got %v", events)
//		}
//	}
//
// If the app creates its own client, pass the server's URL and Key to the app, as
// arguments or in the environment. A test that doesn't look at events needs no
// server: it can use a nil client, which records nothing.
//
// The server refuses the same requests as PostgREST, with the same statuses and
// codes. The integration module compares the two, request by request. The server
// has no database, so it can't run triggers, policies or the functions of
// [docevents.Client.Summary]. It listens on a loopback port, so it can't be used
// in a bubble of testing/synctest.
package doceventstest

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/docevents/docevents-go"
)

const (
	// patience is how long WaitFor waits. An event is stored within milliseconds,
	// or within a second if a request fails once.
	patience = 5 * time.Second

	// closeTimeout is how long a client of Server.Client may take to close at the
	// end of a test.
	closeTimeout = 5 * time.Second
)

// A Server holds events in memory. Its methods are safe for concurrent use, but
// call WaitFor, FailNext and Client on the test's own goroutine, because they can
// fail the test.
type Server struct {
	URL string // for SUPABASE_URL
	Key string // for SUPABASE_SECRET_KEY; the server refuses any other key

	// Schema, Table, EventTypes and Columns describe the table. By default it is the
	// table of the migration. Change these fields before the first request.
	Schema     string
	Table      string
	EventTypes docevents.EventTypes // the types that the table takes; see docevents.WithEventTypes

	// Columns are the table's columns; see docevents.WithColumns. The columns in
	// Columns.Extra take any value. If Columns isn't the zero value, document and
	// user ids may be NULL.
	Columns docevents.Columns

	t testing.TB

	mu       sync.Mutex // guards the fields below; held while a request is answered
	changed  *sync.Cond // signals that a request was answered or that WaitFor's time is up
	rows     []row      // in the order of arrival
	failures []error    // the failures that FailNext has asked for and no request has met yet
	refused  error      // the last refusal
}

// NewServer starts a server with an empty table. The server closes at the end of
// the test. Close your own clients before that; [Server.Client] returns a client
// that closes itself.
func NewServer(t testing.TB) *Server {
	s := newServer(t)
	listener := httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(listener.Close)
	s.URL = listener.URL
	return s
}

// newServer returns a server that doesn't listen.
func newServer(t testing.TB) *Server {
	s := &Server{
		Key:    "sb_secret_doceventstest",
		Schema: docevents.DefaultSchema,
		Table:  docevents.DefaultTable,
		t:      t,
	}
	s.changed = sync.NewCond(&s.mu)
	return s
}

// Client returns a client for the server and its table. The client logs to the
// test's output and is closed at the end of the test. opts can override these
// settings.
func (s *Server) Client(opts ...docevents.Option) *docevents.Client {
	s.t.Helper()
	table := []docevents.Option{
		docevents.WithSlog(slog.New(slog.NewTextHandler(s.t.Output(), nil))),
		docevents.WithSchema(s.Schema),
		docevents.WithTable(s.Table),
		docevents.WithEventTypes(s.EventTypes),
	}
	if s.own() {
		table = append(table, docevents.WithColumns(s.Columns))
	}
	c, err := docevents.New(s.URL, s.Key, append(table, opts...)...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { // t.Context has ended by now
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		if err := c.Close(ctx); err != nil {
			s.t.Log(err) // not Error: in a test of failures, events may be dropped
		}
	})
	return c
}

// Events returns the stored events, without purged ones, in the order of CreatedAt. If
// the app doesn't set CreatedAt, that is the order in which they were recorded.
//
// The events have the form in which the table stores them. Each event has an ID.
// UUIDs are in canonical form. CreatedAt is in UTC, in whole microseconds. Duration
// is in whole milliseconds, and 0 if the column is NULL. Extra holds JSON values,
// with numbers as json.Number; a column that the app left out is missing.
func (s *Server) Events() []docevents.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.eventsLocked()
}

// WaitFor waits until at least n events are stored, and returns all stored events,
// as Events does. If they are not stored within five seconds, it stops the test
// with Fatalf. The message contains the last refusal of the server.
//
// To be sure that no more events will be stored, call the client's Flush and then
// Events.
func (s *Server) WaitFor(n int) []docevents.Event {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	late := false
	defer time.AfterFunc(patience, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		late = true
		s.changed.Broadcast()
	}).Stop()
	for len(s.rows) < n && !late {
		s.changed.Wait()
	}
	if len(s.rows) < n {
		why := "no request was refused: were the events recorded with a client of this server?"
		if s.refused != nil {
			why = "the last refusal was " + s.refused.Error()
		}
		s.t.Fatalf("doceventstest: after %s %d events are stored, want %d; %s", patience, len(s.rows), n, why)
	}
	return s.eventsLocked()
}

// FailNext makes the next request fail with an HTTP status from 300 to 599 and an
// error code of PostgreSQL or PostgREST. With the code "", the answer looks like one
// of a gateway. The request changes nothing. If FailNext is called n times, the next
// n requests fail.
//
// The client's reaction depends on the answer. After a 503 or a 401 it retries
// the events within 200 ms. After a 57014 it splits an insert of several events
// in two. If every request fails with a 401 for 5 s, Flush returns that error.
func (s *Server) FailNext(status int, code string) {
	s.t.Helper()
	if status < 300 || status > 599 {
		s.t.Fatalf("doceventstest: FailNext(%d): the status of a failure is from 300 to 599", status)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = append(s.failures, refuse(status, code, "a failure of FailNext"))
}

func (s *Server) eventsLocked() []docevents.Event {
	events := make([]docevents.Event, len(s.rows))
	for i, r := range inTime(s.rows) {
		events[i] = r.event()
	}
	return events
}
