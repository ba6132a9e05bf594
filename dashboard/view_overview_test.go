package dashboard_test

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/dashboard"
)

// fullSummary returns an answer of docevents_summary with as many items as it can have.
// The function text returns the texts in the answer, which have up to n characters.
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
			return map[string]any{"stage": text(200), "error": fmt.Sprint(i) + text(190), "count": 4321 - i, "documents": 1, "first_at": ago(1400), "last_at": ago(i), "example": document}
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
	synctest.Test(t, func(t *testing.T) { // it is midnight of 2000-01-01
		s := &server{summary: fullSummary(func(int) string { return "page # of #" }, time.Now())}
		h := handler(newClient(t, s))
		check(t, get(h, "/?range=24h"), 200,
			"In the last 24 hours <strong>1,234,567</strong> documents were seen: 1,100,000 completed, 34,567 failed, 100,000 under way, <strong>99 of them stuck</strong>",
			`<a href="documents?range=24h&amp;state=failed">34,567</a></dd><dd class="note">3 % of 1,134,567 that ended`,
			`<a href="documents?range=24h&amp;state=stuck">99</a></dd><dd class="note">under way for over 30 min`,
			`<a href="documents?range=24h&amp;state=under_way">100,000</a>`, `<a href="documents?range=24h">1,234,567 seen</a>`,
			`<a href="documents?range=24h&amp;state=completed">1,100,000</a></dd><dd class="note">97 % of`,
			`<dd>2 min ago</dd><dd class="note"><time datetime="1999-12-31T23:58:00Z">1999-12-31 23:58:00</time>`, // the last success
			`<dd>none</dd><dd class="note">in this range</dd>`,                                                    // the last failure
			`<a href="?range=24h" aria-current="page">24h</a>`,
			`<tr><th scope="row"><a href="?since=1999-12-31T00%3A15&amp;until=1999-12-31T00%3A30">00:15</a></th><td>11001</td><td>345</td><td>1000</td><td>401</td></tr>`,
			`<a href="?since=1999-12-31T00%3A15&amp;until=1999-12-31T00%3A30" tabindex="-1"><path d="M1 0h1v1h-1z">`,
			"<td>1.5 s</td><td>1 min 30 s</td>", "2 h 13 min", "From the 20 slowest of 70 stages", "From the 20 most frequent of 4,321 errors", "All 99 stuck documents",
			"page # of #", `href="document?id=`+document+`&amp;range=24h"`, "…11111111", `http-equiv="refresh" content="60"`, `<a href="?range=24h&amp;refresh=off">Stop reloading</a>`)
		still := get(h, "/?refresh=off")
		check(t, still, 200, `aria-current="page">24h</a>`, `<a href="?">Reload every minute</a>`)
		if strings.Contains(still.Body.String(), "http-equiv") {
			t.Error("the page reloads with refresh=off")
		}
		for _, view := range []string{"/?refresh=off&since=2000-01-01T00:15&until=2000-01-01T00:30", "/documents?refresh=off", "/document?refresh=off&id=" + document} {
			if a := get(h, view); strings.Contains(a.Body.String(), "Reload every minute") {
				t.Errorf("%s offers a reload, which it doesn't do", view)
			}
		}
		if edited := get(h, "/?edit=on"); strings.Contains(edited.Body.String(), "http-equiv") {
			t.Error("the page reloads while the form is open")
		}
		if narrowed := get(h, "/?since=2000-01-01T00:15&until=2000-01-01T00:30"); strings.Contains(narrowed.Body.String(), "http-equiv") {
			t.Error("the page reloads with a fixed range")
		}
	})
}

// TestOverviewLinks checks that an error lists its stages, each with a link, and
// that numbers link to their documents.
func TestOverviewLinks(t *testing.T) {
	var summary map[string]any
	if err := json.Unmarshal([]byte(fullSummary(func(int) string { return "" }, time.Now())), &summary); err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC()
	group := func(stage, message string, count, documents int) map[string]any {
		return map[string]any{"stage": stage, "error": message, "count": count, "documents": documents, "first_at": now, "last_at": now, "example": document}
	}
	summary["errors"] = []any{group("ocr", "timeout & more", 1200, 30), group("index", "timeout & more", 7, 7), group("ocr", "", 3, 1)}
	summary["stages"] = []any{
		map[string]any{"stage": "ocr", "count": 12, "failed": 5}, map[string]any{"stage": "", "count": 13, "failed": 6}, map[string]any{"stage": "index", "count": 1, "failed": 0},
	}
	summary["documents"], summary["skipped"] = 1, 4
	body, err := json.Marshal(summary)
	if err != nil {
		t.Fatal(err)
	}
	h := handler(newClient(t, &server{summary: string(body)}), dashboard.WithStuckAfter(10*time.Minute))
	check(t, get(h, "/"), 200, "<strong>1</strong> document was seen", "4 skipped", `<a href="documents?state=skipped">4</a>`,
		`<a class="times" href="documents?error=timeout&#43;%26&#43;more">1,207<`,
		`<a href="documents?error=timeout&#43;%26&#43;more&amp;failed_in=ocr"><bdi>ocr</bdi></a> 1,200 in 30 documents`,
		`<a href="documents?error=timeout&#43;%26&#43;more&amp;failed_in=index"><bdi>index</bdi></a> 7 ·`,
		`<a class="times" href="documents?stage=ocr&amp;type=failed">3<`, "(no message)",
		`<a href="documents?stage=ocr">12</a>`, `<a href="documents?stage=ocr&amp;type=failed">5</a>`,
		`<a href="documents">13</a>`, `<a href="documents?state=failed">6</a>`,
		`The slowest first. <a href="?sort=failures">Sort by failures</a>`, "under way for over 10 min", "Under way for over 10 min, the longest first")
	check(t, get(h, "/?sort=failures&range=7d"), 200, `The most failures first. <a href="?range=7d">Sort by time</a>`)
}

func TestStats(t *testing.T) {
	client := newClient(t, &server{summary: emptySummary})
	for range 1234 {
		client.Record(docevents.Event{DocumentID: "42"})
	}
	check(t, get(handler(client), "/"), 200, "<dt>Recorded</dt><dd>1,234</dd>", "<dt>Dropped</dt><dd>1,234 invalid</dd>")
}

// TestStatsAddUp checks that the counts on the page add up, with events that were
// replayed, kept and dropped.
func TestStatsAddUp(t *testing.T) {
	dir := t.TempDir()
	open := func(status int) *docevents.Client {
		return newClient(t, &server{status: status}, docevents.WithSpool(dir))
	}
	const events = 7
	dead := open(503)
	for range events {
		dead.Record(docevents.Event{DocumentID: document, UserID: document, Type: docevents.Failed})
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_ = dead.Close(ctx) // keeps them
	addUp(t, dead, docevents.Stats{Recorded: events, Kept: events})
	alive := open(201)
	defer alive.Close(t.Context())
	for deadline := time.Now().Add(10 * time.Second); alive.Stats().Delivered < events && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	alive.Record(docevents.Event{})
	addUp(t, alive, docevents.Stats{Recorded: 1, Replayed: events, Delivered: events, Dropped: docevents.Drops{Invalid: 1}})
}

// addUp checks the counts of this process on the page.
func addUp(t *testing.T, client *docevents.Client, want docevents.Stats) {
	t.Helper()
	page := get(handler(client), "/").Body.String()
	figure := func(name string) (n int64) {
		values := regexp.MustCompile("<dt>" + name + "</dt>(.*?)</div>").FindStringSubmatch(page)
		if values == nil {
			t.Fatalf("no %s on the page", name)
		}
		for _, v := range regexp.MustCompile(`<dd>([0-9,]+)`).FindAllStringSubmatch(values[1], -1) {
			i, _ := strconv.ParseInt(strings.ReplaceAll(v[1], ",", ""), 10, 64)
			n += i
		}
		return n
	}
	in := []int64{figure("Recorded"), figure("Replayed")}
	out := []int64{figure("Stored"), figure("Waiting"), figure("Kept"), figure("Dropped")}
	if !slices.Equal(in, []int64{want.Recorded, want.Replayed}) || !slices.Equal(out, []int64{want.Delivered, want.Pending, want.Kept, want.Dropped.Total()}) {
		t.Errorf("recorded and replayed %d; stored, waiting, kept and dropped %d; want %+v", in, out, want)
	}
}
