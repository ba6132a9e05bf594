package dashboard_test

import (
	"crypto/subtle"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/dashboard"
)

// The page under a prefix, for the app's administrators alone.
func ExampleHandler() {
	var client *docevents.Client // the app's
	isAdmin := func(r *http.Request) bool {
		_, password, _ := r.BasicAuth() // or a session, a role, whatever the app has
		return subtle.ConstantTimeCompare([]byte(password), []byte("correct horse")) == 1
	}
	mux := http.NewServeMux()
	mux.Handle("/admin/documents/", dashboard.Handler(client, dashboard.WithAuthorize(isAdmin)))

	req := httptest.NewRequest("GET", "/admin/documents/?range=7d", nil)
	answer := httptest.NewRecorder()
	mux.ServeHTTP(answer, req)
	fmt.Println(answer.Code, answer.Body)

	req.SetBasicAuth("admin", "correct horse")
	answer = httptest.NewRecorder()
	mux.ServeHTTP(answer, req)
	fmt.Println(answer.Code, answer.Header().Get("Content-Type"))
	// Output:
	// 403 You may not see this page.
	//
	// 200 text/html; charset=utf-8
}
