package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/docevents/docevents-go/integration/localstack"
)

func TestMain(m *testing.M) { localstack.Main(m) }

// setenv sets the settings of a project, and removes all others.
func setenv(t *testing.T, url, key string) {
	t.Helper()
	for _, name := range []string{"SUPABASE_SECRET_KEYS", "SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_SERVICE_KEY"} {
		t.Setenv(name, "")
	}
	t.Setenv("SUPABASE_URL", url)
	t.Setenv("SUPABASE_SECRET_KEY", key)
}

var printed = regexp.MustCompile(`  upload_started      -        0s  
.*  processing_started  ocr      0s  
.*  completed           ocr  +\d+ms  
.*  completed           -      60ms  
.*  upload_started      -        0s  
.*  processing_started  ocr      0s  
.*  failed              ocr  .* page 3: image too small

recorded 7, stored 7, dropped 0
$`)

func TestOnAProject(t *testing.T) {
	stack := localstack.Shared(t)
	setenv(t, stack.URL, stack.ServiceRoleKey)
	var out strings.Builder
	if err := run(t.Context(), &out); err != nil || !printed.MatchString(out.String()) {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// TestWithoutSettings checks that the program removes the stack that it starts, even
// if it is interrupted at the start.
func TestWithoutSettings(t *testing.T) {
	localstack.Shared(t) // skips if there is no PostgreSQL
	tmp, err := os.MkdirTemp("", "quickstart-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(tmp) })
	if err := os.Chmod(tmp, 0o755); err != nil { // PostgreSQL runs as another user if this is root
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", tmp)
	setenv(t, "", "")
	var out strings.Builder
	if err := run(t.Context(), &out); err != nil || !printed.MatchString(out.String()) {
		t.Errorf("%v\n%s", err, out.String())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx, &out); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(tmp, "*")); len(left) > 0 || err != nil {
		t.Errorf("not removed: %v (%v)", left, err)
	}
}

// TestOnABrokenProject checks that the program returns an error for a project that
// can't be used, and doesn't start a stack.
func TestOnABrokenProject(t *testing.T) {
	nothing := httptest.NewServer(http.NotFoundHandler())
	defer nothing.Close()
	for _, test := range []struct{ url, key, want string }{
		{nothing.URL, "sb_secret_x", "check SUPABASE_URL"},
		{nothing.URL, "sb_publishable_x", "not a service-role key"},
		{nothing.URL, "", "no key is set"},
	} {
		setenv(t, test.url, test.key)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) // otherwise Check retries for 5 s
		defer cancel()
		if err := run(ctx, &strings.Builder{}); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v, want %s", err, test.want)
		}
	}
}
