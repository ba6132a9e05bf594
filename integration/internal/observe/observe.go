// Package observe records the log lines of a client under test, and the events that
// this client drops.
package observe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docevents/docevents-go"
)

// An Observer collects the log lines of a client, and the events that this client
// drops. Its methods are safe for concurrent use.
type Observer struct {
	mu    sync.Mutex // guards the fields below
	lines []Line
	drops []Drop
	seen  int // the number of drops that NewDrops has returned
}

// A Line is a log line.
type Line struct {
	Text string // message and attributes
	Err  error
}

// A Drop contains the arguments of a call to the drop handler.
type Drop struct {
	Event  docevents.Event
	Reason docevents.DropReason
	Err    error
}

// Options returns the options that make o the client's logger and drop handler.
func (o *Observer) Options() []docevents.Option {
	return []docevents.Option{docevents.WithSlog(slog.New(handler{o})), docevents.WithDropHandler(o.dropped)}
}

func (o *Observer) dropped(e docevents.Event, reason docevents.DropReason, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drops = append(o.drops, Drop{e, reason, err})
}

// Lines returns the log lines so far.
func (o *Observer) Lines() []Line {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.lines)
}

// Drops returns the drops so far.
func (o *Observer) Drops() []Drop {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.drops)
}

// NewDrops returns the drops since the last call to NewDrops.
func (o *Observer) NewDrops() []Drop {
	o.mu.Lock()
	defer o.mu.Unlock()
	from := o.seen
	o.seen = len(o.drops)
	return slices.Clone(o.drops[from:])
}

type handler struct{ *Observer }

func (h handler) Enabled(context.Context, slog.Level) bool { return true }
func (h handler) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h handler) WithGroup(string) slog.Handler            { return h }

func (h handler) Handle(_ context.Context, r slog.Record) error {
	l := Line{Text: r.Message}
	r.Attrs(func(a slog.Attr) bool {
		l.Text += fmt.Sprintf(" %s=%v", a.Key, a.Value)
		if err, ok := a.Value.Any().(error); ok {
			l.Err = err
		}
		return true
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lines = append(h.lines, l)
	return nil
}

// Await waits until condition returns true. After two minutes, Await fails the test
// with a message that contains goal. Two minutes leave time for the client's retries.
func Await(t testing.TB, goal string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still waiting for: %s", goal)
		}
	}
}

// LostAnswers returns a client option that loses the answers to the first two inserts:
// the server stores the rows, and the client gets "connection reset by peer".
func LostAnswers() docevents.Option {
	var inserts atomic.Int64
	return docevents.WithTransport(roundTripper(func(req *http.Request) (*http.Response, error) {
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err == nil && req.Method == http.MethodPost && inserts.Add(1) <= 2 {
			resp.Body.Close()
			return nil, errors.New("connection reset by peer")
		}
		return resp, err
	}))
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }
