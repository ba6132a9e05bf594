package docevents_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/http/httputil"
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
	tls *tls.Config // of the servers; nil means that they don't use TLS

	mu     sync.Mutex
	server *pipeListener // nil refuses connections
	conns  []*networkConn
}

// newNetwork sets up a network for the clients that the test makes. Its first server
// answers with h. serve is nil, or the TLS configuration of the servers.
func newNetwork(t *testing.T, h http.HandlerFunc, serve *tls.Config) *network {
	n := &network{tls: serve}
	n.pointTo(t, h)
	replaceDefaultTransport(t, &http.Transport{DialContext: n.dial, ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}})
	return n
}

// serveHTTP2 returns the TLS configuration of a server that speaks HTTP/2. It must be
// called outside of a synctest bubble.
func serveHTTP2() *tls.Config {
	s := httptest.NewUnstartedServer(nil)
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	return s.TLS
}

func replaceDefaultTransport(t *testing.T, rt http.RoundTripper) {
	before := http.DefaultTransport
	http.DefaultTransport = rt
	t.Cleanup(func() { http.DefaultTransport = before })
}

// pointTo makes new connections go to a server that answers with h.
func (n *network) pointTo(t *testing.T, h http.HandlerFunc) {
	l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	s := &http.Server{Handler: h, TLSConfig: n.tls.Clone(), ErrorLog: log.New(io.Discard, "", 0)}
	if n.tls == nil {
		go func() { _ = s.Serve(l) }()
	} else {
		go func() { _ = s.ServeTLS(l, "", "") }()
	}
	t.Cleanup(func() { s.Close() })
	n.setServer(l)
}

func (n *network) setServer(l *pipeListener) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.server = l
}

func (n *network) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	conn := &networkConn{Conn: client}
	n.mu.Lock()
	n.conns = append(n.conns, conn)
	to := n.server
	n.mu.Unlock()
	if to == nil {
		conn.Close()
		return nil, &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	}
	select {
	case to.conns <- server:
		return conn, nil
	case <-ctx.Done():
		conn.Close()
		return nil, ctx.Err()
	}
}

func (n *network) dials() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.conns)
}

// open returns how many connections are open or being dialed.
func (n *network) open() (open int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		if !c.closed.Load() {
			open++
		}
	}
	return open
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
	broken, closed atomic.Bool
}

func (c *networkConn) Write(b []byte) (int, error) {
	if c.broken.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *networkConn) Close() error {
	c.closed.Store(true)
	return c.Conn.Close()
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

// closes reads the request, and closes the connection without an answer.
func closes(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	panic(http.ErrAbortHandler)
}

func answers(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// newOwnClient returns a client without WithTransport.
func newOwnClient(t *testing.T, url string, opts ...docevents.Option) (*docevents.Client, *observer) {
	t.Helper()
	o := &observer{}
	c, err := docevents.New(url, testKey, append([]docevents.Option{docevents.WithSlog(slog.New(o)), docevents.WithDropHandler(o.dropped)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return c, o
}

// A connection may be dead, or go to a server that no longer serves the project, so
// the attempt after a failure uses a new connection, even if others are idle. Which
// answers are failures is tested in package rest.
func TestNextAttemptUsesANewConnection(t *testing.T) {
	for name, old := range map[string]http.HandlerFunc{ // how the old server answers after a time; nil means that its connections are dead
		"dead connections": nil,
		"a reset":          closes,
		"503":              answers(503, ""),
	} {
		for _, inFlight := range []int{1, 16} {
			t.Run(fmt.Sprint(name, ", ", inFlight, " in flight"), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var moved atomic.Bool
					n := newNetwork(t, func(w http.ResponseWriter, r *http.Request) {
						if moved.Load() {
							old(w, r)
							return
						}
						works(w, r)
					}, nil)
					c, _ := newOwnClient(t, testURL, docevents.WithMaxInFlight(inFlight), docevents.WithMaxBatch(10), docevents.WithRequestTimeout(5*time.Second))
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
					if err := closeIn(t, c, time.Second); err != nil {
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
		n := newNetwork(t, answers(503, ""), nil)
		c, _ := newOwnClient(t, testURL)
		time.AfterFunc(50*time.Millisecond, func() { n.pointTo(t, works) }) // before the second attempt
		if _, err := c.PurgeOlderThan(t.Context(), 1); n.dials() != 2 {
			t.Errorf("%d connections, %v", n.dials(), err)
		}
		closeNow(t, c)
	})
}

// If an HTTP/2 connection dies without a FIN or RST, only a ping finds that out before
// the requests time out.
func TestDeadConnectionIsLeft(t *testing.T) {
	serve := serveHTTP2()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, works, serve)
		c, _ := newOwnClient(t, "https://supabase.test", docevents.WithRequestTimeout(time.Minute))
		c.Record(event("a"))
		if err := c.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		n.breakAll()
		c.Record(event("b"))
		time.Sleep(10 * time.Second)
		checkStats(t, c, &docevents.Stats{Recorded: 2, Delivered: 2})
		closeNow(t, c)
	})
}

// If a server closes an idle connection just as a request is sent, net/http sends the
// request again. That doesn't count as a failure.
func TestStaleConnectionIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var arrived atomic.Int32
		newNetwork(t, func(w http.ResponseWriter, r *http.Request) {
			if _, sent := r.Header["Idempotency-Key"]; sent {
				t.Errorf("sent %v", r.Header)
			}
			if arrived.Add(1)%2 == 0 {
				closes(w, r)
			}
			works(w, r)
		}, nil)
		c, o := newOwnClient(t, testURL)
		const events = 5
		for range events {
			c.Record(event("a"))
			if err := c.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		closeNow(t, c)
		checkStats(t, c, &docevents.Stats{Recorded: events, Delivered: events})
		if retries, lines := c.Stats().Retries, o.logged(); retries > 0 || len(lines) > 0 || arrived.Load() != 2*events-1 {
			t.Errorf("%d retries, %d requests, logged %v", retries, arrived.Load(), lines)
		}
	})
}

// net/http itself sends an insert again if its connection died. If the second request
// is refused, the first may still have been carried out.
func TestRefusedWhenSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var requests atomic.Int32
		newNetwork(t, func(w http.ResponseWriter, r *http.Request) {
			switch requests.Add(1) {
			case 2: // carried out, and its answer is lost
				closes(w, r)
			case 3, 5:
				answers(400, `{"code":"22001"}`)(w, r)
			default:
				works(w, r)
			}
		}, nil)
		c, o := newOwnClient(t, testURL)
		c.Record(event("stored"))
		if err := c.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.Record(event("stored, and refused when sent again"))
		synctest.Wait()
		c.Record(event("stored")) // before the second row is sent again, so that there is evidence
		time.Sleep(10 * time.Second)
		if lost := o.lost(); len(lost) != 1 || lost[0].reason != docevents.Rejected || !errors.Is(lost[0].err, docevents.ErrOutcomeUnknown) {
			t.Errorf("lost %v, after %d requests", lost, requests.Load())
		}
		closeNow(t, c)
	})
}

// If net/http sends an insert again and can't connect, the first request may still
// have been carried out.
func TestLostThenNoConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n *network
		var requests atomic.Int32
		n = newNetwork(t, func(w http.ResponseWriter, r *http.Request) {
			if requests.Add(1) == 2 { // carried out; then the server goes away
				n.setServer(nil)
				closes(w, r)
			}
			works(w, r)
		}, nil)
		c, o := newOwnClient(t, testURL)
		c.Record(event("stored"))
		if err := c.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.Record(event("stored, and its answer lost"))
		if err := closeIn(t, c, 200*time.Millisecond); err == nil {
			t.Error("Close: nil")
		}
		if lost := o.lost(); len(lost) != 1 || !errors.Is(lost[0].err, docevents.ErrOutcomeUnknown) {
			t.Errorf("lost %+v", lost)
		}
	})
}

// Close closes connections that net/http would keep: an HTTP/2 connection whose last
// request has just been cancelled, and a connection that is still being dialed.
func TestCloseClosesConnections(t *testing.T) {
	serve := serveHTTP2()
	for name, test := range map[string]struct {
		url     string
		serve   *tls.Config
		dialing bool
	}{
		"HTTP/1.1":     {testURL, nil, false},
		"HTTP/2":       {"https://supabase.test", serve, false},
		"being dialed": {testURL, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t, func(_ http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body) // otherwise the server doesn't notice that the client hangs up
					<-r.Context().Done()
				}, test.serve)
				if test.dialing {
					n.setServer(&pipeListener{}) // doesn't accept connections
				}
				c, _ := newOwnClient(t, test.url)
				c.Record(event("a"))
				synctest.Wait()
				if n.open() != 1 {
					t.Fatalf("%d connections before Close", n.open())
				}
				closeNow(t, c)
				synctest.Wait()
				if n.open() > 0 {
					t.Error("the connection is still open")
				}
			})
		})
	}
}

// A closed client can still read, check and purge.
func TestRequestsAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		newNetwork(t, works, nil)
		c, _ := newOwnClient(t, testURL)
		closeNow(t, c)
		if n, err := c.PurgeOlderThan(t.Context(), 1); n != 0 || err != nil {
			t.Errorf("purge: %d, %v", n, err)
		}
		if err := c.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "Accept") { // the server stores everything
			t.Errorf("check: %v", err)
		}
		time.Sleep(time.Hour) // until the timeout of idle connections
	})
}

// The app's transport, proxy function and trace see a value in every header, as in
// requests of the app.
func TestAppSeesNoHeaderWithoutValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := map[string]bool{}
		inspect := func(by string, h http.Header) {
			seen[by] = true
			for name, values := range h {
				if len(values) == 0 {
					t.Errorf("%s: %s has no value", by, name)
				}
			}
		}
		newNetwork(t, works, nil)
		http.DefaultTransport.(*http.Transport).Proxy = func(req *http.Request) (*url.URL, error) {
			inspect("proxy "+req.Method, req.Header)
			return nil, nil
		}
		own, _ := newOwnClient(t, testURL)
		mocked, _ := newClient(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
			inspect("transport "+req.Method, req.Header)
			return (&answer{}).response(req), nil
		}))
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{WroteHeaderField: func(name string, values []string) {
			inspect("trace", http.Header{name: values})
		}})
		for _, c := range []*docevents.Client{own, mocked} {
			c.Record(event("a"))
			if err := c.Flush(ctx); err != nil {
				t.Error(err)
			}
			_ = c.Check(ctx)
			closeNow(t, c)
		}
		if !seen["proxy POST"] || !seen["transport POST"] || !seen["trace"] {
			t.Errorf("saw only %v", seen)
		}
		time.Sleep(time.Hour) // until the timeout of idle connections
	})
}

// Bytes that aren't an HTTP response, such as an echo of the request or an endless
// stream of another protocol, end the request, and no error repeats them.
func TestAnswersThatAreNotHTTP(t *testing.T) {
	for name, test := range map[string]struct{ answer, want string }{
		"an echo":             {"", "malformed HTTP"},
		"an echo of the body": {"HTTP/1.1 200 OK\r\n", "malformed MIME header"},
		"another protocol":    {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", "HTTP 101: Switching Protocols; check SUPABASE_URL"},
		"SSH":                 {"SSH-2.0-OpenSSH_9.2\x1b[31m\r\n", "malformed HTTP"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				newNetwork(t, func(w http.ResponseWriter, r *http.Request) {
					echo, err := httputil.DumpRequest(r, true)
					if err != nil {
						return
					}
					if test.answer != "" {
						_, body, _ := strings.Cut(string(echo), "\r\n\r\n")
						echo = []byte("hunter2 " + body) // a purge has no body
					}
					conn, _, err := http.NewResponseController(w).Hijack()
					if err != nil {
						t.Error(err)
						return
					}
					defer conn.Close()
					_, _ = io.WriteString(conn, test.answer+string(echo)+"\r\n\r\n")
					_, _ = io.Copy(io.Discard, conn) // until the client closes it
				}, nil)
				c, _ := newOwnClient(t, testURL)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				c.Record(event("hunter2"))
				_, purge := c.PurgeOlderThan(ctx, 1)
				for _, err := range []error{c.Flush(ctx), purge, checkOnce(t, c), c.Close(ctx)} {
					if err == nil || !strings.Contains(err.Error(), test.want) {
						t.Errorf("%v: want %q", err, test.want)
						continue
					}
					for _, secret := range []string{testKey, "hunter2", "columns=", "lt.", "\x1b", `\x1b`} {
						if strings.Contains(err.Error(), secret) {
							t.Errorf("%v: repeats %q", err, secret)
						}
					}
				}
			})
		})
	}
}
