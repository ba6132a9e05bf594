package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestDryRunEstimates: a count that takes too long is replaced by the
// planner's.
func TestDryRunEstimates(tt *testing.T) {
	t := newTable(tt)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("Prefer") {
		case "count=exact":
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprint(w, `{"code":"57014","message":"canceling statement due to statement timeout"}`)
		case "count=planned":
			w.Header().Set("Content-Range", "0-0/123456789")
			w.WriteHeader(http.StatusPartialContent)
			fmt.Fprint(w, `[{"id":"x"}]`)
		default: // Check's
			answerCheck(w, r)
		}
	}))
	defer server.Close()
	t.Setenv("SUPABASE_URL", server.URL+"/rest/v1/")
	if out, _ := t.purge(exitDone, "-older-than", "30d", "-dry-run"); !strings.Contains(out, "would delete about 123456789 rows") {
		t.Error(out)
	}
	if r := t.json(exitDone, "-older-than", "30d", "-dry-run"); r.Due != 123456789 || r.Exact {
		t.Errorf("%+v", r)
	}
}
