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

// Hosted Supabase speaks HTTP/2. All requests share one HTTP/2 connection, which
// stays open if a request times out. Only pings detect that the connection is
// dead.
const (
	pingAfter   = 3 * time.Second // how long the server may send nothing before a ping
	pingTimeout = 3 * time.Second // how long the answer to a ping may take
)

// connections are the transports of a Client that wasn't given one. They are
// clones of http.DefaultTransport, one for inserts and one for everything else.
//
// A failure is evidence against all idle connections: they may be dead, or may
// lead to a server that the project's name no longer points to. So they are
// closed before the next request. Right after the failure it would be too early,
// because net/http has not put the failed request's connection among them yet.
//
// The methods are safe for concurrent use, and do nothing on a nil receiver.
type connections struct {
	inserts, others *http.Transport

	suspect atomic.Bool // close the idle connections before the next request

	mu     sync.Mutex      // guards the rest
	life   context.Context // ends the connections for inserts, and their dials
	cancel context.CancelFunc
}

// newConnections returns the transports of a Client with at most maxInFlight
// inserts in flight. It returns nil if the app has replaced
// http.DefaultTransport with a type that can't be cloned.
//
// The number of connections for inserts is limited, because net/http may open
// more than it has requests: if a connection becomes free during a dial, the
// request takes the free connection, and the dialed one is an extra. The limit
// is maxInFlight+1, because Close makes an attempt even if all requests in
// flight hang. A purge may take long, so it uses the other transport.
func newConnections(maxInFlight int) *connections {
	standard, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return nil
	}
	c := &connections{inserts: ownTransport(standard), others: ownTransport(standard)}
	c.life, c.cancel = context.WithCancel(context.Background())
	c.inserts.DialContext = c.track(c.inserts)
	most := maxInFlight + 1
	c.inserts.MaxConnsPerHost, c.inserts.MaxIdleConns, c.inserts.MaxIdleConnsPerHost = most, most, most
	return c
}

// begin closes the idle connections if a request has failed since the last call.
func (c *connections) begin() {
	if c != nil && c.suspect.Swap(false) {
		c.closeIdle()
	}
}

// end takes the result of a request.
func (c *connections) end(err error) {
	if c != nil && !showsWorkingServer(err) {
		c.suspect.Store(true)
	}
}

// showsWorkingServer reports whether a request's result shows that its connection
// leads to a working server. A rejection of the rows shows that, and so does a
// foreign key whose row is not there yet.
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
// requests, so a purge can continue. Later requests use new connections.
//
// CloseIdleConnections of net/http would not close connections that are still
// being dialed, nor an HTTP/2 connection just after its last request was
// cancelled. So close also ends life, which all connections for inserts watch.
func (c *connections) close() {
	if c == nil {
		return
	}
	c.closeIdle()
	c.mu.Lock()
	cancel := c.cancel
	c.life, c.cancel = context.WithCancel(context.Background())
	c.mu.Unlock()
	cancel()
}

// track returns a DialContext for t that stops dialing, and closes its
// connections, when close is called. If the app has set DialTLSContext, net/http
// doesn't use DialContext for TLS.
func (c *connections) track(t *http.Transport) func(context.Context, string, string) (net.Conn, error) {
	dial := t.DialContext
	if dial == nil {
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

// A trackedConn is closed when life ends. After Close, life no longer refers to it.
type trackedConn struct {
	net.Conn
	forget func() bool
}

func (c *trackedConn) Close() error {
	c.forget()
	return c.Conn.Close()
}

// ownTransport returns a clone of standard that stops using a dead HTTP/2
// connection within seconds. Its errors don't contain the address of a proxy,
// because the address may include a password.
func ownTransport(standard *http.Transport) *http.Transport {
	t := standard.Clone()
	if standard.TLSNextProto["h2"] != nil { // Clone has set it if standard speaks HTTP/2
		// If the app has called http2.ConfigureTransport of golang.org/x/net, the
		// entry leads to the app's connections, which have no pings.
		t.TLSNextProto, t.ForceAttemptHTTP2 = nil, true
	}
	if t.HTTP2 == nil {
		t.HTTP2 = &http.HTTP2Config{}
	}
	t.HTTP2.SendPingTimeout = cmp.Or(t.HTTP2.SendPingTimeout, pingAfter)
	t.HTTP2.PingTimeout = cmp.Or(t.HTTP2.PingTimeout, pingTimeout)
	if proxy := t.Proxy; proxy != nil {
		t.Proxy = func(req *http.Request) (*url.URL, error) {
			req = req.WithContext(req.Context()) // a shallow copy, because the app's function must not see the header
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
