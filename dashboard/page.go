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

	// A view shows at most maxRows documents or events. If their texts are so long
	// that the view has more than maxBytes, it shows fewer.
	maxRows  = 50
	maxBytes = 80_000
)

// A page holds what all views have: the parameters of the request, the time, and the
// problem that the view shows if something went wrong.
type page struct {
	scope
	Title   string
	Self    string // the view's path, relative to the page
	Now     time.Time
	Still   bool     // the reader has switched off the refresh
	Problem *problem // nil if the view could be made

	StuckAfter time.Duration

	// rows is the number of rows that the view may show. If the view was larger
	// than maxBytes, it is rendered again with fewer rows than maxRows. Then the
	// overview also leaves out the links and the table of its chart.
	rows int

	isUnset    bool // the client is nil or zero
	query      url.Values
	own        map[string]string // the parameters that only this view has, for links to itself
	status     int
	retryAfter time.Duration // 0 means none
	refresh    time.Duration // 0 means never
}

func (h *handler) newPage(r *http.Request, rows int) *page {
	p := &page{
		Now: time.Now().UTC(), StuckAfter: h.stuckAfter, rows: rows,
		query: unkeep(r.URL.Query()), own: map[string]string{}, status: http.StatusOK,
	}
	p.Still = p.query.Get("refresh") == "off"
	p.readScope(h.filters)
	switch columns := h.client.Columns(); columns.DocumentID {
	case "":
		p.isUnset, p.status = true, http.StatusOK
		p.Problem = &problem{
			Title:  "This process has no Supabase settings",
			Advice: "Its docevents client is nil, so no events are recorded or read. Set SUPABASE_URL and SUPABASE_SECRET_KEY, and restart the process.",
		}
	case "-":
		p.status = http.StatusInternalServerError
		p.Problem = &problem{
			Title:  "The table has no column for document ids",
			Advice: "This page shows documents, but the docevents client was created with WithColumns and \"-\" for DocumentID. If the table has such a column, set DocumentID to its name. If the ids are not UUIDs, also set TextIDs.",
		}
	}
	return p
}

// serve renders a view and writes it. It renders into memory, because the status is only
// known at the end. If the view is larger than maxBytes, serve renders it again with half
// the rows. self is the view's path.
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
			http.Error(w, "The page could not be rendered.", http.StatusInternalServerError)
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

// refuse makes the page show a problem, with status 400, for a request that is not valid.
func (p *page) refuse(title, advice string) {
	p.status, p.Problem = http.StatusBadRequest, &problem{Title: title, Advice: advice}
}

// Refresh returns the number of seconds after which the browser reloads the page. 0
// means never. It is 0 while the form for filters is open, because a reload would clear
// the form.
func (p *page) Refresh() int {
	if p.IsEdited() {
		return 0
	}
	return int(p.refresh.Seconds())
}

// Ranges returns the ranges that the page offers.
func (p *page) Ranges() []span { return spans }
