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

	// A view shows at most maxRows documents or events, and fewer if the HTML is larger
	// than maxBytes.
	maxRows  = 50
	maxBytes = 80_000
)

// A page holds the data that every view needs. The views are the overview, the list of
// documents, and the timeline of a document.
type page struct {
	scope
	Title   string
	Self    string // the view's path, relative to the page
	Now     time.Time
	Still   bool     // the refresh is switched off
	Problem *problem // nil if the view can show its data

	StuckAfter time.Duration

	// rows is the maximum number of rows in the view. It is maxRows, or less if the
	// HTML would be larger than maxBytes. If rows is less than maxRows, the overview
	// also leaves out parts of its chart.
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
			Advice: "This page shows documents, but the docevents client's WithColumns sets DocumentID to \"-\", which means that the table has no such column. If it has one, set DocumentID to its name. If the ids are not UUIDs, also set TextIDs.",
		}
	}
	return p
}

// serve responds with the HTML of a view. self is the view's path, which is also the
// key of its template. readView reads the data for the template.
//
// serve renders into memory first, because readView may change the status. While the
// HTML is larger than maxBytes, serve renders it again with half as many rows.
func (h *handler) serve(w http.ResponseWriter, r *http.Request, self string, readView func(context.Context, *page) any) {
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	var body bytes.Buffer
	var p *page
	for rows := maxRows; rows > 0 && (rows == maxRows || body.Len() > maxBytes); rows /= 2 {
		body.Reset()
		p = h.newPage(r, rows)
		p.Self = self
		if err := templates[self].Execute(&body, readView(ctx, p)); err != nil {
			http.Error(w, "The page could not be rendered.", http.StatusInternalServerError)
			return
		}
	}
	p.setRetryAfter(w.Header())
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(body.Len()))
	w.WriteHeader(p.status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body.Bytes()) // the browser may have closed the connection
	}
}

func (p *page) setRetryAfter(header http.Header) {
	if p.retryAfter > 0 {
		header.Set("Retry-After", strconv.Itoa(int(p.retryAfter.Seconds())))
	}
}

// refuse makes the page show a problem with the request, with status 400.
func (p *page) refuse(title, advice string) {
	p.status, p.Problem = http.StatusBadRequest, &problem{Title: title, Advice: advice}
}

// Refresh returns the number of seconds after which the browser reloads the page, or 0
// for never. It returns 0 if the user has switched the refresh off, except after
// errBusy. It also returns 0 while the user edits the filters, because a reload would
// clear the form.
func (p *page) Refresh() int {
	if p.IsEdited() || p.Still && p.CanRefresh() {
		return 0
	}
	return int(p.refresh.Seconds())
}

// CanRefresh reports whether the user can switch the refresh on and off.
func (p *page) CanRefresh() bool { return p.refresh == refreshEvery }

func (p *page) Ranges() []span { return spans }
