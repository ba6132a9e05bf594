package rest

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestOwnTransportKeepsThePingTimesOfTheApp(t *testing.T) {
	standard := &http.Transport{HTTP2: &http.HTTP2Config{SendPingTimeout: time.Minute, PingTimeout: time.Hour}}
	if got := ownTransport(standard).HTTP2; got.SendPingTimeout != time.Minute || got.PingTimeout != time.Hour {
		t.Errorf("got %+v", got)
	}
}

// The clone speaks HTTP/2 if the original does, however the app has set that up.
func TestOwnTransportSpeaksHTTP2(t *testing.T) {
	foreign := map[string]func(string, *tls.Conn) http.RoundTripper{"h2": func(string, *tls.Conn) http.RoundTripper { return nil }}
	none := map[string]func(string, *tls.Conn) http.RoundTripper{}
	http1 := &http.Protocols{}
	http1.SetHTTP1(true)
	for name, test := range map[string]struct {
		standard *http.Transport
		want     bool
	}{
		"http.DefaultTransport":                                    {http.DefaultTransport.(*http.Transport), true},
		"a zero http.Transport":                                    {&http.Transport{}, true},
		"a transport that golang.org/x/net configured":             {&http.Transport{TLSNextProto: foreign}, true},
		"configured by golang.org/x/net, with only HTTP/1 allowed": {&http.Transport{TLSNextProto: foreign, Protocols: http1}, false},
		"switched off by TLSNextProto":                             {&http.Transport{TLSNextProto: none, ForceAttemptHTTP2: true}, false},
		"switched off by Protocols":                                {&http.Transport{Protocols: http1}, false},
		"a TLS configuration of the app":                           {&http.Transport{TLSClientConfig: &tls.Config{}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(test.standard.TLSNextProto)
			own := ownTransport(test.standard)
			if own.TLSNextProto["h2"] != nil {
				t.Error("the clone uses the connections of the app")
			}
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if got := r.ProtoMajor == 2; got != test.want {
					t.Errorf("speaks %s", r.Proto)
				}
			}))
			s.EnableHTTP2 = true
			s.StartTLS()
			defer s.Close()
			if own.TLSClientConfig == nil {
				own.TLSClientConfig = &tls.Config{}
			}
			own.TLSClientConfig.InsecureSkipVerify = true
			resp, err := (&http.Client{Transport: own}).Get(s.URL)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if len(test.standard.TLSNextProto) < before {
				t.Error("the original has changed")
			}
		})
	}
}

// Idle connections are closed before the request that follows a failure.
func TestIdleConnectionsAreClosedAfterAFailure(t *testing.T) {
	for _, test := range []struct {
		name string
		err  error
		want bool
	}{
		{"stored", nil, false},
		{"rejected rows", &Error{Status: 400, Code: "22001"}, false},
		{"too many rows", &Error{Status: 500, Code: "57014"}, false},
		{"a foreign key", &Error{Status: 409, Code: "23503"}, false},
		{"a DELETE without a count", ErrNoCount, false},
		{"PostgREST without its database", &Error{Status: 503, Code: "PGRST002"}, true},
		{"a firewall's page", &Error{Status: 403}, true},
		{"no such table", &Error{Status: 404, Code: "PGRST205"}, true},
		{"no answer", context.DeadlineExceeded, true},
	} {
		c := newConnections(4)
		c.end(test.err)
		if got := c.mustCloseIdle.Load(); got != test.want {
			t.Errorf("%s: got %t, want %t", test.name, got, test.want)
		}
		if c.begin(); c.mustCloseIdle.Load() {
			t.Errorf("%s: the connections are closed again and again", test.name)
		}
	}
}

// The clones use the dialer of the original, which may connect through a SOCKS
// proxy. Dial is deprecated, but net/http still uses it if DialContext is nil.
func TestOwnTransportUsesTheDialerOfTheApp(t *testing.T) {
	errDialer := errors.New("the dialer of the app")
	for name, standard := range map[string]*http.Transport{
		"DialContext": {DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, errDialer }},
		"Dial":        {Dial: func(string, string) (net.Conn, error) { return nil, errDialer }},
	} {
		t.Run(name, func(t *testing.T) {
			original := http.DefaultTransport
			defer func() { http.DefaultTransport = original }()
			http.DefaultTransport = standard
			c := newConnections(1)
			for _, own := range []*http.Transport{c.inserts, c.others} {
				if _, err := (&http.Client{Transport: own}).Get("http://127.0.0.1:9"); !errors.Is(err, errDialer) {
					t.Errorf("got %v, want the error of the dialer", err)
				}
			}
		})
	}
}

// If the maximum of inserts in flight hang, one more insert still gets a connection.
func TestOneConnectionMoreThanInFlight(t *testing.T) {
	for _, inFlight := range []int{1, 4} {
		arrived := make(chan bool)
		s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			arrived <- true
			<-r.Context().Done()
		}))
		defer s.Close()
		rt := New(Config{MaxInFlight: inFlight}).transport
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		for i := range inFlight + 1 {
			go func() {
				req, _ := http.NewRequestWithContext(ctx, http.MethodPost, s.URL, strings.NewReader("[]"))
				_, _ = rt.RoundTrip(req)
			}()
			select {
			case <-arrived:
			case <-ctx.Done():
				t.Fatalf("with %d in flight, request %d gets no connection", inFlight, i+1)
			}
		}
	}
}
