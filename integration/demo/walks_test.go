package main

import (
	"fmt"
	"html"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// pages returns the addresses to check: every view in each of its forms.
func pages(t *testing.T, home string) []string {
	t.Helper()
	overview := request(t, home)
	example := regexp.MustCompile(`href="document\?id=([0-9a-f-]{36})`).FindStringSubmatch(overview)
	if example == nil {
		t.Fatal("no link to a document")
	}
	completed := request(t, home+"documents?state=completed")
	older := regexp.MustCompile(`href="([^"]*)" rel="next"`).FindStringSubmatch(completed)
	if older == nil {
		t.Fatal("no older documents")
	}
	encrypted := "documents?error=" + url.QueryEscape(errorOf(overview, "the file is encrypted"))
	return []string{
		home + "?range=1h", home + "?range=24h&sort=failures&refresh=off", home + "?tenant_id=contoso&stage=ocr&edit=on", home + "?tenant_id=nobody",
		home + "?since=2026-01-02T00:00&until=2026-01-01T00:00&edit=on",
		home + "documents", home + "documents?state=failed&tenant_id=contoso&edit=on", home + "documents?state=stuck", home + "documents?state=skipped",
		home + "documents" + html.UnescapeString(older[1]), home + encrypted,
		home + "document?id=" + example[1], home + "document?order=oldest&id=" + example[1], home + "document?id=" + withLongError(t, home), home + "document?id=42",
	}
}

// errorOf returns the first error on the overview that has this prefix, as written in the
// link to its documents.
func errorOf(overview, begin string) string {
	for _, link := range regexp.MustCompile(`"documents\?([^"]*)"`).FindAllStringSubmatch(overview, -1) {
		if query, err := url.ParseQuery(html.UnescapeString(link[1])); err == nil && strings.HasPrefix(query.Get("error"), begin) {
			return query.Get("error")
		}
	}
	return ""
}

// withLongError returns a document whose error has several lines.
func withLongError(t *testing.T, home string) string {
	t.Helper()
	overview := request(t, home)
	list := request(t, home+"documents?error="+url.QueryEscape(errorOf(overview, "the file is encrypted")))
	found := regexp.MustCompile(`href="document\?id=([0-9a-f-]{36})`).FindStringSubmatch(list)
	if found == nil {
		t.Fatalf("no document with a long error in\n%s", list)
	}
	return found[1]
}

// A walk follows links through the page, as a reader does, and counts the clicks.
type walk struct {
	*testing.T
	*browser
	clicks int
}

// click clicks on an element and waits until leadsTo is visible.
func (w *walk) click(selector, leadsTo string) {
	w.Helper()
	w.clicks++
	w.do(w.T, chromedp.Click(selector), chromedp.WaitVisible(leadsTo))
}

func (w *walk) text(selector string) string {
	w.Helper()
	return ask(w.T, w.browser, chromedp.Text(selector))
}

// done checks that the walk took at most this many clicks.
func (w *walk) done(most int) {
	w.Helper()
	if w.clicks > most {
		w.Errorf("%d clicks, want %d at most", w.clicks, most)
	}
	w.clicks = 0
}

// testWalks checks that a reader can answer the questions of an engineer on call in a few
// clicks, starting from the overview.
func testWalks(t *testing.T, home string) {
	b := newBrowser(t)
	open := func(t *testing.T) *walk {
		b.do(t, chromedp.Navigate(home+"?refresh=off"), chromedp.WaitVisible(".tiles"))
		return &walk{T: t, browser: b}
	}
	t.Run("which documents of a tenant failed this morning, and why", func(t *testing.T) {
		w := open(t)
		w.click(".edit", ".filters")
		morning := time.Now().UTC().Add(-3 * time.Hour)
		w.do(t,
			chromedp.SendKeys(`input[name="tenant_id"]`, "contoso"),
			setTime("since", morning), setTime("until", morning.Add(4*time.Hour)))
		w.click(".filters button", ".chips")
		w.click(".tiles div:first-child a", "ol.documents")
		if heading, chips := w.text("h1"), w.text(".chips"); heading != "Failed documents" || !strings.Contains(chips, "contoso") || !strings.Contains(chips, "Range") {
			t.Errorf("%q of %q", heading, chips)
		}
		first := w.text("ol.documents li:first-child")
		if !strings.Contains(first, "failed") || w.text("ol.documents code") == "" {
			t.Errorf("the first of the list is %q", first)
		}
		w.done(3)
		w.click("ol.documents li:first-child a.id", "table.timeline")
		if facts := w.text(".facts"); !strings.Contains(facts, "contoso") {
			t.Errorf("the document's facts are %q", facts)
		}
	})
	t.Run("what is stuck, and since when", func(t *testing.T) {
		w := open(t)
		w.click(".tiles div:nth-child(2) a", "ol.documents")
		if first := w.text("ol.documents li:first-child"); !strings.HasPrefix(first, "stuck") || !regexp.MustCompile(`started \d{4}-\d\d-\d\d \d\d:\d\d:\d\d`).MatchString(first) {
			t.Errorf("the first of the list is %q", first)
		}
		w.done(3)
	})
	t.Run("what happened to a document, with its full error", func(t *testing.T) {
		id := withLongError(t, home)
		w := open(t)
		w.do(t, chromedp.SendKeys("#id", id))
		w.click(".search button", "table.timeline")
		w.click("details summary", "details pre") // the bare "pre" would also find text
		if found, message := w.text("h1 code"), w.text("details pre"); found != id || strings.TrimSpace(message) != encrypted {
			t.Errorf("document %q with the error %q", found, message)
		}
		w.done(3)
		w.click(".timeline caption a", ".timeline")
		if first := w.text(".timeline tbody tr:first-child"); !strings.Contains(first, "upload_started") {
			t.Errorf("the oldest event is %q", first)
		}
	})
	t.Run("when was the last success", func(t *testing.T) {
		w := open(t)
		tiles := w.text(".tiles")
		if !regexp.MustCompile(`Last success\s+\S.* ago|just now`).MatchString(tiles) {
			t.Errorf("the tiles are %q", tiles)
		}
		w.done(3)
	})
	t.Run("one error", func(t *testing.T) {
		w := open(t)
		message := w.text(".errors li:first-child code")
		w.click(".errors li:first-child a", "ol.documents")
		if chips := w.text(".chips"); !strings.Contains(chips, message) {
			t.Errorf("the chips are %q, want %q", chips, message)
		}
		w.click(".chips a", "h1")
		if address := ask(t, b, chromedp.Location()); strings.Contains(address, "error=") {
			t.Errorf("without the chip the address is %s", address)
		}
	})
	t.Run("a bar of the chart", func(t *testing.T) {
		w := open(t)
		w.click(".hover a:first-of-type path", ".chips")
		if chips := w.text(".chips"); !strings.Contains(chips, "Range") {
			t.Errorf("the chips are %q", chips)
		}
	})
	t.Run("by keyboard", func(t *testing.T) {
		w := open(t)
		const isFailed = `(document.activeElement.getAttribute("href") || "").includes("state=failed")`
		tabs := 0
		for ; tabs < 20 && !ask(t, b, chromedp.Evaluate[bool](isFailed)); tabs++ {
			w.do(t, chromedp.KeyEvent(kb.Tab))
		}
		w.do(t, chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible("ol.documents"))
		if heading := w.text("h1"); heading != "Failed documents" {
			t.Errorf("%q after %d tabs", heading, tabs)
		}
	})
	checkTraffic(t, b, home)
}

// setTime sets a datetime-local input by script. The keys that a user would press depend on
// the locale.
func setTime(id string, at time.Time) chromedp.Action[chromedp.Void] {
	return chromedp.Evaluate[chromedp.Void](fmt.Sprintf("document.getElementById(%q).value = %q", id, at.Format("2006-01-02T15:04")))
}

// checkTraffic checks that the browser has sent no request to another host, and
// has logged no message.
func checkTraffic(t *testing.T, b *browser, home string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	own, _ := url.Parse(home)
	for _, host := range b.hosts {
		if host != own.Host {
			t.Errorf("a request to %s", host)
		}
	}
	if len(b.messages) > 0 || len(b.hosts) < 4 {
		t.Errorf("the console has %q after %d requests", b.messages, len(b.hosts))
	}
}
