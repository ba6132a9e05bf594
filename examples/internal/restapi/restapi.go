// Package restapi is for programs that read the table themselves, beside
// docevents.
package restapi

import (
	"cmp"
	"encoding/json"
	"os"
	"strings"
)

// KeyFromEnv returns the key that docevents.NewFromEnv takes.
func KeyFromEnv() string {
	var keys struct{ Default string }
	_ = json.Unmarshal([]byte(os.Getenv("SUPABASE_SECRET_KEYS")), &keys) // NewFromEnv says what is wrong with it
	return strings.TrimSpace(cmp.Or(keys.Default, os.Getenv("SUPABASE_SECRET_KEY"),
		os.Getenv("SUPABASE_SERVICE_ROLE_KEY"), os.Getenv("SUPABASE_SERVICE_KEY")))
}

// Base returns the REST API's URL, of a project's or of its own.
func Base(url string) string {
	return strings.TrimSuffix(strings.TrimRight(strings.TrimSpace(url), "/"), "/rest/v1") + "/rest/v1"
}

// Headers returns those that the key goes into. A secret key is no JWT, and
// would be refused as one.
func Headers(key string) map[string]string {
	headers := map[string]string{"apikey": key}
	if !strings.HasPrefix(key, "sb_secret_") {
		headers["Authorization"] = "Bearer " + key
	}
	return headers
}
