package dashboard

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// WithAuthorize makes f decide who may see the page. The page calls f for each
// request, also from several goroutines at once. If f returns false, the answer
// is a 403, unless f has written another one: a redirect to the app's login, or
// a 401 that asks for a password. With a nil f nobody may see the page.
func WithAuthorize[F func(*http.Request) bool | func(http.ResponseWriter, *http.Request) bool](f F) Option {
	return func(h *handler) {
		h.authorize = func(http.ResponseWriter, *http.Request) bool { return false }
		switch f := any(f).(type) {
		case func(*http.Request) bool:
			if f != nil {
				h.authorize = func(_ http.ResponseWriter, r *http.Request) bool { return f(r) }
			}
		case func(http.ResponseWriter, *http.Request) bool:
			if f != nil {
				h.authorize = f
			}
		}
	}
}

// WithLoopback allows requests from the same machine, to a loopback address or
// localhost, that have no header of a proxy. It is for development: a proxy on
// that machine that adds none of the usual headers looks like a local browser,
// and would show the page to everybody. With [WithAuthorize] as well, a request
// must pass both.
func WithLoopback() Option {
	return func(h *handler) { h.loopback = true }
}

// allow reports whether the page answers a request, and answers it if not.
func (h *handler) allow(w http.ResponseWriter, r *http.Request) bool {
	refusal := "You may not see this page."
	switch {
	case !h.loopback && h.authorize == nil:
		refusal = "This page shows users' data, so by default it answers nobody: " +
			"pass dashboard.WithAuthorize with your app's own check, or dashboard.WithLoopback() on a developer's machine."
	case h.loopback && !fromLoopback(r):
		refusal = "Because of dashboard.WithLoopback this page answers only requests from its own machine: " +
			"open it at localhost, without a proxy, or pass dashboard.WithAuthorize instead."
	case h.authorize == nil:
		return true
	default:
		answer := &watched{ResponseWriter: w}
		if h.authorize(answer, r) {
			return true
		}
		if answer.written {
			return false
		}
	}
	http.Error(w, refusal, http.StatusForbidden)
	return false
}

// watched notes whether an answer has been written.
type watched struct {
	http.ResponseWriter
	written bool
}

func (w *watched) WriteHeader(status int) {
	w.written = true
	w.ResponseWriter.WriteHeader(status)
}

func (w *watched) Write(b []byte) (int, error) {
	w.written = true
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *watched) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// fromLoopback reports whether a request comes from this machine and has not
// passed a proxy, as far as its headers show. HTTP/1.0 is a proxy's: older
// versions of nginx speak it. The Host must be local, or any web site could
// point its name at this machine and read the page in the user's browser.
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
