package restapi

import (
	"maps"
	"testing"
)

func TestKeyFromEnv(t *testing.T) {
	names := []string{"SUPABASE_SERVICE_KEY", "SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_SECRET_KEY", "SUPABASE_SECRET_KEYS"}
	values := []string{" a\n", "b", "c", `{"other":"x","default":"d"}`}
	for _, name := range names {
		t.Setenv(name, "")
	}
	for i, want := range []string{"a", "b", "c", "d"} { // each goes before those that were set before it
		t.Setenv(names[i], values[i])
		if got := KeyFromEnv(); got != want {
			t.Errorf("with %s: %q, want %q", names[i], got, want)
		}
	}
	t.Setenv("SUPABASE_SECRET_KEYS", `{"other":"x"}`)
	if got := KeyFromEnv(); got != "c" {
		t.Errorf("without a default: %q, want c", got)
	}
}

func TestBase(t *testing.T) {
	for _, url := range []string{"https://a.example/x", " https://a.example/x/\n", "https://a.example/x/rest/v1/"} {
		if got := Base(url); got != "https://a.example/x/rest/v1" {
			t.Errorf("%q: %s", url, got)
		}
	}
}

func TestHeaders(t *testing.T) {
	for key, want := range map[string]map[string]string{
		"sb_secret_x": {"apikey": "sb_secret_x"},
		"a.b.c":       {"apikey": "a.b.c", "Authorization": "Bearer a.b.c"},
	} {
		if got := Headers(key); !maps.Equal(got, want) {
			t.Errorf("%s: %v, want %v", key, got, want)
		}
	}
}
