package dashboard_test

import (
	"encoding/json"
	"fmt"
	"maps"
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

// list returns an answer of docevents_documents with n documents, a minute apart.
func list(n int, text func(n int) string, id func(i int) string) string {
	rows := make([]map[string]any, n)
	for i := range rows {
		rows[i] = map[string]any{
			"document_id": id(i), "user_id": id(i), "state": []string{"failed", "stuck", "under_way", "completed", "skipped", ""}[i%6],
			"type": text(200), "stage": text(200), "error": text(200),
			"started": time.Now().UTC().Add(-24 * time.Hour), "last_at": time.Now().UTC().Add(-time.Duration(i+1) * time.Minute),
		}
	}
	body, err := json.Marshal(rows)
	if err != nil {
		panic(err)
	}
	return string(body)
}

func TestDocuments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // it is midnight of 2000-01-01
		uuids := func(i int) string { return fmt.Sprintf("11111111-1111-4111-8111-%012d", i) }
		s := &server{documents: list(51, func(int) string { return "ocr" }, uuids)}
		h := handler(newClient(t, s), dashboard.WithStuckAfter(time.Hour))
		w := get(h, "/documents?state=failed&range=7d")
		check(t, w, 200, "<h1>Failed documents</h1>", "In the last 7 days, the newest first", `<a href="?range=7d&amp;state=failed" aria-current="page">failed</a>`,
			`<a href="?range=7d&amp;state=stuck">stuck</a>`, `<a href="?range=7d">all</a>`, `<a href="./?range=7d">← Overview</a>`,
			`<span class="key failed">failed</span> <a class="id" href="document?id=`+uuids(0)+`&amp;range=7d">`, `<span class="key stuck">stuck</span>`,
			`<span class="key under_way">under way</span>`, `<span class="key skipped">skipped</span>`, `<span class="key ">only notes</span>`,
			"1999-12-31 23:59:00 · started 1999-12-31 00:00:00", `user <a href="?range=7d&amp;state=failed&amp;user=`+uuids(3)+`">`, "Stuck documents have been under way for over 1 h.")
		if n := strings.Count(w.Body.String(), `class="line"`); n != 50 {
			t.Errorf("%d documents, want 50", n)
		}
		if strings.Contains(w.Body.String(), `state=skipped"`) {
			t.Error("a list of skipped documents, although this app has no such type")
		}
		q := s.last()
		if q.Get("state") != "failed" || q.Get("max") != "51" || q.Get("stuck_after") != "3600000000 microseconds" {
			t.Errorf("asked for %v", q)
		}
		next := regexp.MustCompile(`href="([^"]*)" rel="next"`).FindStringSubmatch(w.Body.String())
		if next == nil {
			t.Fatal("no link to older documents")
		}
		s.documents = list(3, func(int) string { return "" }, uuids)
		w = get(h, "/documents"+strings.ReplaceAll(next[1], "&amp;", "&"))
		check(t, w, 200, `<a href="?range=7d&amp;state=failed">Newest</a>`, "· <bdi>whole document</bdi>")
		if q := s.last(); q.Get("before_id") != uuids(49) || q.Get("state") != "failed" || !strings.HasPrefix(q.Get("before_at"), "1999-12-31T23:10:00") {
			t.Errorf("asked for %v", q)
		}
		s.documents = "[]"
		check(t, get(h, "/documents?state=stuck"), 200, "No documents.")
		check(t, get(h, "/documents?error=page+%23&failed_in=ocr&since=2026-01-01T00:00&until=2026-01-01T12:00"), 200,
			"From 2026-01-01 00:00:00 to 2026-01-01 12:00:00 UTC", `<span class="note">Error</span> <bdi>page #</bdi></span> <a href="?since=2026-01-01T00%3A00&amp;until=2026-01-01T12%3A00" aria-label="Remove Error">×</a>`,
			`<span class="note">Failed in</span> <bdi>ocr</bdi></span> <a href="?error=page&#43;%23&amp;since=`)
		if q := s.last(); q.Get("error") != "page #" || q.Get("stage") != "ocr" || q.Get("since") != "2026-01-01T00:00:00.000000Z" || q.Get("until") != "2026-01-01T12:00:00.000000Z" {
			t.Errorf("asked for %v", q)
		}
	})
}

// TestDocumentsOfOtherTypes checks that the page shows the app's own event types,
// and has a list of skipped documents if the app has a type for them.
func TestDocumentsOfOtherTypes(t *testing.T) {
	client := newClient(t, &server{documents: list(6, func(int) string { return "broken" }, func(int) string { return document })},
		docevents.WithEventTypes(docevents.EventTypes{Failed: []docevents.EventType{"broken"}, Skipped: []docevents.EventType{"cancelled"}}))
	check(t, get(handler(client), "/documents?edit=on"), 200, `<a href="?state=skipped">skipped</a>`, "<bdi>broken</bdi> ·",
		`<option value="broken"></option><option value="cancelled"></option>`)
}

// filtersOf returns the filters of the last request.
func filtersOf(t *testing.T, s *server) map[string]string {
	t.Helper()
	var source struct{ Filters map[string]string }
	if err := json.Unmarshal([]byte(s.last().Get("source")), &source); err != nil {
		t.Fatal(err)
	}
	return source.Filters
}

// TestFilters checks that every filter reaches the database with the name of its column. It
// also checks that a filter has a chip that removes only this filter, and that all other
// links keep the filter.
func TestFilters(t *testing.T) {
	s := &server{summary: fullSummary(func(int) string { return "ocr" }, time.Now()), documents: list(3, func(int) string { return "ocr" }, func(int) string { return document })}
	client := newClient(t, s, docevents.WithColumns(docevents.Columns{Type: "status", UserID: "owner"}))
	h := handler(client, dashboard.WithFilters("tenant_id", "state", "status", "id"))
	given := map[string]string{"stage": "ocr & more", "type": "failed", "user": "ü", "tenant_id": `"><script`, "state.": "ready", "id.": "1"}
	query := url.Values{}
	for name, value := range given {
		query.Set(name, value)
	}
	want := map[string]string{"stage": "ocr & more", "status": "failed", "owner": "ü", "tenant_id": `"><script`, "state": "ready", "id": "1"}
	for _, view := range []string{"", "documents"} {
		page := get(h, "/"+view+"?"+query.Encode())
		check(t, page, 200, "the filters")
		if got := filtersOf(t, s); !maps.Equal(got, want) {
			t.Errorf("%q: asked for %v, want %v", view, got, want)
		}
		chips := regexp.MustCompile(`<a href="([^"]*)" aria-label="Remove`).FindAllStringSubmatch(page.Body.String(), -1)
		removed := map[string]bool{}
		for _, chip := range chips {
			link, err := url.ParseQuery(strings.TrimPrefix(strings.NewReplacer("&amp;", "&", "&#43;", "+").Replace(chip[1]), "?"))
			if err != nil {
				t.Fatal(err)
			}
			for name, value := range given {
				switch got, there := link[name]; {
				case !there:
					removed[name] = true
				case got[0] != value:
					t.Errorf("%q: a chip's link has %s %q, want %q", view, name, got, value)
				}
			}
			if len(link) != len(given)-1 {
				t.Errorf("%q: a chip's link leaves %v", view, link)
			}
		}
		if len(chips) != len(given) || len(removed) != len(given) {
			t.Errorf("%q: %d chips, which remove %v", view, len(chips), slices.Collect(maps.Keys(removed)))
		}
		for _, link := range regexp.MustCompile(`href="(document[^"]*)"`).FindAllStringSubmatch(page.Body.String(), -1) {
			if !strings.Contains(link[1], "tenant_id=%22%3E%3Cscript") {
				t.Fatalf("%q: a link without the filter: %s", view, link[1])
			}
		}
	}
}

// TestFilterForm checks that the form shows the current filters, and sends the
// parameters that it doesn't show.
func TestFilterForm(t *testing.T) {
	s := &server{summary: emptySummary, documents: "[]"}
	h := handler(newClient(t, s), dashboard.WithFilters("tenant_id"))
	check(t, get(h, "/?edit=on&range=7d&refresh=off&tenant_id=a"), 200, `<form class="filters" action="./" method="get">`, `name="tenant_id" type="text" value="a"`,
		`name="since" type="datetime-local" value=""`, "From (UTC)", "To (UTC)", `type="hidden" name="keep" value="range=7d&amp;refresh=off"`, `<a href="?range=7d&amp;refresh=off&amp;tenant_id=a">Cancel</a>`)
	check(t, get(h, "/documents?edit=on&state=stuck&error=e&since=2026-01-01T00:00:30&until=2026-01-02T00:00"), 200, `action="documents"`,
		`value="2026-01-01T00:00">`, `value="2026-01-02T00:00">`, `type="hidden" name="keep" value="error=e&amp;state=stuck"`)
	// The form doesn't change values that an input can't hold.
	check(t, get(h, "/documents?edit=on&error=line+1%0Aline+2&stage=a%0Db&type=failed"), 200, `name="keep" value="error=line&#43;1%0Aline&#43;2&amp;stage=a%0Db"`)
	get(h, "/documents?type=completed&keep="+url.QueryEscape("error=line+1%0Aline+2&stage=a%0Db"))
	if got, want := filtersOf(t, s), map[string]string{"stage": "a\rb", "event_type": "completed"}; !maps.Equal(got, want) || s.last().Get("error") != "line 1\nline 2" {
		t.Errorf("asked for %v of %v", s.last(), got)
	}
	check(t, get(h, "/?stage=&type=&user=&tenant_id=&since=&until="), 200, "No events in the last 24 hours", `<a href="?range=7d">7d</a>`)
	if got := filtersOf(t, s); len(got) > 0 {
		t.Errorf("empty filters: %v", got)
	}
	own := newClient(t, s, docevents.WithColumns(docevents.Columns{UserID: "-", Stage: "-"}))
	if page := get(handler(own), "/?edit=on&user=x").Body.String(); strings.Contains(page, `name="user"`) || strings.Contains(page, `name="stage"`) {
		t.Error("a filter on a column that the table lacks")
	}
}
