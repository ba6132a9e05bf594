package main

import (
	"errors"
	"io"
	"net"
	"net/url"
	"sync"
	"time"
)

// A delayProxy passes TCP connections on to a server and holds back each way
// what goes through, as the distance to a server does. Bandwidth is not bound.
type delayProxy struct {
	url      string
	addr     string
	each     time.Duration
	listener net.Listener
	done     sync.WaitGroup

	mu     sync.Mutex // guards conns, which are nil after close
	conns  map[net.Conn]struct{}
	closed bool
}

func startDelayProxy(server string, each time.Duration) (*delayProxy, error) {
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "http" || u.Port() == "" {
		return nil, errors.New("-rtt needs a server on http:// with a port, such as the local stack")
	}
	p := &delayProxy{addr: u.Host, each: each, conns: map[net.Conn]struct{}{}}
	if p.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	u.Host = p.listener.Addr().String()
	p.url = u.String()
	p.done.Go(p.accept)
	return p, nil
}

func (p *delayProxy) accept() {
	for {
		from, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.done.Go(func() {
			defer from.Close()
			to, err := net.Dial("tcp", p.addr)
			if err != nil {
				return
			}
			defer to.Close()
			if !p.keep(from, to) {
				return
			}
			defer p.forget(from, to)
			var ways sync.WaitGroup
			ways.Go(func() { p.pass(to, from) })
			ways.Go(func() { p.pass(from, to) })
			ways.Wait()
		})
	}
}

func (p *delayProxy) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		if !p.closed {
			p.conns[c] = struct{}{}
		}
	}
	return !p.closed
}

func (p *delayProxy) forget(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		delete(p.conns, c)
	}
}

// pass copies from one side to the other, each piece when it is due.
func (p *delayProxy) pass(to, from net.Conn) {
	type piece struct {
		bytes []byte
		due   time.Time
	}
	pieces := make(chan piece, 1024)
	go func() {
		defer close(pieces)
		for {
			buffer := make([]byte, 64<<10)
			n, err := from.Read(buffer)
			if n > 0 {
				pieces <- piece{buffer[:n], time.Now().Add(p.each)}
			}
			if err != nil {
				return
			}
		}
	}()
	failed := false
	for piece := range pieces { // to the end, or the reader would hang
		time.Sleep(time.Until(piece.due))
		if !failed {
			_, err := to.Write(piece.bytes)
			failed = err != nil
		}
	}
	if half, ok := to.(interface{ CloseWrite() error }); ok && !failed {
		_ = half.CloseWrite()
		return
	}
	_ = to.(io.Closer).Close()
}

// close ends every connection.
func (p *delayProxy) close() error {
	err := p.listener.Close()
	p.mu.Lock()
	p.closed = true
	for c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.done.Wait()
	return err
}
