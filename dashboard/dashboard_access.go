package dashboard

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// WithAuthorize makes f decide who may see the page. f returns true to allow a
// request. The page calls f for each request, from several goroutines at once.
// If f returns false, the response is a 403, unless f has written a response,
// such as a redirect to the app's login or a 401 that asks for a password. If f
// is nil, nobody may see the page.
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

// WithLoopback allows requests that come from the same machine, are addressed to
// localhost or a loopback address, and have no header of a proxy. It is for
// development only: a proxy on that machine that adds none of the usual headers
// looks like a local browser, so everybody who reaches the proxy could see the
// page. If [WithAuthorize] is passed as well, a request must pass both checks.
func WithLoopback() Option {
	return func(h *handler) { h.loopback = true }
}

// allow reports whether r may see the page. If not, it writes the response.
func (h *handler) allow(w http.ResponseWriter, r *http.Request) bool {
	refusal := "You may not see this page."
	switch {
	case !h.loopback && h.authorize == nil:
		refusal = "This page shows users' data, so by default nobody may see it: " +
			"pass dashboard.WithAuthorize with your app's own check, or dashboard.WithLoopback() on a developer's machine."
	case h.loopback && !fromLoopback(r):
		refusal = "Because of dashboard.WithLoopback, only this machine may see the page: " +
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

// watched records whether a response has been written.
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

// Unwrap lets http.ResponseController find the wrapped ResponseWriter.
func (w *watched) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// fromLoopback reports whether r comes from this machine and its headers show no
// proxy. HTTP/1.0 counts as a sign of a proxy, because older versions of nginx
// speak it. The Host must be local. Otherwise any web site could point its
// domain name at this machine and read the page through the user's browser.
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
