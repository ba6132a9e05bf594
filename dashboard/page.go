package dashboard

import (
	"bytes"
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const (
	refreshEvery = time.Minute

	// maxRows is how many documents or events a view shows. maxBytes is how
	// large a view may be, whatever the length of the texts.
	maxRows  = 50
	maxBytes = 80_000
)

// A page is the common part of all views: the request, its time, and what went
// wrong.
type page struct {
	scope
	Title   string
	Self    string // the view's own address, relative
	Now     time.Time
	Still   bool // the reader has switched the refresh off
	Problem *problem

	StuckAfter time.Duration

	// Rows is how many rows the view may show. It is less than maxRows if the
	// view would be too large otherwise; then it leaves out the chart's links
	// and table as well.
	Rows int

	isUnset    bool // the client does nothing
	query      url.Values
	own        map[string]string // parameters of this view, which links to it keep
	status     int
	retryAfter time.Duration // 0 means none
	refresh    time.Duration // 0 means never
}

func (h *handler) newPage(r *http.Request, rows int) *page {
	p := &page{
		Now: time.Now().UTC(), StuckAfter: h.stuckAfter, Rows: rows,
		query: unkeep(r.URL.Query()), own: map[string]string{}, status: http.StatusOK,
	}
	p.Still = p.query.Get("refresh") == "off"
	p.readScope(h.filters)
	switch columns := h.client.Columns(); columns.DocumentID {
	case "":
		p.isUnset, p.status = true, http.StatusOK
		p.Problem = &problem{
			Title:  "This process has no Supabase settings",
			Advice: "Its docevents client is nil. No events are recorded, and none can be read. Set SUPABASE_URL and the service-role key, and start it again.",
		}
	case "-":
		p.status = http.StatusInternalServerError
		p.Problem = &problem{
			Title:  "This app's table has no documents",
			Advice: "Its docevents client was made with WithColumns and \"-\" for DocumentID, and this page is about documents. If the table has a column for them, name it there, with TextIDs if the ids are not UUIDs.",
		}
	}
	return p
}

// serve renders a view in memory first, so that its status is right and its size
// bounded. While it is too large, it is rendered again with half the rows.
func (h *handler) serve(w http.ResponseWriter, r *http.Request, self string, view func(context.Context, *page) any) {
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	var body bytes.Buffer
	var p *page
	for rows := maxRows; rows > 0 && (rows == maxRows || body.Len() > maxBytes); rows /= 2 {
		body.Reset()
		p = h.newPage(r, rows)
		p.Self = self
		if err := templates[self].Execute(&body, view(ctx, p)); err != nil {
			http.Error(w, "The page could not be made.", http.StatusInternalServerError)
			return
		}
	}
	p.setRetryAfter(w.Header())
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(body.Len()))
	w.WriteHeader(p.status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body.Bytes()) // the reader may be gone
	}
}

func (p *page) setRetryAfter(header http.Header) {
	if p.retryAfter > 0 {
		header.Set("Retry-After", strconv.Itoa(int(p.retryAfter.Seconds())))
	}
}

// refuse puts a problem on the page for a request that makes no sense.
func (p *page) refuse(title, advice string) {
	p.status, p.Problem = http.StatusBadRequest, &problem{Title: title, Advice: advice}
}

// Refresh is after how many seconds the browser loads the page again. 0 means
// never. With the form open it is 0, since a reload would clear the form.
func (p *page) Refresh() int {
	if p.IsEdited() {
		return 0
	}
	return int(p.refresh.Seconds())
}

// Ranges are the ranges to choose from.
func (p *page) Ranges() []span { return spans }
