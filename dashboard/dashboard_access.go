package dashboard

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// WithAuthorize lets f say who may see the page. It is called for each request,
// at the same time from several goroutines. Whoever it returns false for gets a
// 403, unless f has written another answer itself: a redirect to the app's
// login, or a 401 that asks for a password. A nil f lets nobody in.
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

// WithLoopback answers requests from this machine alone, to a loopback address
// or localhost, which have not come through a proxy. It is for development: a
// proxy on this machine that adds none of the usual headers can't be told from a
// local browser, and would show the page to the world. Given with
// [WithAuthorize], a request must pass both.
func WithLoopback() Option {
	return func(h *handler) { h.loopback = true }
}

// allow reports whether the page answers a request, and answers it if not.
func (h *handler) allow(w http.ResponseWriter, r *http.Request) bool {
	refusal := "You may not see this page."
	switch {
	case !h.loopback && h.authorize == nil:
		refusal = "This page shows users' data, so it answers nobody until the app says who may see it: " +
			"pass dashboard.WithAuthorize with your app's own check, or dashboard.WithLoopback() on a developer's machine."
	case h.loopback && !fromLoopback(r):
		refusal = "This page answers only to this machine, because of dashboard.WithLoopback: " +
			"open it by localhost, without a proxy, or let dashboard.WithAuthorize say who may see it."
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

// fromLoopback reports whether a request comes from this machine. Behind a proxy
// on it every request does: the proxy's headers give that away, or HTTP/1.0,
// which older nginx speak. A web site whose name leads to this machine comes in
// the user's own browser: the Host gives it away.
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
