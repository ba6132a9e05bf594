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
	Message    string        // without values of the row; at most maxErrorText bytes
	Hint       string        // cleaned and cut like Message
	RetryAfter time.Duration // from the header Retry-After, at most maxRetryAfter; 0 without a valid one

	// Details is the field "details" of the answer. It is never logged, because it may
	// contain values of the row.
	Details string

	// meaning is what the answer means, if the code alone doesn't show that. Otherwise
	// the field has the zero value, Accepted.
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

// IsFromDatabase reports whether the answer comes from PostgreSQL or PostgREST. Their
// codes have five characters or begin with PGRST. The answer of a gateway has a code in
// another form or no code.
func (e *Error) IsFromDatabase() bool { return databaseCode.MatchString(e.Code) }

// A Verdict is the meaning of an answer for the rows that were sent.
type Verdict int

const (
	Accepted      Verdict = iota // the rows are stored
	Transient                    // a later request with the same rows may succeed
	Configuration                // the API key, table or grant is wrong: nothing is stored until somebody fixes it
	TooMuch                      // a request with fewer rows may succeed
	StoredBefore                 // at least one of the rows is stored already
	BadData                      // at least one of the rows can never be stored
)

// verdicts contains the meanings of the error codes of PostgreSQL and PostgREST. The
// first entry that matches a code applies. If none matches, the meaning is Transient.
//
// https://www.postgresql.org/docs/current/errcodes-appendix.html
// https://docs.postgrest.org/en/v14/references/errors.html
var verdicts = []struct {
	codes *regexp.Regexp
	Verdict
}{
	{regexp.MustCompile(`^(57014|PGRST102)$`), TooMuch}, // 57014: statement timeout; PGRST102: the request's body isn't JSON, because it was damaged in transit
	{regexp.MustCompile(`^23503$`), Transient},          // foreign key: the row that it refers to may be stored later
	{regexp.MustCompile(`^(21|22|23|27|44|54|P0)[0-9A-Z]{3}$`), BadData},
	{regexp.MustCompile(`^((0A|28|3D|3F|42)[0-9A-Z]{3}|25006|55000|PGRST[123][0-9A-Z]{2})$`), Configuration},
}

var (
	databaseCode = regexp.MustCompile(`^([0-9A-Z]{5}|PGRST[0-9A-Z]{3})$`)

	// primaryKey matches an error message that contains the name of a primary key. Such a
	// name usually has one of the forms events_pkey, events_pk and pk_events.
	primaryKey = regexp.MustCompile(`(?i)_pk(ey)?\b|\bpk_`)
)

// Classify returns what the result of a request means for the rows that were sent. If
// the request failed without an answer of the server, the meaning is Transient. Some
// statuses count more than the code. For example, status 401 with code 22023 (the role
// of the API key doesn't exist) means Configuration, not BadData.
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

// keyInDetails finds the columns of a key in the details of an error. There are two
// kinds of details:
//
//   - "Key (id)=(...) already exists.", if a key is violated
//   - "... contains (created_at) = (...).", if there is no partition for a row
//
// The pattern's first group captures the columns. Its second group captures the space
// before the =, and is empty if a key is violated. PostgreSQL may translate the words,
// so the pattern doesn't contain them.
var keyInDetails = regexp.MustCompile(`^[^(]*\(((?:[\pL\pN_$, ]|"[^"]*")*)\)( ?)= ?\(`)

// KeyColumns returns the columns of the key in an error's details, such as id in "Key
// (id)=(...) already exists." It returns nil if there is no key, or if the key contains
// an expression.
func KeyColumns(details string) []string {
	key := keyInDetails.FindStringSubmatch(details)
	if key == nil {
		return nil
	}
	return strings.Split(strings.ReplaceAll(key[1], `"`, ""), ", ")
}

// meaningOf returns the Verdict for two codes that can mean different things:
//
//   - 23505 means that a unique key is violated. If the key contains the id column or
//     seems to be the primary key, the event is already stored (StoredBefore).
//   - 23514 means that a constraint is violated, or that the table has no partition for
//     the row. If there is no partition, the table is wrong (Configuration).
//
// In all other cases it returns the zero value, and Classify decides by status and
// code.
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

// An unsent error is the error of a request that was never written to a connection.
type unsent struct{ error }

func (e unsent) Unwrap() error { return e.error }

// isDial reports whether err means that a transport could not connect.
func isDial(err error) bool {
	_, noName := errors.AsType[*net.DNSError](err)
	op, _ := errors.AsType[*net.OpError](err)
	return noName || op != nil && op.Op == "dial"
}

// lostConnection matches the codes for a broken connection between PostgREST and
// PostgreSQL. With such a code, the request may have been committed. PGRST003 isn't one
// of them, because then PostgREST sent nothing to PostgreSQL.
var lostConnection = regexp.MustCompile(`^(08...|57P..|40003|PGRST00[0-2]|PGRSTX..)$`)

// OutcomeUnknown reports whether the server may have carried out a request that failed
// with err. The server has not carried it out in three cases:
//
//   - The request was never sent.
//   - PostgreSQL or PostgREST answered with an error, except an error for a broken
//     connection to the database.
//   - A gateway answered 3xx or 4xx, except 408 and 499, which mean that the gateway
//     stopped waiting for the server.
//
// If net/http has sent the request twice, the error shows nothing about the first
// attempt, so OutcomeUnknown returns true.
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

// RetryAfter returns how long the server asked the client to wait, or 0.
func RetryAfter(err error) time.Duration {
	if e, answered := errors.AsType[*Error](err); answered {
		return e.RetryAfter
	}
	return 0
}
