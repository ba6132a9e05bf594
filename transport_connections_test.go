package docevents_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docevents/docevents-go"
)

// A network connects http.DefaultTransport to the server to which the project's name
// points. It has no sockets, so that it works in a synctest bubble.
type network struct {
	mu     sync.Mutex
	server *pipeListener
	conns  []*networkConn
}

// newNetwork sets up a network for the clients that the test makes. Its first server
// answers with h.
func newNetwork(t *testing.T, h http.HandlerFunc) *network {
	n := &network{}
	n.pointTo(t, h)
	replaceDefaultTransport(t, &http.Transport{DialContext: n.dial})
	return n
}

func replaceDefaultTransport(t *testing.T, rt http.RoundTripper) {
	before := http.DefaultTransport
	http.DefaultTransport = rt
	t.Cleanup(func() { http.DefaultTransport = before })
}

// pointTo makes new connections go to a server that answers with h.
func (n *network) pointTo(t *testing.T, h http.HandlerFunc) {
	l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	s := &http.Server{Handler: h}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
	n.mu.Lock()
	defer n.mu.Unlock()
	n.server = l
}

func (n *network) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	conn := &networkConn{Conn: client}
	n.mu.Lock()
	n.conns = append(n.conns, conn)
	to := n.server
	n.mu.Unlock()
	to.conns <- server
	return conn, nil
}

func (n *network) dials() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.conns)
}

// breakAll makes every existing connection lose all bytes that are written to it.
func (n *network) breakAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		c.broken.Store(true)
	}
}

type networkConn struct {
	net.Conn
	broken atomic.Bool
}

func (c *networkConn) Write(b []byte) (int, error) {
	if c.broken.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// works answers after 100 ms, as PostgREST does to requests that succeed.
func works(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	time.Sleep(100 * time.Millisecond)
	if r.Method == http.MethodPost {
		w.WriteHeader(http.StatusCreated)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, "[]")
}

func answers(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Location", "https://elsewhere.test/")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// A connection may be dead, or go to a server that no longer serves the project, so
// the attempt after a failure uses a new connection, even if others are idle. Which
// answers are failures is tested in package rest.
func TestNextAttemptUsesANewConnection(t *testing.T) {
	for name, old := range map[string]http.HandlerFunc{ // how the old server answers after a time; nil means that its connections are dead
		"dead connections": nil,
		"a reset":          func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"503":              answers(503, ""),
		"404":              answers(404, "404 page not found"),
		"a redirect":       answers(302, ""),
		"a web page":       answers(200, "<!DOCTYPE html>"),
	} {
		for _, inFlight := range []int{1, 4, 16} {
			t.Run(fmt.Sprint(name, ", ", inFlight, " in flight"), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var moved atomic.Bool
					n := newNetwork(t, func(w http.ResponseWriter, r *http.Request) {
						if moved.Load() {
							old(w, r)
							return
						}
						works(w, r)
					})
					c, err := docevents.New(testURL, testKey, docevents.WithSlog(discard), docevents.WithMaxInFlight(inFlight),
						docevents.WithMaxBatch(10), docevents.WithRequestTimeout(5*time.Second))
					if err != nil {
						t.Fatal(err)
					}
					for i := range 10 * inFlight {
						c.Record(event(fmt.Sprint(i)))
					}
					if err := c.Flush(t.Context()); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Second)
					if old == nil {
						n.breakAll()
					} else {
						moved.Store(true)
						n.pointTo(t, works)
					}
					before, dials := c.Stats().Requests, n.dials()
					c.Record(event("after"))
					time.Sleep(10 * time.Second)
					if st := c.Stats(); st.Pending > 0 || st.Requests > before+2 || n.dials() != dials+1 {
						t.Errorf("%d pending after %d requests on %d new connections, want the second to succeed", st.Pending, st.Requests-before, n.dials()-dials)
					}
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					if err := c.Close(ctx); err != nil {
						t.Error(err)
					}
				})
			})
		}
	}
}

// The next attempt of a purge uses a new connection as well.
func TestPurgeUsesANewConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, answers(503, ""))
		c, err := docevents.New(testURL, testKey, docevents.WithSlog(discard))
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(50*time.Millisecond, func() { n.pointTo(t, works) }) // before the second attempt
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := c.PurgeOlderThan(ctx, 1); n.dials() != 2 {
			t.Errorf("%d connections, %v", n.dials(), err)
		}
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// Close closes connections that net/http would keep: an HTTP/2 connection whose last
// request has just been cancelled, and a connection that is still being dialed.
func TestCloseClosesConnections(t *testing.T) {
	t.Run("in use", func(t *testing.T) {
		overBoth(t, func(t *testing.T, http2 bool) {
			s := newSecure(t, http2)
			s.fault = func(_ int, _ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
			var open atomic.Int32
			standard := http.DefaultTransport.(*http.Transport).Clone()
			standard.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
				if err != nil {
					return nil, err
				}
				open.Add(1)
				return &closeCounter{Conn: conn, open: &open}, nil
			}
			replaceDefaultTransport(t, standard)
			for i := range 10 { // the fault shows only within microseconds
				c := s.client(t, s.Listener.Addr().String())
				c.Record(event("a"))
				for s.sent() <= i {
					time.Sleep(time.Millisecond)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
				_ = c.Close(ctx)
				cancel()
				for start := time.Now(); open.Load() > 0; time.Sleep(time.Millisecond) {
					if time.Since(start) > 2*time.Second {
						t.Fatal("a connection is still open")
					}
				}
			}
		})
	})
	t.Run("being dialed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			dialing := 0
			replaceDefaultTransport(t, &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				dialing++
				<-ctx.Done()
				dialing--
				return nil, ctx.Err()
			}})
			c, err := docevents.New(testURL, testKey, docevents.WithSlog(discard))
			if err != nil {
				t.Fatal(err)
			}
			c.Record(event("a"))
			synctest.Wait()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := c.Close(ctx); err == nil {
				t.Error("Close: nil")
			}
			synctest.Wait()
			if dialing > 0 {
				t.Error("the dial goes on") // the bubble would fail the test as well
			}
		})
	})
}

type closeCounter struct {
	net.Conn
	open *atomic.Int32
	once sync.Once
}

func (c *closeCounter) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}

// A closed client can still read, check and purge.
func TestRequestsAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		newNetwork(t, works)
		c, err := docevents.New(testURL, testKey, docevents.WithSlog(discard))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n, err := c.PurgeOlderThan(t.Context(), 1); n != 0 || err != nil {
			t.Errorf("purge: %d, %v", n, err)
		}
		if err := c.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "Accept") { // the server stores everything
			t.Errorf("check: %v", err)
		}
		time.Sleep(time.Hour) // until the timeout of idle connections
	})
}

// The app's transport sees a value in every header, as in requests of the app.
func TestAppSeesNoHeaderWithoutValue(t *testing.T) {
	inspect := func(t *testing.T, h http.Header) {
		for name, values := range h {
			if len(values) == 0 {
				t.Errorf("%s has no value", name)
			}
		}
	}
	transport := func(t *testing.T) http.RoundTripper {
		return roundTripFunc(func(req *http.Request) (*http.Response, error) {
			inspect(t, req.Header)
			return (&answer{}).response(req), nil
		})
	}
	for name, prepare := range map[string]func(t *testing.T) (context.Context, []docevents.Option){
		"WithTransport": func(t *testing.T) (context.Context, []docevents.Option) {
			return t.Context(), []docevents.Option{docevents.WithTransport(transport(t))}
		},
		"a replaced http.DefaultTransport": func(t *testing.T) (context.Context, []docevents.Option) {
			replaceDefaultTransport(t, transport(t))
			return t.Context(), nil
		},
		"a function that chooses a proxy": func(t *testing.T) (context.Context, []docevents.Option) {
			newNetwork(t, works)
			http.DefaultTransport.(*http.Transport).Proxy = func(req *http.Request) (*url.URL, error) {
				inspect(t, req.Header)
				return nil, nil
			}
			return t.Context(), nil
		},
		"a trace of Check": func(t *testing.T) (context.Context, []docevents.Option) {
			newNetwork(t, works)
			return httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{WroteHeaderField: func(name string, values []string) {
				inspect(t, http.Header{name: values})
			}}), nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, opts := prepare(t)
				c, err := docevents.New(testURL, testKey, append(opts, docevents.WithSlog(slog.New(slog.DiscardHandler)))...)
				if err != nil {
					t.Fatal(err)
				}
				c.Record(event("a"))
				if err := c.Flush(ctx); err != nil {
					t.Error(err)
				}
				_ = c.Check(ctx)
				if err := c.Close(ctx); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Hour)
			})
		})
	}
}
