package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"github.com/docevents/docevents-go/integration/localstack"
)

func TestMain(m *testing.M) { localstack.Main(m) }

// missing skips a test that lacks a program, or fails it if CI is set.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// TestProgram runs the program, and checks its page with a browser, an accessibility
// checker and an HTML validator.
func TestProgram(t *testing.T) {
	if !localstack.Shared(t).Ours() { // skips if there is no PostgreSQL
		t.Skip("the program starts a stack even if the environment names a project")
	}
	ctx, stop := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, "127.0.0.1:0", in)
		in.Close()
	}()
	lines, home := bufio.NewScanner(out), ""
	for home == "" && lines.Scan() {
		_, home, _ = strings.Cut(lines.Text(), "listening on ")
	}
	if home == "" {
		t.Fatal(<-ended)
	}
	t.Run("walks", func(t *testing.T) { testWalks(t, home) })
	t.Run("accessibility", func(t *testing.T) { testAccessibility(t, home) })
	t.Run("markup", func(t *testing.T) { testMarkup(t, home) })
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// request returns the body of a page.
func request(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusBadRequest { // a page explains a bad filter
		t.Fatalf("%s: %d, %v", url, resp.StatusCode, err)
	}
	return string(body)
}

// testAccessibility checks the pages with axe-core, on wide and narrow screens, in
// light and dark mode.
func testAccessibility(t *testing.T, home string) {
	axe, err := os.ReadFile(filepath.Join("check", "node_modules", "axe-core", "axe.min.js"))
	if err != nil {
		missing(t, "no axe-core: npm ci --prefix integration/demo/check")
	}
	b := newBrowser(t)
	if _, err := chromedp.Call(b, page.SetBypassCSP, page.SetBypassCSPParams{Enabled: true}); err != nil { // the page's policy would block the script of axe-core
		t.Fatal(err)
	}
	for _, address := range pages(t, home) {
		for _, screen := range []struct {
			width  int64
			scheme string
		}{{1280, "light"}, {390, "dark"}} {
			checkAccessibility(t, b, string(axe), address, screen.width, screen.scheme)
		}
	}
}

// checkAccessibility checks a page with axe-core on one screen.
func checkAccessibility(t *testing.T, b *browser, axe, address string, width int64, scheme string) {
	t.Helper()
	_, err := chromedp.Call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	if err != nil {
		t.Fatal(err)
	}
	b.do(t,
		chromedp.EmulateViewport(width, 900),
		chromedp.Navigate(address),
		// Open the details elements, so that axe-core checks their content.
		chromedp.Evaluate[chromedp.Void](`document.querySelectorAll("details").forEach(d => d.open = true)`),
		chromedp.Evaluate[chromedp.Void](axe))
	// The rule meta-refresh is off, because it forbids pages that reload. WCAG 2.2.1
	// allows them if readers can switch the reload off, and this page has a link for it.
	result := ask(t, b, chromedp.Evaluate[struct {
		Passes int      `json:"passes"`
		Width  int64    `json:"width"`
		Found  []string `json:"found"`
	}](`axe.run({rules: {"meta-refresh": {enabled: false}}}).then(r => ({
			passes: r.passes.length, width: document.documentElement.scrollWidth,
			found: r.violations.map(v => v.id + ": " + v.help + ": " + v.nodes[0].html)}))`, chromedp.EvalAwaitPromise))
	screen := fmt.Sprintf("%s, %d pixels, %s", address, width, scheme)
	for _, finding := range result.Found {
		t.Errorf("%s: %s", screen, finding)
	}
	if result.Passes < 10 {
		t.Errorf("%s: only %d rules applied to the page", screen, result.Passes)
	}
	if result.Width > width {
		t.Errorf("%s: the page is %d pixels wide", screen, result.Width)
	}
}

// testMarkup checks the pages with an HTML validator.
func testMarkup(t *testing.T, home string) {
	folder := t.TempDir()
	validator, err := filepath.Abs(filepath.Join("check", "node_modules", ".bin", "html-validate"))
	if err == nil {
		_, err = os.Stat(validator)
	}
	if err != nil {
		missing(t, "no html-validate: npm ci --prefix integration/demo/check")
	}
	args := []string{"--config", filepath.Join("check", ".htmlvalidate.json"), "--formatter", "text"}
	for i, address := range pages(t, home) {
		name := filepath.Join(folder, fmt.Sprint(i, ".html"))
		body := request(t, address)
		if err := os.WriteFile(name, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
		if len(body) < 1_000 || len(body) > 80_000 || !strings.Contains(body, "</html>") {
			t.Errorf("%s: %d bytes", address, len(body))
		}
		args = append(args, name)
	}
	if out, err := exec.Command(validator, args...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
