package main

import (
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/docevents/docevents-go/examples/internal/exampletest"
	"github.com/docevents/docevents-go/integration/localstack"
)

// testPage looks at the run on its page.
func testPage(t *testing.T) {
	localstack.Shared(t) // skips where there is no PostgreSQL
	p := exampletest.Listen(t, exampletest.Command("-dashboard", "127.0.0.1:0", documents(t)))
	p.WaitForLine("recorded 1700, delivered 1700, dropped 0,")
	_, page := exampletest.Request(t, http.MethodGet, p.URL+"?range=1h", "")
	for _, want := range []string{"<strong>300</strong> documents were seen: 250 completed, 50 failed, 0 under way", "gzip: unexpected EOF", ">summarize<"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in\n%s", want, page)
		}
	}
	p.Signal(os.Interrupt)
	if got := p.Wait(); got.Code != exitInterrupted || !strings.Contains(got.Stderr, "The page stays until Ctrl-C.") {
		t.Errorf("exit code %d\n%s", got.Code, got.Stderr)
	}
}
