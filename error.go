package docevents

import (
	"errors"
	"time"

	"github.com/docevents/docevents-go/internal/advice"
	"github.com/docevents/docevents-go/internal/rest"
)

// An error matches ErrOutcomeUnknown if a request failed, but the server may have
// carried it out. Then the events of an insert may have been stored, or the rows of a
// purge deleted.
//
// An error passed to the drop handler also matches if Close dropped the event while a
// write to the spool (see [WithSpool]) was hanging. Then a later process may still find
// the event on disk and send it.
var ErrOutcomeUnknown = errors.New("outcome unknown: the server may have carried out the request")

// An Error is an error response from the server. To get it from an error that a method
// returns, use errors.As. It doesn't contain the "details" of PostgREST's response,
// because they may repeat values of the row.
type Error struct {
	Status  int    // HTTP status
	Code    string // SQLSTATE, or a code of PostgREST (PGRST205) or a gateway; "" if the response has no code
	Message string // the server's message, without text that may repeat a row; cut to 1 KiB
	Hint    string // cleaned and cut like Message; usually empty

	// RetryAfter is how long the server asks clients to wait, cut to 60 s if it is
	// longer. It is 0 if the response has no Retry-After header, or if the header can't
	// be parsed or contains a time in the past.
	RetryAfter time.Duration
}

// Error returns the status, the code, the server's message and its hint.
func (e *Error) Error() string {
	return (&rest.Error{Status: e.Status, Code: e.Code, Message: e.Message, Hint: e.Hint}).Error()
}

// A serverError is the error of a request that got an error response. It wraps two
// errors: the field public is for the app, and the field answer is for rest.Classify.
type serverError struct {
	public *Error
	answer *rest.Error
	advice string // how to fix the cause; may be empty
}

func newServerError(answer *rest.Error, advice string) error {
	a := *answer
	a.Details = ""
	return &serverError{&Error{a.Status, a.Code, a.Message, a.Hint, a.RetryAfter}, &a, advice}
}

func (e *serverError) Error() string {
	if e.advice == "" {
		return e.public.Error()
	}
	return e.public.Error() + "; " + e.advice
}

func (e *serverError) Unwrap() []error { return []error{e.public, e.answer} }

// explain converts the error of a request to the error that is logged or returned to
// the app. The result doesn't contain the URL or the answer's details. It contains
// advice if the app's developers can fix the cause.
func (c *Client) explain(err error) error {
	answer, answered := errors.AsType[*rest.Error](err)
	if !answered {
		return c.rest.Loggable(err)
	}
	do := ""
	if v := rest.Classify(answer); v == rest.Configuration || v == rest.BadData || answer.Code == "23503" {
		do = c.advice.For(answer.Status, answer.Code, answer.Message)
		if do == "" && v == rest.Configuration {
			do = advice.Compare
		}
	}
	return newServerError(answer, do)
}

// explainCall is like explain, for a call to one of the SQL functions in sql/014.
func (c *Client) explainCall(err error) error {
	if answer, answered := errors.AsType[*rest.Error](err); answered {
		if do := c.advice.ForCall(answer.Status, answer.Code, answer.Message); do != "" {
			return newServerError(answer, do)
		}
	}
	return c.explain(err)
}

// codeOf returns the code of the answer that caused err, or "".
func codeOf(err error) string {
	if answer, answered := errors.AsType[*rest.Error](err); answered {
		return answer.Code
	}
	return ""
}
