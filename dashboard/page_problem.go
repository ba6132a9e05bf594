package dashboard

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"syscall"

	"github.com/docevents/docevents-go"
)

// A problem stands in place of what could not be read. Title and Advice are the
// page's own words: nothing from a row is in them. Detail is the client's error.
type problem struct{ Title, Advice, Detail string }

const inMemory = " Until then, events that this process records wait in its memory."

// answers has a title and advice for each kind of answer, by "STATUS CODE
// message". The first match counts. A status of 0 means 502.
var answers = []struct {
	answer        *regexp.Regexp
	status        int
	title, advice string
}{
	{regexp.MustCompile(` PGRST20[23] | 42883 .*function (public\.)?docevents_`), 0, "The database has no reading functions of this version", "Run sql/014_create_docevents_reading.sql, in Supabase's SQL editor or by your migrations, and load this page again."},
	{regexp.MustCompile(`^504 | 57014 `), http.StatusGatewayTimeout, "The server took too long", "Choose a shorter range, or a filter on a column that has an index. If that is slow as well, look at the database's load, and whether created_at has its index."},
	{regexp.MustCompile(` 22(P02|003|007|008) `), http.StatusBadRequest, "A filter or an id doesn't fit its column", "The column has another type, such as a UUID or a number. Take the filter away, or look again at where the value comes from."},
	{regexp.MustCompile(` (42703|PGRST204) `), 0, "The table lacks a column", "A filter or the client names a column that the table doesn't have: compare WithFilters and WithColumns with the table."},
	{regexp.MustCompile(` (42P01|PGRST205) `), 0, "The table was not found", "Create it, or name the app's own with WithTable and WithSchema. The server's words are below."},
	{regexp.MustCompile(` (3F000|PGRST106) `), 0, "The schema can't be read", "Expose it in the project's API settings, or name another with WithSchema."},
	{regexp.MustCompile(` 42(804|883) `), 0, "A column's type doesn't suit", "The server's words are below, with what to do about them."},
	{regexp.MustCompile(`^(402|540) `), 0, "The project is paused or over its quota", "Look at it in the Supabase dashboard." + inMemory},
	{regexp.MustCompile(`^(401|403) | PGRST3\d\d | 42501 `), 0, "The server refused the key", "The key, or what its role may do, is wrong. The server's words are below, with what to do about them." + inMemory},
	{regexp.MustCompile(`^429 `), 0, "The server takes no more requests right now", "It limits how many come in a time. Load this page again in a minute."},
	{regexp.MustCompile(`^([0-3]\d\d|404|405)  `), 0, "Something else answers at SUPABASE_URL", "The answer is not the API's. Check that SUPABASE_URL is the project's own address, without a path."},
	{regexp.MustCompile(`^5\d\d | (08|53|57|58)\w{3} | PGRST00\d `), 0, "The server has a fault", "Its words are below. Look at the project's status and logs, and load this page again." + inMemory},
	{regexp.MustCompile(``), 0, "The server refused to answer", "Its words are below, with what to do about them." + inMemory},
}

// fail puts a problem on the page for an error of the client's.
func (p *page) fail(err error) {
	p.status = http.StatusBadGateway
	p.Problem = &problem{Detail: clean(err.Error(), 800)}
	e, answered := errors.AsType[*docevents.Error](err)
	switch {
	case errors.Is(err, errBusy):
		p.status, p.retryAfter, p.refresh = http.StatusServiceUnavailable, sharedFor, sharedFor
		p.Problem.Title = "Too many views at once"
		p.Problem.Advice = "So that a slow database doesn't get slower, this page reads at most four things at a time. It loads itself again in five seconds."
	case answered:
		for _, a := range answers {
			if a.answer.MatchString(answerLine(e)) {
				p.Problem.Title, p.Problem.Advice = a.title, a.advice
				p.status = cmp.Or(a.status, p.status)
				return
			}
		}
	case errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		p.status = http.StatusGatewayTimeout
		p.Problem.Title = "The server took too long"
		p.Problem.Advice = "There was no answer in time. Choose a shorter range; if that is slow as well, look at the database's load and at the network in between." + inMemory
	case errors.Is(err, docevents.ErrOtherAnswer):
		p.Problem.Title = "The answer is not that of this version's functions"
		p.Problem.Advice = "Run sql/014_create_docevents_reading.sql again. If that is done, something else answers: check SUPABASE_URL."
	case isNetwork(err):
		p.Problem.Title = "No answer from the server"
		p.Problem.Advice = "Check SUPABASE_URL and the network of this process." + inMemory
	default:
		p.Problem.Title = "The events could not be read"
		p.Problem.Advice = "The reason is below."
	}
}

// answerLine is what the patterns of answers match.
func answerLine(e *docevents.Error) string {
	return fmt.Sprintf("%03d %s %s", e.Status, e.Code, e.Message)
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

// isNetwork reports whether an error comes from the connection: there was no
// answer, or only a part of one.
func isNetwork(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.As(err, new(net.Error)) || errors.As(err, new(syscall.Errno)) ||
		errors.As(err, new(*tls.CertificateVerificationError)) || errors.As(err, new(tls.RecordHeaderError))
}
