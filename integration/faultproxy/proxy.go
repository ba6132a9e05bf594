// Package faultproxy is an HTTP proxy for tests. It stands between a client and a
// server, and loses, cuts, delays or replaces answers. It listens on the loopback
// interface.
//
//	proxy, err := faultproxy.Start(stack.URL)
//	if err != nil { ... }
//	defer proxy.Close()
//	proxy.Deal(faultproxy.Script(faultproxy.AnswerLost(), faultproxy.Page(502).Committed()))
//	client, err := docevents.New(proxy.URL, stack.ServiceRoleKey)
//
// A [Plan] chooses the fault for each request. A plan that looks only at the request's
// number causes the same faults in every run. A plan can also look for the text of a
// row in the request's body.
//
// With [Fault.Committed], the server stores the rows of an insert before the client
// gets the fault. Don't use it with an error that has a PostgreSQL code, because such
// an error means that no row was stored.
package faultproxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// A Proxy forwards requests to a server, and causes the faults that its [Plan] chooses.
// The methods are safe for concurrent use.
type Proxy struct {
	URL string // the proxy's URL, without a path

	target  *url.URL
	forward *http.Transport
	ctx     context.Context // ends when the proxy closes
	cancel  context.CancelFunc
	handled sync.WaitGroup // counts the requests being handled

	mu     sync.Mutex // guards the fields below; not held while a request is handled
	plan   Plan
	number int    // the number of the next request under the plan
	front  *front // nil while connections are refused
	closed bool
}

// A front is the proxy's HTTP server, which Refuse closes and Accept starts.
type front struct {
	server *http.Server
	ctx    context.Context // ends with the server's connections
	cancel context.CancelFunc
	done   chan struct{} // closed when Serve has returned
}

// Start starts a proxy for the server at serverURL, such as http://127.0.0.1:3000.
// Until Deal sets a plan, there are no faults.
func Start(serverURL string) (*Proxy, error) {
	u, err := url.Parse(serverURL)
	if err != nil {
		return nil, fmt.Errorf("faultproxy: the server's URL: %w", err)
	}
	p := &Proxy{
		target: u,
		// With a new connection to the server for each request, a broken connection
		// affects only one request.
		forward: &http.Transport{DisableKeepAlives: true, DisableCompression: true},
		plan:    Pass,
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("faultproxy: %w", err)
	}
	p.URL = "http://" + listener.Addr().String()
	p.serve(listener)
	return p, nil
}

func (p *Proxy) serve(listener net.Listener) {
	f := &front{done: make(chan struct{})}
	f.ctx, f.cancel = context.WithCancel(p.ctx)
	f.server = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !p.enter() {
				panic(http.ErrAbortHandler)
			}
			defer p.handled.Done()
			p.handle(f.ctx, w, r)
		}),
		ReadHeaderTimeout: time.Minute,
	}
	p.front = f
	go func() {
		defer close(f.done)
		_ = f.server.Serve(listener) // always ErrServerClosed
	}()
}

func (p *Proxy) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.handled.Add(1)
	}
	return !p.closed
}

// Deal sets the plan for the following requests. Their numbers start at 0.
func (p *Proxy) Deal(plan Plan) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plan, p.number = plan, 0
}

// Refuse breaks existing connections, and closes the proxy's port until Accept is
// called. The server still processes the requests that have reached it.
func (p *Proxy) Refuse() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refuseLocked()
}

func (p *Proxy) refuseLocked() error {
	if p.front == nil {
		return nil
	}
	err := p.front.server.Close()
	p.front.cancel()
	<-p.front.done
	p.front = nil
	return err
}

// Accept listens again, on the same port.
func (p *Proxy) Accept() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.front != nil || p.closed {
		return nil
	}
	for attempt := 0; ; attempt++ {
		listener, err := net.Listen("tcp", p.URL[len("http://"):])
		if err == nil {
			p.serve(listener)
			return nil
		}
		if attempt == 100 {
			return fmt.Errorf("faultproxy: %w", err)
		}
		// A client's outgoing connection may use the port for a moment.
		time.Sleep(20 * time.Millisecond)
	}
}

// Close stops the proxy and waits until all requests are handled.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	err := p.refuseLocked()
	p.mu.Unlock()
	p.cancel()
	p.handled.Wait()
	return err
}

// handle handles one request. ctx ends when Refuse or Close breaks the connections.
func (p *Proxy) handle(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler) // the client is gone
	}
	f := p.choose(&Request{Method: r.Method, URL: r.URL, Header: r.Header, Body: body})
	var answer *Answer
	if !f.Lost {
		if answer, err = p.pass(r, body, f.Without); err != nil {
			f = Fault{Cut: CutAll} // the server is gone: break the connection, as the server would
		}
	}
	if f.Answer != nil {
		answer = f.Answer
	}
	switch {
	case f.Stall:
		select {
		case <-r.Context().Done(): // the client is gone
		case <-ctx.Done():
		}
		panic(http.ErrAbortHandler)
	case f.Cut == CutAll || answer == nil:
		reset(w)
	case f.Cut == NoCut && f.Pace == 0:
		answer.write(w)
	default:
		f.writeFaulty(ctx, w, answer)
	}
}

func (p *Proxy) choose(r *Request) Fault {
	p.mu.Lock()
	plan := p.plan
	r.Number = p.number
	p.number++
	p.mu.Unlock()
	return plan(r)
}

// pass removes the header removedHeader from the request, sends the request to the
// server, and returns the server's answer. Like a gateway, it doesn't abort the request
// if the client disconnects.
func (p *Proxy) pass(r *http.Request, body []byte, removedHeader string) (*Answer, error) {
	u := *r.URL
	u.Scheme, u.Host = p.target.Scheme, p.target.Host
	req, err := http.NewRequestWithContext(p.ctx, r.Method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header = r.Header.Clone()
	req.Header.Del("Connection")
	req.Header.Del(removedHeader)
	resp, err := p.forward.RoundTrip(req) // not a Client, which would follow redirects
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer := &Answer{Status: resp.StatusCode, Header: resp.Header}
	answer.Header.Del("Connection")
	answer.Header.Del("Content-Length")
	answer.Body, err = io.ReadAll(resp.Body)
	return answer, err
}

// reset breaks the client's connection. The client gets the error "connection reset by
// peer".
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

func (a *Answer) write(w http.ResponseWriter) {
	maps.Copy(w.Header(), a.Header)
	w.WriteHeader(a.Status)
	_, _ = w.Write(a.Body) // the client may be gone
}

// writeFaulty writes the answer up to the cut, with a pause of f.Pace after each byte.
func (f *Fault) writeFaulty(ctx context.Context, w http.ResponseWriter, a *Answer) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer conn.Close() // not a reset, so that the written bytes arrive
	wire := f.wire(a)
	if f.Pace == 0 {
		_, _ = conn.Write(wire) // the client may be gone
		return
	}
	for i := range wire {
		if _, err := conn.Write(wire[i : i+1]); err != nil {
			return
		}
		select {
		case <-time.After(f.Pace):
		case <-ctx.Done():
			return
		}
	}
}

// wire returns the bytes of the answer, up to the cut.
func (f *Fault) wire(a *Answer) []byte {
	var header bytes.Buffer
	length, body := len(a.Body), a.Body
	if f.Cut == CutBody { // a Content-Length of one more makes even an empty body too short
		length++
		body = body[:len(body)/2]
	}
	fmt.Fprintf(&header, "HTTP/1.1 %d %s\r\n", a.Status, http.StatusText(a.Status))
	h := a.Header.Clone()
	if h == nil {
		h = http.Header{}
	}
	h.Set("Connection", "close")
	h.Set("Content-Length", fmt.Sprint(length))
	_ = h.Write(&header) // a buffer never fails
	header.WriteString("\r\n")
	if f.Cut == CutHeader {
		return header.Bytes()[:header.Len()/2]
	}
	return append(header.Bytes(), body...)
}
