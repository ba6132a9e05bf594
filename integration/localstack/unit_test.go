package localstack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestHTTPStatus(t *testing.T) {
	tests := []struct {
		code, message string
		anonymous     bool
		want          int
	}{
		{"23505", "", false, 409},
		{"23503", "", false, 409},
		{"23514", "", false, 400},
		{"22P02", "", false, 400},
		{"22023", "invalid value", false, 400},
		{"22023", `role "x" does not exist`, false, 401},
		{"42501", "", false, 403},
		{"42501", "", true, 401},
		{"42P01", "", false, 404},
		{"42P17", "", false, 500},
		{"42703", "", false, 400},
		{"08006", "", false, 503},
		{"53300", "", false, 503},
		{"53400", "", false, 500},
		{"57014", "", false, 500},
		{"57P01", "", false, 503},
		{"40001", "", false, 500},
		{"55P03", "", false, 500},
		{"25006", "", false, 405},
		{"28000", "", false, 403},
		{"P0001", "", false, 400},
		{"P0002", "", false, 500},
		{"PT418", "", false, 418},
		{"PTxxx", "", false, 500},
		{"XX000", "", false, 500},
		{"21000", "DELETE requires a WHERE clause", false, 400},
		{"21000", "more than one row", false, 500},
		{"", "", false, 400},
	}
	for _, tt := range tests {
		if got := httpStatus(&pgconn.PgError{Code: tt.code, Message: tt.message}, tt.anonymous); got != tt.want {
			t.Errorf("%s %q, anonymous %t: %d, want %d", tt.code, tt.message, tt.anonymous, got, tt.want)
		}
	}
}

// TestNoPostgres starts a stack on a machine with neither PostgreSQL nor a network.
func TestNoPostgres(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	folders, get := postgresFolders, download
	t.Cleanup(func() { postgresFolders, download = folders, get })
	postgresFolders = nil
	download = func(context.Context, string) (string, error) { return "", errors.New("no network") }

	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	_, err := Start(t.Context(), Options{})
	if !errors.Is(err, ErrNoPostgres) || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v, want ErrNoPostgres in one sentence", err)
	}
	if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
		t.Errorf("it left %v behind, %v", left, err)
	}
}

// TestNewestPostgres checks which of several installed versions is chosen.
func TestNewestPostgres(t *testing.T) {
	root := t.TempDir()
	for _, version := range []string{"9.6.24", "13.1", "14.20", "17.2"} {
		folder := filepath.Join(root, version, "bin")
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		script := "#!/bin/sh\necho 'postgres (PostgreSQL) " + version + "'\n"
		for _, name := range []string{"postgres", "initdb"} {
			if err := os.WriteFile(filepath.Join(folder, name), []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	folders := postgresFolders
	t.Cleanup(func() { postgresFolders = folders })
	postgresFolders = []string{filepath.Join(root, "*", "bin")}
	tests := map[string]string{ // version on PATH: version chosen
		"":       "17.2",
		"13.1":   "17.2", // too old
		"14.20":  "14.20",
		"9.6.24": "17.2",
	}
	for onPath, want := range tests {
		t.Setenv("PATH", filepath.Join(root, onPath, "bin"))
		got, err := findPostgres(t.Context(), t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if got != filepath.Join(root, want, "bin") {
			t.Errorf("with %q on PATH: %s, want %s", onPath, got, want)
		}
	}
}

// TestStackEnv checks that a process uses the stack of the process that started it.
func TestStackEnv(t *testing.T) {
	ours := Shared(t)
	if os.Getenv(StackEnv) == "" {
		t.Fatal("the stack is not in the environment")
	}
	stack, err := openShared()
	if err != nil {
		t.Fatal(err)
	}
	defer stack.Close()
	if stack.Settings != ours.Settings || stack.Ours() {
		t.Errorf("%+v, ours %t; want %+v, not ours", stack.Settings, stack.Ours(), ours.Settings)
	}
}

func TestSkippable(t *testing.T) {
	tests := []struct {
		ci   string
		err  error
		want bool
	}{
		{"", fmt.Errorf("start: %w", ErrNoPostgres), true},
		{"true", fmt.Errorf("start: %w", ErrNoPostgres), false},
		{"", errors.New("anything else"), false},
	}
	for _, tt := range tests {
		t.Setenv("CI", tt.ci)
		if got := skippable(tt.err); got != tt.want {
			t.Errorf("CI=%s, %v: %t, want %t", tt.ci, tt.err, got, tt.want)
		}
	}
}
