package dashboard_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/dashboard"
)

const (
	testKey  = "sb_secret_0123456789"
	document = "11111111-1111-4111-8111-111111111111"
)

// hostile returns a text of n characters that would do harm in a page that
// didn't escape it.
func hostile(n int) string {
	const text = `"><script src=//evil.test></script>'&<img onerror=alert(1)>` + "\u202e\u2066\x1b[31m\u0085\u00ad\r\n"
	return string([]rune(strings.Repeat(text, n/60+1))[:n])
}

// A server is a transport that answers in place of PostgREST.
type server struct {
	summary   string           // the answer of docevents_summary; "" means that the function is missing
	documents string           // the same for docevents_documents
	timeline  string           // the answer for a timeline, if events is nil
	events    []map[string]any // the rows of the table
	maxRows   int              // the most events in an answer; 0 means 1,000
	status    int              // if not 0, every answer is an error with this status, code and message
	code      string
	message   string
	err       error // if not nil, there is no answer
	delay     time.Duration

	mu       sync.Mutex
	requests []*url.URL
}

// last returns the query of the last request.
func (s *server) last() url.Values {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests[len(s.requests)-1].Query()
}

func (s *server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.requests)
}

// window imitates PostgREST: it returns the newest events before a time, and the number
// of all events before that time.
func (s *server) window(query url.Values) (body string, total int) {
	before, all := strings.TrimPrefix(query.Get("created_at"), "lt."), []map[string]any{}
	for _, e := range slices.Backward(s.events) {
		if at := e["created_at"].(time.Time); before == "" || at.Format("2006-01-02T15:04:05.000000Z07:00") < before {
			all = append(all, e)
		}
	}
	text, err := json.Marshal(all[:min(len(all), cmp.Or(s.maxRows, 1000))])
	if err != nil {
		panic(err)
	}
	return string(text), len(all)
}

func (s *server) RoundTrip(req *http.Request) (*http.Response, error) {
	s.mu.Lock()
	s.requests = append(s.requests, req.URL)
	s.mu.Unlock()
	select {
	case <-time.After(s.delay):
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
	if s.err != nil {
		return nil, s.err
	}
	status, body, header := http.StatusOK, s.timeline, http.Header{"Content-Type": {"application/json"}}
	switch {
	case strings.HasSuffix(req.URL.Path, "/rpc/docevents_summary"):
		body = s.summary
	case strings.HasSuffix(req.URL.Path, "/rpc/docevents_documents"):
		body = s.documents
	case s.events != nil:
		var total int
		body, total = s.window(req.URL.Query())
		header.Set("Content-Range", fmt.Sprint("*/", total))
	}
	switch {
	case s.status != 0:
		status, body = s.status, `{"code":"`+s.code+`","message":"`+cmp.Or(s.message, "words of the server")+`"}`
	case body == "":
		status, body = http.StatusNotFound, `{"code":"PGRST202","message":"Could not find the function"}`
	case strings.HasPrefix(body, "<"):
		header.Set("Content-Type", "text/html")
	}
	return &http.Response{
		StatusCode: status, Header: header, Request: req,
		Body: io.NopCloser(strings.NewReader(body)),
	}, nil
}

func newClient(t testing.TB, s http.RoundTripper, opts ...docevents.Option) *docevents.Client {
	t.Helper()
	client, err := docevents.New("https://project.supabase.test", testKey, append(opts, docevents.WithTransport(s),
		docevents.WithSlog(slog.New(slog.DiscardHandler)))...)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// handler returns the page, with access from this machine.
func handler(client *docevents.Client, opts ...dashboard.Option) http.Handler {
	return dashboard.Handler(client, append(opts, dashboard.WithLoopback())...)
}

// get requests a path of the page as a browser on this machine does.
func get(h http.Handler, path string) *httptest.ResponseRecorder {
	return ask(h, httptest.NewRequest(http.MethodGet, path, nil), func(*http.Request) {})
}

// ask sends req as a browser on this machine does, but first calls change, which may
// modify it.
func ask(h http.Handler, req *http.Request, change func(*http.Request)) *httptest.ResponseRecorder {
	req.RemoteAddr, req.Host = "127.0.0.1:50000", "localhost:8080"
	change(req)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

// harmful matches markup that could do harm, and texts that must stay secret.
var harmful = regexp.MustCompile(strings.Join([]string{
	`(?i:<(script|iframe|object|style|base|img)\b)`, `(?i:<[^>]*\s(style|on[a-z]+)=)`, `(?i:<[^>]*\s(href|src|action)="?(/|[a-z]+:))`,
	"evil.test></script", "\u202e", "\u2066", "\x1b", testKey, "project.supabase.test", "ZgotmplZ",
}, "|"))

// check tests the status and the texts of a page, and the properties that every page
// has: no unsafe markup, no secrets, a limited size and the headers.
func check(t *testing.T, w *httptest.ResponseRecorder, status int, want ...string) {
	t.Helper()
	page := w.Body.String()
	if w.Code != status {
		t.Errorf("status %d, want %d", w.Code, status)
	}
	for _, text := range want {
		if !strings.Contains(page, text) {
			t.Errorf("no %q in\n%.3000s", text, page)
		}
	}
	if found := harmful.FindString(page); found != "" {
		t.Errorf("the page has %q", found)
	}
	if len(page) > 80_000 {
		t.Errorf("%d bytes, want 80,000 at most", len(page))
	}
	header := w.Header()
	for name, want := range map[string]string{
		"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
		"Referrer-Policy": "no-referrer", "Content-Length": fmt.Sprint(len(page)),
		"Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
	} {
		if got := header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestMethods(t *testing.T) {
	h := handler(newClient(t, &server{summary: emptySummary}))
	local := func(*http.Request) {}
	for _, method := range []string{"POST", "DELETE", "OPTIONS"} {
		w := ask(h, httptest.NewRequest(method, "/", nil), local)
		if w.Code != 405 || w.Header().Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d, Allow %q", method, w.Code, w.Header().Get("Allow"))
		}
	}
	w := ask(h, httptest.NewRequest(http.MethodHead, "/", nil), local) // accepts a body after HEAD, as a middleware may
	if w.Code != 200 || w.Body.Len() > 0 {
		t.Errorf("HEAD: %d, %d bytes", w.Code, w.Body.Len())
	}
	s := httptest.NewServer(h)
	defer s.Close()
	resp, err := http.Head(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != 200 || len(body) > 0 || resp.ContentLength < 1000 {
		t.Errorf("HEAD: %d, %d bytes of %d", resp.StatusCode, len(body), resp.ContentLength)
	}
}

// TestPrefixes checks that the page works under any prefix, with and without
// StripPrefix.
func TestPrefixes(t *testing.T) {
	h := handler(newClient(t, &server{summary: emptySummary, timeline: timeline(1, "", "")}))
	mux := http.NewServeMux()
	mux.Handle("/", h)
	mux.Handle("/a/b/", h)
	mux.Handle("/stripped/", http.StripPrefix("/stripped", h))
	mux.Handle("/bare/", http.StripPrefix("/bare/", h))
	mux.Handle("/exact", http.StripPrefix("/exact", h))
	for _, prefix := range []string{"/", "/a/b/", "/stripped/", "/bare/"} {
		for path, want := range map[string]string{
			"": "text/html; charset=utf-8", "document?id=" + document: "text/html; charset=utf-8", "style.css": "text/css; charset=utf-8", "icon.svg": "image/svg+xml",
		} {
			if w := get(mux, prefix+path); w.Code != 200 || w.Header().Get("Content-Type") != want || w.Body.Len() == 0 {
				t.Errorf("%s%s: %d %s", prefix, path, w.Code, w.Header().Get("Content-Type"))
			}
		}
		if w := get(mux, prefix+"page.html"); w.Code != 404 {
			t.Errorf("%spage.html: %d, want 404", prefix, w.Code)
		}
	}
	for _, query := range []string{"", "?range=7d&id=%22"} {
		if w := get(mux, "/exact"+query); w.Code != 301 || w.Header().Get("Location") != "./exact/"+query {
			t.Errorf("without the slash: %d to %q", w.Code, w.Header().Get("Location"))
		}
	}
}
