package docevents

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
)

// The rows of DESIGN's table, the first match first.
func TestClassify(t *testing.T) {
	answer := func(status int, code string) error { return &Error{Status: status, Code: code} }
	for _, test := range []struct {
		name string
		want verdict
		errs []error
	}{
		{"no error", accepted, []error{nil}},
		{
			"1: no answer, or a body cut short", transient,
			[]error{
				io.ErrUnexpectedEOF, context.DeadlineExceeded, context.Canceled, errors.New("connection reset"),
				fmt.Errorf("answer with status 400 cut short: %w", io.ErrUnexpectedEOF),
			},
		},
		{
			"2: by the status, whatever the code", configuration,
			[]error{
				answer(401, ""), answer(401, "22023"), answer(401, "23514"), answer(401, "57014"), answer(401, "08006"), answer(401, "PGRST301"),
				answer(402, ""), answer(402, "PT402"), answer(405, ""), answer(405, "PGRST117"), answer(406, ""), answer(406, "22P02"),
				answer(540, ""), answer(540, "23505"), answer(200, ""), answer(201, ""), answer(204, ""), answer(299, "23514"),
				answer(404, ""), answer(404, "NotFound"), answer(404, "404"),
				answer(300, "PGRST203"), answer(301, ""), answer(302, ""), answer(304, ""), answer(307, "23514"), answer(399, ""),
			},
		},
		{
			"3: too much at once", tooMuch,
			[]error{answer(500, "57014"), answer(504, "57014"), answer(413, ""), answer(413, "23514"), answer(413, "PGRST205"), answer(400, "PGRST102")},
		},
		{
			"4: stored before", storedBefore,
			[]error{
				&Error{Status: 409, Code: "23505", Message: `duplicate key value violates unique constraint "document_processing_events_pkey"`},
				&Error{Status: 409, Code: "23505", Message: `duplicate key value violates unique constraint "_pkey"`},
				&Error{Status: 409, Code: "23505", Message: `duplicate key value violates unique constraint "pk_events"`},
				&Error{Status: 409, Code: "23505", Message: "doppelter Schlüsselwert verletzt Unique-Constraint »document_processing_events_pkey«"},
				&Error{Status: 409, Code: "23505", Message: `violates unique constraint "events_once"`, told: storedBefore},
			},
		},
		{
			"5: this data", badData,
			[]error{
				answer(400, "21000"), answer(400, "22001"), answer(400, "22P02"), answer(400, "22P05"), answer(400, "23502"), answer(400, "23514"),
				answer(409, "23505"), answer(409, "23P01"), answer(400, "23000"), answer(400, "27000"), answer(400, "44000"), answer(500, "54000"),
				answer(400, "P0001"), answer(500, "P0004"), answer(503, "22001"), answer(403, "23514"), answer(404, "22003"),
				&Error{Status: 409, Code: "23505", Message: `duplicate key value violates unique constraint "events_once"`},
				&Error{Status: 409, Code: "23505", Message: `violates unique constraint "a_pkey_b"`},
				&Error{Status: 409, Code: "23514", Message: `violates check constraint "a_pkey"`},
				&Error{Status: 409, Code: "23505", Message: `violates unique constraint "a_pkey"`, told: badData}, // a key of other columns
			},
		},
		{
			"6: configuration, by the code", configuration,
			[]error{
				answer(500, "0A000"), answer(403, "28000"), answer(500, "28P01"), answer(500, "3D000"), answer(400, "3F000"),
				answer(404, "42P01"), answer(400, "42703"), answer(403, "42501"), answer(404, "42883"), answer(500, "55000"), answer(405, "25006"), answer(500, "25006"), answer(400, "428C9"),
				&Error{Status: 400, Code: "23514", Message: `no partition of relation "document_processing_events" found for row`},
				&Error{Status: 400, Code: "23514", Message: "keine Partition von Relation »document_processing_events« für die Zeile gefunden", told: configuration},
				answer(400, "PGRST100"), answer(404, "PGRST125"), answer(404, "PGRST205"), answer(400, "PGRST204"), answer(403, "PGRST301"), answer(500, "PGRST302"),
			},
		},
		{
			"7: all else", transient,
			[]error{
				answer(400, ""), answer(403, ""), answer(404, "PT404"), answer(408, ""), answer(409, ""), answer(418, ""), answer(422, ""), answer(429, ""),
				answer(500, ""), answer(502, ""), answer(503, ""), answer(504, ""), answer(520, ""), answer(599, ""),
				answer(500, "08000"), answer(503, "08006"), answer(409, "23503"), answer(409, "40001"), answer(409, "40P01"), answer(503, "53300"),
				answer(500, "53100"), answer(500, "55P03"), answer(500, "55006"), answer(500, "57P01"), answer(500, "57P03"), answer(500, "58030"),
				answer(500, "XX000"), answer(500, "XX001"), answer(503, "PGRST000"), answer(503, "PGRST001"), answer(503, "PGRST002"), answer(504, "PGRST003"),
				answer(500, "PT500"), answer(400, "PT22P"), answer(500, "25001"), answer(500, "ZZ999"),
				answer(400, "PGRST400"), answer(400, "PGRST"), answer(400, "PGRST1"), answer(400, "PGRST1000"), answer(400, "PGRSTX00"), answer(400, "pgrst102"),
				answer(400, "2351"), answer(400, "235140"), answer(400, "2350٣"), answer(400, " 23514"), answer(400, "23514\n"), answer(400, "x23514"),
				answer(400, "bad_request"), answer(400, "22"), answer(400, "4xx"), answer(0, "") /* below */, answer(500, "\x00\x00\x00\x00\x00"),
			},
		},
	} {
		for _, err := range test.errs {
			want := test.want
			if e := (*Error)(nil); errors.As(err, &e) && e.Status == 0 {
				want = configuration // no status at all is none of PostgREST's
			}
			if got := classify(err); got != want {
				t.Errorf("%s: %v: got %d, want %d", test.name, err, got, want)
			}
			if err != nil {
				if got := classify(fmt.Errorf("wrapped: %w", err)); got != want {
					t.Errorf("%s: %v, wrapped: got %d, want %d", test.name, err, got, want)
				}
			}
		}
	}
}

// Unknown is only what may have been carried out.
func TestOutcomeUnknown(t *testing.T) {
	for _, test := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{io.ErrUnexpectedEOF, true},
		{context.DeadlineExceeded, true},
		{&net.OpError{Op: "read", Err: io.EOF}, true},
		{&net.OpError{Op: "write", Err: io.EOF}, true},
		{&net.OpError{Op: "dial", Err: io.EOF}, true}, // the second attempt's, for all one knows
		{unsent{context.DeadlineExceeded}, false},
		{&Error{Status: 502}, true},
		{&Error{Status: 504}, true},
		{&Error{Status: 520}, true},
		{&Error{Status: 503, Code: "overloaded"}, true}, // a gateway's own code
		{&Error{Status: 200}, true},
		{&Error{Status: 204}, true},
		{&Error{Status: 503, Code: "08006"}, true},
		{&Error{Status: 500, Code: "57P01"}, true},
		{&Error{Status: 400, Code: "08006"}, true},
		{&Error{Status: 409, Code: "40003"}, true}, // statement completion unknown
		{&Error{Status: 503, Code: "PGRST000"}, true},
		{&Error{Status: 503, Code: "PGRST001"}, true},
		{&Error{Status: 500, Code: "PGRSTX00"}, true},
		{&Error{Status: 400, told: transient}, true}, // PostgREST lost its database
		{&Error{Status: 408}, true},
		{&Error{Status: 499}, true},
		{&Error{Status: 504, Code: "PGRST003"}, false}, // no connection in time
		{&Error{Status: 302}, false},
		{&Error{Status: 400}, false},
		{&Error{Status: 401}, false},
		{&Error{Status: 403}, false}, // a firewall's page
		{&Error{Status: 404}, false},
		{&Error{Status: 409}, false},
		{&Error{Status: 413}, false},
		{&Error{Status: 425}, false},
		{&Error{Status: 429, Code: "throttled"}, false},
		{&Error{Status: 500, Code: "57014"}, false}, // rolled back
		{&Error{Status: 400, Code: "23514"}, false},
		{&Error{Status: 409, Code: "40001"}, false},
		{&Error{Status: 500, Code: "XX000"}, false},
		{&Error{Status: 500, Code: "PT500"}, false},
		{&Error{Status: 401, Code: "PGRST301"}, false},
		{&Error{Status: 404, Code: "PGRST205"}, false},
	} {
		for _, err := range []error{test.err, fmt.Errorf("wrapped: %w", test.err)} {
			if got := outcomeUnknown(err); got != test.want && (test.err != nil || err == nil) {
				t.Errorf("%v: %v, want %v", err, got, test.want)
			}
		}
	}
}

// On real sockets: nothing was sent where no connection was made, whatever the
// reason; after that, anything may have been.
func TestOutcomeOnSockets(t *testing.T) {
	respond := map[string]http.HandlerFunc{
		"answers": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) },
		"resets":  func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"stalls": func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // else the server doesn't see the connection's end
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
		change func(*http.Transport) // nil: trust the server
		before int                   // requests that stall on the only connection
		want   bool
	}{
		"refused":                 {"answers", false, dials(&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}), 0, false},
		"no such name":            {"answers", false, dials(&net.DNSError{Err: "no such host", IsNotFound: true}), 0, false},
		"a dialer of one's own":   {"answers", false, dials(errors.New("no way")), 0, false},
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
			if err == nil || outcomeUnknown(err) != test.want {
				t.Errorf("%v: unknown %v, want %v", err, !test.want, test.want)
			}
			if v := classify(err); v != transient {
				t.Errorf("%v: %d", err, v)
			}
		})
	}
}

// PostgREST's code and message are there and empty where its database went away
// under the statement: a 400 that may have stored the rows. Details that name
// the row come along, and come off.
func TestRefusal(t *testing.T) {
	for _, test := range []struct {
		status        int
		body, details string
		want          Error
		unknown       bool
	}{
		{400, `{"code":"","details":null,"hint":null,"message":""}`, "", Error{Status: 400, Message: "PostgREST lost its database under the request", told: transient}, true},
		{400, `{}`, "", Error{Status: 400, Message: "Bad Request"}, false},
		{400, `{"code":"","message":null}`, "", Error{Status: 400, Message: "Bad Request"}, false},
		{400, `{"code":null,"message":""}`, "", Error{Status: 400, Message: "Bad Request"}, false},
		{429, `{"code":"rate_limited","message":"slow down","hint":"later"}`, "", Error{Status: 429, Message: leftOut}, false},
		{
			409, `{"code":"23505","details":"Key (id)=(x) already exists.","hint":null,"message":"m"}`,
			"Key (id)=(x) already exists.",
			Error{Status: 409, Code: "23505", Message: leftOut, told: storedBefore},
			false,
		},
		{
			400, `{"code":"23514","details":"Failing row contains (x, y).","hint":null,"message":"m"}`,
			"Failing row contains (x, y).",
			Error{Status: 400, Code: "23514", Message: leftOut},
			false,
		},
	} {
		rt := &transport{key: "k0", idColumn: "id"}
		resp := &http.Response{StatusCode: test.status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(test.body))}
		err := rt.refusal(resp, false)
		if got := outcomeUnknown(err); got != test.unknown {
			t.Errorf("%s: unknown %v", test.body, got)
		}
		test.want.details = test.details
		if e, ok := errors.AsType[*Error](err); !ok || *e != test.want {
			t.Errorf("%s: %#v", test.body, e)
		}
		c := &Client{transport: rt}
		if e, ok := errors.AsType[*Error](c.explain(&url.Error{Op: "Post", Err: err})); !ok || e.details != "" {
			t.Errorf("%s: %#v", test.body, e)
		}
	}
}

// A connection over which nothing comes is pinged, unless the app says otherwise.
func TestOwnTransport(t *testing.T) {
	standard := http.DefaultTransport.(*http.Transport).Clone()
	if got := ownTransport(standard).HTTP2; got.SendPingTimeout != pingAfter || got.PingTimeout != pingTimeout {
		t.Errorf("%+v", got)
	}
	standard.HTTP2 = &http.HTTP2Config{SendPingTimeout: time.Minute, PingTimeout: time.Hour}
	if got := ownTransport(standard).HTTP2; got.SendPingTimeout != time.Minute || got.PingTimeout != time.Hour {
		t.Errorf("%+v", got)
	}
}

// The clone speaks HTTP/2 if the original does, however that was set up.
func TestOwnTransportSpeaksHTTP2(t *testing.T) {
	foreign := map[string]func(string, *tls.Conn) http.RoundTripper{"h2": func(string, *tls.Conn) http.RoundTripper { return nil }}
	none := map[string]func(string, *tls.Conn) http.RoundTripper{}
	http1 := &http.Protocols{}
	http1.SetHTTP1(true)
	for name, test := range map[string]struct {
		standard *http.Transport
		want     bool
	}{
		"http.DefaultTransport":          {http.DefaultTransport.(*http.Transport), true},
		"a zero one":                     {&http.Transport{}, true},
		"one of golang.org/x/net":        {&http.Transport{TLSNextProto: foreign}, true},
		"that, and a TLS configuration":  {&http.Transport{TLSNextProto: foreign, TLSClientConfig: &tls.Config{}}, true},
		"that, and Protocols":            {&http.Transport{TLSNextProto: foreign, Protocols: http1}, true},
		"switched off by TLSNextProto":   {&http.Transport{TLSNextProto: none, ForceAttemptHTTP2: true}, false},
		"switched off by Protocols":      {&http.Transport{Protocols: http1}, false},
		"a TLS configuration of the app": {&http.Transport{TLSClientConfig: &tls.Config{}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(test.standard.TLSNextProto)
			own := ownTransport(test.standard)
			if own.TLSNextProto["h2"] != nil {
				t.Error("it uses the connections of the app")
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

// When idle connections are closed: before the request that follows a failure,
// unless the failure is an answer among successes.
func TestWhenConnectionsAreSuspect(t *testing.T) {
	results := map[byte]error{
		'+': nil,
		'r': &Error{Status: 400, Code: "22001"}, // rows are refused: the server works
		't': &Error{Status: 500, Code: "57014"},
		'5': &Error{Status: 503},
		'c': &Error{Status: 401},
		'x': context.DeadlineExceeded, // no answer
	}
	for _, test := range []struct {
		name  string
		steps string // a to d begin; the same letter in upper case and a result ends it
		want  string // the requests before which idle connections are closed
	}{
		{"successes", "aA+bB+cC+", ""},
		{"the first failure of all", "aA5b", "b"},
		{"a failure after a success", "aA+bB5cC+d", "c"},
		{"failures one by one", "aA+bB5cCcdD5a", "cda"},
		{"a failure among successes", "aA+abA+B5c", ""},
		{"failures of all in flight", "aA+abcA5B5C5d", "d"},
		{"two failures without a success between them", "aA+abcA+B5C5d", "d"},
		{"a success between them", "aA+abcA+B5abA+CcC", ""},
		{"no answer, among successes", "aA+abA+Bxc", "c"},
		{"no answer, begun again before the next", "aA+abcBxbCxa", "ba"},
		{"refused rows", "aA+bBrcCtd", ""},
		{"a failure among refused rows", "aA+abArB5c", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newConnections(4)
			began := map[byte]int64{}
			got := ""
			for i := 0; i < len(test.steps); i++ {
				step := test.steps[i]
				if step >= 'a' {
					if c.suspect.Load() {
						got += string(step)
					}
					began[step] = c.begin()
					continue
				}
				if i++; i < len(test.steps) {
					c.end(results[test.steps[i]], began[step+'a'-'A'])
				}
			}
			if got != test.want {
				t.Errorf("%s: closed before %q, want %q", test.steps, got, test.want)
			}
		})
	}
}

// A request gets a connection although as many as may be in flight hang.
func TestOneConnectionMoreThanInFlight(t *testing.T) {
	for _, inFlight := range []int{1, 4} {
		arrived := make(chan bool)
		s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			arrived <- true
			<-r.Context().Done()
		}))
		defer s.Close()
		rt := newTransport(nil, inFlight)
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

// What details say, in any language, under any name.
func TestReadDetails(t *testing.T) {
	const id = "aaaaaaaa-0000-4000-8000-000000000001"
	for _, test := range []struct {
		code, details string
		want          verdict
	}{
		{"23505", "", accepted},
		{"23505", "Failing row contains (secret row)", accepted},
		{"23505", "Key (id)=(" + id + ") already exists.", storedBefore},
		{"23505", "Schlüssel »(id)=(" + id + ")« existiert bereits.", storedBefore},
		{"23505", "键值\"(id)=(" + id + ")\" 已经存在", storedBefore},
		{"23505", "Key (id, created_at)=(" + id + ", 2026-01-02 03:04:05+00) already exists.", storedBefore},
		{"23505", `Key (tenant_id, "id")=(7, ` + id + `) already exists.`, storedBefore},
		{"23505", "Key (document_id, event_type)=(" + id + ", completed) already exists.", badData},
		{"23505", "Key (stage)=((id)=(" + id + ")) already exists.", badData},
		{"23505", "Key (lower(stage))=(ocr) already exists.", accepted},
		{"23505", "Key (lower(id), id)=(ocr) already exists.", accepted},
		{"23503", "Key (id)=(" + id + ") is not present in table \"documents\".", accepted},
		{"23514", "Failing row contains (" + id + ", " + id + ", failed, 12, null, ocr).", accepted},
		{"23514", "Failing row contains (" + id + ", failed, oops) = (1).", accepted},
		{"23514", "Failing row contains (id, stage) = (" + id + ", ocr).", accepted}, // without a grant for the table
		{"23514", "실패한 로우의 파티션 키 값: (event_type, created_at) = (failed, 2031-01-02)", configuration},
		{"23505", `Key ("tenant-id", id)=(7, ` + id + `) already exists.`, storedBefore},
		{"23514", "Partition key of the failing row contains (created_at) = (2031-01-02 03:04:05.678901+00).", configuration},
		{"23514", "Partitionierungsschlüssel der fehlgeschlagenen Zeile enthält (created_at) = (2031-01-02).", configuration},
		{"23502", "Failing row contains (" + id + ", null).", accepted},
	} {
		if got := readDetails(test.code, test.details, "id"); got != test.want {
			t.Errorf("%s %s: %d, want %d", test.code, test.details, got, test.want)
		}
	}
	if got := readDetails("23505", "Key (event_id)=("+id+") already exists.", "event_id"); got != storedBefore {
		t.Errorf("a renamed id: %d", got)
	}
}

// The rows that details name, in PostgreSQL's languages: by a key, or by the id
// wherever it stands in the row. What a row's text says is no name.
func TestNamed(t *testing.T) {
	c, err := newColumns(Columns{Extra: []string{"tenant", "team"}})
	if err != nil {
		t.Fatal(err)
	}
	const at = "2026-01-02 03:04:05.678901+00"
	row := func(n byte) record {
		created := time.Date(2026, 1, 2, 3, 4, 5, 678_901_000, time.UTC).Add(time.Duration(n) * time.Second)
		return record{
			id: uuid.UUID{0: 0xaa, 15: n}, documentID: uuid.UUID{0: 0xdd, 15: n}, eventType: Failed, stage: "ocr",
			createdAt: created.UnixMicro(), extra: fmt.Sprintf(`,"tenant":%d,"team":"t%d"`, 70+n, n),
		}
	}
	records := []record{row(0), row(1), row(2)}
	records[2].documentID = records[1].documentID
	id := func(n int) string { return records[n].id.String() }
	doc := func(n int) string { return records[n].documentID.String() }
	for details, want := range map[string][]int{
		"": nil,
		"Failing row contains (" + id(1) + ", " + doc(1) + ", failed, 12, null, {a,\"b, c\"}).":                {1},
		"失敗した行は(7, null, {\"a\": [1]}, " + id(2) + ")を含みます":                                                    {2},
		"La fila que falla contiene (" + id(0) + ", a)=(b, (id)=(" + id(1) + ")).":                             nil,
		"Failing row contains (" + id(0) + ", Key (document_id)=(" + doc(1) + ") is not pre...).":              {0},
		"Failing row contains (" + id(0) + ", see " + id(1) + ").":                                             nil,
		"Failing row contains (id, stage) = (" + id(1) + ", ocr).":                                             {1},
		"Key (document_id)=(" + doc(0) + ") is not present in table \"documents\".":                            {0},
		"Auf Schlüssel (document_id)=(" + doc(1) + ") wird noch verwiesen.":                                    {1, 2},
		"テーブル\"documents\"にキー(document_id)=(" + doc(0) + ")がありません":                                             {0},
		"La clé « (id, created_at)=(" + id(0) + ", " + at + ") » existe déjà.":                                 {0},
		"Key (id, created_at)=(" + id(1) + ", " + at + ") already exists.":                                     nil,
		"Key (created_at, event_type)=(2026-01-02 05:04:06.678901+02, failed) already exists.":                 {1},
		"Key (created_at)=(yesterday) already exists.":                                                         nil,
		"Key (tenant)=(71) is not present in table \"tenants\".":                                               {1},
		"Key (tenant)=(7) is not present in table \"tenants\".":                                                nil,
		"Key (tenant, \"team\")=(72, t2) is not present in table \"teams\".":                                   {2},
		"Key (lower(stage))=(ocr) already exists.":                                                             nil,
		"Key (stage)=(a, b) already exists.":                                                                   nil,
		"Key (stage, event_type)=(ocr, failed) conflicts with existing key (stage, event_type)=(ocr, failed).": {0, 1, 2},
	} {
		if got := named(records, details, &c); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", details, got, want)
		}
	}
}

// TestNamedByTextIDs: text ids name their rows, also those that look like the
// end of a key.
func TestNamedByTextIDs(t *testing.T) {
	c, err := newColumns(Columns{TextIDs: true})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).UnixMicro()
	records := []record{
		{ids: "42\x00ann", createdAt: at},
		{ids: "4\x00", noUser: true},
		{ids: "a\x00b, c"},
		{ids: "a) is not\x00b"},
		{ids: "a\x00b"},
		{id: uuid.UUID{15: 6}, ids: uuid.UUID{15: 7}.String() + "\x00e"},
		{id: uuid.UUID{15: 7}, ids: "f\x00f"},
	}
	for details, want := range map[string][]int{
		`Key (document_id)=(42) is not present in table "documents".`:         {0},
		`Key (document_id)=(4) is not present in table "documents".`:          {1},
		`Key (document_id)=(a) is not present in table "documents".`:          {2, 4},
		`Key (document_id)=(a) is not) is not present in table "documents".`:  {3},
		`Key (user_id)=(ann) is not present in table "users".`:                {0},
		`Key (user_id)=() is not present in table "users".`:                   nil,
		`Key (document_id, user_id)=(a, b, c) is not present in table "x".`:   {2},
		`Key (document_id, user_id)=(a, b) already exists.`:                   {4},
		`Key (document_id)=(a (b)) already exists.`:                           nil,
		`Key (document_id, created_at)=(42, 2026-01-02 03:04:05) is not`:      {0}, // a timestamp without a zone
		`Key (created_at, document_id)=(2026-01-02 08:34:05+05:30, 42) is no`: {0},
		`Key (document_id)=(` + uuid.UUID{15: 7}.String() + `) is not`:        {5}, // another row's id
		`Key (document_id)=(4`: nil,
		`Key (document_id)=(`:  nil,
	} {
		if got := named(records, details, &c); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", details, got, want)
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

func TestBackoff(t *testing.T) {
	for step, most := range map[int]time.Duration{
		0: 200 * time.Millisecond, 1: 400 * time.Millisecond, 2: 800 * time.Millisecond, 3: 1600 * time.Millisecond,
		4: 3200 * time.Millisecond, 5: 6400 * time.Millisecond, 6: 12800 * time.Millisecond, 7: 25600 * time.Millisecond,
		8: 30 * time.Second, 9: 30 * time.Second, 1000: 30 * time.Second, 1 << 30: 30 * time.Second,
	} {
		seen := map[time.Duration]bool{}
		for range 200 {
			wait := backoff(step, longWait, errors.New("x"))
			seen[wait] = true
			if wait < most/2 || wait > most {
				t.Errorf("step %d: %s, want %s to %s", step, wait, most/2, most)
			}
		}
		if len(seen) < 100 {
			t.Errorf("step %d: %d different waits of 200: clients come back in step", step, len(seen))
		}
	}
	for asked, least := range map[time.Duration]time.Duration{
		0: 100 * time.Millisecond, time.Millisecond: 100 * time.Millisecond, time.Second: time.Second, time.Minute: time.Minute,
	} {
		err := fmt.Errorf("wrapped: %w", &Error{Status: 503, RetryAfter: asked})
		if wait := backoff(0, longWait, err); wait < least || wait > max(least, 200*time.Millisecond) {
			t.Errorf("Retry-After %s: waits %s, want %s", asked, wait, least)
		}
	}
	if wait := backoff(longStep, longWait, &Error{RetryAfter: time.Second}); wait < 15*time.Second {
		t.Errorf("a short Retry-After makes a long wait shorter: %s", wait)
	}
}

func TestErrorText(t *testing.T) {
	for want, e := range map[string]Error{
		"HTTP 503":                               {Status: 503},
		"HTTP 503: Service Unavailable":          {Status: 503, Message: "Service Unavailable"},
		"HTTP 400 23514":                         {Status: 400, Code: "23514"},
		"HTTP 404 PGRST205: no table (hint: it)": {Status: 404, Code: "PGRST205", Message: "no table", Hint: "it"},
		"HTTP 500 (hint: try again)":             {Status: http.StatusInternalServerError, Hint: "try again", RetryAfter: time.Second},
	} {
		if got := e.Error(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// FuzzClassify: an answer has one meaning, whatever it says, and rows are given
// up on the closed list alone.
func FuzzClassify(f *testing.F) {
	for _, status := range []int{200, 302, 400, 401, 409, 413, 500, 503, 540} {
		for _, code := range []string{"", "23514", "23505", "23503", "57014", "55000", "22P02", "PGRST102", "PGRST205", "PGRST000", "PT500", "08006", "23514 ", "\xff"} {
			f.Add(status, code, `violates unique constraint "document_processing_events_pkey"`, "7")
		}
	}
	f.Fuzz(func(t *testing.T, status int, code, message, retryAfterHeader string) {
		wait := retryAfter(retryAfterHeader, time.Now())
		if wait < 0 || wait > maxRetryAfter {
			t.Errorf("Retry-After %q: %s", retryAfterHeader, wait)
		}
		err := &Error{Status: status, Code: code, Message: message, RetryAfter: wait}
		got := classify(err)
		if again := classify(fmt.Errorf("wrapped: %w", &Error{Status: status, Code: code, Message: message, Hint: "h"})); again != got {
			t.Errorf("%v: %d, then %d", err, got, again)
		}
		if got <= accepted || got > badData {
			t.Errorf("%v: %d is no meaning of an error", err, got)
		}
		// By hand, not by the library's own list.
		givenUp := len(code) == 5 && code != "23503" && status >= 400 && status != 401 && status != 402 && status != 405 && status != 406 && status != 540 && status != 413
		switch {
		case !givenUp:
		case strings.HasPrefix(code, "P0"), strings.HasPrefix(code, "21"), strings.HasPrefix(code, "22"), strings.HasPrefix(code, "23"),
			strings.HasPrefix(code, "27"), strings.HasPrefix(code, "44"), strings.HasPrefix(code, "54"):
		default:
			givenUp = false
		}
		if (got == badData || got == storedBefore) && !givenUp {
			t.Errorf("%v: rows are given up, and it is not on the list", err)
		}
		if got == storedBefore && code != "23505" {
			t.Errorf("%v: rows are taken for stored", err)
		}
		if outcomeUnknown(err) != outcomeUnknown(fmt.Errorf("wrapped: %w", err)) {
			t.Errorf("%v: the outcome depends on the wrapping", err)
		}
		if wait := backoff(len(code), longWait, err); wait < 0 || wait > maxRetryAfter {
			t.Errorf("%v: waits %s", err, wait)
		}
		if err.Error() == "" {
			t.Error("no text")
		}
	})
}
