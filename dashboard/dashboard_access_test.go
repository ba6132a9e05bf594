package dashboard_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/docevents/docevents-go/dashboard"
)

func TestAccess(t *testing.T) {
	client := newClient(t, &server{summary: emptySummary})
	allow := func(allowed bool) dashboard.Option {
		return dashboard.WithAuthorize(func(*http.Request) bool { return allowed })
	}
	for name, tt := range map[string]struct {
		change func(*http.Request)
		want   int // with WithLoopback
	}{
		"loopback":            {func(*http.Request) {}, 200},
		"IPv6":                {func(r *http.Request) { r.RemoteAddr, r.Host = "[::1]:50000", "[::1]:8080" }, 200},
		"IPv4 in IPv6":        {func(r *http.Request) { r.RemoteAddr = "[::ffff:127.0.0.1]:50000" }, 200},
		"an address, no port": {func(r *http.Request) { r.Host = "127.0.0.1" }, 200},
		"another machine":     {func(r *http.Request) { r.RemoteAddr = "10.0.0.7:50000" }, 403},
		"no address":          {func(r *http.Request) { r.RemoteAddr = "@" }, 403},
		"through a proxy":     {func(r *http.Request) { r.Header.Set("X-Forwarded-For", "127.0.0.1") }, 403},
		"a standard proxy":    {func(r *http.Request) { r.Header.Set("Forwarded", "") }, 403},
		"an old proxy":        {func(r *http.Request) { r.ProtoMinor = 0 }, 403},
		"a rebound name":      {func(r *http.Request) { r.Host = "evil.test:8080" }, 403},
		"a network address":   {func(r *http.Request) { r.Host = "192.168.0.7" }, 403},
		"no host":             {func(r *http.Request) { r.Host = "" }, 403},
	} {
		for _, h := range []struct {
			options string
			handler http.Handler
			want    int
		}{
			{"none", dashboard.Handler(client), 403},
			{"nil", dashboard.Handler(client, nil), 403},
			{"WithLoopback", dashboard.Handler(client, dashboard.WithLoopback()), tt.want},
			{"WithAuthorize, true", dashboard.Handler(client, allow(true)), 200},
			{"WithAuthorize, false", dashboard.Handler(client, allow(false)), 403},
			{"WithAuthorize, nil", dashboard.Handler(client, dashboard.WithAuthorize[func(*http.Request) bool](nil)), 403},
			{"both, true", dashboard.Handler(client, dashboard.WithLoopback(), allow(true)), tt.want},
			{"both, false", dashboard.Handler(client, dashboard.WithLoopback(), allow(false)), 403},
		} {
			w := ask(h.handler, httptest.NewRequest(http.MethodGet, "/", nil), tt.change)
			if w.Code != h.want {
				t.Errorf("%s, options %s: %d, want %d", name, h.options, w.Code, h.want)
			}
			if w.Code == 403 && !strings.Contains(w.Body.String(), "dashboard.WithAuthorize") && !strings.Contains(w.Body.String(), "may not") {
				t.Errorf("%s, options %s: the refusal is %q", name, h.options, w.Body)
			}
		}
	}
}

// TestAccessToEveryView checks that no view can be seen without an option, and
// that no view reads the table before access is checked.
func TestAccessToEveryView(t *testing.T) {
	s := &server{summary: emptySummary}
	h := dashboard.Handler(newClient(t, s))
	for _, path := range []string{"/", "/documents", "/document?id=" + document, "/event?id=" + document, "/health", "/style.css", "/nothing"} {
		if w := get(h, path); w.Code != 403 {
			t.Errorf("%s: %d, want 403", path, w.Code)
		}
	}
	if n := s.count(); n > 0 {
		t.Errorf("%d requests", n)
	}
}

// TestAuthorizeResponds checks that if the function of WithAuthorize writes a response,
// this response replaces the 403.
func TestAuthorizeResponds(t *testing.T) {
	client := newClient(t, &server{summary: emptySummary})
	for name, tt := range map[string]struct {
		answer func(w http.ResponseWriter, r *http.Request) bool
		want   int
	}{
		"a redirect": {func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, "/login", http.StatusSeeOther)
			return false
		}, 303},
		"only a body":   {func(w http.ResponseWriter, _ *http.Request) bool { _, _ = w.Write([]byte("no")); return false }, 200},
		"only a header": {func(w http.ResponseWriter, _ *http.Request) bool { w.Header().Set("X-Reason", "no"); return false }, 403},
		"allowed":       {func(http.ResponseWriter, *http.Request) bool { return true }, 200},
	} {
		w := get(dashboard.Handler(client, dashboard.WithAuthorize(tt.answer)), "/")
		if isPage := strings.Contains(w.Body.String(), "</html>"); w.Code != tt.want || isPage != (name == "allowed") {
			t.Errorf("%s: %d, the page %t", name, w.Code, isPage)
		}
	}
}
