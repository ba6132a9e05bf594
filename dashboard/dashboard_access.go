package dashboard

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// WithAuthorize makes f decide who may see the page. f returns true to allow a request.
// If it returns false, the response is a 403. f may write another response before it
// returns false, such as a redirect to the app's login or a 401 that asks for a
// password. f must be safe for concurrent use. If f is nil, nobody may see the page.
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

// WithLoopback allows requests of a browser on the same machine. The request must be
// addressed to localhost or a loopback address, and must not have a header that proxies
// add. Use it for development only: some proxies add no header, and a proxy on this
// machine would show the page to everybody who reaches the proxy. If [WithAuthorize] is
// passed as well, a request must pass both checks.
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

// watched is a ResponseWriter that records whether a response has been written.
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

// fromLoopback reports whether r comes from this machine, without a sign of a proxy. A
// sign is a header that proxies add, or HTTP/1.0, which older versions of nginx use. The
// Host of r must also be local. Otherwise any web site could point its domain name at
// this machine, and read the page through the browser of a user who visits the site.
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
