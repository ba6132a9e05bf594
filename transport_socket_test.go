package docevents_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docevents/docevents-go"
)

// Every row is stored once, whatever happens to a request on its socket.
func TestSocketFaults(t *testing.T) {
	const events = 30
	for name, test := range map[string]struct {
		fault   func(s *httptest.Server, w http.ResponseWriter, r *http.Request) // of the second request
		timeout time.Duration                                                    // of a request
		retries bool                                                             // false if net/http must hide the fault
	}{
		"the server asks for another connection": { // over HTTP/2 with a GOAWAY frame
			func(_ *httptest.Server, w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Connection", "close")
			}, time.Minute, false,
		},
		"the connection closes": {func(s *httptest.Server, _ http.ResponseWriter, _ *http.Request) { s.CloseClientConnections() }, time.Minute, true},
		"an answer cut short": {func(_ *httptest.Server, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.WriteHeader(http.StatusCreated)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, time.Minute, true},
		"a stall within an answer": {func(_ *httptest.Server, w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusCreated)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, 200 * time.Millisecond, true},
	} {
		for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
			t.Run(name+"/"+proto, func(t *testing.T) {
				var mu sync.Mutex
				requests, stored := 0, map[string]bool{}
				s := httptest.NewUnstartedServer(nil)
				s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					var rows []wireRow
					if err := json.NewDecoder(r.Body).Decode(&rows); err != nil {
						return // the fault of another request has closed the connection
					}
					if r.Proto != proto {
						t.Errorf("got %s", r.Proto)
					}
					mu.Lock()
					requests++
					n := requests
					for _, row := range rows {
						stored[row.ID] = true
					}
					mu.Unlock()
					if n == 2 {
						test.fault(s, w, r)
					}
					w.WriteHeader(http.StatusCreated)
				})
				s.Config.ErrorLog = log.New(io.Discard, "", 0)
				s.EnableHTTP2 = proto == "HTTP/2.0"
				s.StartTLS()
				defer s.Close()
				replaceDefaultTransport(t, &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}})
				c, _ := newOwnClient(t, s.URL, docevents.WithRequestTimeout(test.timeout), docevents.WithMaxBatch(10))
				for range events {
					c.Record(event("a"))
				}
				if err := closeIn(t, c, time.Minute); err != nil {
					t.Error(err)
				}
				checkStats(t, c, &docevents.Stats{Recorded: events, Delivered: events})
				if retries := c.Stats().Retries; retries > 0 && !test.retries {
					t.Errorf("%d retries", retries)
				}
				if len(stored) != events {
					t.Errorf("%d rows stored, want %d", len(stored), events)
				}
			})
		}
	}
}

// A proxy's address may hold a password. No error has it, even if the address is
// malformed.
func TestProxyPasswordStaysSecret(t *testing.T) {
	for _, proxy := range []string{"http://user:hunter2@127.0.0.1:1", "http://user:hunter2@127.0.0.1:%zz", "http://user:hunter2 @[::1"} {
		standard := &http.Transport{Proxy: func(*http.Request) (u *url.URL, err error) { // as http.ProxyFromEnvironment, which reads the environment only once
			if u, err = url.Parse(proxy); err != nil {
				return nil, fmt.Errorf("invalid proxy address %q: %w", proxy, err)
			}
			return u, nil
		}}
		replaceDefaultTransport(t, standard)
		c, _ := newOwnClient(t, testURL)
		if err := c.Check(t.Context()); err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(strings.ToLower(err.Error()), "proxy") {
			t.Errorf("%s: %v", proxy, err)
		}
	}
}
