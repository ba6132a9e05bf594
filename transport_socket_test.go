package docevents_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docevents/docevents-go"
)

// A secure server uses TLS, and optionally HTTP/2, as hosted Supabase does. It stores
// rows by id.
type secure struct {
	*httptest.Server
	fault func(n int, w http.ResponseWriter, r *http.Request) // called before the answer to request n, which counts from 1

	mu       sync.Mutex
	requests int
	protos   map[string]int // requests by protocol
	rows     map[string]bool
}

func newSecure(t *testing.T, http2 bool) *secure {
	s := &secure{protos: map[string]int{}, rows: map[string]bool{}}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		var rows []wireRow
		if err := json.Unmarshal(body, &rows); err != nil {
			t.Error(err)
		}
		s.mu.Lock()
		s.requests++
		n := s.requests
		s.protos[r.Proto]++
		for _, row := range rows {
			s.rows[row.ID] = true
		}
		s.mu.Unlock()
		if s.fault != nil {
			s.fault(n, w, r)
		}
		w.WriteHeader(http.StatusCreated)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.EnableHTTP2 = http2
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// client returns a client with its default transport, for an address of the server.
func (s *secure) client(t *testing.T, address string, opts ...docevents.Option) *docevents.Client {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	standard := http.DefaultTransport.(*http.Transport)
	before := standard.TLSClientConfig
	standard.TLSClientConfig = &tls.Config{RootCAs: pool, ServerName: "example.com"}
	defer func() { standard.TLSClientConfig = before }()
	c, err := docevents.New("https://"+address, testKey, append([]docevents.Option{docevents.WithSlog(discard)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (s *secure) sent() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

func overBoth(t *testing.T, test func(t *testing.T, http2 bool)) {
	t.Run("HTTP/1.1", func(t *testing.T) { test(t, false) })
	t.Run("HTTP/2", func(t *testing.T) { test(t, true) })
}

// Every row is stored once, whatever happens to a request on its socket.
func TestSocketFaults(t *testing.T) {
	const events = 50
	for name, test := range map[string]struct {
		fault func(s *secure, w http.ResponseWriter, r *http.Request) // of every second request among the first eight
		quiet bool                                                    // the client doesn't notice the fault
	}{
		"none": {func(*secure, http.ResponseWriter, *http.Request) {}, true},
		"the server asks for another connection": { // over HTTP/2 with a GOAWAY frame
			func(_ *secure, w http.ResponseWriter, _ *http.Request) { w.Header().Set("Connection", "close") }, true,
		},
		"a reset": {func(*secure, http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, false},
		"an answer cut short": {func(_ *secure, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, "[")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, false},
		"the connection closes": {func(s *secure, _ http.ResponseWriter, _ *http.Request) { s.CloseClientConnections() }, false},
		"a stall":               {func(_ *secure, _ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, false},
		"a stall within an answer": {func(_ *secure, w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusCreated)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, http2 bool) {
				s := newSecure(t, http2)
				s.fault = func(n int, w http.ResponseWriter, r *http.Request) {
					if n < 8 && n%2 == 0 {
						test.fault(s, w, r)
					}
				}
				c := s.client(t, s.Listener.Addr().String(), docevents.WithRequestTimeout(200*time.Millisecond), docevents.WithMaxBatch(10))
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				for range events {
					c.Record(event("a"))
				}
				if err := c.Close(ctx); err != nil {
					t.Error(err)
				}
				checkStats(t, c, &docevents.Stats{Recorded: events, Delivered: events})
				if retries := c.Stats().Retries; test.quiet && retries > 0 { // net/http hides other faults as well
					t.Errorf("%d retries", retries)
				}
				s.mu.Lock()
				defer s.mu.Unlock()
				if len(s.rows) != events {
					t.Errorf("%d rows stored, want %d", len(s.rows), events)
				}
				if want := map[bool]string{true: "HTTP/2.0", false: "HTTP/1.1"}[http2]; s.protos[want] != s.requests {
					t.Errorf("spoke %v, want %s", s.protos, want)
				}
			})
		})
	}
}

// A connection that dies without a FIN or RST costs only seconds. Over HTTP/1.1
// each request that times out leaves its connection. Over HTTP/2 only a ping finds
// the fault.
func TestDeadConnectionIsLeft(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for pings to go unanswered")
	}
	overBoth(t, func(t *testing.T, http2 bool) {
		s := newSecure(t, http2)
		front := newSwallower(t, s.Listener.Addr().String())
		c := s.client(t, front.Addr().String(), docevents.WithRequestTimeout(500*time.Millisecond))
		c.Record(event("a"))
		if err := c.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		front.dead.Store(true)
		c.Record(event("b"))
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := c.Flush(ctx); err != nil {
			t.Errorf("30 s after the connection died, with %d retries: %v", c.Stats().Retries, err)
		}
		cancel()
		_ = c.Close(ctx)
	})
}

// A swallower forwards connections to a server. Once it is dead, it drops all bytes of
// the connections that it had by then.
type swallower struct {
	net.Listener
	dead atomic.Bool
}

func newSwallower(t *testing.T, server string) *swallower {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s := &swallower{Listener: l}
	go func() {
		for {
			down, err := l.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", server)
			if err != nil {
				down.Close()
				continue
			}
			dies := !s.dead.Load()
			pipe := func(to, from net.Conn) {
				defer to.Close()
				piece := make([]byte, 32<<10)
				for {
					n, err := from.Read(piece)
					if err != nil {
						return
					}
					if !dies || !s.dead.Load() {
						_, _ = to.Write(piece[:n])
					}
				}
			}
			go pipe(up, down)
			go pipe(down, up)
		}
	}()
	return s
}

// If a server closes an idle connection just as a request is sent, net/http sends the
// request again. That doesn't count as a failure.
func TestStaleConnectionIsNoFailure(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	headers := make(chan string, 10)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // answers one request, and closes the connection as the next arrives
				defer conn.Close()
				request := make([]byte, 64<<10)
				n, _ := conn.Read(request)
				headers <- string(request[:n])
				_, _ = io.WriteString(conn, "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
				_, _ = conn.Read(request)
			}()
		}
	}()
	o := &observer{}
	c, err := docevents.New("http://"+l.Addr().String(), testKey, docevents.WithSlog(slog.New(o)))
	if err != nil {
		t.Fatal(err)
	}
	const events = 5
	for range events {
		c.Record(event("a"))
		if err := c.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st := c.Stats(); st.Retries > 0 || st.Delivered != events {
		t.Errorf("%+v", st)
	}
	if lines := o.logged(); len(lines) > 0 {
		t.Errorf("logged %v", lines)
	}
	for range events {
		if h := <-headers; strings.Contains(strings.ToLower(h), "idempotency") {
			t.Errorf("sent %s", h)
		}
	}
}

// A proxy's address may hold a password. No error has it, even if the address is
// malformed.
func TestProxyPasswordStaysSecret(t *testing.T) {
	standard := http.DefaultTransport.(*http.Transport)
	before := standard.Proxy
	defer func() { standard.Proxy = before }()
	for _, proxy := range []string{"http://user:hunter2@127.0.0.1:1", "http://user:hunter2@127.0.0.1:%zz", "http://user:hunter2 @[::1"} {
		standard.Proxy = func(*http.Request) (u *url.URL, err error) { // as http.ProxyFromEnvironment, which reads the environment only once
			if u, err = url.Parse(proxy); err != nil {
				return nil, fmt.Errorf("invalid proxy address %q: %w", proxy, err)
			}
			return u, nil
		}
		c, err := docevents.New("http://supabase.test", testKey, docevents.WithSlog(discard))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Check(t.Context()); err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(strings.ToLower(err.Error()), "proxy") {
			t.Errorf("%s: %v", proxy, err)
		}
	}
}

// net/http itself sends an insert again if its connection died. If the second request
// is refused, the first may still have been carried out.
func TestRefusedWhenSentAgain(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var requests atomic.Int32
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				r := bufio.NewReader(conn)
				for {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, req.Body)
					switch n := requests.Add(1); n {
					case 2: // carried out, and its answer is lost
						return
					case 3, 5:
						fmt.Fprint(conn, "HTTP/1.1 400 Bad Request\r\nContent-Length: 16\r\n\r\n{\"code\":\"22001\"}")
					default:
						fmt.Fprint(conn, "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
					}
				}
			}()
		}
	}()
	o := &observer{}
	c, err := docevents.New("http://"+l.Addr().String(), testKey, docevents.WithSlog(discard), docevents.WithDropHandler(o.dropped))
	if err != nil {
		t.Fatal(err)
	}
	c.Record(event("stored"))
	for c.Stats().Delivered < 1 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond) // until the connection is idle, so that net/http uses it again
	c.Record(event("stored, and refused when sent again"))
	for requests.Load() < 3 {
		time.Sleep(time.Millisecond)
	}
	c.Record(event("stored")) // before the second row is sent again, so that there is evidence
	for start := time.Now(); len(o.lost()) == 0 && time.Since(start) < 10*time.Second; {
		time.Sleep(10 * time.Millisecond)
	}
	if lost := o.lost(); len(lost) != 1 || lost[0].reason != docevents.Rejected || !errors.Is(lost[0].err, docevents.ErrOutcomeUnknown) {
		t.Errorf("lost %v, after %d requests", lost, requests.Load())
	}
	if err := c.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// If net/http sends an insert again and can't connect, the first request may still
// have been carried out.
func TestLostThenNoConnection(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		r := bufio.NewReader(conn)
		for i := range 2 {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			if i == 1 { // carried out; then the server goes away
				l.Close()
				return
			}
			fmt.Fprint(conn, "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
		}
	}()
	o := &observer{}
	c, err := docevents.New("http://"+l.Addr().String(), testKey, docevents.WithSlog(discard), docevents.WithDropHandler(o.dropped))
	if err != nil {
		t.Fatal(err)
	}
	c.Record(event("stored"))
	if err := c.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.Record(event("stored, and its answer lost"))
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := c.Close(ctx); err == nil {
		t.Error("Close: nil")
	}
	if lost := o.lost(); len(lost) != 1 || !errors.Is(lost[0].err, docevents.ErrOutcomeUnknown) {
		t.Errorf("lost %+v", lost)
	}
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
			t.Parallel() // each case waits until its ctx ends
			s := newLoopback(t, func(w http.ResponseWriter, r *http.Request) {
				echo, err := httputil.DumpRequest(r, true)
				if err != nil {
					return
				}
				if test.answer != "" {
					_, echo, _ = bytes.Cut(echo, []byte("\r\n\r\n"))
					echo = append([]byte("hunter2 "), echo...) // a purge has no body
				}
				conn, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				_, _ = io.WriteString(conn, test.answer+string(echo)+"\r\n\r\n")
				_, _ = io.Copy(io.Discard, conn) // until the client closes it
			})
			c, err := docevents.New(s.URL, testKey, docevents.WithSlog(discard))
			if err != nil {
				t.Fatal(err)
			}
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
	}
}
