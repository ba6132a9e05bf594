// Package dashboard serves a page about an app's documents. The page shows how many
// documents complete, fail or are stuck, why they fail, how long the steps take, and
// the timeline of each document. Mount it under any prefix:
//
//	http.Handle("/admin/documents/", dashboard.Handler(client, dashboard.WithAuthorize(isAdmin)))
//
// The page shows users' data, so by default it refuses every request. Pass
// [WithAuthorize], or [WithLoopback] on a developer's machine. Even requests from the
// same machine are refused by default, because a proxy on that machine may have
// forwarded them for somebody else. The page can't always recognize a proxy. For example,
// nginx adds no header by default, and since version 1.29.7 it uses HTTP/1.1 as browsers
// do.
//
// The page reads with [docevents.Client.Summary], [docevents.Client.Documents]
// and [docevents.Client.Timeline], so it needs the functions of
// sql/014_create_docevents_reading.sql. To protect the database, a Handler has at most
// four reads in flight, and identical reads share an answer for five seconds. If a view
// needs a fifth read, the response is a 503 with the header Retry-After.
//
// The path health below the prefix is for an uptime monitor: see [WithHealth].
//
// The page is HTML with one stylesheet and relative links, without scripts. It works
// under any Content-Security-Policy that allows styles from the app itself.
//
// The files, in the order in which a request passes through them:
//
//	dashboard*  options, routes and access
//	page*       what all views need: filters, links, problems and texts
//	reads       limits the reads of the database, and shares their answers
//	view_*      the views, each with its template
package dashboard

import (
	"embed"
	"html/template"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/docevents/docevents-go"
)

// An Option changes a default of [Handler].
type Option func(*handler)

// WithDocumentLink adds a link to the page of each document. The link leads to the
// document in the app. f returns its URL, or "" for no link. f must be safe for
// concurrent use.
func WithDocumentLink(f func(documentID string) string) Option {
	return func(h *handler) { h.documentLink = f }
}

// WithFilters adds filters to the page. A filter limits the page to the events that
// have a certain value in a column. columns are names of columns in the table, such as
// "tenant_id". Stage, type and user have filters by default. A filter makes the page
// slower if its column has no index.
func WithFilters(columns ...string) Option {
	return func(h *handler) { h.columns = slices.Clone(columns) }
}

// WithStuckAfter sets how long a document is under way before the page calls it
// stuck. The default is 30 minutes. 0 means the default.
func WithStuckAfter(d time.Duration) Option {
	return func(h *handler) { h.stuckAfter = d }
}

const defaultStuckAfter = 30 * time.Minute

type handler struct {
	client *docevents.Client

	authorize func(http.ResponseWriter, *http.Request) bool // may be nil
	loopback  bool                                          // allow only requests from this machine

	documentLink func(string) string // may be nil
	columns      []string            // from WithFilters
	stuckAfter   time.Duration
	limits       docevents.Limits

	filters []filter // the filters that the page offers, with empty values
	textIDs bool
	types   docevents.EventTypes
	reads   reads
}

// Handler returns the page as an http.Handler for GET and HEAD. Mount it on a path that
// ends in a slash, with or without http.StripPrefix. It is safe for concurrent use. If
// the client is nil, the page shows that the process has no settings.
func Handler(client *docevents.Client, opts ...Option) http.Handler {
	h := &handler{client: client, types: client.EventTypes()}
	for _, opt := range opts {
		if opt != nil {
			opt(h)
		}
	}
	if h.stuckAfter <= 0 {
		h.stuckAfter = defaultStuckAfter
	}
	columns := client.Columns()
	h.textIDs = columns.TextIDs
	h.filters = newFilters(columns, h.types, h.columns)
	return h
}

//go:embed page.html view_overview.html view_documents.html view_document.html style.css icon.svg
var files embed.FS

// templates holds the template of each view, by the view's path.
var templates = map[string]*template.Template{
	"./":        parse("view_overview.html"),
	"documents": parse("view_documents.html"),
	"document":  parse("view_document.html"),
}

func parse(view string) *template.Template {
	return template.Must(template.ParseFS(files, "page.html", view)).Lookup(view)
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cache-Control", "no-store")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		header.Set("Allow", "GET, HEAD")
		http.Error(w, "This page is read-only: use GET or HEAD.", http.StatusMethodNotAllowed)
		return
	}
	if !h.allow(w, r) {
		return
	}
	asked, query, _ := strings.Cut(r.RequestURI, "?")
	switch _, name := path.Split(r.URL.Path); {
	case name == "" && asked != "" && !strings.HasSuffix(asked, "/"): // relative links need a slash at the end
		header.Set("Location", strings.TrimSuffix("./"+path.Base(asked)+"/?"+query, "?"))
		w.WriteHeader(http.StatusMovedPermanently)
	case name == "":
		h.serve(w, r, "./", h.overview)
	case name == "documents":
		h.serve(w, r, name, h.documents)
	case name == "document":
		h.serve(w, r, name, h.document)
	case name == "event":
		h.serveEvent(w, r)
	case name == "health":
		h.serveHealth(w, r)
	case name == "style.css", name == "icon.svg":
		http.ServeFileFS(w, r, files, name)
	default:
		http.NotFound(w, r)
	}
}
