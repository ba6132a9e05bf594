// Package dashboard is a page about what happens to an app's documents: how
// many complete and fail, what fails and why, what is stuck, how long the steps
// take, and each document's timeline. Mount it behind the app's own
// authentication, under any prefix:
//
//	http.Handle("/admin/documents/", dashboard.Handler(client, dashboard.WithAuthorize(isAdmin)))
//
// It reads the table anew for every view, by [docevents.Client.Summary] and
// [docevents.Client.Timeline], and so needs the function of
// sql/014_create_docevents_reading.sql. It is plain HTML and one
// stylesheet, without any script, and works under any Content-Security-Policy
// that allows an app's own styles; links are relative. Texts from the rows, among
// them error messages, are shown: they are users' data.
package dashboard

import (
	"bytes"
	"context"
	"embed"
	"html/template"
	"net"
	"net/http"
	"net/netip"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/docevents/docevents-go"
)

const (
	// readTimeout bounds the reads of one view. Hosted Supabase cancels a
	// statement after 8 s.
	readTimeout = 15 * time.Second

	refreshEvery = time.Minute
)

// An Option changes a default of [Handler].
type Option func(*handler)

// WithAuthorize lets f say who may see the page: whoever it returns false for
// gets a 403. It is called for each request, at the same time from several
// goroutines. The default, and that of nil, is that only requests from this very
// machine are answered, to a loopback address and without a proxy in between. A
// proxy on this machine that adds none of the usual headers can't be told from
// its users: behind one, WithAuthorize it must be.
func WithAuthorize(f func(*http.Request) bool) Option {
	return func(h *handler) {
		if f != nil {
			h.authorize, h.refusal = f, "You may not see this page."
		}
	}
}

// Handler returns the page as an http.Handler, for GET and HEAD. Mount it on a
// path that ends in a slash, with or without http.StripPrefix. It may be used
// from several goroutines. A nil client gives a page that says so.
func Handler(client *docevents.Client, opts ...Option) http.Handler {
	h := &handler{
		client: client, authorize: fromLoopback,
		refusal: "This page shows users' data, so without dashboard.WithAuthorize it answers only to this very machine: " +
			"open it by localhost, without a proxy, or mount it behind your app's authentication with dashboard.WithAuthorize.",
	}
	for _, opt := range opts {
		if opt != nil {
			opt(h)
		}
	}
	return h
}

type handler struct {
	client    *docevents.Client
	authorize func(*http.Request) bool
	refusal   string
}

// fromLoopback says whether a request comes from this machine. Behind a proxy on
// it every request does, which the proxy's headers give away, or HTTP 1.0, which
// nginx speaks unless told otherwise; and a web site whose name leads here would
// come in the user's own browser, which Host gives away.
func fromLoopback(r *http.Request) bool {
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Via"} {
		if len(r.Header.Values(name)) > 0 {
			return false
		}
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	to, hostErr := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && r.ProtoAtLeast(1, 1) && from.Addr().Unmap().IsLoopback() &&
		(strings.EqualFold(host, "localhost") || hostErr == nil && to.Unmap().IsLoopback())
}

//go:embed page.html overview.html document.html style.css icon.svg
var files embed.FS

var templates = map[string]*template.Template{
	"overview.html": template.Must(template.ParseFS(files, "page.html", "overview.html")),
	"document.html": template.Must(template.ParseFS(files, "page.html", "document.html")),
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cache-Control", "no-store")
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		header.Set("Allow", "GET, HEAD")
		http.Error(w, "This page is read only: GET and HEAD.", http.StatusMethodNotAllowed)
		return
	case !h.authorize(r):
		http.Error(w, h.refusal, http.StatusForbidden)
		return
	}
	asked, query, _ := strings.Cut(r.RequestURI, "?")
	switch _, name := path.Split(r.URL.Path); {
	case name == "" && asked != "" && !strings.HasSuffix(asked, "/"): // StripPrefix took all: relative links would miss
		header.Set("Location", strings.TrimSuffix("./"+path.Base(asked)+"/?"+query, "?"))
		w.WriteHeader(http.StatusMovedPermanently)
	case name == "":
		h.serve(w, r, "overview.html", h.overview)
	case name == "document":
		h.serve(w, r, "document.html", h.document)
	case name == "style.css", name == "icon.svg":
		http.ServeFileFS(w, r, files, name)
	default:
		http.NotFound(w, r)
	}
}

// serve renders a page in memory first, so that its status is the right one.
func (h *handler) serve(w http.ResponseWriter, r *http.Request, name string, view func(context.Context, *page) any) {
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	p := newPage(r)
	var body bytes.Buffer
	if err := templates[name].ExecuteTemplate(&body, name, view(ctx, p)); err != nil {
		http.Error(w, "The page could not be made.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(body.Len()))
	w.WriteHeader(p.status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body.Bytes()) // the reader may be gone
	}
}
