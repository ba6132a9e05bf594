package rest

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// The times for HTTP/2 pings. On hosted Supabase, each http.Transport sends all its
// requests over one HTTP/2 connection. Without pings, net/http keeps using it after it
// has died, and requests time out.
const (
	pingAfter   = 3 * time.Second // if the server sends nothing for this long, net/http sends a ping
	pingTimeout = 3 * time.Second // if the answer to a ping takes longer, the connection is closed
)

// connections contains the transports of a Client whose Config has no Transport: clones
// of http.DefaultTransport, one for inserts and one for all other requests.
//
// If a request fails without a sign that the server works, all idle connections are
// closed, because they may be dead or go to an old address of the server. They are
// closed just before the next request and not earlier, because the connection of the
// failed request may take a moment to become idle.
//
// All methods are safe for concurrent use. The methods begin, end and close do nothing
// on a nil receiver.
type connections struct {
	inserts, others *http.Transport

	mustCloseIdle atomic.Bool // the next begin() closes the idle connections

	mu     sync.Mutex         // guards life and cancel
	life   context.Context    // connections for inserts are opened and used until it ends
	cancel context.CancelFunc // ends life
}

// newConnections returns the transports of a Client that sends up to maxInFlight insert
// requests at a time. It returns nil if http.DefaultTransport has a type that can't be
// cloned.
func newConnections(maxInFlight int) *connections {
	defaultTransport, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return nil
	}
	c := &connections{inserts: ownTransport(defaultTransport), others: ownTransport(defaultTransport)}
	c.life, c.cancel = context.WithCancel(context.Background())
	c.inserts.DialContext = c.track(c.inserts)
	// Without a limit, net/http may open more connections than it needs. Flush and Close
	// send one more request than maxInFlight if all requests in flight hang.
	most := maxInFlight + 1
	c.inserts.MaxConnsPerHost, c.inserts.MaxIdleConns, c.inserts.MaxIdleConnsPerHost = most, most, most
	return c
}

// begin must be called before each request. It closes the idle connections if
// mustCloseIdle is set.
func (c *connections) begin() {
	if c != nil && c.mustCloseIdle.Swap(false) {
		c.closeIdle()
	}
}

// end must be called after each request, with the request's error or nil. If the result
// doesn't show that the server works, the method sets mustCloseIdle.
func (c *connections) end(err error) {
	if c != nil && !showsWorkingServer(err) {
		c.mustCloseIdle.Store(true)
	}
}

// showsWorkingServer reports whether err, the result of a request, shows that the
// server works. There are four such results:
//
//   - The request succeeded.
//   - A DELETE succeeded, but the answer lacks the number of rows (ErrNoCount).
//   - The request failed because of its rows or their number (StoredBefore, BadData or
//     TooMuch).
//   - The request violates a foreign key (23503).
func showsWorkingServer(err error) bool {
	v := Classify(err)
	e, answered := errors.AsType[*Error](err)
	return v != Transient && v != Configuration || errors.Is(err, ErrNoCount) || answered && e.Code == "23503"
}

func (c *connections) closeIdle() {
	c.inserts.CloseIdleConnections()
	c.others.CloseIdleConnections()
}

// close closes all connections for inserts, and the idle connections for other
// requests. So a connection that a purge is using stays open. Later inserts use new
// connections.
func (c *connections) close() {
	if c == nil {
		return
	}
	c.closeIdle()
	c.mu.Lock()
	// Ending c.life closes connections that are still opening, and HTTP/2 connections,
	// which don't become idle at once when their last request is cancelled.
	cancel := c.cancel
	c.life, c.cancel = context.WithCancel(context.Background())
	c.mu.Unlock()
	cancel()
}

// track returns a function for t.DialContext, with which net/http opens connections.
// c.close closes the connections that the function has opened or is opening.
//
// If the app has set DialTLSContext or DialTLS in http.DefaultTransport, net/http
// doesn't use the function for TLS. Then c.close closes only those TLS connections that
// are idle.
func (c *connections) track(t *http.Transport) func(context.Context, string, string) (net.Conn, error) {
	dial := t.DialContext
	//lint:ignore SA1019 net/http still uses Dial if DialContext is nil
	if old := t.Dial; dial == nil && old != nil {
		dial = func(_ context.Context, network, addr string) (net.Conn, error) { return old(network, addr) }
	} else if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c.mu.Lock()
		life := c.life
		c.mu.Unlock()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(life, cancel)()
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &trackedConn{conn, context.AfterFunc(life, func() { conn.Close() })}, nil
	}
}

// A trackedConn is a connection that is closed when the context connections.life ends.
// Until then, the context holds a reference to the connection, and Close removes this
// reference.
type trackedConn struct {
	net.Conn
	forget func() bool // removes the reference
}

func (c *trackedConn) Close() error {
	c.forget()
	return c.Conn.Close()
}

// ownTransport returns a clone of its argument, http.DefaultTransport. The clone stops
// using a dead HTTP/2 connection within seconds. Its errors don't contain the address
// of a proxy, which may include a password.
func ownTransport(defaultTransport *http.Transport) *http.Transport {
	t := defaultTransport.Clone()
	if defaultTransport.TLSNextProto["h2"] != nil { // Clone has set it if defaultTransport speaks HTTP/2
		// If the app has called http2.ConfigureTransport (golang.org/x/net), the "h2"
		// entry would make the clone use the app's HTTP/2 connections, which have no
		// pings.
		t.TLSNextProto, t.ForceAttemptHTTP2 = nil, true
	}
	if t.HTTP2 == nil {
		t.HTTP2 = &http.HTTP2Config{}
	}
	t.HTTP2.SendPingTimeout = cmp.Or(t.HTTP2.SendPingTimeout, pingAfter)
	t.HTTP2.PingTimeout = cmp.Or(t.HTTP2.PingTimeout, pingTimeout)
	if proxy := t.Proxy; proxy != nil {
		t.Proxy = func(req *http.Request) (*url.URL, error) {
			req = req.WithContext(req.Context()) // a shallow copy, to hide the idempotencyKey header from the app's function
			req.Header = maps.Clone(req.Header)
			delete(req.Header, idempotencyKey)
			u, err := proxy(req)
			if err != nil {
				return nil, unsent{errors.New("the proxy's address can't be read: check HTTPS_PROXY and HTTP_PROXY")}
			}
			return u, nil
		}
	}
	return t
}
