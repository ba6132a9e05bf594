// Dashboard is an app that serves the page of package dashboard and protects it with a
// password. The app uses the project of SUPABASE_URL and SUPABASE_SECRET_KEY.
//
//	ADMIN_PASSWORD=... go run ./examples/dashboard
package main

import (
	"crypto/subtle"
	"log"
	"net/http"
	"os"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/dashboard"
)

func main() {
	client, err := docevents.NewFromEnv()
	if err != nil {
		log.Fatal(err)
	}
	password := os.Getenv("ADMIN_PASSWORD")
	if password == "" {
		log.Fatal("ADMIN_PASSWORD is not set")
	}
	http.Handle("/admin/documents/", dashboard.Handler(client, dashboard.WithAuthorize(isAdmin(password))))
	log.Print("http://127.0.0.1:8080/admin/documents/")
	log.Fatal(http.ListenAndServe("127.0.0.1:8080", nil))
}

// isAdmin asks for a password. Replace it with your app's own check.
func isAdmin(password string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if _, given, _ := r.BasicAuth(); subtle.ConstantTimeCompare([]byte(given), []byte(password)) == 1 {
			return true
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="documents"`)
		http.Error(w, "This page needs a password.", http.StatusUnauthorized)
		return false
	}
}
