package localstack

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// String returns the settings as shell commands, one on each line. For example:
//
//	export SUPABASE_URL=http://127.0.0.1:3000
func (s Settings) String() string {
	var b strings.Builder
	for _, line := range [][2]string{
		{"SUPABASE_URL", s.URL},
		{"SUPABASE_SERVICE_ROLE_KEY", s.ServiceRoleKey},
		{"SUPABASE_ANON_KEY", s.AnonKey},
		{"SUPABASE_SECRET_KEY", s.SecretKey},
		{"DATABASE_URL", s.DatabaseURL},
		{"JWT_SECRET", s.JWTSecret},
	} {
		fmt.Fprintf(&b, "export %s=%s\n", line[0], line[1])
	}
	return b.String()
}

// ErrNoEnv means that the environment doesn't name a Supabase project.
var ErrNoEnv = errors.New("SUPABASE_URL, DATABASE_URL and SUPABASE_SERVICE_ROLE_KEY (or SUPABASE_SECRET_KEY) are not all set")

// FromEnv returns a stack for an existing Supabase project, hosted or local. It needs
// the environment variables SUPABASE_URL and DATABASE_URL, and a key:
// SUPABASE_SERVICE_ROLE_KEY or SUPABASE_SECRET_KEY. Without them, FromEnv returns
// [ErrNoEnv]. SUPABASE_ANON_KEY and JWT_SECRET are optional.
func FromEnv(ctx context.Context) (*Stack, error) {
	settings := Settings{
		URL:            strings.TrimRight(os.Getenv("SUPABASE_URL"), "/"),
		ServiceRoleKey: os.Getenv("SUPABASE_SERVICE_ROLE_KEY"),
		AnonKey:        os.Getenv("SUPABASE_ANON_KEY"),
		SecretKey:      os.Getenv("SUPABASE_SECRET_KEY"),
		JWTSecret:      os.Getenv("JWT_SECRET"),
		DatabaseURL:    os.Getenv("DATABASE_URL"),
	}
	if settings.ServiceRoleKey == "" {
		settings.ServiceRoleKey = settings.SecretKey
	}
	if settings.URL == "" || settings.ServiceRoleKey == "" || settings.DatabaseURL == "" {
		return nil, ErrNoEnv
	}
	return attach(ctx, settings)
}

// attach returns a Stack for a stack that is already running.
func attach(ctx context.Context, settings Settings) (*Stack, error) {
	pool, err := pgxpool.New(ctx, settings.DatabaseURL)
	if err != nil {
		return nil, fmt.Errorf("localstack: DATABASE_URL: %w", err)
	}
	return &Stack{Settings: settings, pool: pool}, nil
}

// StackEnv is an environment variable with the [Settings] of a running stack, as JSON.
// A test process sets it for the processes that it starts, which then use the same
// stack.
const StackEnv = "DOCEVENTS_TEST_STACK"

var shared struct {
	mu    sync.Mutex
	tried bool
	stack *Stack
	err   error
}

// Shared returns the stack that the tests of this process share: the stack of
// [StackEnv], or the project of [FromEnv], or a new stack. If docevents' table is
// missing, Shared runs the migrations.
//
// If this machine has no PostgreSQL for a new stack, Shared skips the test, or fails it
// if the environment variable CI is set.
func Shared(t testing.TB) *Stack {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if !shared.tried {
		shared.tried = true
		shared.stack, shared.err = openShared()
	}
	if shared.err != nil {
		startFailed(t, shared.err)
	}
	return shared.stack
}

// Own starts a stack for one test and runs docevents' migrations. It is for tests that
// stop servers or need special options. The stack is closed when the test ends. If this
// machine has no PostgreSQL, Own skips or fails the test, as [Shared] does.
func Own(t testing.TB, opts Options) *Stack {
	t.Helper()
	stack, err := Start(t.Context(), opts)
	if err != nil {
		startFailed(t, err)
	}
	t.Cleanup(func() {
		if err := stack.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := stack.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return stack
}

func startFailed(t testing.TB, err error) {
	t.Helper()
	if skippable(err) {
		t.Skip(err)
	}
	t.Fatal(err)
}

// skippable reports whether a test is skipped if Start returns err.
func skippable(err error) bool { return errors.Is(err, ErrNoPostgres) && os.Getenv("CI") == "" }

func openShared() (*Stack, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // this may include a download of PostgreSQL
	defer cancel()
	if text := os.Getenv(StackEnv); text != "" {
		var settings Settings
		if err := json.Unmarshal([]byte(text), &settings); err != nil {
			return nil, fmt.Errorf("localstack: %s: %w", StackEnv, err)
		}
		return attach(ctx, settings)
	}
	stack, err := FromEnv(ctx)
	if errors.Is(err, ErrNoEnv) {
		stack, err = Start(ctx, Options{})
	}
	if err != nil {
		return nil, err
	}
	// Don't migrate a project that already has the table.
	if !stack.hasTable(ctx) {
		if err := stack.Migrate(ctx); err != nil {
			return nil, errors.Join(err, stack.Close())
		}
	}
	text, err := json.Marshal(stack.Settings)
	if err != nil {
		return nil, err
	}
	return stack, os.Setenv(StackEnv, string(text))
}

func (s *Stack) hasTable(ctx context.Context) (found bool) {
	err := s.pool.QueryRow(ctx, "SELECT to_regclass('public.document_processing_events') IS NOT NULL").Scan(&found)
	return err == nil && found
}

// Main runs a package's tests and then closes their shared stack. Call it from
// TestMain:
//
//	func TestMain(m *testing.M) { localstack.Main(m) }
//
// Main lets 16 parallel tests run at once, because most of them only wait. With
// -parallel or -fuzz on the command line, it doesn't change the limit.
func Main(m *testing.M) {
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" || f.Name == "test.fuzz" })
	if !chosen {
		_ = flag.Set("test.parallel", "16") // a valid number
	}
	code := m.Run()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.stack != nil {
		if err := shared.stack.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// Table creates an empty table with the columns of document_processing_events, and
// returns its name for docevents.WithTable. The table is dropped when the test ends. A
// test that counts rows needs such a table, because all tests share
// document_processing_events.
func (s *Stack) Table(t testing.TB) string {
	t.Helper()
	// t.Context is canceled before the cleanup runs.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	// Names are unique across the processes that share a stack.
	name := "events_" + strings.ToLower(rand.Text()[:12])
	table := "public." + quote(name)
	_, err := s.pool.Exec(ctx, "CREATE TABLE "+table+" (LIKE public.document_processing_events INCLUDING ALL);"+
		"ALTER TABLE "+table+" ENABLE ROW LEVEL SECURITY;"+
		"GRANT SELECT, INSERT, DELETE ON "+table+" TO service_role")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		// The test may have stopped PostgreSQL.
		if _, err := s.pool.Exec(ctx, "DROP TABLE "+table); err != nil {
			t.Log(err)
		}
	})
	if err := s.Reload(ctx); err != nil {
		t.Fatal(err)
	}
	return name
}
