// Package dashboard serves a page about the documents that an app processes: how many
// completed, failed or are stuck; why they failed; how long each step took; and the
// timeline of each document. Mount the page under any prefix:
//
//	http.Handle("/admin/documents/", dashboard.Handler(client, dashboard.WithAuthorize(isAdmin)))
//
// The page shows users' data, so by default it refuses every request. To allow
// requests, pass [WithAuthorize], or [WithLoopback] on a developer's machine.
//
// Run sql/014_create_docevents_reading.sql in the database first. The page calls
// [docevents.Client.Summary] and [docevents.Client.Documents], which need the functions
// that this SQL file creates.
//
// To protect the database, a Handler runs at most four reads at the same time. If a
// request needs another read while four are running, the response is a 503 with the
// header Retry-After. A Handler also keeps the result of a read for five seconds, for
// other requests that need the same data. It keeps at most 32 results.
//
// An uptime monitor can request /health below the prefix: see [WithHealth].
//
// The page is HTML with one stylesheet and an icon. Its links are relative, and it has
// no scripts. It works under any Content-Security-Policy that allows styles from the
// app's own origin.
//
// The source files:
//
//	dashboard*  the options, the routes, and the check that a request is allowed
//	page*       code for all views: filters, links, texts, and advice about errors
//	reads       the limit on reads of the database, and the results that are kept
//	view_*      the views: overview, list of documents, timeline of a document, and health
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

// WithDocumentLink adds a link from a document's timeline to the document in your app.
// f returns the URL for a document's id, or "" for no link. f must be safe for
// concurrent use.
func WithDocumentLink(f func(documentID string) string) Option {
	return func(h *handler) { h.documentLink = f }
}

// WithFilters adds a filter to the page for each of the columns, such as "tenant_id".
// The user of the page chooses a value, and then sees only the events that have this
// value in the column. Filtering by a column without an index is slow. Even without
// WithFilters, the page has filters for an event's stage, type and user, if the table
// has these columns.
func WithFilters(columns ...string) Option {
	return func(h *handler) { h.columns = slices.Clone(columns) }
}

// WithStuckAfter sets how long a document may be under way before the page shows it as
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
	reads   readLimiter
}

// Handler returns an http.Handler that serves the page. Mount it on a path that ends in
// a slash, with or without http.StripPrefix. The handler accepts GET and HEAD requests,
// and is safe for concurrent use. If the client is nil, the page shows that the process
// has no Supabase settings.
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
