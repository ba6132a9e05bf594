package dashboard_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/dashboard"
)

const (
	testKey  = "sb_secret_0123456789"
	document = "11111111-1111-4111-8111-111111111111"
)

// hostile is a text that would do harm wherever it came through, of so many
// characters.
func hostile(n int) string {
	const text = `"><script src=//evil.test></script>'&<img onerror=alert(1)>` + "\u202e\u2066\x1b[31m\u0085\u00ad\r\n"
	return string([]rune(strings.Repeat(text, n/60+1))[:n])
}

// A server answers for PostgREST.
type server struct {
	summary  string // of the function; "": that it is missing
	timeline string
	status   int // instead of both
	code     string
	delay    time.Duration
}

func (s *server) RoundTrip(req *http.Request) (*http.Response, error) {
	select {
	case <-time.After(s.delay):
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
	status, body := http.StatusOK, s.timeline
	if strings.Contains(req.URL.Path, "/rpc/") {
		body = s.summary
	}
	switch {
	case s.status != 0:
		status, body = s.status, `{"code":"`+s.code+`","message":"words of the server"}`
	case body == "":
		status, body = http.StatusNotFound, `{"code":"PGRST202","message":"Could not find the function"}`
	}
	return &http.Response{
		StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, Request: req,
		Body: io.NopCloser(strings.NewReader(body)),
	}, nil
}

func newClient(t testing.TB, s http.RoundTripper) *docevents.Client {
	t.Helper()
	client, err := docevents.New("https://project.supabase.test", testKey, docevents.WithTransport(s),
		docevents.WithSlog(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// get asks the page as a browser on this machine does.
func get(h http.Handler, path string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(http.MethodGet, path, nil)
	req.RemoteAddr, req.Host = "127.0.0.1:50000", "localhost:8080"
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

// check holds what is true of every page.
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
	for _, bad := range []string{
		`(?i)<(script|iframe|object|style|base|img)\b`, `(?i)<[^>]*\s(style|on[a-z]+)=`, `(?i)<[^>]*\s(href|src|action)="?(/|[a-z]+:)`,
		"evil.test></script", "\u202e", "\u2066", "\x1b", testKey, "project.supabase.test", "ZgotmplZ",
	} {
		if found := regexp.MustCompile(bad).FindString(page); found != "" {
			t.Errorf("the page has %q", found)
		}
	}
	if len(page) > 60_000 {
		t.Errorf("%d bytes, want 60,000 at most", len(page))
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

// fullSummary has as much of everything as the function gives, in texts that are
// as long as they come.
func fullSummary(text func(n int) string, now time.Time) string {
	list := func(n int, item func(i int) map[string]any) (items []map[string]any) {
		for i := range n {
			items = append(items, item(i))
		}
		return items
	}
	ago := func(minutes int) time.Time { return now.Add(-time.Duration(minutes) * time.Minute) }
	body, err := json.Marshal(map[string]any{
		"since": ago(1440), "until": now, "documents": 1_234_567, "completed": 1_100_000, "failed": 34_567, "under_way": 100_000,
		"last_completed": ago(2), "last_failure": nil, "interval_seconds": 900,
		"series": list(100, func(i int) map[string]any {
			return map[string]any{"at": ago(1440 - 15*i), "completed": 11_000 + i, "failed": 345, "under_way": 1000, "failures": 400 + i}
		}),
		"stages_total": 70, "stages": list(20, func(i int) map[string]any {
			return map[string]any{"stage": text(200), "count": 100_000, "failed": 1000 + i, "measured": 99_000, "p50_ms": 1500, "p95_ms": 90_000 - i, "max_ms": 8_000_000}
		}),
		"errors_total": 4321, "errors": list(20, func(i int) map[string]any {
			return map[string]any{"stage": text(200), "error": text(200), "count": 4321 - i, "documents": 1, "first_at": ago(1400), "last_at": ago(i), "example": document}
		}),
		"stuck_total": 99, "stuck": list(20, func(i int) map[string]any {
			return map[string]any{"document_id": document, "started": ago(100 - i), "starts": 3, "last_event": text(200), "last_stage": text(200), "last_at": ago(31)}
		}),
	})
	if err != nil {
		panic(err)
	}
	return string(body)
}

const emptySummary = `{"since":"2026-01-01T00:00:00+00:00","until":"2026-01-01T01:00:00+00:00","documents":0,"completed":0,"failed":0,` +
	`"under_way":0,"last_completed":null,"last_failure":null,"interval_seconds":900,"series":[{"at":"2026-01-01T00:00:00+00:00"}],` +
	`"stages_total":0,"stages":[],"errors_total":0,"errors":[],"stuck_total":0,"stuck":[]}`

func TestOverview(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // where it is midnight of 2000-01-01
		s := &server{summary: fullSummary(func(int) string { return "page # of #" }, time.Now())}
		h := dashboard.Handler(newClient(t, s))
		check(t, get(h, "/?range=24h"), 200,
			"In the last 24 hours <strong>1,234,567</strong> documents were seen: 1,100,000 completed, 34,567 failed, 100,000 under way, <strong>99 of them stuck</strong>",
			"<dd>97 %</dd>", `<dd>2 min ago</dd><dd class="note"><time datetime="1999-12-31T23:58:00Z">1999-12-31 23:58:00</time>`, // the last success
			`<dd>none</dd><dd class="note">in this range</dd>`, // the last failure
			`<a href="?range=24h" aria-current="page">24h</a>`, `<tr><th scope="row">00:15</th><td>11001</td><td>345</td><td>1000</td><td>401</td></tr>`,
			"<td>1.5 s</td><td>1 min 30 s</td>", "2 h 13 min", "The slowest 20 of 70", "The first 20 of 4,321", "The first 20 of 99",
			"page # of #", `href="document?id=`+document+`&amp;range=24h"`, "…11111111", `http-equiv="refresh" content="60"`, `<a href="?range=24h&amp;refresh=off">Stop that</a>`)
		s.summary = strings.Replace(s.summary, `"documents":1234567`, `"documents":1`, 1)
		still := get(h, "/?refresh=off")
		check(t, still, 200, "<strong>1</strong> document was seen", `aria-current="page">24h</a>`, `<a href="?">Load it every minute</a>`)
		if strings.Contains(still.Body.String(), "http-equiv") {
			t.Error("refresh=off doesn't switch it off")
		}
	})
}

// Whatever rows hold, nothing of it is markup, and the page stays small.
func TestHostileRows(t *testing.T) {
	s := &server{summary: fullSummary(hostile, time.Now()), timeline: timeline(1000, hostile(64<<10), hostile(1<<10))}
	h := dashboard.Handler(newClient(t, s))
	check(t, get(h, "/"), 200, "&lt;script")
	check(t, get(h, "/document?id="+document), 200, "&lt;script", "older events are not shown")
	wide := strings.Repeat("&😀", 1000)
	s.summary, s.timeline = fullSummary(func(n int) string { return wide[:n] }, time.Now()), timeline(1000, wide, wide)
	check(t, get(h, "/"), 200)
	check(t, get(h, "/document?id="+document), 200)
	id, err := json.Marshal(hostile(100))
	if err != nil {
		t.Fatal(err)
	}
	s.summary = fullSummary(func(int) string { return "a" }, time.Now())
	s.summary = strings.ReplaceAll(s.summary, document, string(id[1:len(id)-1])) // where a function of one's own has text for ids
	check(t, get(h, "/"), 200)
	long := strings.Repeat("%22", 5000)
	check(t, get(h, "/?range="+long+"&refresh="+long+"&id="+long), 200)
	check(t, get(h, "/document?range="+long+"&refresh="+long+"&id="+long), 400)
	for _, query := range []string{"?range=%22%3E%3Cscript", "?refresh=%22%3E%3Cscript%3E", "?id=%22%3E%3Cscript%3E"} {
		check(t, get(h, "/"+query), 200)
	}
	check(t, get(h, "/document?id=%22%3E%3Cscript%3E&range=%22%3E%3Cscript"), 400, "no document&#39;s id")
}

// timeline is rows of one document, a second apart, the last one failed.
func timeline(n int, message, stage string) string {
	rows := make([]map[string]any, n)
	start := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(-time.Hour)
	for i := range rows {
		typ := []string{"upload_started", "processing_started", "completed", "failed"}[min(i%4, n-1)]
		rows[i] = map[string]any{
			"id": document, "document_id": document, "user_id": document, "event_type": typ, "stage": stage, "error_message": nil, "duration_ms": nil,
			"created_at": start.Add(time.Duration(i) * time.Second),
		}
		if typ == "completed" || typ == "failed" {
			rows[i]["duration_ms"] = 500
		}
		if typ == "failed" {
			rows[i]["error_message"] = message
		}
	}
	slices.Reverse(rows) // Timeline asks for the newest first
	body, err := json.Marshal(rows)
	if err != nil {
		panic(err)
	}
	return string(body)
}

func TestDocument(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{timeline: timeline(4, "page 3: too small", "extract")}
		h := dashboard.Handler(newClient(t, s))
		check(t, get(h, "/document?id="+document+"&range=7d"), 200, "Document <code>"+document+"</code>", `<a href="./?range=7d">`,
			"The latest event is <strong>failed</strong> of <bdi>extract</bdi>, 59 min ago. From the first to the last it took 3.0 s",
			"<code><bdi>page 3: too small</bdi></code>", "1999-12-31 </span>23:00:03", "500 ms",
			`fill="url(#stripes)" d="M833 1h166v8h-166z"`, `class="completed-fill" d="M500 1h166v8h-166z"`)
		s.timeline = timeline(1000, "", "")
		check(t, get(h, "/document?id="+document), 200, "There are older events than these", "From the first of these to the last", "950 older events are not shown", "whole document")
		s.timeline = timeline(1, "", "")
		check(t, get(h, "/document?id="+strings.ToUpper(document)), 200, "From the first to the last it took 0 ms")
		s.timeline = "[]"
		check(t, get(h, "/document?id="+document), 404, "No events about this document")
		check(t, get(h, "/document?id=42"), 400, "no document&#39;s id")
		check(t, get(h, "/document"), 400, "no document&#39;s id")
	})
}

// What can't be read has a page that says what to do, with this process' counts.
func TestProblems(t *testing.T) {
	for _, tt := range []struct {
		name   string
		server *server
		status int
		want   string
	}{
		{"empty table", &server{summary: emptySummary}, 200, "No events in the last 24 hours"},
		{"no series", &server{summary: strings.Replace(emptySummary, `[{"at":"2026-01-01T00:00:00+00:00"}]`, "[]", 1)}, 200, "No events in the last 24 hours"},
		{"no function", &server{}, 502, "Run sql/014_create_docevents_reading.sql"},
		{"refused key", &server{status: 401}, 502, "The server refused to answer"},
		{"statement timeout", &server{status: 500, code: "57014"}, 504, "The server took too long"},
		{"gateway timeout", &server{status: 504}, 504, "The server took too long"},
		{"hanging server", &server{delay: time.Hour}, 504, "The server took too long"},
		{"other answers", &server{summary: "[]"}, 502, "No answer from the server"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				check(t, get(dashboard.Handler(newClient(t, tt.server)), "/"), tt.status, tt.want, "This process", "Delivered")
				if took := time.Since(start); took > 15*time.Second {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
	check(t, get(dashboard.Handler(nil), "/"), 200, "This process has no Supabase settings")
	check(t, get(dashboard.Handler(new(docevents.Client)), "/"), 200, "This process has no Supabase settings")
	check(t, get(dashboard.Handler(nil), "/document?id="+document), 404, "No events")
}

func TestStats(t *testing.T) {
	client := newClient(t, &server{summary: emptySummary})
	for range 1234 {
		client.Record(docevents.Event{DocumentID: "42"})
	}
	check(t, get(dashboard.Handler(client), "/"), 200, "<dt>Recorded</dt><dd>1,234</dd>", "<dt>Lost</dt><dd>1,234 invalid</dd>")
}

func TestAuthorize(t *testing.T) {
	client := newClient(t, &server{summary: emptySummary})
	ask := func(h http.Handler, change func(*http.Request)) int {
		req := httptest.NewRequest(http.MethodGet, "/", nil)
		req.RemoteAddr, req.Host = "127.0.0.1:50000", "localhost:8080"
		change(req)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		if w.Code == 403 && !strings.Contains(w.Body.String(), "dashboard.WithAuthorize") && !strings.Contains(w.Body.String(), "may not") {
			t.Errorf("the refusal says %q", w.Body)
		}
		return w.Code
	}
	for name, tt := range map[string]struct {
		change func(*http.Request)
		want   int
	}{
		"loopback":            {func(*http.Request) {}, 200},
		"IPv6":                {func(r *http.Request) { r.RemoteAddr, r.Host = "[::1]:50000", "[::1]:8080" }, 200},
		"IPv4 in IPv6":        {func(r *http.Request) { r.RemoteAddr = "[::ffff:127.0.0.1]:50000" }, 200},
		"an address, no port": {func(r *http.Request) { r.Host = "127.0.0.1" }, 200},
		"another machine":     {func(r *http.Request) { r.RemoteAddr = "10.0.0.7:50000" }, 403},
		"no address":          {func(r *http.Request) { r.RemoteAddr = "@" }, 403},
		"through a proxy":     {func(r *http.Request) { r.Header.Set("X-Forwarded-For", "127.0.0.1") }, 403},
		"by the standard":     {func(r *http.Request) { r.Header.Set("Forwarded", "") }, 403},
		"a silent proxy":      {func(r *http.Request) { r.ProtoMinor = 0 }, 403},
		"a rebound name":      {func(r *http.Request) { r.Host = "evil.test:8080" }, 403},
		"this machine's name": {func(r *http.Request) { r.Host = "192.168.0.7" }, 403},
		"no host":             {func(r *http.Request) { r.Host = "" }, 403},
	} {
		if got := ask(dashboard.Handler(client), tt.change); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
		if got := ask(dashboard.Handler(client, dashboard.WithAuthorize(nil), nil), tt.change); got != tt.want {
			t.Errorf("%s, WithAuthorize(nil): %d, want %d", name, got, tt.want)
		}
		for allowed, want := range map[bool]int{true: 200, false: 403} {
			h := dashboard.Handler(client, dashboard.WithAuthorize(func(*http.Request) bool { return allowed }))
			if got := ask(h, tt.change); got != want {
				t.Errorf("%s, WithAuthorize says %v: %d", name, allowed, got)
			}
		}
	}
}

func TestMethods(t *testing.T) {
	h := dashboard.Handler(newClient(t, &server{summary: emptySummary}))
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "PATCH"} {
		req := httptest.NewRequest(method, "/", nil)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		if w.Code != 405 || w.Header().Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d, Allow %q", method, w.Code, w.Header().Get("Allow"))
		}
	}
	req := httptest.NewRequest(http.MethodHead, "/", nil)
	req.RemoteAddr, req.Host = "127.0.0.1:50000", "localhost"
	w := httptest.NewRecorder() // which takes a body, as a middleware may
	if h.ServeHTTP(w, req); w.Code != 200 || w.Body.Len() > 0 {
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

// It works wherever it is mounted, with and without StripPrefix.
func TestPrefixes(t *testing.T) {
	h := dashboard.Handler(newClient(t, &server{summary: emptySummary, timeline: timeline(1, "", "")}))
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
