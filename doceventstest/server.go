// Package doceventstest lets an app test what it records: a server that takes
// what docevents sends, as a Supabase project does, and tells what it holds.
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
// An app that makes its own client gets the server's URL and Key, as arguments
// or in its environment. One with docevents' nil client records nothing, and
// needs no server.
//
// The server refuses what PostgREST would refuse, with the same statuses and
// codes: the integration module compares the two, request by request. It has no
// database: what an app's own triggers and policies do, and what Summary's
// function says, only one can show. It is a server on a loopback port, so it has no place in a bubble of
// testing/synctest.
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
	// patience is how long WaitFor waits. Events that come at all come within
	// milliseconds, those behind a failure after a fraction of a second.
	patience = 5 * time.Second

	// closeTimeout is what the end of a test grants to a client of Client.
	closeTimeout = 5 * time.Second
)

// A Server holds events in memory. Its methods are safe for concurrent use.
// Those that can fail the test, WaitFor, FailNext and Client, are for the
// test's own goroutine.
type Server struct {
	URL string // as SUPABASE_URL
	Key string // as SUPABASE_SECRET_KEY; any other is refused

	// The table. By default it is as the migration makes it. Change it, if at
	// all, before the first request.
	Schema     string
	Table      string
	EventTypes docevents.EventTypes // that the table takes, as for docevents.WithEventTypes

	// Columns are as for docevents.WithColumns; those of Extra take any value.
	// If they differ from the zero value, document and user ids may be NULL.
	Columns docevents.Columns

	t testing.TB

	mu       sync.Mutex // guards all that follows; held while a request is answered
	changed  *sync.Cond // a request was answered, a wait is over
	rows     []row      // in the order of arrival
	failures []error    // of FailNext, to be given
	refused  error      // the last refusal given
}

// NewServer starts a server with the table in it, empty. It closes with the
// test. A client of one's own must be closed before: see [Server.Client].
func NewServer(t testing.TB) *Server {
	s := newServer(t)
	listener := httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(listener.Close)
	s.URL = listener.URL
	return s
}

// newServer makes a server that doesn't listen.
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

// Client returns a client of the server and its table, which logs to the test
// and is closed at its end. The options come after those.
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
	s.t.Cleanup(func() { // not t.Context, which has ended by then
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		if err := c.Close(ctx); err != nil {
			s.t.Log(err) // not Error: a test of failures means to lose events
		}
	})
	return c
}

// Events returns the events that the server holds, in the order of CreatedAt:
// that of Record, unless the app sets the times itself. They don't always arrive
// in it: those of a failed request may come after later ones.
//
// They are as stored: UUIDs in canonical form, CreatedAt in UTC and
// microseconds, Duration in whole milliseconds and 0 for NULL, an ID each. Extra
// is JSON's values, numbers as json.Number; a column that the app left out is
// not in it. What a purge has deleted is not among them.
func (s *Server) Events() []docevents.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.eventsLocked()
}

// WaitFor waits until the server holds at least n events, and returns all that
// it holds, as Events does. When they haven't come within five seconds the
// test fails, there and then, with what the server refused last.
//
// To be sure that no more will come, call the client's Flush and then Events.
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
		why := "nothing was refused: were they recorded, with this server's client?"
		if s.refused != nil {
			why = "the last refusal was " + s.refused.Error()
		}
		s.t.Fatalf("doceventstest: after %s there are %d events, not %d; %s", patience, len(s.rows), n, why)
	}
	return s.eventsLocked()
}

// FailNext makes the next request fail, whatever it is, with an HTTP status
// from 300 to 599 and a code of PostgreSQL's or PostgREST's, "" for an answer
// that is neither's. Nothing of the request is done. Called again, it makes the
// request after that fail.
//
// What the client does next depends on the answer: with a 503 it sends the
// events again within 200 ms, with a 57014 those of an insert in halves; with a
// 401 likewise, until that has stood for 5 s.
func (s *Server) FailNext(status int, code string) {
	s.t.Helper()
	if status < 300 || status > 599 {
		s.t.Fatalf("doceventstest: FailNext(%d): the status of a failure is from 300 to 599", status)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = append(s.failures, refuse(status, code, "as FailNext was told"))
}

func (s *Server) eventsLocked() []docevents.Event {
	events := make([]docevents.Event, len(s.rows))
	for i, r := range inTime(s.rows) {
		events[i] = r.event()
	}
	return events
}
