package dashboard

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/docevents/docevents-go"
)

// A page is what both pages have: what was asked for, when, and what went wrong.
type page struct {
	Title   string
	Now     time.Time
	Refresh int // seconds; 0: off
	Problem *problem

	query  url.Values
	status int
}

// A problem stands in the place of what could not be read.
type problem struct{ Title, Advice, Detail string }

func newPage(r *http.Request) *page {
	p := &page{Now: time.Now().UTC(), Refresh: int(refreshEvery.Seconds()), query: r.URL.Query(), status: http.StatusOK}
	if p.query.Get("refresh") == "off" {
		p.Refresh = 0
	}
	return p
}

// fail puts a problem on the page for an error of the client's, which says itself
// what to do.
func (p *page) fail(err error) {
	p.status = http.StatusBadGateway
	e, answered := errors.AsType[*docevents.Error](err)
	p.Problem = &problem{Detail: clean(err.Error(), 800)}
	switch {
	case answered && (e.Code == "PGRST202" || e.Code == "42883"):
		p.Problem.Title = "The database has no summary function yet"
		p.Problem.Advice = "Run sql/014_create_docevents_reading.sql once, in Supabase's SQL editor or by your migrations, and load this page again."
	case errors.Is(err, context.DeadlineExceeded), answered && (e.Code == "57014" || e.Status == http.StatusGatewayTimeout):
		p.status = http.StatusGatewayTimeout
		p.Problem.Title = "The server took too long"
		p.Problem.Advice = "Choose a shorter range. If that is slow as well, look at the database's load, and whether created_at has its index."
	case answered:
		p.Problem.Title = "The server refused to answer"
		p.Problem.Advice = "Its words are below, with what to do about them. Events that are recorded meanwhile wait in this process."
	default:
		p.Problem.Title = "No answer from the server"
		p.Problem.Advice = "Check SUPABASE_URL and the network of this process. Events that are recorded meanwhile wait in it."
	}
}

// longestValue is the longest that a link's parameter may be: urn:uuid: and a
// UUID. A page has over forty links.
const longestValue = 45

// Link is the query of a link to the same page: this page's, with one parameter
// changed. An empty value takes it away.
func (p *page) Link(name, value string) string {
	query := url.Values{}
	for _, known := range []string{"id", "range", "refresh"} {
		v := p.query.Get(known)
		if known == name {
			v = value
		}
		if v != "" && len(v) <= longestValue {
			query.Set(known, v)
		}
	}
	return "?" + query.Encode()
}
