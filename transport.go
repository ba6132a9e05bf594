package docevents

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	maxErrorBytes = 64 << 10 // of an error's body, or an insert's answer; PostgREST's are under 2 KiB
	maxErrorText  = 1 << 10  // of each field of an Error
	maxRetryAfter = time.Minute
)

// A transport stands between postgrest-go and the network. postgrest-go
// follows redirects with the key added for any host, turns a POST into a GET on
// the way, loses the status of a body that isn't JSON, panics on the body
// `null` and reads without a bound. Here every answer that is no plain success
// becomes an *Error before it sees it.
//
// The request's timeout is not applied here: its cancel would cut the body off.
type transport struct {
	inserts http.RoundTripper
	others  http.RoundTripper
	key     string // kept out of what a proxy may echo
}

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context()) // a RoundTripper must not change its request
	base := t.others
	if req.Method == http.MethodPost {
		base = t.inserts
		req.URL.RawQuery = "columns=" + rowColumns
		req.Header.Add("Prefer", "resolution=ignore-duplicates") // sending a row again is safe
	}
	resp, err := base.RoundTrip(req)
	if err != nil || resp == nil { // nothing at all is an error of http.Client's
		return nil, err
	}
	if resp.Body == nil { // as a fake's may be: http.Client allows for it, but later
		resp.Body = http.NoBody
	}
	if resp.StatusCode < 200 || resp.StatusCode >= 300 {
		defer resp.Body.Close()
		return nil, t.refusal(resp)
	}
	if req.Method == http.MethodPost {
		defer resp.Body.Close()
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBytes))
		if err != nil {
			return nil, fmt.Errorf("answer cut short: %w", err)
		}
		resp.Body = io.NopCloser(bytes.NewReader(body))
	} else if counts := resp.StatusCode == http.StatusNoContent || strings.Contains(req.Header.Get("Prefer"), "count="); counts &&
		!strings.ContainsAny(resp.Header.Get("Content-Range"), "0123456789") {
		resp.Body.Close()
		return nil, ErrCountIncomplete // neither ids nor a count: a gateway dropped Prefer
	}
	head := bufio.NewReader(resp.Body)
	start, _ := head.Peek(512) // what DetectContentType looks at; an error comes again when the body is read
	odd := ""
	switch {
	case isHTML(resp.Header, start):
		odd = "the answer is an HTML page"
	case req.Method == http.MethodPost && resp.StatusCode != http.StatusCreated && len(start) > 0:
		odd = "the answer is not PostgREST's to an insert" // some other service, that is fine with everything
	}
	if odd != "" {
		resp.Body.Close()
		return nil, &Error{Status: resp.StatusCode, Message: odd}
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{head, resp.Body}
	return resp, nil
}

// refusal reads an answer that is no success.
func (t *transport) refusal(resp *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBytes))
	if err != nil {
		return fmt.Errorf("answer with status %d cut short: %w", resp.StatusCode, err)
	}
	// Any of these may be missing or of another type: a gateway's own answers are.
	var answer struct{ Code, Message, Hint, Details any }
	_ = json.Unmarshal(body, &answer) // nor need it be JSON
	text := func(v any) string {
		s, _ := v.(string)
		return cutText(strings.ReplaceAll(s, t.key, "[key]"), maxErrorText)
	}
	message := text(answer.Message)
	switch {
	case message != "":
	case isHTML(resp.Header, body):
		message = "the answer is an HTML page"
	default:
		message = http.StatusText(resp.StatusCode)
	}
	details, _ := answer.Details.(string)
	return &refusal{&Error{
		Status: resp.StatusCode, Code: text(answer.Code), Message: message, Hint: text(answer.Hint),
		RetryAfter: retryAfter(resp.Header.Get("Retry-After"), time.Now()),
	}, details}
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
	bounded, unbounded := standard.Clone(), standard.Clone()
	bounded.MaxConnsPerHost = maxInFlight
	bounded.MaxIdleConns, bounded.MaxIdleConnsPerHost = maxInFlight, maxInFlight
	return bounded, unbounded, func() {
		bounded.CloseIdleConnections()
		unbounded.CloseIdleConnections()
	}
}
