package rest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The outcome of an insert is known if no connection was made, whatever the reason.
// Once there is a connection, the server may have carried the insert out.
func TestOutcomeOnSockets(t *testing.T) {
	var stalled chan bool // of the running subtest; gets a value when a request or a dial stalls
	respond := map[string]http.HandlerFunc{
		"answers": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) },
		"resets":  func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"stalls": func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // otherwise the server doesn't notice that the client hangs up
			stalled <- true
			<-r.Context().Done()
		},
	}
	dials := func(dial func(context.Context) error) func(*http.Transport) {
		return func(t *http.Transport) {
			t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return nil, dial(ctx) }
		}
	}
	fails := func(err error) func(*http.Transport) { return dials(func(context.Context) error { return err }) }
	for name, test := range map[string]struct {
		server string
		http2  bool
		change func(*http.Transport) // nil makes the client trust the server
		busy   bool                  // another request stalls on the only connection
		want   bool
	}{
		"refused":              {"answers", false, fails(&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}), false, false},
		"no such name":         {"answers", false, fails(&net.DNSError{Err: "no such host", IsNotFound: true}), false, false},
		"an error of a dialer": {"answers", false, fails(errors.New("no way")), false, false},
		"cancelled while dialing": {"answers", false, dials(func(ctx context.Context) error {
			stalled <- true
			<-ctx.Done()
			return ctx.Err()
		}), false, false},
		"a certificate":           {"answers", false, func(*http.Transport) {}, false, false},
		"a certificate, HTTP/2":   {"answers", true, func(*http.Transport) {}, false, false},
		"no connection was free":  {"stalls", false, nil, true, false},
		"the proxy can't be read": {"answers", false, func(t *http.Transport) { t.Proxy = func(*http.Request) (*url.URL, error) { return nil, io.EOF } }, false, false},
		"a reset":                 {"resets", false, nil, false, true},
		"a reset, HTTP/2":         {"resets", true, nil, false, true},
		"a stall":                 {"stalls", false, nil, false, true},
		"a stall, HTTP/2":         {"stalls", true, nil, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			stalled = make(chan bool, 2)
			s := httptest.NewUnstartedServer(respond[test.server])
			s.Config.ErrorLog = log.New(io.Discard, "", 0)
			s.EnableHTTP2 = test.http2
			s.StartTLS()
			defer s.Close()
			defer s.CloseClientConnections()
			standard := http.DefaultTransport.(*http.Transport).Clone()
			if test.change != nil {
				test.change(standard)
			} else {
				standard.TLSClientConfig = &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "example.com"}
				standard.TLSClientConfig.RootCAs.AddCert(s.Certificate())
			}
			base := ownTransport(standard)
			base.MaxConnsPerHost = 1
			defer base.CloseIdleConnections()
			rt := &transport{inserts: base, others: base, key: "k", idColumn: "id"}
			post := func(ctx context.Context) error {
				_, err := rt.RoundTrip(newRequest(t, ctx, http.MethodPost, s.URL))
				return err
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if test.busy {
				go func() { _ = post(t.Context()) }()
				<-stalled
				time.AfterFunc(20*time.Millisecond, cancel)
			} else {
				go func(stalled chan bool) {
					select {
					case <-stalled:
						cancel()
					case <-ctx.Done():
					}
				}(stalled)
			}
			err := post(ctx)
			if err == nil || OutcomeUnknown(err) != test.want {
				t.Errorf("%v: unknown %v, want %v", err, !test.want, test.want)
			}
			if v := Classify(err); v != Transient {
				t.Errorf("%v: %d", err, v)
			}
		})
	}
}

func newRequest(t *testing.T, ctx context.Context, method, url string) *http.Request {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader("[]"))
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// Whatever the body of an answer is, the error has the answer's status, and a text that
// may be logged.
func TestAnswersOfAllKinds(t *testing.T) {
	const html, page = "text/html; charset=utf-8", "<!DOCTYPE html><title>hi</title>"
	const noAnswer = "this is not PostgREST's answer to an insert"
	for name, test := range map[string]struct {
		status            int
		contentType, body string
		want              Error
		unknown           bool
	}{
		"PostgREST":              {400, "", `{"code":"42501","details":"d","hint":null,"message":"permission denied for table t"}`, Error{Code: "42501", Message: "permission denied for table t", Details: "d"}, false},
		"a row stored before":    {409, "", `{"code":"23505","details":"Key (id)=(x) already exists.","message":"m"}`, Error{Code: "23505", Message: LeftOut, Details: "Key (id)=(x) already exists.", meaning: StoredBefore}, false},
		"a hint, left out":       {400, "", `{"code":"P0001","message":"m","hint":"h"}`, Error{Code: "P0001", Message: LeftOut}, false},
		"no database":            {400, "", `{"code":"","details":null,"hint":null,"message":""}`, Error{Message: "PostgREST lost its connection to the database during the request", meaning: Transient}, true},
		"a gateway, no message":  {400, "", `{"code":"","message":null}`, Error{Message: "Bad Request"}, false},
		"a gateway, no code":     {400, "", `{"code":null,"message":""}`, Error{Message: "Bad Request"}, false},
		"a gateway's own code":   {429, "", `{"code":"rate_limited","message":"slow down","hint":"later"}`, Error{Message: LeftOut}, false},
		"a gateway's message":    {404, "", `{"message":"no Route matched","hint":"h"}`, Error{Message: "no Route matched", Hint: "h"}, false},
		"null":                   {503, "", "null", Error{Message: "Service Unavailable"}, true},
		"nothing":                {502, "", "", Error{Message: "Bad Gateway"}, true},
		"an unknown status":      {599, "", "", Error{}, true},
		"a list":                 {500, "", `[{"code":"23514"}]`, Error{Message: "Internal Server Error"}, true},
		"other types":            {400, "", `{"code":23514,"message":{"a":1},"hint":[]}`, Error{Message: "Bad Request"}, false},
		"JSON cut off":           {400, "", `{"code":"23514","mess`, Error{Message: "Bad Request"}, false},
		"JSON and more":          {400, "", `{"code":"23514"}}`, Error{Message: "Bad Request"}, false},
		"a body that is too big": {400, "", `{"code":"23514","message":"` + strings.Repeat("m", maxErrorBytes) + `"}`, Error{Message: "Bad Request"}, false},
		"a long text in quotes":  {400, "", `{"code":"22P02","message":"invalid input syntax for type json: \"` + strings.Repeat(`\u001b`, 64<<10) + `\""}`, Error{Code: "22P02", Message: `invalid input syntax for type json: "…"`}, false},
		"a page":                 {403, html, page, Error{Message: "the answer is an HTML page"}, false},
		"a page with 200":        {200, html, page, Error{Message: "the answer is an HTML page"}, true},
		"a page with 201":        {201, html, "", Error{Message: "the answer is an HTML page"}, true},
		"an empty 200":           {200, "", "", Error{Message: noAnswer}, true},
		"another service":        {202, "", `{"status":"up"}`, Error{Message: noAnswer}, true},
	} {
		t.Run(name, func(t *testing.T) {
			rt := &transport{key: "k0", idColumn: "id"}
			resp := &http.Response{StatusCode: test.status, Header: http.Header{"Content-Type": {test.contentType}}, Body: io.NopCloser(strings.NewReader(test.body))}
			_, err := rt.read(newRequest(t, t.Context(), http.MethodPost, "/"), resp, false)
			test.want.Status = test.status
			if got, ok := errors.AsType[*Error](err); !ok || *got != test.want {
				t.Errorf("got %#v, want %#v", got, test.want)
			}
			if got := OutcomeUnknown(err); got != test.unknown {
				t.Errorf("outcome unknown: got %t, want %t", got, test.unknown)
			}
		})
	}
}

type closableReader struct {
	*strings.Reader
	closed bool
}

func (r *closableReader) Close() error {
	r.closed = true
	return nil
}

// Of every body except the ids of deleted rows, only a part of limited size is read, and
// then the body is closed.
func TestBodiesAreReadWithinBounds(t *testing.T) {
	const size = 2 * maxErrorBytes
	for _, test := range []struct {
		method, contentType string
		status, want        int // bytes read
	}{
		{http.MethodPost, "", 400, maxErrorBytes},
		{http.MethodPost, "", 201, maxErrorBytes},
		{http.MethodDelete, "", 400, maxErrorBytes},
		{http.MethodDelete, "text/html", 200, 0},
		{http.MethodDelete, "", 200, size},
	} {
		body := &closableReader{Reader: strings.NewReader(strings.Repeat("x", size))}
		resp := &http.Response{StatusCode: test.status, Header: http.Header{"Content-Type": {test.contentType}}, Body: body}
		resp, err := (&transport{key: "k0"}).read(newRequest(t, t.Context(), test.method, "/"), resp, false)
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		if read := size - body.Len(); read != test.want || !body.closed {
			t.Errorf("%+v: %d bytes read, closed: %t", test, read, body.closed)
		}
	}
}

func TestRetryAfterHeader(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"":                               0,
		"7":                              7 * time.Second,
		"60":                             time.Minute,
		"4294967296":                     time.Minute,
		"99999999999999999999999":        time.Minute,
		"-1":                             0,
		"1.5":                            0,
		"soon":                           0,
		"Fri, 02 Jan 2026 03:04:25 GMT":  20 * time.Second,
		"Fri, 02 Jan 2026 03:04:04 GMT":  0,
		"Fri, 02 Jan 2099 03:04:04 GMT":  time.Minute,
		"Friday, 02-Jan-26 03:04:15 GMT": 10 * time.Second, // RFC 850
		"Fri Jan  2 03:04:15 2026":       10 * time.Second, // ANSI C
		"Fri, 02 Jan 2026 03:04:25 PST":  0,
	} {
		if got := retryAfter(header, now); got != want {
			t.Errorf("%q: %s, want %s", header, got, want)
		}
	}
}
