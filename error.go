package docevents

import (
	"errors"
	"time"

	"github.com/docevents/docevents-go/internal/advice"
	"github.com/docevents/docevents-go/internal/rest"
)

// ErrOutcomeUnknown is matched by an error if a request may have been carried out, but
// its answer was lost. The event may be stored (once), or the rows of a purge may be
// deleted.
var ErrOutcomeUnknown = errors.New("outcome unknown: the server may have done it")

// An Error is an answer of the server that isn't a success. errors.As finds it in
// every error that such an answer caused. It doesn't contain PostgREST's details,
// because they may repeat the row.
type Error struct {
	Status  int    // HTTP status
	Code    string // SQLSTATE or PostgREST's code (PGRST205); "" if the answer isn't PostgREST's
	Message string // the server's, without text that may repeat a row; cut to 1 KiB
	Hint    string // cleaned and cut like Message; usually empty

	// RetryAfter is how long the server asks clients to wait, at most 60 s. It is 0
	// if the server didn't ask, or if the header can't be parsed or is in the past.
	RetryAfter time.Duration
}

// Error returns the status, the code, the server's message and its hint.
func (e *Error) Error() string {
	return (&rest.Error{Status: e.Status, Code: e.Code, Message: e.Message, Hint: e.Hint}).Error()
}

// A refusal is the error of a request whose answer isn't a success. errors.As finds
// the public Error in it, and the answer, which rest.Classify needs.
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

// explain turns the error of a request into the error that is returned, logged or
// passed to the drop handler. It removes the URL and the answer's details, and adds
// advice if somebody can fix the cause.
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
