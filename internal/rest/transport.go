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
	maxErrorBytes = 512 << 10 // how much of a body is read; an error may repeat an event's message of 64 KiB, with escapes
	maxErrorText  = 1 << 10   // bytes in each text of an Error
	maxRetryAfter = time.Minute
)

// clientInfo is the value of the header X-Client-Info, which Supabase logs.
const clientInfo = "docevents-go/0.1.0"

// idempotencyKey is a header that marks a POST as safe to repeat: if the server has
// closed an idle connection, net/http sends the POST again on a new one. docevents sets
// the header without a value, so net/http doesn't send the header.
const idempotencyKey = "Idempotency-Key"

// A transport sends the requests of a Client. It returns an error for every answer that
// isn't a success, because postgrest-go handles such answers badly:
//
//   - If the server redirects a request to another host, postgrest-go sends the key to
//     that host.
//   - It turns a redirected POST into a GET.
//   - It loses the HTTP status if the body isn't JSON, and panics if the body is null.
//   - It reads a body of any size into memory.
//
// RoundTrip sets no timeout. The request's context limits the request and the reading
// of the body.
type transport struct {
	inserts  http.RoundTripper
	others   http.RoundTripper
	own      *connections // nil if the transports are the app's
	key      string       // removed from the texts of answers, because a proxy may echo the request
	idColumn string
}

// ErrNoCount means that a DELETE succeeded, but its answer doesn't show how many rows
// were deleted.
var ErrNoCount = errors.New("count incomplete: an answer was lost, more rows may have been deleted")

func (t *transport) RoundTrip(req *http.Request) (resp *http.Response, err error) {
	t.own.begin()
	defer func() {
		if p := recover(); p != nil { // a panic in the app's transport must not crash the app
			resp, err = nil, fmt.Errorf("the transport panicked with a %T", p)
		}
		t.own.end(err)
	}()
	traced := httptrace.ContextClientTrace(req.Context()) != nil
	var sought, found atomic.Int32 // how often net/http looked for a connection and got one; 0 if the app's transport doesn't report that
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
	case err != nil && found.Load() == 0 && (sought.Load() > 0 || isDial(err)): // if found > 0, net/http dials again after a first attempt, which may have sent the request
		return nil, unsent{err}
	case err != nil || resp == nil: // if both are nil, http.Client returns an error
		return nil, err
	}
	return t.read(req, resp, found.Load() > 1)
}

// read returns resp if PostgREST has carried out the request, and an error otherwise.
// It also returns an error if the answer to an insert is cut short, or if the answer to
// a DELETE should contain the number of rows but doesn't. resent is true if net/http
// sent the request twice.
func (t *transport) read(req *http.Request, resp *http.Response, resent bool) (_ *http.Response, err error) {
	if resp.Body == nil { // http.Client would replace it, but only after RoundTrip
		resp.Body = http.NoBody
	}
	if resp.StatusCode < 200 || resp.StatusCode >= 300 {
		defer resp.Body.Close()
		return nil, t.refusal(resp, resent)
	}
	isInsert := req.Method == http.MethodPost
	// If a DELETE asks for a count, or its answer has no body (204), Content-Range must
	// contain the count. Otherwise the rows are counted by the ids in the body.
	wantsCount := resp.StatusCode == http.StatusNoContent || req.Method == http.MethodDelete && strings.Contains(req.Header.Get("Prefer"), "count=")
	switch {
	case isHTML(resp):
		err = &Error{Status: resp.StatusCode, Message: htmlPage}
	case isInsert && resp.StatusCode != http.StatusCreated: // from a service that answers every request with 200, for example
		err = &Error{Status: resp.StatusCode, Message: "this is not PostgREST's answer to an insert"}
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
	if resp.StatusCode < 200 { // the connection changed to another protocol, so reading may never end, even if the context does
		resp.Body = http.NoBody
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBytes))
	if err != nil {
		return fmt.Errorf("answer with status %d cut short: %w", resp.StatusCode, err)
	}
	// In a gateway's answer, any of these fields can be missing or have a type other
	// than string.
	var answer struct{ Code, Message, Hint, Details any }
	_ = json.Unmarshal(body, &answer) // fails if the body is not JSON
	text := func(v any) string {
		s, _ := v.(string)
		return strings.ReplaceAll(s, t.key, "[key]")
	}
	code, message, details := text(answer.Code), text(answer.Message), text(answer.Details)
	e := &Error{
		Details: details, meaning: meaningOf(code, message, details, t.idColumn), resent: resent,
		Status: resp.StatusCode, Message: loggableText(code, message), Hint: loggableText(code, text(answer.Hint)),
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
	case answer.Code == "" && answer.Message == "": // the body contains both, but empty; a missing one would be nil
		e.Message, e.meaning = "PostgREST lost its connection to the database during the request", Transient
	case isHTML(resp):
		e.Message = htmlPage
	default:
		e.Message = http.StatusText(resp.StatusCode)
	}
	return e
}

// isHTML reports whether resp is a web page. PostgREST never sends one, so it comes from
// another server: SUPABASE_URL is wrong, or a firewall or a captive portal answered.
func isHTML(resp *http.Response) bool {
	return strings.Contains(strings.ToLower(resp.Header.Get("Content-Type")), "html")
}

// retryAfter returns the wait that a Retry-After header asks for, at most
// maxRetryAfter. The header's value is a number of seconds or a date (RFC 9110,
// 10.2.3). The result is 0 if the value can't be parsed or the date is in the past.
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
