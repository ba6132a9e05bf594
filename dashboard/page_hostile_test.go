package dashboard_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/dashboard"
)

// TestHostileTexts checks that no text of a row or a request becomes markup, and that
// every view stays within its size. The function check tests both.
func TestHostileTexts(t *testing.T) {
	wide := strings.Repeat("&😀", 1000)
	for name, text := range map[string]func(n int) string{
		"markup":     hostile,
		"wide":       func(n int) string { return string([]rune(wide)[:n]) },
		"javascript": func(n int) string { return "javascript:" + strings.Repeat("a", n-11) },
	} {
		t.Run(name, func(t *testing.T) {
			inJSON, err := json.Marshal(text(250)) // an id has up to 1,024 bytes
			if err != nil {
				t.Fatal(err)
			}
			ids := func(int) string { return text(250) }
			s := &server{
				summary:   strings.ReplaceAll(fullSummary(text, time.Now()), `"`+document+`"`, string(inJSON)),
				documents: list(51, text, ids), timeline: timeline(60, text(1000), text(200)),
			}
			client := newClient(t, s, docevents.WithColumns(docevents.Columns{TextIDs: true, Extra: []string{"tenant_id", "note"}}))
			s.timeline = strings.ReplaceAll(s.timeline, `"event_type"`, `"note":{"a":`+string(inJSON)+`},"tenant_id":`+string(inJSON)+`,"event_type"`)
			h := handler(client, dashboard.WithFilters("tenant_id"), dashboard.WithDocumentLink(func(id string) string { return "document?app=" + url.QueryEscape(id) }))
			value := url.QueryEscape(text(60))
			for _, path := range []string{
				"/", "/?edit=on", "/documents", "/documents?edit=on", "/document?id=" + value, "/document?order=oldest&id=" + value,
				"/?stage=" + value + "&type=" + value + "&user=" + value + "&tenant_id=" + value + "&edit=on",
				"/documents?stage=" + value + "&tenant_id=" + value + "&edit=on", "/documents?error=" + value + "&failed_in=" + value,
			} {
				check(t, get(h, path), 200)
			}
			// The texts do no harm in parameters of the URL either.
			small := handler(newClient(t, &server{summary: emptySummary, documents: "[]", timeline: timeline(2, "", "")}))
			for _, parameter := range []string{"range", "refresh", "since", "until", "state", "sort", "cursor", "order", "before", "from", "edit", "event", "keep"} {
				for _, view := range []string{"/?", "/documents?", "/document?id=" + document + "&"} {
					w := get(small, view+parameter+"="+value)
					check(t, w, w.Code)
				}
			}
		})
	}
}

// TestLargestRows checks that a view shows less if the texts of its rows are as
// long as they can be.
func TestLargestRows(t *testing.T) {
	s := &server{summary: fullSummary(hostile, time.Now()), timeline: timeline(1000, hostile(8<<10), hostile(1<<10))}
	h := handler(newClient(t, s))
	check(t, get(h, "/"), 200, "&lt;script")
	check(t, get(h, "/document?id="+document), 200, "&lt;script", "Older events", "The complete event as plain text")
	long := strings.Repeat("%22", 5000)
	check(t, get(h, "/?range="+long+"&refresh="+long+"&id="+long+"&edit="+long), 200)
	check(t, get(h, "/document?range="+long+"&refresh="+long+"&id="+long), 400)
	check(t, get(h, "/document?id=%22%3E%3Cscript%3E&range=%22%3E%3Cscript"), 400, "This is not a document id")
}

// TestLargestEvent checks that a view can show an event whose texts are longer than the
// view may be.
func TestLargestEvent(t *testing.T) {
	extra := map[string]any{}
	for i := range 50 {
		extra[fmt.Sprintf("column_%s_%02d", strings.Repeat("x", 50), i)] = hostile(1 << 10)
	}
	s := &server{events: []map[string]any{row(time.Now(), 0, "failed", strings.Repeat("x", 64<<10), extra)}}
	h := handler(newClient(t, s, docevents.WithColumns(docevents.Columns{Extra: slices.Sorted(maps.Keys(extra))})))
	check(t, get(h, "/document?id="+document), 200, "_00</bdi>", "_49</bdi>", "The complete event as plain text")
}
