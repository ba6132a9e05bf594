package rest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	maxErrorBytes = 512 << 10 // how much of a body is read; an error may repeat a message of 64 KiB, with escapes
	maxErrorText  = 1 << 10   // bytes in each text of an Error
	maxRetryAfter = time.Minute
)

// clientInfo is the value of the header X-Client-Info, which Supabase logs.
const clientInfo = "docevents-go/0.1.0"

// idempotencyKey is a header that net/http looks for. If a POST has it, and the
// server closed the connection while the connection was idle, net/http sends the
// POST again on another one. Because the header has no value, it isn't sent.
const idempotencyKey = "Idempotency-Key"

// A transport stands between postgrest-go and the network. It turns every answer
// that isn't a success into an error, because postgrest-go handles such answers
// badly: it sends the key along when it follows a redirect to another host, turns
// a redirected POST into a GET, loses the status if the body isn't JSON, panics on
// the body `null`, and reads bodies without a bound.
//
// RoundTrip has no timeout, because the body is read after it returns. The
// caller's context limits both.
type transport struct {
	inserts  http.RoundTripper
	others   http.RoundTripper
	own      *connections // nil if the transports are the app's
	key      string       // is removed from answers: a proxy may echo the request
	idColumn string
}

// ErrNoCount is the error of a DELETE that succeeded, if its answer has neither the
// ids of the deleted rows nor their number.
var ErrNoCount = errors.New("count incomplete: an answer was lost, more rows may have been deleted")

func (t *transport) RoundTrip(req *http.Request) (resp *http.Response, err error) {
	t.own.begin()
	defer func() {
		if p := recover(); p != nil { // a transport of the app must not crash it
			resp, err = nil, fmt.Errorf("the transport panicked with a %T", p)
		}
		t.own.end(err)
	}()
	traced := httptrace.ContextClientTrace(req.Context()) != nil
	var sought, found atomic.Int32 // how often a connection was looked for and found; 0 if the app's transport doesn't report that
	req = req.Clone(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		GetConn: func(string) { sought.Add(1) },
		GotConn: func(httptrace.GotConnInfo) { found.Add(1) },
	})) // a RoundTripper must not change its request
	req.Header.Set("X-Client-Info", clientInfo)
	base := t.others
	if req.Method == http.MethodPost {
		base = t.inserts
		req.Header.Add("Prefer", "resolution=ignore-duplicates") // makes it safe to send a row again
		if t.own != nil && !traced {                             // the app's transport or trace may expect every header to have a value
			req.Header[idempotencyKey] = nil
		}
	}
	resp, err = base.RoundTrip(req)
	switch {
	case err != nil && found.Load() == 0 && (sought.Load() > 0 || isDial(err)): // if a connection was found first, the failed dial is net/http's second attempt
		return nil, unsent{err}
	case err != nil || resp == nil: // http.Client turns neither a response nor an error into an error
		return nil, err
	}
	return t.read(req, resp, found.Load() > 1)
}

// read returns resp if it is a success of PostgREST, and an error otherwise. The body of
// an insert's success is read to its end: a body that is cut short is no success.
func (t *transport) read(req *http.Request, resp *http.Response, resent bool) (_ *http.Response, err error) {
	if resp.Body == nil { // http.Client would replace it, but only after RoundTrip
		resp.Body = http.NoBody
	}
	if resp.StatusCode < 200 || resp.StatusCode >= 300 {
		defer resp.Body.Close()
		return nil, t.refusal(resp, resent)
	}
	isInsert := req.Method == http.MethodPost
	// A DELETE counts its rows by their ids in the body, or else by Content-Range.
	wantsCount := resp.StatusCode == http.StatusNoContent || req.Method == http.MethodDelete && strings.Contains(req.Header.Get("Prefer"), "count=")
	switch {
	case isHTML(resp):
		err = &Error{Status: resp.StatusCode, Message: htmlPage}
	case isInsert && resp.StatusCode != http.StatusCreated: // a service that accepts every request
		err = &Error{Status: resp.StatusCode, Message: "the answer is not PostgREST's to an insert"}
	case isInsert:
		if _, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxErrorBytes)); err != nil {
			err = fmt.Errorf("answer cut short: %w", err)
		}
	case wantsCount && !strings.ContainsAny(resp.Header.Get("Content-Range"), "0123456789"):
		err = ErrNoCount // a gateway removed the header Prefer from the request
	default:
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

// refusal returns the error for an answer whose status isn't a success.
func (t *transport) refusal(resp *http.Response, resent bool) error {
	if resp.StatusCode < 200 { // another protocol: reading may never end, even if the context does
		resp.Body = http.NoBody
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBytes))
	if err != nil {
		return fmt.Errorf("answer with status %d cut short: %w", resp.StatusCode, err)
	}
	// In a gateway's answer, each of these may be missing or have another type.
	var answer struct{ Code, Message, Hint, Details any }
	_ = json.Unmarshal(body, &answer) // the body may not be JSON
	text := func(v any) string {
		s, _ := v.(string)
		return strings.ReplaceAll(s, t.key, "[key]")
	}
	code, message, details := text(answer.Code), text(answer.Message), text(answer.Details)
	e := &Error{
		Details: details, meaning: meaningOf(code, message, details, t.idColumn), resent: resent,
		Status: resp.StatusCode, Message: repeatable(code, message), Hint: repeatable(code, text(answer.Hint)),
		RetryAfter: retryAfter(resp.Header.Get("Retry-After"), time.Now()),
	}
	if codeFormat.MatchString(code) {
		e.Code = code
	}
	if e.Hint == LeftOut { // the message already has that note
		e.Hint = ""
	}
	switch {
	case e.Message != "":
	case answer.Code == "" && answer.Message == "": // both are in the body and empty; a missing one would be nil
		e.Message, e.meaning = "PostgREST lost its database under the request", Transient
	case isHTML(resp):
		e.Message = htmlPage
	default:
		e.Message = http.StatusText(resp.StatusCode)
	}
	return e
}

// isHTML reports whether resp is a web page: SUPABASE_URL leads to a web site, a
// firewall or a captive portal.
func isHTML(resp *http.Response) bool {
	return strings.Contains(strings.ToLower(resp.Header.Get("Content-Type")), "html")
}

// retryAfter parses the value of a Retry-After header: seconds or a date (RFC 9110,
// 10.2.3). The result is at most maxRetryAfter. It is 0 if the value can't be parsed
// or the date has passed.
func retryAfter(header string, now time.Time) time.Duration {
	seconds, err := strconv.ParseUint(header, 10, 32)
	if err == nil || errors.Is(err, strconv.ErrRange) { // then seconds is the largest uint32
		return min(time.Duration(seconds)*time.Second, maxRetryAfter)
	}
	at, err := http.ParseTime(header)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}
