package docevents

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// ErrOutcomeUnknown is matched by the errors of events and purges whose last
// answer was lost: the row may be stored, once, or the rows may be gone.
var ErrOutcomeUnknown = errors.New("outcome unknown: the server may have done it")

// An Error is an answer of the server that is not a success. Errors of this
// package that stem from one are found by errors.As.
//
// It has no field for PostgREST's details: they repeat the row.
type Error struct {
	Status  int    // HTTP status
	Code    string // SQLSTATE or PostgREST's own (PGRST205), "" where the answer was not PostgREST's
	Message string // in the server's words, cut to 1 KiB
	Hint    string // likewise, mostly empty

	// RetryAfter is how long the server asks to be left alone, at most 60 s;
	// 0 where it didn't say, or said what can't be read or has passed.
	RetryAfter time.Duration
}

// Error names the status, the code and the server's message.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "HTTP %d", e.Status)
	if e.Code != "" {
		b.WriteString(" " + e.Code)
	}
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	}
	if e.Hint != "" {
		b.WriteString(" (hint: " + e.Hint + ")")
	}
	return b.String()
}

const (
	maxErrorBytes   = 64 << 10 // of an error's body, or an insert's answer; PostgREST's are under 2 KiB
	maxMessageField = 1 << 10
	maxCodeField    = 32
	sniffBytes      = 512 // as much as http.DetectContentType looks at
	maxRetryAfter   = 60 * time.Second
)

// A transport stands between postgrest-go and the network. postgrest-go
// follows redirects with the key added for any host, turns a POST into a GET on
// the way, loses the status of a body that isn't JSON, panics on the body
// `null` and reads without a bound. Here every answer that is no plain success
// becomes an *Error before it sees it.
//
// The request's timeout is not applied here: its cancel would cut the body off.
type transport struct {
	base http.RoundTripper
	key  string // kept out of what a proxy may echo
}

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context()) // a RoundTripper must not change its request
	if req.Method == http.MethodPost {
		query := req.URL.Query()
		query.Set("columns", rowColumns)
		req.URL.RawQuery = query.Encode()
	}
	resp, err := t.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
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
	}
	head := bufio.NewReaderSize(resp.Body, sniffBytes)
	start, _ := head.Peek(sniffBytes) // an error comes again when the body is read
	if isHTML(resp.Header, start) {
		resp.Body.Close()
		return nil, &Error{Status: resp.StatusCode, Message: "the answer is an HTML page"}
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{head, resp.Body}
	return resp, nil
}

// refusal reads an answer of status 300 and above.
func (t *transport) refusal(resp *http.Response) error {
	e := &Error{Status: resp.StatusCode, RetryAfter: retryAfter(resp.Header.Get("Retry-After"), time.Now())}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBytes))
	if err != nil {
		return fmt.Errorf("answer with status %d cut short: %w", e.Status, err)
	}
	// Any of these may be missing or of another type: a gateway's own answers are.
	var answer struct{ Code, Message, Hint any }
	if json.Unmarshal(body, &answer) == nil {
		text := func(v any, limit int) string {
			s, _ := v.(string)
			return cutText(strings.ToValidUTF8(strings.ReplaceAll(s, t.key, "[key]"), "\uFFFD"), limit)
		}
		e.Code = text(answer.Code, maxCodeField)
		e.Message = text(answer.Message, maxMessageField)
		e.Hint = text(answer.Hint, maxMessageField)
	}
	if e.Message == "" {
		e.Message = http.StatusText(e.Status)
		if isHTML(resp.Header, body) {
			e.Message += ", an HTML page"
		}
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
	if seconds, err := strconv.ParseUint(header, 10, 64); err == nil {
		return time.Duration(min(seconds, uint64(maxRetryAfter/time.Second))) * time.Second
	} else if errors.Is(err, strconv.ErrRange) {
		return maxRetryAfter
	}
	at, err := http.ParseTime(header)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}

// withoutURL takes away what http.Client wraps around an error: it prints the
// URL with its query.
func withoutURL(err error) error {
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

// A verdict is what an answer means for the rows that were sent.
type verdict int

const (
	accepted      verdict = iota // stored
	passing                      // may be different next time: wait, then the same rows again
	configuration                // stays until somebody mends it: keep the rows, wait long, say so loudly
	tooMuch                      // fewer rows may do
	storedBefore                 // of these rows, one at least is stored already
	badData                      // of these rows, one at least can't be stored, ever
)

// classify reads the error of a request. Rows are given up on a closed list
// only; what is not known is passing. The first match wins: a role that doesn't
// exist is 22023, class "data", but with status 401.
func classify(err error) verdict {
	if err == nil {
		return accepted
	}
	var e *Error
	if !errors.As(err, &e) {
		return passing // no answer, or one cut short
	}
	class := ""
	if isSQLState(e.Code) {
		class = e.Code[:2]
	}
	switch e.Status {
	case http.StatusUnauthorized, http.StatusPaymentRequired, http.StatusMethodNotAllowed, http.StatusNotAcceptable,
		540: // Supabase: the project is paused
		return configuration
	}
	switch {
	case e.Status < 400: // a redirect, or HTML with a success
		return configuration
	case e.Code == "57014", // statement timeout
		e.Status == http.StatusRequestEntityTooLarge,
		e.Code == "PGRST102": // the body is no JSON: damaged on its way
		return tooMuch
	case e.Code == "23505" && strings.Contains(e.Message, `_pkey"`):
		return storedBefore // a gateway dropped Prefer: resolution=ignore-duplicates
	case e.Code == "23503": // a foreign key: the row it points to may come yet
		return passing
	case e.Code == "55000": // e.g. a view that can't be inserted into
		return configuration
	}
	switch class {
	case "21", "22", "23", "27", "44", "54", "P0":
		return badData
	case "0A", "28", "3D", "3F", "42":
		return configuration
	}
	if group, ok := strings.CutPrefix(e.Code, "PGRST"); ok && len(group) == 3 && strings.ContainsRune("123", rune(group[0])) {
		return configuration // request, schema cache, JWT; group 0 is the connection
	}
	return passing
}

// isSQLState tells PostgreSQL's five digits and capitals from PostgREST's own
// codes, and from whatever a gateway calls its errors.
func isSQLState(code string) bool {
	if len(code) != 5 {
		return false
	}
	for _, r := range code {
		if (r < '0' || r > '9') && (r < 'A' || r > 'Z') {
			return false
		}
	}
	return !strings.HasPrefix(code, "PT") // raised by a function of the user's to set the HTTP status
}

// outcomeUnknown says whether the server may have carried out a request that
// err came back for. An answer with PostgreSQL's or PostgREST's own code was
// rolled back, unless it tells of the connection between the two.
func outcomeUnknown(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return err != nil
	}
	switch {
	case strings.HasPrefix(e.Code, "PGRST0"), strings.HasPrefix(e.Code, "08"), strings.HasPrefix(e.Code, "57P"):
		return true
	case strings.HasPrefix(e.Code, "PGRST"), isSQLState(e.Code):
		return false
	}
	return true
}

// remedy says what to do about an answer that is classified as configuration.
func remedy(err error, schema, table string) string {
	var e *Error
	if !errors.As(err, &e) {
		return "check SUPABASE_URL and the network: no answer came"
	}
	name := schema + "." + table
	const reload = "; if that is done, run: NOTIFY pgrst, 'reload schema'"
	switch {
	case e.Status < 400:
		return "check SUPABASE_URL: it is not a Supabase API's (no redirect is followed, it would carry the key to another host)"
	case e.Status == http.StatusPaymentRequired || e.Status == 540:
		return "look at the project in the Supabase dashboard: it is paused or over its quota"
	case e.Code == "42501" && strings.Contains(e.Message, "row-level security"):
		return "use the service-role (secret) key: row-level security keeps this one out"
	case e.Code == "42501":
		return "run: GRANT SELECT, INSERT, DELETE ON " + name + " TO service_role;"
	case e.Code == "PGRST205" || e.Code == "42P01":
		return "create the table: run sql/013_create_processing_events_table.sql, or name yours with WithTable and WithSchema" + reload
	case e.Code == "PGRST204" || e.Code == "42703":
		return "add the column: " + name + " needs those of sql/013_create_processing_events_table.sql" + reload
	case e.Code == "PGRST106" || e.Code == "3F000":
		return "expose the schema " + schema + " in the project's API settings, or name another with WithSchema"
	case e.Status == http.StatusUnauthorized:
		return "check the key: it must be the service-role (secret) key of this very project"
	}
	return "check the table and the key against sql/013_create_processing_events_table.sql"
}

// How long to wait after failures: 200 ms, twice as long each time, at most
// 30 s, and of that between half and all, so that clients don't come back in
// step.
const (
	firstWait = 200 * time.Millisecond
	longWait  = 30 * time.Second
	longStep  = 8 // the first step at longWait
)

func backoff(step int, err error) time.Duration {
	wait := longWait
	if step < longStep {
		wait = firstWait << step
	}
	wait = wait/2 + rand.N(wait/2+1)
	if e := (*Error)(nil); errors.As(err, &e) {
		wait = max(wait, e.RetryAfter)
	}
	return wait
}
