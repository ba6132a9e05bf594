package docevents

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

// ErrOutcomeUnknown is matched by the errors of events and purges whose last
// answer was lost: the row may be stored, once, or the rows may be gone.
var ErrOutcomeUnknown = errors.New("outcome unknown: the server may have done it")

// An Error is an answer of the server that is not a success. Errors of this
// package that stem from one are found by errors.As.
//
// PostgREST's details are not in it: they repeat the row.
type Error struct {
	Status  int    // HTTP status
	Code    string // SQLSTATE or PostgREST's own (PGRST205), "" where the answer was not PostgREST's
	Message string // in the server's words, without what may repeat a row; cut to 1 KiB
	Hint    string // likewise, mostly empty

	// RetryAfter is how long the server asks to be left alone, at most 60 s;
	// 0 where it didn't say, or said what can't be read or has passed.
	RetryAfter time.Duration

	// told is what the body says that no field holds: storedBefore or badData
	// (23505, on the key that was sent or another), configuration (23514, for
	// want of a partition), transient (the database went away under the
	// statement). accepted: nothing.
	told verdict

	details string // of PostgREST, on their way to insert: explain takes them out
	resent  bool   // net/http had sent the request before, on a connection that died
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

func codeOf(err error) string {
	if e, answered := errors.AsType[*Error](err); answered {
		return e.Code
	}
	return ""
}

// A verdict is what an answer means for the rows that were sent.
type verdict int

const (
	accepted      verdict = iota // stored
	transient                    // may be different next time: wait, then the same rows again
	configuration                // stays until somebody mends it: keep the rows, wait long, say so loudly
	tooMuch                      // fewer rows may do
	storedBefore                 // of these rows, one at least is stored already
	badData                      // of these rows, one at least can't be stored, ever
)

// What PostgreSQL's and PostgREST's codes mean; the first match wins. Rows are
// given up on the one closed list of badData: what is not here is transient.
// https://www.postgresql.org/docs/current/errcodes-appendix.html
// https://docs.postgrest.org/en/v14/references/errors.html
var verdicts = []struct {
	codes *regexp.Regexp
	verdict
}{
	{regexp.MustCompile(`^(57014|PGRST102)$`), tooMuch}, // statement timeout; the body is no JSON: damaged on its way
	{regexp.MustCompile(`^23503$`), transient},          // a foreign key: the row it points to may come yet
	{regexp.MustCompile(`^(21|22|23|27|44|54|P0)[0-9A-Z]{3}$`), badData},
	{regexp.MustCompile(`^((0A|28|3D|3F|42)[0-9A-Z]{3}|25006|55000|PGRST[123][0-9A-Z]{2})$`), configuration},
}

var (
	// fromDatabase is what a code of PostgreSQL's or PostgREST's looks like.
	fromDatabase = regexp.MustCompile(`^([0-9A-Z]{5}|PGRST[0-9A-Z]{3})$`)

	// primaryKey finds the name that a primary key has by itself, or by custom,
	// in a message of any language.
	primaryKey = regexp.MustCompile(`(?i)_pk(ey)?\b|\bpk_`)
)

// classify reads the error of a request. The status goes first where it says
// all: a role that doesn't exist is 22023, of a class of bad data, but with 401.
func classify(err error) verdict {
	e, answered := errors.AsType[*Error](err)
	switch {
	case err == nil:
		return accepted
	case !answered: // none, or one cut short
		return transient
	case e.Status < 400, // a redirect, or a success that is none of PostgREST's
		slices.Contains([]int{401, 402, 405, 406, 540}, e.Status),            // 540: Supabase has paused the project
		e.Status == http.StatusNotFound && !fromDatabase.MatchString(e.Code): // a web site, another path
		return configuration
	case e.Status == http.StatusRequestEntityTooLarge:
		return tooMuch
	case e.told != accepted:
		return e.told
	case e.Code == "23505" && primaryKey.MatchString(e.Message): // a gateway dropped Prefer
		return storedBefore
	case e.Code == "23514" && strings.HasPrefix(e.Message, "no partition of relation"):
		return configuration
	}
	for _, v := range verdicts {
		if v.codes.MatchString(e.Code) {
			return v.verdict
		}
	}
	return transient
}

// keyOf finds the columns in details such as "Key (id)=(...) already exists."
// and, of partitions, "... contains (created_at) = (...).", in any language. A
// row, as the details of a CHECK have it, names no columns, or, for want of a
// grant, all that were sent.
var keyOf = regexp.MustCompile(`^[^(]*\(((?:[\pL\pN_$, ]|"[^"]*")*)\)( ?)= ?\(`)

// readDetails says what details add to a code, see [Error].told. Every unique
// key that holds the id is one that only the same event can meet again.
func readDetails(code, details, idColumn string) verdict {
	key := keyOf.FindStringSubmatch(details)
	if key == nil {
		return accepted
	}
	hasID := slices.Contains(strings.Split(strings.ReplaceAll(key[1], `"`, ""), ", "), idColumn)
	switch {
	case code == "23514" && key[2] != "" && !hasID:
		return configuration
	case code == "23505" && hasID:
		return storedBefore
	case code == "23505":
		return badData
	}
	return accepted
}

// An unsent is the error of a request that was never on a connection.
type unsent struct{ error }

func (e unsent) Unwrap() error { return e.error }

// isDial says whether an error of a transport's is one of its dialer's.
func isDial(err error) bool {
	_, noName := errors.AsType[*net.DNSError](err)
	op, _ := errors.AsType[*net.OpError](err)
	return noName || op != nil && op.Op == "dial"
}

// Codes that may tell of a connection between PostgREST and PostgreSQL that was
// lost, or of a commit without an answer. PGRST003 had none to lose: its wait for
// one ended.
var lostConnection = regexp.MustCompile(`^(08...|57P..|40003|PGRST00[0-2]|PGRSTX..)$`)

// outcomeUnknown says whether the server may have carried out a request that
// err came back for. What has PostgreSQL's or PostgREST's own code was rolled
// back, and other answers of 3xx and 4xx are refusals, but for those that a
// gateway gives when its own wait for the server ends: 408, and nginx's 499.
func outcomeUnknown(err error) bool {
	if e, answered := errors.AsType[*Error](err); answered {
		switch {
		case lostConnection.MatchString(e.Code), e.told == transient, e.resent:
			return true
		case fromDatabase.MatchString(e.Code):
			return false
		}
		return e.Status < 300 || e.Status == http.StatusRequestTimeout || e.Status == 499 || e.Status >= 500
	}
	_, unsent := errors.AsType[unsent](err)
	return err != nil && !unsent
}

// The waits after failures: 200 ms, doubling with each step, and of that between
// half and all at random, so that clients don't retry in step with each other.
const (
	// lastingAfter is how long refusals must go on to be more than a schema
	// cache that reloads, or clocks that differ.
	lastingAfter = 5 * time.Second

	firstWait = 200 * time.Millisecond
	longWait  = 30 * time.Second
	longStep  = 8 // the first step at which longWait is reached
)

// backoff returns the wait after a number of steps, at most the given one, or
// the wait that err asks for if that is longer.
func backoff(step int, most time.Duration, err error) time.Duration {
	return max(jitter(step, most), retryAfterOf(err))
}

func jitter(step int, most time.Duration) time.Duration {
	wait := min(firstWait<<min(step, longStep), most)
	return wait/2 + rand.N(wait/2+1)
}

func retryAfterOf(err error) time.Duration {
	if e, answered := errors.AsType[*Error](err); answered {
		return e.RetryAfter
	}
	return 0
}
