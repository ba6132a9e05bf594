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

// A problem is shown if a view can't show its data. Title and Advice are fixed texts,
// which contain no data from the table. Detail is the text of the client's error, or
// "".
type problem struct{ Title, Advice, Detail string }

const inMemory = " Until this is fixed, new events of this process wait in its memory."

// knownErrors contains errors of the server, each with the title and the advice that
// the page shows. The first entry that matches the error applies: see answerLine.
// status is the HTTP status of the page. 0 means 502.
var knownErrors = []struct {
	pattern       *regexp.Regexp
	status        int
	title, advice string
}{
	{regexp.MustCompile(` PGRST20[23] | 42883 .*function (public\.)?docevents_`), 0, "The database lacks the reading functions of this version", "Run sql/014_create_docevents_reading.sql in Supabase's SQL editor or with your migrations, and reload this page."},
	{regexp.MustCompile(`^504 | 57014 `), http.StatusGatewayTimeout, "The server took too long", "Choose a shorter range, or filter by a column that has an index. If that doesn't help, check the database's load, and check that created_at has an index."},
	{regexp.MustCompile(` 22(P02|003|007|008) `), http.StatusBadRequest, "A filter or an id doesn't fit its column", "The column has another type, such as UUID or number. Correct the value, or remove the filter."},
	{regexp.MustCompile(` (42703|PGRST204) `), 0, "The table lacks a column", "A filter or the client names a column that the table doesn't have. Compare WithFilters and WithColumns with the table."},
	{regexp.MustCompile(` (42P01|PGRST205) `), 0, "The table was not found", "Create it, or set the right name with WithTable and WithSchema. The error is below."},
	{regexp.MustCompile(` (3F000|PGRST106) `), 0, "The schema can't be read", "Expose it in the project's API settings, or set another schema with WithSchema."},
	{regexp.MustCompile(` 42(804|883) `), 0, "A column has the wrong type", "The error below says what to do."},
	{regexp.MustCompile(`^(402|540) `), 0, "The project is paused or over its quota", "Open it in the Supabase dashboard." + inMemory},
	{regexp.MustCompile(`^(401|403) | PGRST3\d\d | 42501 `), 0, "The server refused the key", "The key is wrong, or its role lacks a grant. The error below says what to do." + inMemory},
	{regexp.MustCompile(`^429 `), 0, "Too many requests to the server", "The server limits the rate of requests. Reload this page in a minute."},
	{regexp.MustCompile(`^([0-3]\d\d|404|405)  `), 0, "The answer is not from Supabase's API", "Another server answers at SUPABASE_URL. Check that it is the address of the project, without a path."},
	{regexp.MustCompile(`^5\d\d | (08|53|57|58)\w{3} | PGRST00\d `), 0, "The server failed", "The error is below. Check the project's status and logs, and reload this page." + inMemory},
	{regexp.MustCompile(``), 0, "The server refused the request", "The error below says what to do." + inMemory},
}

// fail makes the page show a problem for an error that the client returned.
func (p *page) fail(err error) {
	p.status = http.StatusBadGateway
	p.Problem = &problem{Detail: clean(err.Error(), 800)}
	e, answered := errors.AsType[*docevents.Error](err)
	switch {
	case errors.Is(err, errBusy):
		p.status, p.retryAfter, p.refresh = http.StatusServiceUnavailable, sharedFor, sharedFor
		p.Problem.Title = "Too many views at once"
		p.Problem.Advice = "To protect the database, this page runs at most four reads at the same time. It reloads in five seconds."
	case answered:
		for _, a := range knownErrors {
			if a.pattern.MatchString(answerLine(e)) {
				p.Problem.Title, p.Problem.Advice = a.title, a.advice
				p.status = cmp.Or(a.status, p.status)
				return
			}
		}
	case errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		p.status = http.StatusGatewayTimeout
		p.Problem.Title = "The server took too long"
		p.Problem.Advice = "There was no answer in time. Choose a shorter range. If that doesn't help, check the database's load and the network." + inMemory
	case errors.Is(err, docevents.ErrOtherAnswer):
		p.Problem.Title = "The answer is not from the reading functions of this version"
		p.Problem.Advice = "Run sql/014_create_docevents_reading.sql again. If that doesn't help, another server answers: check SUPABASE_URL."
	case isNetwork(err):
		p.Problem.Title = "No answer from the server"
		p.Problem.Advice = "Check SUPABASE_URL and the network of this process." + inMemory
	default:
		p.Problem.Title = "The events could not be read"
		p.Problem.Advice = "The error is below."
	}
}

// answerLine returns the text that is compared with the regular expressions in
// knownErrors.
func answerLine(e *docevents.Error) string {
	return fmt.Sprintf("%03d %s %s", e.Status, e.Code, e.Message)
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

// isNetwork reports whether err means that the connection to the server failed.
func isNetwork(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.As(err, new(net.Error)) || errors.As(err, new(syscall.Errno)) ||
		errors.As(err, new(*tls.CertificateVerificationError)) || errors.As(err, new(tls.RecordHeaderError))
}
