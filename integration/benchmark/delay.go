package main

import (
	"errors"
	"io"
	"net"
	"net/url"
	"sync"
	"time"
)

// A delayProxy makes a server seem farther away: it forwards TCP connections, and
// delays the bytes in both directions. After close, existing connections continue.
type delayProxy struct {
	url      string
	addr     string
	each     time.Duration // the delay in each direction
	listener net.Listener
}

func startDelayProxy(server string, each time.Duration) (*delayProxy, error) {
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "http" || u.Port() == "" {
		return nil, errors.New("-rtt needs a server on http:// with a port, such as the local stack")
	}
	p := &delayProxy{addr: u.Host, each: each}
	if p.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	u.Host = p.listener.Addr().String()
	p.url = u.String()
	go p.accept()
	return p, nil
}

func (p *delayProxy) accept() {
	for {
		from, err := p.listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer from.Close()
			to, err := net.Dial("tcp", p.addr)
			if err != nil {
				return
			}
			defer to.Close()
			var ways sync.WaitGroup
			ways.Go(func() { p.pass(to, from) })
			ways.Go(func() { p.pass(from, to) })
			ways.Wait()
		}()
	}
}

func (p *delayProxy) close() error { return p.listener.Close() }

// pass copies bytes from one connection to the other, with the delay.
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
	for piece := range pieces { // even after a failure, or the reader would block
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
