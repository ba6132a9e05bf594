package dashboard_test

import (
	"crypto/subtle"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"time"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/dashboard"
)

// This example mounts the page under a prefix and asks for a password. If your app
// can already check a request, pass a func(*http.Request) bool.
func ExampleHandler() {
	var client *docevents.Client // the app's
	askForPassword := func(w http.ResponseWriter, r *http.Request) bool {
		_, password, _ := r.BasicAuth()
		if subtle.ConstantTimeCompare([]byte(password), []byte("correct horse")) == 1 {
			return true
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="documents"`)
		http.Error(w, "This page needs a password.", http.StatusUnauthorized)
		return false
	}
	mux := http.NewServeMux()
	mux.Handle("/admin/documents/", dashboard.Handler(client, dashboard.WithAuthorize(askForPassword),
		dashboard.WithFilters("tenant_id"), dashboard.WithStuckAfter(10*time.Minute),
		dashboard.WithDocumentLink(func(id string) string { return "/documents/" + url.PathEscape(id) })))

	req := httptest.NewRequest("GET", "/admin/documents/?range=7d", nil)
	answer := httptest.NewRecorder()
	mux.ServeHTTP(answer, req)
	fmt.Println(answer.Code, answer.Header().Get("WWW-Authenticate"), answer.Body)

	req.SetBasicAuth("admin", "correct horse")
	answer = httptest.NewRecorder()
	mux.ServeHTTP(answer, req)
	fmt.Println(answer.Code, answer.Header().Get("Content-Type"))
	// Output:
	// 401 Basic realm="documents" This page needs a password.
	//
	// 200 text/html; charset=utf-8
}
