// Package connections tests docevents together with golang.org/x/net/http2, which
// is not a dependency of the library.
package connections

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docevents/docevents-go"
	"golang.org/x/net/http2"
)

// A wire is a connection that loses all written bytes after broken is set.
type wire struct {
	net.Conn
	broken atomic.Bool
	closed atomic.Bool
}

func (w *wire) Write(b []byte) (int, error) {
	if w.broken.Load() {
		return len(b), nil
	}
	return w.Conn.Write(b)
}

func (w *wire) Close() error {
	w.closed.Store(true)
	return w.Conn.Close()
}

// TestAppConfiguresHTTP2 checks that the client detects a dead connection within
// seconds, and that Close closes every connection, even if the app calls
// http2.ConfigureTransport on http.DefaultTransport. An app must call it to use HTTP/2
// with its own TLS configuration.
func TestAppConfiguresHTTP2(t *testing.T) {
	for name, configure := range map[string]func(*http.Transport) error{
		"ConfigureTransport": http2.ConfigureTransport,
		"ConfigureTransports": func(app *http.Transport) error {
			h2, err := http2.ConfigureTransports(app)
			if err == nil {
				h2.StrictMaxConcurrentStreams = true
			}
			return err
		},
		"ConfigureTransport and Clone": func(app *http.Transport) error {
			if err := http2.ConfigureTransport(app); err != nil {
				return err
			}
			_ = app.Clone() // makes net/http read the configuration
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				if r.ProtoMajor != 2 {
					t.Errorf("got a request by %s, want HTTP/2", r.Proto)
				}
				w.WriteHeader(http.StatusCreated)
			}))
			srv.EnableHTTP2 = true
			srv.StartTLS()
			defer srv.Close()

			var mu sync.Mutex
			var wires []*wire
			app := &http.Transport{
				TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
				DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
					conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
					if err != nil {
						return nil, err
					}
					mu.Lock()
					defer mu.Unlock()
					wires = append(wires, &wire{Conn: conn})
					return wires[len(wires)-1], nil
				},
			}
			if err := configure(app); err != nil {
				t.Fatal(err)
			}
			before := http.DefaultTransport
			http.DefaultTransport = app
			defer func() { http.DefaultTransport = before }()
			c, err := docevents.New(srv.URL, "sb_secret_0123456789", docevents.WithSlog(slog.New(slog.DiscardHandler)), docevents.WithRequestTimeout(500*time.Millisecond))
			if err != nil {
				t.Fatal(err)
			}
			e := docevents.Event{DocumentID: "0198a5e2-0000-7000-8000-000000000001", UserID: docevents.SystemUser, Type: docevents.Completed}
			c.Record(e)
			if err := c.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			for _, w := range wires {
				w.broken.Store(true)
			}
			mu.Unlock()
			c.Record(e)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if err := c.Flush(ctx); err != nil {
				t.Errorf("20 s after the connection died, with %d retries: %v", c.Stats().Retries, err)
			}
			_ = c.Close(ctx)
			mu.Lock()
			defer mu.Unlock()
			for i, w := range wires {
				for start := time.Now(); !w.closed.Load(); time.Sleep(time.Millisecond) {
					if time.Since(start) > 2*time.Second {
						t.Fatalf("connection %d of %d is still open after Close", i+1, len(wires))
					}
				}
			}
		})
	}
}
