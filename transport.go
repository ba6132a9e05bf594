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
	"regexp"
	"slices"
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
	text := strings.TrimSpace(fmt.Sprintf("HTTP %d %s", e.Status, e.Code))
	if e.Message != "" {
		text += ": " + e.Message
	}
	if e.Hint != "" {
		text += " (hint: " + e.Hint + ")"
	}
	return text
}

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
	var answer struct{ Code, Message, Hint any }
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
	return &Error{
		Status: resp.StatusCode, Code: text(answer.Code), Message: message, Hint: text(answer.Hint),
		RetryAfter: retryAfter(resp.Header.Get("Retry-After"), time.Now()),
	}
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

// What PostgreSQL's and PostgREST's codes mean; the first match wins. Rows are
// given up on the one closed list of badData: what is not here is passing.
// https://www.postgresql.org/docs/current/errcodes-appendix.html
// https://docs.postgrest.org/en/v14/references/errors.html
var verdicts = []struct {
	codes *regexp.Regexp
	verdict
}{
	{regexp.MustCompile(`^(57014|PGRST102)$`), tooMuch}, // statement timeout; the body is no JSON: damaged on its way
	{regexp.MustCompile(`^23503$`), passing},            // a foreign key: the row it points to may come yet
	{regexp.MustCompile(`^(21|22|23|27|44|54|P0)[0-9A-Z]{3}$`), badData},
	{regexp.MustCompile(`^((0A|28|3D|3F|42)[0-9A-Z]{3}|55000|PGRST[123][0-9A-Z]{2})$`), configuration},
}

// classify reads the error of a request. The status goes first where it says
// all: a role that doesn't exist is 22023, of a class of bad data, but with 401.
func classify(err error) verdict {
	var e *Error
	switch {
	case err == nil:
		return accepted
	case !errors.As(err, &e): // no answer, or one cut short
		return passing
	case e.Status < 400, // a redirect, or HTML with a success
		slices.Contains([]int{401, 402, 405, 406, 540}, e.Status): // 540: Supabase has paused the project
		return configuration
	case e.Status == http.StatusRequestEntityTooLarge:
		return tooMuch
	case e.Code == "23505" && strings.Contains(e.Message, `_pkey"`): // a gateway dropped Prefer
		return storedBefore
	}
	for _, v := range verdicts {
		if v.codes.MatchString(e.Code) {
			return v.verdict
		}
	}
	return passing
}

var (
	lostConnection = regexp.MustCompile(`^(08...|57P..|PGRST0..)$`)
	fromDatabase   = regexp.MustCompile(`^([0-9A-Z]{5}|PGRST...)$`)
)

// outcomeUnknown says whether the server may have carried out a request that
// err came back for. An answer with PostgreSQL's or PostgREST's own code was
// rolled back, unless it tells of the connection between the two.
func outcomeUnknown(err error) bool {
	var e *Error
	if errors.As(err, &e) {
		return lostConnection.MatchString(e.Code) || !fromDatabase.MatchString(e.Code)
	}
	return err != nil
}

// remedy says what to do about an answer that is classified as configuration.
func remedy(err error, schema, table string) string {
	var e *Error
	errors.As(err, &e)
	const reload = "; if that is done, run: NOTIFY pgrst, 'reload schema'"
	name := schema + "." + table
	switch {
	case e.Status < 400:
		return "check SUPABASE_URL: what answers there is not Supabase's API (no redirect is followed: it would carry the key to another host)"
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
	return "compare the table and the key's role with sql/013_create_processing_events_table.sql"
}

// The waits after failures: 200 ms, twice as long each time, at most 30 s, and
// of that between half and all, so that clients don't come back in step.
const (
	firstWait = 200 * time.Millisecond
	longWait  = 30 * time.Second
	longStep  = 8 // the first step at longWait
)

// backoff returns the wait after so many steps, or what err asks for if that is
// longer.
func backoff(step int, err error) time.Duration {
	wait := min(firstWait<<min(step, longStep), longWait)
	wait = wait/2 + rand.N(wait/2+1)
	if e := (*Error)(nil); errors.As(err, &e) {
		wait = max(wait, e.RetryAfter)
	}
	return wait
}
