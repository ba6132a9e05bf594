package dashboard_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/dashboard"
)

// timeline returns an answer with n events of one document, a second apart. If n is a
// multiple of 4, the last event has the type "failed".
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
	synctest.Test(t, func(t *testing.T) { // it is midnight of 2000-01-01
		open := func(body, query string) *httptest.ResponseRecorder {
			return get(handler(newClient(t, &server{timeline: body})), "/document?id="+query)
		}
		check(t, open(timeline(4, "page 3: too small", "extract"), document+"&range=7d"), 200,
			"Document <code><bdi>"+document+"</bdi></code>", `<a href="./?range=7d">`,
			"The latest event is <strong><bdi>failed</bdi></strong> in <bdi>extract</bdi>, 59 min ago. The first event came 3.0 s before it.",
			"<code><bdi>page 3: too small</bdi></code>", "1999-12-31 </span>23:00:03", `<span class="note">&#43;1.0 s</span>`, "500 ms",
			`fill="url(#stripes)" d="M833 1h166v8h-166z"`, `class="completed-fill" d="M500 1h166v8h-166z"`,
			`The newest first. <a href="?id=`+document+`&amp;order=oldest&amp;range=7d">Show the oldest first</a>`,
			`<dt><bdi>user</bdi></dt><dd><a href="documents?range=7d&amp;user=`+document+`"><bdi>`+document)
		check(t, open(timeline(1000, "", ""), document), 200, "The first of the newest 1,000 events came", "whole document")
		check(t, open(timeline(1, "", ""), strings.ToUpper(document)), 200, " 1 h ago.</p>")
		check(t, open("[]", document), 404, "No events about this document")
	})
}

// TestLongMessages checks that a reader can see a complete error message. If the page has
// no room for it, the page links to the message as plain text.
func TestLongMessages(t *testing.T) {
	long := "Traceback:\n  line 1 <b>\n" + strings.Repeat("  at module.function (file.js:12)\n", 200) + "  the end"
	largest := strings.Repeat("x", 64<<10)
	for name, tt := range map[string]struct {
		events  int
		message string // of each event
		inPage  []string
	}{
		"short":            {1, "page 3: too small", []string{"<code><bdi>page 3: too small</bdi></code>"}},
		"several lines":    {1, long, []string{"<details><summary><code><bdi>Traceback: line 1 &lt;b&gt; at", "<pre tabindex=\"0\"><bdi>Traceback:\n  line 1 &lt;b&gt;\n", "  the end</bdi></pre>"}},
		"the longest":      {1, largest, []string{largest + "</bdi></pre>"}},
		"many of them":     {60, long, []string{"  the end</bdi></pre>", asPlainText}},
		"several longest":  {3, largest, []string{asPlainText}},
		"longest, escaped": {1, strings.Repeat("<", 64<<10), []string{asPlainText}},
	} {
		s := &server{}
		for i := range tt.events {
			s.events = append(s.events, row(time.Date(2026, 1, 1, 0, i, 0, 0, time.UTC), i, "failed", tt.message, nil))
		}
		h := handler(newClient(t, s))
		w := get(h, "/document?id="+document)
		check(t, w, 200, tt.inPage...)
		if got := strings.Count(w.Body.String(), "<tr>"); got != min(tt.events, 50)+1 {
			t.Errorf("%s: %d rows", name, got)
		}
		if slices.Contains(tt.inPage, asPlainText) {
			text := plainText(t, h, w)
			if text.Code != 200 || text.Header().Get("Content-Type") != "text/plain; charset=utf-8" || !strings.HasSuffix(text.Body.String(), "\n\n"+tt.message+"\n") {
				t.Errorf("%s: as plain text %d %s %.200q", name, text.Code, text.Header(), text.Body)
			}
		}
	}
	h := handler(newClient(t, &server{timeline: "[]"}))
	if w := get(h, "/event?id="+document+"&event="+document); w.Code != 404 || !strings.Contains(w.Body.String(), "No such event") {
		t.Errorf("a missing event: %d %q", w.Code, w.Body)
	}
}

const asPlainText = "The complete event as plain text"

// plainText opens the page's first link to an event as plain text.
func plainText(t *testing.T, h http.Handler, page *httptest.ResponseRecorder) *httptest.ResponseRecorder {
	t.Helper()
	link := regexp.MustCompile(`href="(event[^"]*)"`).FindStringSubmatch(page.Body.String())
	if link == nil {
		t.Fatal("no link to an event")
	}
	return get(h, "/"+strings.ReplaceAll(link[1], "&amp;", "&"))
}

// row returns a row of the table as PostgREST does.
func row(at time.Time, i int, typ, message string, extra map[string]any) map[string]any {
	r := map[string]any{
		"id": fmt.Sprintf("00000000-0000-4000-8000-%012d", i), "document_id": document, "user_id": document, "event_type": typ, "stage": fmt.Sprint("step ", i),
		"error_message": message, "duration_ms": nil, "created_at": at,
	}
	maps.Copy(r, extra)
	return r
}

// TestFacts checks that the page shows the user and the extra columns, and shows
// a value once if all events share it.
func TestFacts(t *testing.T) {
	at := func(i int) time.Time { return time.Date(2026, 1, 1, 0, i, 0, 0, time.UTC) }
	s := &server{events: []map[string]any{
		row(at(0), 0, "begun", "", map[string]any{"tenant_id": "acme", "worker": 7, "tags": []string{"<b>", "new"}, "note": nil}),
		row(at(1), 1, "done", "", map[string]any{"tenant_id": "acme", "worker": 8, "tags": nil, "note": strings.Repeat("long ", 100)}),
	}}
	client := newClient(t, s, docevents.WithColumns(docevents.Columns{Extra: []string{"tenant_id", "worker", "tags", "note"}}),
		docevents.WithEventTypes(docevents.EventTypes{Started: []docevents.EventType{"begun"}, Completed: []docevents.EventType{"done"}}))
	h := handler(client, dashboard.WithDocumentLink(func(id string) string { return "../doc/" + id }))
	w := get(h, "/document?id="+document)
	check(t, w, 200, `<dt><bdi>tenant_id</bdi></dt><dd><bdi>acme</bdi></dd>`, `<dt><bdi>user</bdi></dt>`, `<bdi>worker</bdi> <bdi>7</bdi>`, `<bdi>worker</bdi> <bdi>8</bdi>`,
		`<bdi>tags</bdi> <bdi>[&#34;&lt;b&gt;&#34;,&#34;new&#34;]</bdi>`, "long long…", "The complete event as plain text",
		`<span class="key started"><bdi>begun</bdi>`, `<span class="key completed"><bdi>done</bdi>`, `<a href="../doc/`+document+`">Open it in the app</a>`)
	if n := strings.Count(w.Body.String(), "acme"); n != 1 {
		t.Errorf("the tenant is shown %d times, want once", n)
	}
	text := plainText(t, h, w).Body.String()
	for _, want := range []string{"document: " + document, "time: 2026-01-01T00:01:00Z", "type: done", "stage: step 1", "worker: 8", strings.Repeat("long ", 100)} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %q", want, text)
		}
	}
}

// TestDocumentLink checks that a link into the app can't run a script.
func TestDocumentLink(t *testing.T) {
	h := func(link string) http.Handler {
		return handler(newClient(t, &server{timeline: timeline(1, "", "")}), dashboard.WithDocumentLink(func(string) string { return link }))
	}
	if page := get(h(""), "/document?id="+document).Body.String(); strings.Contains(page, "Open it in the app") {
		t.Error("a link although the URL is empty")
	}
	if page := get(h("javascript:alert(1)"), "/document?id="+document).Body.String(); strings.Contains(page, "javascript") {
		t.Error("a link that runs a script")
	}
}

// TestTextIDs checks that a document with any text id can be opened.
func TestTextIDs(t *testing.T) {
	for _, id := range []string{"42", "invoice/2026 #7?a=b&c=d+e%20", "é\u202e\"'<b>", " ", strings.Repeat("x", 1024)} {
		s := &server{timeline: strings.ReplaceAll(timeline(1, "", ""), document, "7"), documents: list(1, func(int) string { return "" }, func(int) string { return id })}
		h := handler(newClient(t, s, docevents.WithColumns(docevents.Columns{TextIDs: true})))
		link := regexp.MustCompile(`class="id" href="([^"]*)"`).FindStringSubmatch(get(h, "/documents").Body.String())
		if link == nil {
			t.Fatalf("%q: no link", id)
		}
		for _, path := range []string{strings.NewReplacer("&amp;", "&", "&#43;", "+").Replace(link[1]), "document?" + url.Values{"id": {id}}.Encode()} {
			check(t, get(h, "/"+path), 200)
			if got := s.last().Get("document_id"); got != "eq."+id {
				t.Errorf("%q: asked for %q", id, got)
			}
		}
	}
	h := handler(newClient(t, &server{timeline: "[]"}, docevents.WithColumns(docevents.Columns{TextIDs: true})))
	check(t, get(h, "/document?id="), 400, "This is not a document id")
	check(t, get(h, "/document?id="+strings.Repeat("x", 1025)), 400, "This is not a document id")
	check(t, get(h, "/document?id=a%00"), 400, "This is not a document id")
}

// TestPages checks that each event is on exactly one page in each order, for
// documents with many events and with events of equal times.
func TestPages(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		events int
		at     func(i int) time.Time
	}{
		"one":             {1, func(i int) time.Time { return begin }},
		"a page":          {50, func(i int) time.Time { return begin.Add(time.Duration(i) * time.Second) }},
		"two pages":       {51, func(i int) time.Time { return begin.Add(time.Duration(i) * time.Microsecond) }},
		"a window":        {120, func(i int) time.Time { return begin.Add(time.Duration(i) * time.Second) }},
		"three windows":   {345, func(i int) time.Time { return begin.Add(time.Duration(i) * time.Second) }},
		"equal times":     {234, func(i int) time.Time { return begin.Add(time.Duration(i/7) * time.Second) }},
		"many equal ones": {290, func(i int) time.Time { return begin.Add(time.Duration(i/110) * time.Second) }},
	} {
		s := &server{maxRows: 120} // a project can set its own limit
		for i := range tt.events {
			s.events = append(s.events, row(tt.at(i), i, "completed", "", nil))
		}
		h := handler(newClient(t, s))
		walk := func(path string) (steps []string) {
			for path != "" && len(steps) <= tt.events {
				page := get(h, path).Body.String()
				for _, step := range regexp.MustCompile(`class="of"><bdi>(step \d+)`).FindAllStringSubmatch(page, -1) {
					steps = append(steps, step[1])
				}
				path = nextPage(page, `rel="next"`)
			}
			return steps
		}
		want := make([]string, tt.events)
		for i := range want {
			want[i] = fmt.Sprint("step ", tt.events-1-i)
		}
		if got := walk("/document?id=" + document); !slices.Equal(got, want) {
			t.Errorf("%s, newest first: %d events, want %d", name, len(got), len(want))
		}
		if tt.events > s.maxRows {
			continue // with the oldest first, the pages begin in the newest window
		}
		slices.Reverse(want)
		if got := walk("/document?order=oldest&id=" + document); !slices.Equal(got, want) {
			t.Errorf("%s, oldest first: %d events, want %d", name, len(got), len(want))
		}
	}
}

// TestEventsBefore checks that a timeline with the oldest event first begins with the newest
// 1,000 events, and links to the events before these.
func TestEventsBefore(t *testing.T) {
	s := &server{}
	for i := range 1500 {
		s.events = append(s.events, row(time.Date(2026, 1, 1, 0, 0, i, 0, time.UTC), i, "completed", "", nil))
	}
	h := handler(newClient(t, s))
	first := get(h, "/document?order=oldest&id="+document)
	check(t, first, 200, "step 500<", "The oldest of 1,000 events first", "Earlier events")
	path := nextPage(first.Body.String(), ">← Earlier events")
	check(t, get(h, path), 200, "step 0<", "This page shows more of the document's events.", `>First page</a>`)
}

// nextPage returns the path of the link just before the text in mark. If no link is
// there, it returns "".
func nextPage(page, mark string) string {
	link := regexp.MustCompile(`href="([^"]*)" ?` + regexp.QuoteMeta(mark)).FindStringSubmatch(page)
	if link == nil {
		return ""
	}
	return "/document" + strings.ReplaceAll(link[1], "&amp;", "&")
}
