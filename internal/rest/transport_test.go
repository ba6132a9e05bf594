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
	"net/http/httptrace"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The outcome of an insert is known if no connection was made, whatever the reason.
// Once there is a connection, the server may have carried the insert out.
func TestOutcomeOnSockets(t *testing.T) {
	respond := map[string]http.HandlerFunc{
		"answers": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) },
		"resets":  func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"stalls": func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // otherwise the server doesn't notice that the client hangs up
			<-r.Context().Done()
		},
	}
	dials := func(err error) func(*http.Transport) {
		return func(t *http.Transport) {
			t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
				if err != nil {
					return nil, err
				}
				<-ctx.Done()
				return nil, ctx.Err()
			}
		}
	}
	trusts := func(s *httptest.Server) func(*http.Transport) {
		return func(t *http.Transport) {
			t.TLSClientConfig = &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "example.com"}
			t.TLSClientConfig.RootCAs.AddCert(s.Certificate())
		}
	}
	for name, test := range map[string]struct {
		server string
		http2  bool
		change func(*http.Transport) // nil makes the client trust the server
		before int                   // how many requests already stall on the only connection
		want   bool
	}{
		"refused":                 {"answers", false, dials(&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}), 0, false},
		"no such name":            {"answers", false, dials(&net.DNSError{Err: "no such host", IsNotFound: true}), 0, false},
		"an error of a dialer":    {"answers", false, dials(errors.New("no way")), 0, false},
		"a timeout while dialing": {"answers", false, dials(nil), 0, false},
		"a certificate":           {"answers", false, func(*http.Transport) {}, 0, false},
		"a certificate, HTTP/2":   {"answers", true, func(*http.Transport) {}, 0, false},
		"no connection was free":  {"stalls", false, nil, 1, false},
		"the proxy can't be read": {"answers", false, func(t *http.Transport) { t.Proxy = func(*http.Request) (*url.URL, error) { return nil, io.EOF } }, 0, false},
		"a reset":                 {"resets", false, nil, 0, true},
		"a reset, HTTP/2":         {"resets", true, nil, 0, true},
		"a stall":                 {"stalls", false, nil, 0, true},
		"a stall, HTTP/2":         {"stalls", true, nil, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewUnstartedServer(respond[test.server])
			s.Config.ErrorLog = log.New(io.Discard, "", 0)
			s.EnableHTTP2 = test.http2
			s.StartTLS()
			defer s.Close()
			defer s.CloseClientConnections()
			standard := http.DefaultTransport.(*http.Transport).Clone()
			if test.change == nil {
				test.change = trusts(s)
			}
			test.change(standard)
			base := ownTransport(standard)
			base.MaxConnsPerHost = 1
			defer base.CloseIdleConnections()
			rt := &transport{inserts: base, others: base, key: "k", idColumn: "id"}
			post := func(ctx context.Context) error {
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL, strings.NewReader("[]"))
				if err != nil {
					t.Fatal(err)
				}
				_, err = rt.RoundTrip(req)
				return err
			}
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			for range test.before {
				got := make(chan bool)
				first := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { close(got) }})
				go func() { _ = post(first) }()
				<-got
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

// If PostgREST loses its database during a request, it answers 400 with an empty code
// and an empty message, and the rows may be stored. If code or message is missing, the
// answer is a gateway's.
func TestRefusal(t *testing.T) {
	for _, test := range []struct {
		status        int
		body, details string
		want          Error
		unknown       bool
	}{
		{400, `{"code":"","details":null,"hint":null,"message":""}`, "", Error{Status: 400, Message: "PostgREST lost its connection to the database during the request", meaning: Transient}, true},
		{400, `{}`, "", Error{Status: 400, Message: "Bad Request"}, false},
		{400, `{"code":"","message":null}`, "", Error{Status: 400, Message: "Bad Request"}, false},
		{400, `{"code":null,"message":""}`, "", Error{Status: 400, Message: "Bad Request"}, false},
		{429, `{"code":"rate_limited","message":"slow down","hint":"later"}`, "", Error{Status: 429, Message: LeftOut}, false},
		{
			409, `{"code":"23505","details":"Key (id)=(x) already exists.","hint":null,"message":"m"}`,
			"Key (id)=(x) already exists.",
			Error{Status: 409, Code: "23505", Message: LeftOut, meaning: StoredBefore},
			false,
		},
		{
			400, `{"code":"23514","details":"Failing row contains (x, y).","hint":null,"message":"m"}`,
			"Failing row contains (x, y).",
			Error{Status: 400, Code: "23514", Message: LeftOut},
			false,
		},
	} {
		rt := &transport{key: "k0", idColumn: "id"}
		resp := &http.Response{StatusCode: test.status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(test.body))}
		err := rt.refusal(resp, false)
		if got := OutcomeUnknown(err); got != test.unknown {
			t.Errorf("%s: unknown %v", test.body, got)
		}
		test.want.Details = test.details
		if e, ok := errors.AsType[*Error](err); !ok || *e != test.want {
			t.Errorf("%s: %#v", test.body, e)
		}
	}
}

func TestRetryAfterHeader(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"":                               0,
		"0":                              0,
		"7":                              7 * time.Second,
		"60":                             time.Minute,
		"61":                             time.Minute,
		"4294967295":                     time.Minute,
		"4294967296":                     time.Minute,
		"9223372036854775807":            time.Minute,
		"99999999999999999999999":        time.Minute,
		"-1":                             0,
		"+1":                             0,
		"1.5":                            0,
		"1e3":                            0,
		"0x10":                           0,
		"soon":                           0,
		"７":                              0,
		"Fri, 02 Jan 2026 03:04:25 GMT":  20 * time.Second,
		"Fri, 02 Jan 2026 03:04:05 GMT":  0,
		"Fri, 02 Jan 2026 03:04:04 GMT":  0,
		"Fri, 02 Jan 1970 03:04:04 GMT":  0,
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
