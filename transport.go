package docevents

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	maxErrorBytes = 512 << 10 // of an error's body, or an insert's answer: one may quote a text of 64 KiB, in escapes
	maxErrorText  = 1 << 10   // of each field of an Error, in bytes
	maxRetryAfter = time.Minute
)

// clientInfo is the X-Client-Info that Supabase's logs tell clients apart by.
const clientInfo = "docevents-go/0.1.0"

// A transport stands between postgrest-go and the network. postgrest-go
// follows redirects with the key added for any host, turns a POST into a GET on
// the way, loses the status of a body that isn't JSON, panics on the body
// `null` and reads without a bound. Here every answer that is no plain success
// becomes an *Error before it sees it.
//
// The request's timeout is not applied here: its cancel would cut the body off.
type transport struct {
	inserts  http.RoundTripper
	others   http.RoundTripper
	key      string // kept out of what a proxy may echo
	query    string // of an insert
	idColumn string
}

func (t *transport) RoundTrip(req *http.Request) (resp *http.Response, err error) {
	defer func() { // a foreign one that panics must not take the app with it
		if p := recover(); p != nil {
			resp, err = nil, fmt.Errorf("the transport panicked with a %T", p)
		}
	}()
	var sought, found atomic.Int32 // connections; a foreign transport may tell of none
	req = req.Clone(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		GetConn: func(string) { sought.Add(1) },
		GotConn: func(httptrace.GotConnInfo) { found.Add(1) },
	})) // a RoundTripper must not change its request
	req.Header.Set("X-Client-Info", clientInfo)
	base := t.others
	if req.Method == http.MethodPost {
		base = t.inserts
		req.URL.RawQuery = t.query
		req.Header.Add("Prefer", "resolution=ignore-duplicates") // sending a row again is safe
		// So net/http may, where a connection that was kept turns out to be
		// closed. Without a value the header stays here.
		req.Header["Idempotency-Key"] = nil
	}
	resp, err = base.RoundTrip(req)
	switch {
	case err != nil && found.Load() == 0 && (sought.Load() > 0 || isDial(err)): // a failed dial may be net/http's second attempt
		return nil, unsent{err}
	case err != nil || resp == nil: // nothing at all is an error of http.Client's
		return nil, err
	}
	return t.read(req, resp, found.Load() > 1)
}

// read tells a success, of PostgREST's, from all else.
func (t *transport) read(req *http.Request, resp *http.Response, resent bool) (_ *http.Response, err error) {
	if resp.Body == nil { // as a fake's may be: http.Client allows for it, but later
		resp.Body = http.NoBody
	}
	if resp.StatusCode < 200 || resp.StatusCode >= 300 {
		defer resp.Body.Close()
		return nil, t.refusal(resp, resent)
	}
	isInsert := req.Method == http.MethodPost
	wantsCount := resp.StatusCode == http.StatusNoContent || req.Method == http.MethodDelete && strings.Contains(req.Header.Get("Prefer"), "count=")
	body := bufio.NewReader(resp.Body)
	start, _ := body.Peek(512) // what DetectContentType looks at; an error comes again when the body is read
	switch {
	case isHTML(resp.Header, start):
		err = &Error{Status: resp.StatusCode, Message: htmlPage}
	case isInsert && resp.StatusCode != http.StatusCreated: // some service that is fine with everything
		err = &Error{Status: resp.StatusCode, Message: "the answer is not PostgREST's to an insert"}
	case isInsert:
		if _, err = io.Copy(io.Discard, io.LimitReader(body, maxErrorBytes)); err != nil {
			err = fmt.Errorf("answer cut short: %w", err)
		}
	case wantsCount && !strings.ContainsAny(resp.Header.Get("Content-Range"), "0123456789"):
		err = ErrCountIncomplete // neither ids nor a count: a gateway dropped Prefer
	default:
		resp.Body = struct {
			io.Reader
			io.Closer
		}{body, resp.Body}
		return resp, nil
	}
	resp.Body.Close()
	if err != nil {
		return nil, err
	}
	resp.Body = http.NoBody
	return resp, nil
}

const htmlPage = "the answer is an HTML page"

// refusal reads an answer that is no success.
func (t *transport) refusal(resp *http.Response, resent bool) error {
	if resp.StatusCode < 200 { // another protocol: it may go on for ever, whatever the context
		resp.Body = http.NoBody
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBytes))
	if err != nil {
		return fmt.Errorf("answer with status %d cut short: %w", resp.StatusCode, err)
	}
	// Any of these may be missing or of another type: a gateway's own answers are.
	var answer struct{ Code, Message, Hint, Details any }
	_ = json.Unmarshal(body, &answer) // nor need it be JSON
	text := func(v any) string {
		s, _ := v.(string)
		return strings.ReplaceAll(s, t.key, "[key]")
	}
	code, details := text(answer.Code), text(answer.Details)
	e := &Error{
		details: details, told: readDetails(code, details, t.idColumn), resent: resent,
		Status: resp.StatusCode, Message: repeatable(code, text(answer.Message)), Hint: repeatable(code, text(answer.Hint)),
		RetryAfter: retryAfter(resp.Header.Get("Retry-After"), time.Now()),
	}
	if codeFormat.MatchString(code) {
		e.Code = code
	}
	if code == "23505" && e.told == accepted && primaryKey.MatchString(text(answer.Message)) { // in any language
		e.told = storedBefore
	}
	if e.Hint == leftOut { // once is enough
		e.Hint = ""
	}
	switch {
	case e.Message != "":
	case answer.Code == "" && answer.Message == "": // both there, and empty
		e.Message, e.told = "PostgREST lost its database under the request", transient
	case isHTML(resp.Header, body):
		e.Message = htmlPage
	default:
		e.Message = http.StatusText(resp.StatusCode)
	}
	return e
}

func isHTML(h http.Header, body []byte) bool {
	return strings.Contains(strings.ToLower(h.Get("Content-Type")), "html") ||
		strings.HasPrefix(http.DetectContentType(body), "text/html")
}

// retryAfter reads the header of that name: seconds, or a date (RFC 9110,
// 10.2.3). It is never negative and at most maxRetryAfter.
func retryAfter(header string, now time.Time) time.Duration {
	seconds, err := strconv.ParseUint(header, 10, 32)
	if err == nil || errors.Is(err, strconv.ErrRange) { // then it is the largest
		return min(time.Duration(seconds)*time.Second, maxRetryAfter)
	}
	at, err := http.ParseTime(header)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}

// HTTP/2 has many requests on one connection, and no timeout of a request
// closes it: where one dies without a word, pings tell. Hosted Supabase speaks
// HTTP/2.
const (
	pingAfter   = 3 * time.Second // of silence
	pingTimeout = 3 * time.Second
)

// ownTransport returns a clone of standard that leaves a dead HTTP/2 connection
// within seconds, and whose errors don't repeat a proxy's address: it may hold a
// password.
func ownTransport(standard *http.Transport) *http.Transport {
	t := standard.Clone()
	if t.HTTP2 == nil {
		t.HTTP2 = &http.HTTP2Config{}
	}
	t.HTTP2.SendPingTimeout = cmp.Or(t.HTTP2.SendPingTimeout, pingAfter)
	t.HTTP2.PingTimeout = cmp.Or(t.HTTP2.PingTimeout, pingTimeout)
	if proxy := t.Proxy; proxy != nil {
		t.Proxy = func(req *http.Request) (*url.URL, error) {
			u, err := proxy(req)
			if err != nil {
				return nil, unsent{errors.New("the proxy's address can't be read: check HTTPS_PROXY and HTTP_PROXY")}
			}
			return u, nil
		}
	}
	return t
}

// defaultTransports returns transports of our own, for inserts and for all else,
// and what closes their idle connections, or the app's replacement of
// http.DefaultTransport.
//
// Unbounded, an http.Transport opens more connections than it has requests: one
// that becomes free while another is dialed for a request is used for it at
// once, and the next request dials again. A purge, which may take long, must
// not hold one of the bounded ones.
func defaultTransports(maxInFlight int) (inserts, others http.RoundTripper, closeIdle func()) {
	standard, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return http.DefaultTransport, http.DefaultTransport, nil
	}
	bounded, unbounded := ownTransport(standard), ownTransport(standard)
	bounded.MaxConnsPerHost = maxInFlight
	bounded.MaxIdleConns, bounded.MaxIdleConnsPerHost = maxInFlight, maxInFlight
	return bounded, unbounded, func() {
		bounded.CloseIdleConnections()
		unbounded.CloseIdleConnections()
	}
}
