// Package faultproxy is a proxy for tests. It stands between a client and an
// HTTP server, on a port of the loopback interface, and deals faults: answers
// that are lost, cut short, late or not the server's.
//
//	proxy, err := faultproxy.Start(stack.URL)
//	if err != nil { ... }
//	defer proxy.Close()
//	proxy.Deal(faultproxy.Script(faultproxy.AnswerLost(), faultproxy.Page(502).Committed()))
//	client, err := docevents.New(proxy.URL, stack.ServiceRoleKey)
//
// Which request meets which fault is for a [Plan] to say, a function of the
// request: of its number, so that a run can be repeated, or of its body, so that
// one row alone is met.
//
// A fault never lies about what was stored. An answer that denies it, as one
// with a code of PostgreSQL's does, is dealt without the server; one that says
// nothing about it also after the commit, see [Fault.Committed].
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

// A Proxy passes requests on to a server, except for the faults. Its methods
// are safe for concurrent use.
type Proxy struct {
	URL string // where it listens, without a path

	target  *url.URL
	forward *http.Transport
	ctx     context.Context // the proxy's life
	cancel  context.CancelFunc
	handled sync.WaitGroup // the requests

	mu     sync.Mutex // guards all that follows; no request is dealt with under it
	plan   Plan
	number int // of the next request under the plan
	dealt  map[string]int
	front  *front // nil: connections are refused
	closed bool
}

// A front is what a Proxy listens with.
type front struct {
	server *http.Server
	ctx    context.Context // ends with the server's connections
	cancel context.CancelFunc
	done   chan struct{} // closed when Serve has returned
}

// Start returns a proxy of the server at target, such as http://127.0.0.1:3000.
// It passes everything on until Deal says otherwise.
func Start(target string) (*Proxy, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, fmt.Errorf("faultproxy: the server's URL: %w", err)
	}
	p := &Proxy{
		target: u,
		// A connection for each request: what breaks one must not reach the next.
		forward: &http.Transport{DisableKeepAlives: true, DisableCompression: true},
		plan:    Pass,
		dealt:   map[string]int{},
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

// Deal makes plan the one in force, from the next request on, which is its
// number 0.
func (p *Proxy) Deal(plan Plan) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plan, p.number = plan, 0
}

// Dealt counts the requests by the name of the fault that they met, "" for none.
func (p *Proxy) Dealt() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.dealt)
}

// Refuse stops listening, so that connections are refused, and breaks those
// that there are. What has reached the server goes on there.
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
		// Nobody listened, and an attempt to connect may have taken the port for
		// a moment.
		time.Sleep(20 * time.Millisecond)
	}
}

// Close ends the proxy and waits for what it has under way.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	err := p.refuseLocked()
	p.mu.Unlock()
	p.cancel()
	p.handled.Wait()
	return err
}

// handle deals with one request. ctx ends when its connection is to break.
func (p *Proxy) handle(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler) // the client is gone
	}
	f := p.choose(&Request{Method: r.Method, URL: r.URL, Header: r.Header, Body: body})
	var answer *Answer
	if !f.Lost {
		if answer, err = p.pass(r, body, f.Without); err != nil {
			f = Fault{Cut: CutAll} // as without a proxy: the server is gone
		}
	}
	if f.Answer != nil {
		answer = f.Answer
	}
	switch {
	case f.Stall:
		select {
		case <-r.Context().Done(): // the client has given up
		case <-ctx.Done():
		}
		panic(http.ErrAbortHandler)
	case f.Cut == CutAll || answer == nil:
		reset(w)
	case f.Cut == NoCut && f.Pace == 0:
		answer.write(w)
	default:
		f.writeSlowly(ctx, w, answer)
	}
}

func (p *Proxy) choose(r *Request) Fault {
	p.mu.Lock()
	plan := p.plan
	r.Number = p.number
	p.number++
	p.mu.Unlock()
	f := plan(r)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dealt[f.Name]++
	return f
}

// pass sends the request on. It goes on without its client, as it would behind
// a gateway: only the proxy's end breaks it off.
func (p *Proxy) pass(r *http.Request, body []byte, without string) (*Answer, error) {
	u := *r.URL
	u.Scheme, u.Host = p.target.Scheme, p.target.Host
	req, err := http.NewRequestWithContext(p.ctx, r.Method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header = r.Header.Clone()
	req.Header.Del("Connection")
	req.Header.Del(without)
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

// reset breaks the connection with nothing said: the client sees "connection
// reset by peer".
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

// writeSlowly writes the answer byte by byte, or up to where it is cut.
func (f *Fault) writeSlowly(ctx context.Context, w http.ResponseWriter, a *Answer) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer conn.Close() // in order, so that what was written arrives
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

// wire is the answer as it goes over the connection, up to where it is cut.
func (f *Fault) wire(a *Answer) []byte {
	var header bytes.Buffer
	length, body := len(a.Body), a.Body
	if f.Cut == CutBody { // an empty body too
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
	_ = h.Write(&header) // to memory
	header.WriteString("\r\n")
	if f.Cut == CutHeader {
		return header.Bytes()[:header.Len()/2]
	}
	return append(header.Bytes(), body...)
}
