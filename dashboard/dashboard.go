// Package dashboard is a page about what happens to an app's documents: how
// many complete and fail, which ones, why, what is stuck, how long the steps
// take, and each document's timeline. Mount it under any prefix:
//
//	http.Handle("/admin/documents/", dashboard.Handler(client, dashboard.WithAuthorize(isAdmin)))
//
// The page shows users' data. So it answers nobody unless the app passes
// [WithAuthorize], or [WithLoopback] on a developer's machine. Requests from the
// same machine are not allowed by default, because those of a proxy look the
// same: nginx since 1.29.7, for example, speaks HTTP/1.1 to the app and adds no
// header that identifies it as a proxy.
//
// It reads with [docevents.Client.Summary], [docevents.Client.Documents] and
// [docevents.Client.Timeline], and needs the functions of
// sql/014_create_docevents_reading.sql. A Handler has at most four reads in
// flight, and identical reads share an answer for five seconds. A view that
// would need a fifth read gets a 503 with the header Retry-After.
//
// Its address health is for an uptime monitor: see [WithHealth].
//
// It is plain HTML and one stylesheet, without any script, and works under any
// Content-Security-Policy that allows an app's own styles; links are relative.
//
// The files, in the order of a request:
//
//	dashboard*  the options, the routes, who may see them
//	page*       what the views share: filters, links, problems, texts
//	reads       how the views share the database
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

// WithDocumentLink shows a link into the app on each document's page: f returns
// its URL, or "" for none. It is called for each view, at the same time from
// several goroutines.
func WithDocumentLink(f func(documentID string) string) Option {
	return func(h *handler) { h.documentLink = f }
}

// WithFilters lets the page be limited to the events with one value in a column,
// by the column's name in the table, such as "tenant_id". Stage, type and user
// can be filtered without it. Columns without an index make the views slower.
func WithFilters(columns ...string) Option {
	return func(h *handler) { h.columns = slices.Clone(columns) }
}

// WithStuckAfter sets how long a document is under way before the page calls it
// stuck. The default, and that of 0, is 30 minutes.
func WithStuckAfter(d time.Duration) Option {
	return func(h *handler) { h.stuckAfter = d }
}

const defaultStuckAfter = 30 * time.Minute

type handler struct {
	client *docevents.Client

	authorize func(http.ResponseWriter, *http.Request) bool // may be nil
	loopback  bool                                          // only this machine is answered

	documentLink func(string) string // may be nil
	columns      []string            // of WithFilters
	stuckAfter   time.Duration
	limits       docevents.Limits

	filters []filter // those that the page offers, without values
	textIDs bool
	types   docevents.EventTypes
	reads   reads
}

// Handler returns the page as an http.Handler, for GET and HEAD. Mount it on a
// path that ends in a slash, with or without http.StripPrefix. It is safe for
// concurrent use. With a nil client the page shows that there is no client.
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

// templates are the views', by their addresses.
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
		http.Error(w, "This page is read only: GET and HEAD.", http.StatusMethodNotAllowed)
		return
	}
	if !h.allow(w, r) {
		return
	}
	asked, query, _ := strings.Cut(r.RequestURI, "?")
	switch _, name := path.Split(r.URL.Path); {
	case name == "" && asked != "" && !strings.HasSuffix(asked, "/"): // StripPrefix has removed the slash, without which relative links lead elsewhere
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
