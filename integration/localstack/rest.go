package localstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// restServer is the HTTP server of a stack. An [apiGateway] checks the API key and
// passes the request to the backend.
type restServer struct {
	http    *http.Server
	backend backend
	done    chan struct{} // closed when Serve has returned
}

// backend is a real PostgREST or its stand-in.
type backend interface {
	http.Handler
	io.Closer
}

// StartREST starts the REST API and waits until it answers. If PostgreSQL is stopped,
// StartREST doesn't wait. After StopREST, the REST API gets the same address again. If
// the REST API is running, StartREST does nothing.
func (s *Stack) StartREST(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rest != nil {
		return nil
	}
	listener, err := s.listen(ctx)
	if err != nil {
		return err
	}
	if s.URL == "" { // set only once, because other goroutines may read it later
		s.opts.Addr = listener.Addr().String()
		s.URL = "http://" + s.opts.Addr
	}
	backend, err := s.newBackend()
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	rest := &restServer{
		http:    &http.Server{Handler: &apiGateway{s.Settings, backend}, ReadHeaderTimeout: time.Minute},
		backend: backend,
		done:    make(chan struct{}),
	}
	go func() {
		defer close(rest.done)
		_ = rest.http.Serve(listener) // always ErrServerClosed
	}()
	s.rest = rest
	s.logf("REST API on %s", s.URL)
	if !s.cluster.server.running() {
		return nil
	}
	return s.awaitREST(ctx, "/", func(status int) bool { return status < http.StatusInternalServerError })
}

// listen opens the TCP port of the REST API. After StopREST, it needs the same port. A
// client's outgoing connection may use that port for a moment, so listen repeats the
// attempt up to 100 times.
func (s *Stack) listen(ctx context.Context) (net.Listener, error) {
	for attempt := 0; ; attempt++ {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.opts.Addr)
		if err == nil || attempt == 100 || s.URL == "" {
			return listener, err
		}
		if pause(ctx) != nil {
			return nil, err
		}
	}
}

// StopREST ends the REST API as a crash would: connections break, and PostgreSQL rolls
// back uncommitted transactions. If the REST API isn't running, StopREST does nothing.
func (s *Stack) StopREST() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopREST()
}

func (s *Stack) stopREST() error {
	if s.rest == nil {
		return nil
	}
	s.logf("REST API stops")
	err := errors.Join(s.rest.http.Close(), s.rest.backend.Close())
	<-s.rest.done
	s.rest = nil
	return err
}

// awaitREST repeats a GET until the function good accepts the status.
func (s *Stack) awaitREST(ctx context.Context, path string, good func(status int) bool) error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+restPrefix+path, nil)
		if err != nil {
			return err
		}
		req.Header.Set("Apikey", s.ServiceRoleKey)
		req.Header.Set("Authorization", "Bearer "+s.ServiceRoleKey)
		resp, err := client.Do(req)
		if err == nil {
			resp.Body.Close()
			if good(resp.StatusCode) {
				return nil
			}
			err = errors.New(resp.Status)
		}
		if pause(ctx) != nil {
			return fmt.Errorf("the REST API is not ready: %w", err)
		}
	}
}
