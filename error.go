package docevents

import (
	"errors"
	"time"

	"github.com/docevents/docevents-go/internal/advice"
	"github.com/docevents/docevents-go/internal/rest"
)

// An error matches ErrOutcomeUnknown if a request failed, but the server may have
// carried it out. Then the events of an insert may be stored, or the rows of a purge
// may be deleted.
var ErrOutcomeUnknown = errors.New("outcome unknown: the server may have done it")

// An Error is an answer in which the server reports a failure. To get the Error
// from an error that a method returns, use errors.As. PostgREST's answers have a
// field "details". An Error doesn't contain these details, because they may
// repeat the values of the row.
type Error struct {
	Status  int    // HTTP status
	Code    string // SQLSTATE or PostgREST's code (PGRST205); "" if the answer isn't PostgREST's
	Message string // the server's, without text that may repeat a row; cut to 1 KiB
	Hint    string // cleaned and cut like Message; usually empty

	// RetryAfter is how long the server asks clients to wait, at most 60 s. It comes
	// from the header Retry-After. It is 0 if the answer has no such header, or if the
	// header can't be parsed or contains a time in the past.
	RetryAfter time.Duration
}

// Error returns the status, the code, the server's message and its hint.
func (e *Error) Error() string {
	return (&rest.Error{Status: e.Status, Code: e.Code, Message: e.Message, Hint: e.Hint}).Error()
}

// A refusal is the error of a request to which the server answered with a failure. It
// wraps two errors: the public Error is for the app, and the answer is for
// rest.Classify, which decides about a retry.
type refusal struct {
	public *Error
	answer *rest.Error
	advice string // how to fix the cause; may be empty
}

// newRefusal leaves out the answer's details, because they may repeat the row.
func newRefusal(answer *rest.Error, advice string) error {
	a := *answer
	a.Details = ""
	return &refusal{&Error{a.Status, a.Code, a.Message, a.Hint, a.RetryAfter}, &a, advice}
}

func (r *refusal) Error() string {
	if r.advice == "" {
		return r.public.Error()
	}
	return r.public.Error() + "; " + r.advice
}

func (r *refusal) Unwrap() []error { return []error{r.public, r.answer} }

// explain returns the error that the app gets or that is logged if a request failed
// with err. The result doesn't contain the URL or the answer's details. It contains
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
	return newRefusal(answer, do)
}

// explainCall does the same for a call of one of the functions in sql/014.
func (c *Client) explainCall(err error) error {
	if answer, answered := errors.AsType[*rest.Error](err); answered {
		if do := c.advice.ForCall(answer.Status, answer.Code, answer.Message); do != "" {
			return newRefusal(answer, do)
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
