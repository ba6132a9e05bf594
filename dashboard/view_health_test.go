package dashboard_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/dashboard"
)

func TestHealth(t *testing.T) {
	ended := func(completed, failed int) string {
		return strings.NewReplacer(`"completed":0`, fmt.Sprint(`"completed":`, completed), `"failed":0`, fmt.Sprint(`"failed":`, failed)).Replace(emptySummary)
	}
	noDocuments := docevents.WithColumns(docevents.Columns{DocumentID: "-"})
	synctest.Test(t, func(t *testing.T) {
		for name, tt := range map[string]struct {
			client  *docevents.Client
			limits  docevents.Limits
			ok      bool
			problem string
		}{
			"no events":         {newClient(t, &server{summary: emptySummary}), docevents.Limits{}, true, ""},
			"most succeed":      {newClient(t, &server{summary: ended(90, 10)}), docevents.Limits{}, true, ""},
			"most fail":         {newClient(t, &server{summary: ended(10, 90)}), docevents.Limits{}, false, "90"},
			"a limit of 5 %":    {newClient(t, &server{summary: ended(90, 10)}), docevents.Limits{MaxFailureRate: 0.05}, false, "10"},
			"no function":       {newClient(t, &server{}), docevents.Limits{}, false, "Run sql/014_create_docevents_reading.sql"},
			"stalled server":    {newClient(t, &server{delay: time.Hour}), docevents.Limits{}, false, "The server took too long"},
			"no documents":      {newClient(t, &server{}, noDocuments), docevents.Limits{}, false, "no column for document ids"},
			"impossible limits": {newClient(t, &server{summary: emptySummary}), docevents.Limits{MaxFailureRate: 2}, false, "MaxFailureRate"},
			"nil client":        {nil, docevents.Limits{}, true, ""},
		} {
			w := get(handler(tt.client, dashboard.WithHealth(tt.limits)), "/health")
			want := map[bool]int{true: http.StatusOK, false: http.StatusServiceUnavailable}[tt.ok]
			var got docevents.Health
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
				t.Fatalf("%s: %v: %s", name, err, w.Body)
			}
			if w.Code != want || got.OK != tt.ok || w.Header().Get("Content-Type") != "application/json" || w.Header().Get("Cache-Control") != "no-store" {
				t.Errorf("%s: %d %+v %v", name, w.Code, got, w.Header())
			}
			if problems := strings.Join(got.Problems, " "); !strings.Contains(problems, tt.problem) || tt.ok != (problems == "") {
				t.Errorf("%s: the problems are %q, want %q", name, problems, tt.problem)
			}
		}
	})
}

// TestHealthIsShared checks that many requests within five seconds read the table
// once, and that documents count as stuck after the time of WithStuckAfter.
func TestHealthIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{summary: emptySummary}
		h := handler(newClient(t, s), dashboard.WithStuckAfter(10*time.Minute))
		get(h, "/health")
		asked := s.count()
		for range 100 {
			get(h, "/health")
		}
		if n := s.count(); n != asked {
			t.Errorf("%d requests, then %d", asked, n)
		}
		if got := s.last().Get("stuck_after"); got != "600000000 microseconds" {
			t.Errorf("stuck after %s", got)
		}
	})
}
