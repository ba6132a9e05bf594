// Package doceventstest provides a server for tests of an app that records events. It
// takes the place of a Supabase project, and keeps the events in memory for the test.
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
// If the app creates its own client, pass the server's URL and Key to the app. A test
// that doesn't look at events can use a nil client, which records nothing.
//
// If a request is wrong, for example because it names a column that the table doesn't
// have, the server refuses it with PostgREST's status and error code. The server has no
// database, so it can't run triggers, policies, or the SQL functions that
// [docevents.Client.Summary] needs. Don't use it inside synctest.Test, because
// testing/synctest doesn't support network connections.
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
	// patience limits how long WaitFor waits. An event is stored within milliseconds,
	// or within a second if one request fails.
	patience = 5 * time.Second

	// closeTimeout limits how long closing a client may take at the end of a test.
	closeTimeout = 5 * time.Second
)

// A Server is an HTTP server that keeps events in memory. Its methods are safe for
// concurrent use. But WaitFor, FailNext and Client may call t.Fatal, so call them only
// from the goroutine that runs the test.
type Server struct {
	URL string // for SUPABASE_URL
	Key string // for SUPABASE_SECRET_KEY; the server refuses any other key

	// Schema, Table, EventTypes and Columns describe the server's table. The default is
	// the table of sql/013. Change these fields before the first request and before you
	// call Client.
	Schema     string
	Table      string
	EventTypes docevents.EventTypes // see docevents.WithEventTypes

	// Columns are the table's columns, as in docevents.WithColumns. The columns in
	// Columns.Extra accept any value. If you set Columns, docevents stores an empty
	// DocumentID or UserID as NULL, and the server accepts NULL there.
	Columns docevents.Columns

	t testing.TB

	mu       sync.Mutex // guards the fields below; held while a request is answered
	changed  *sync.Cond // a request was answered, or WaitFor's time is up
	rows     []row      // in the order of arrival
	failures []error    // from FailNext, for the next requests
	refused  error      // the last error that the server returned to a client
}

// NewServer starts a server with an empty table. The server is stopped at the end of
// the test. If the app creates its own client, close that client before the test ends.
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

// Client returns a client of the server. The client logs to the test's output, and is
// closed at the end of the test. opts override the options that Client sets, such as
// the table and the logger.
func (s *Server) Client(opts ...docevents.Option) *docevents.Client {
	s.t.Helper()
	table := []docevents.Option{
		docevents.WithSlog(slog.New(slog.NewTextHandler(s.t.Output(), nil))),
		docevents.WithSchema(s.Schema),
		docevents.WithTable(s.Table),
		docevents.WithEventTypes(s.EventTypes),
	}
	if s.hasOwnColumns() {
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

// Events returns the events in the table, sorted by CreatedAt. If the app doesn't set
// CreatedAt, this is the order in which the events were recorded.
//
// The events may differ from those that the app passed to Record:
//   - Each event has an ID.
//   - UUIDs are in lower case, with hyphens.
//   - CreatedAt is in UTC and in whole microseconds.
//   - Duration is in whole milliseconds. NULL is 0.
//   - Numbers in Extra are json.Numbers. Columns without a value are not in Extra.
func (s *Server) Events() []docevents.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.eventsLocked()
}

// WaitFor waits until at least n events are stored, and returns all stored events, as
// [Server.Events] does. If fewer than n events are stored after five seconds, WaitFor
// calls t.Fatalf with the last error that the server returned to a client.
//
// More events may be stored after WaitFor returns. To get all events, call the client's
// Flush and then Events.
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

// FailNext makes the server refuse the next request, without changing the table.
// status is the HTTP status, from 300 to 599. code is the error code of PostgreSQL or
// PostgREST, or "" for an answer of a gateway. To make the next n requests fail, call
// FailNext n times.
//
// The client reacts as it does to Supabase:
//   - After a 503 or a 401, the client retries the events within 200 ms.
//   - After the code 57014, a statement timeout, it splits a batch into two inserts.
//   - If every request gets a 401 for 5 s, Flush returns that error.
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
	for i, r := range sortedByTime(s.rows) {
		events[i] = r.event()
	}
	return events
}
