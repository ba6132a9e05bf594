package main

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/docevents/docevents-go/dashboard"
)

func TestPassword(t *testing.T) {
	page := dashboard.Handler(nil, dashboard.WithAuthorize(isAdmin("secret")))
	for password, want := range map[string]bool{"": false, "wrong": false, "secret": true} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.SetBasicAuth("admin", password)
		w := httptest.NewRecorder()
		page.ServeHTTP(w, r)
		if shown := w.Code != http.StatusUnauthorized; shown != want || !shown && w.Header().Get("WWW-Authenticate") == "" {
			t.Errorf("password %q: %d, want the page: %t", password, w.Code, want)
		}
	}
}
