package rest

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

// An Error is an answer of the server that isn't a success.
type Error struct {
	Status     int           // HTTP status
	Code       string        // SQLSTATE or PostgREST's code, or ""
	Message    string        // without text that may repeat the row; at most maxErrorText bytes
	Hint       string        // cleaned and cut like Message
	RetryAfter time.Duration // from the header of that name; at most maxRetryAfter; 0 if it is missing

	// Details are PostgREST's. They may repeat the row, so they are never logged.
	Details string

	// meaning is Accepted if the status and the code alone decide what the answer
	// means. Otherwise it is the result of meaningOf, or Transient if PostgREST lost
	// its connection to the database during the request.
	meaning Verdict

	resent bool // net/http sent the request twice, because the first connection died
}

// Error returns the status, the code, the message and the hint.
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

// IsFromDatabase reports whether the code has the form of PostgreSQL's or PostgREST's
// codes. A gateway's answer has another code or none.
func (e *Error) IsFromDatabase() bool { return databaseCode.MatchString(e.Code) }

// A Verdict is the meaning of an answer for the rows that were sent.
type Verdict int

const (
	Accepted      Verdict = iota // the rows are stored
	Transient                    // the same rows may be stored later
	Configuration                // the key, table or grant is wrong: nothing is stored until somebody fixes it
	TooMuch                      // fewer rows may be stored
	StoredBefore                 // at least one of the rows is stored already
	BadData                      // at least one of the rows can never be stored
)

// verdicts are the meanings of PostgreSQL's and PostgREST's codes. The first match
// counts. Codes that are not in the list are transient.
//
// https://www.postgresql.org/docs/current/errcodes-appendix.html
// https://docs.postgrest.org/en/v14/references/errors.html
var verdicts = []struct {
	codes *regexp.Regexp
	Verdict
}{
	{regexp.MustCompile(`^(57014|PGRST102)$`), TooMuch}, // statement timeout; the body isn't JSON: it was damaged in transit
	{regexp.MustCompile(`^23503$`), Transient},          // foreign key: the row that it refers to may be stored later
	{regexp.MustCompile(`^(21|22|23|27|44|54|P0)[0-9A-Z]{3}$`), BadData},
	{regexp.MustCompile(`^((0A|28|3D|3F|42)[0-9A-Z]{3}|25006|55000|PGRST[123][0-9A-Z]{2})$`), Configuration},
}

var (
	databaseCode = regexp.MustCompile(`^([0-9A-Z]{5}|PGRST[0-9A-Z]{3})$`)

	// primaryKey matches a message with the usual name of a primary key: events_pkey,
	// events_pk or pk_events.
	primaryKey = regexp.MustCompile(`(?i)_pk(ey)?\b|\bpk_`)
)

// Classify returns the meaning of a request's result. nil is Accepted. An error that
// isn't an answer is Transient. The status decides before the code: if the key's role
// doesn't exist, the code is 22023, as for bad data, but the status is 401.
func Classify(err error) Verdict {
	e, answered := errors.AsType[*Error](err)
	switch {
	case err == nil:
		return Accepted
	case !answered:
		return Transient
	case e.Status < 400, // a redirect, or a success that isn't PostgREST's
		slices.Contains([]int{401, 402, 405, 406, 540}, e.Status), // 540: Supabase has paused the project
		e.Status == http.StatusNotFound && !e.IsFromDatabase():    // a web site, or another path
		return Configuration
	case e.Status == http.StatusRequestEntityTooLarge:
		return TooMuch
	case e.meaning != Accepted:
		return e.meaning
	}
	for _, v := range verdicts {
		if v.codes.MatchString(e.Code) {
			return v.Verdict
		}
	}
	return Transient
}

// keyInDetails matches details that name the columns of a key: "Key (id)=(...) already
// exists.", or for a partition "... contains (created_at) = (...).". PostgreSQL may
// translate the words around them. Only for a partition there is a space before the =,
// which the second group captures.
var keyInDetails = regexp.MustCompile(`^[^(]*\(((?:[\pL\pN_$, ]|"[^"]*")*)\)( ?)= ?\(`)

// KeyColumns returns the columns of the key in details. It returns nil if there is no
// key, or if the key has an expression.
func KeyColumns(details string) []string {
	key := keyInDetails.FindStringSubmatch(details)
	if key == nil {
		return nil
	}
	return strings.Split(strings.ReplaceAll(key[1], `"`, ""), ", ")
}

// meaningOf returns the verdict for two codes that have more than one meaning, or
// Accepted. 23505 on the id means that the same event is stored: a unique key that
// holds the id can't be violated by another event. 23514 for a row without a partition
// means that the table is misconfigured. The details show both in any language.
func meaningOf(code, message, details, idColumn string) Verdict {
	key := keyInDetails.FindStringSubmatch(details)
	hasID := slices.Contains(KeyColumns(details), idColumn)
	switch {
	case code == "23505" && (hasID || key == nil && primaryKey.MatchString(message)):
		return StoredBefore
	case code == "23514" && (strings.HasPrefix(message, "no partition of relation") || key != nil && key[2] != "" && !hasID):
		return Configuration
	}
	return Accepted
}

// An unsent is the error of a request that was never written to a connection.
type unsent struct{ error }

func (e unsent) Unwrap() error { return e.error }

// isDial reports whether an error of a transport is an error of its dialer.
func isDial(err error) bool {
	_, noName := errors.AsType[*net.DNSError](err)
	op, _ := errors.AsType[*net.OpError](err)
	return noName || op != nil && op.Op == "dial"
}

// lostConnection matches the codes of a request whose connection between PostgREST and
// PostgreSQL broke, so PostgREST doesn't know whether it was committed. PGRST003 is
// not one of them: PostgREST got no connection, so it sent nothing.
var lostConnection = regexp.MustCompile(`^(08...|57P..|40003|PGRST00[0-2]|PGRSTX..)$`)

// OutcomeUnknown reports whether the server may have carried out a request that
// failed with err. If PostgreSQL or PostgREST refused the request, it was rolled back.
// A gateway refuses a request with 3xx or 4xx before the server gets it. The
// exceptions are 408 and nginx's 499: then the gateway stopped waiting for the server.
func OutcomeUnknown(err error) bool {
	if e, answered := errors.AsType[*Error](err); answered {
		switch {
		case lostConnection.MatchString(e.Code), e.meaning == Transient, e.resent:
			return true
		case e.IsFromDatabase():
			return false
		}
		return e.Status < 300 || e.Status == http.StatusRequestTimeout || e.Status == 499 || e.Status >= 500
	}
	_, unsent := errors.AsType[unsent](err)
	return err != nil && !unsent
}

// RetryAfter returns how long the server asked to wait, or 0.
func RetryAfter(err error) time.Duration {
	if e, answered := errors.AsType[*Error](err); answered {
		return e.RetryAfter
	}
	return 0
}
