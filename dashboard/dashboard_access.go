package dashboard

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// WithAuthorize makes f decide who may see the page. If f returns false, the response
// is a 403. An f that takes a ResponseWriter can write a different response, such as a
// redirect to the app's login, before it returns false. f must be safe for concurrent
// use. If f is nil, every request is refused.
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

// WithLoopback allows requests from a browser on the machine where the app runs, if the
// page is opened at localhost or a loopback address. Requests through a proxy are
// refused. They are recognized by HTTP/1.0 or by a header such as X-Forwarded-For.
//
// Use WithLoopback only for development. If a proxy on this machine uses HTTP/1.1 and
// adds no such header, everybody who can reach the proxy sees the page. If you also use
// [WithAuthorize], a request must pass both checks.
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

// Unwrap is for http.ResponseController.
func (w *watched) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// fromLoopback reports whether r comes from a browser on this machine, and not through
// a proxy. A request with HTTP/1.0 comes from a proxy: older versions of nginx use it,
// and browsers don't.
//
// The Host of r must be localhost or a loopback address. This prevents DNS rebinding, in
// which a hostile web site points its own domain name at 127.0.0.1, so that its scripts
// can read the page in the developer's browser.
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
