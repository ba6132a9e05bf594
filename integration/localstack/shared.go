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

// String returns the settings as a shell reads them, with the names that
// Supabase's own tools use. None of the values needs quotes.
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
		fmt.Fprintf(&b, "%s=%s\n", line[0], line[1])
	}
	return b.String()
}

// ErrNoEnv says that the environment names no project.
var ErrNoEnv = errors.New("SUPABASE_URL, DATABASE_URL and SUPABASE_SERVICE_ROLE_KEY (or SUPABASE_SECRET_KEY) are not all set")

// FromEnv returns a stack that somebody else runs: any Supabase project that
// SUPABASE_URL, SUPABASE_SERVICE_ROLE_KEY or SUPABASE_SECRET_KEY, and
// DATABASE_URL name; SUPABASE_ANON_KEY and JWT_SECRET where they are set.
// Where only one of the two service keys is set it stands for the other as well.
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

// attach makes a stack of the settings of one that runs.
func attach(ctx context.Context, settings Settings) (*Stack, error) {
	pool, err := pgxpool.New(ctx, settings.DatabaseURL)
	if err != nil {
		return nil, fmt.Errorf("localstack: DATABASE_URL: %w", err)
	}
	return &Stack{Settings: settings, pool: pool}, nil
}

// StackEnv is the environment variable that hands a test process's stack to the
// processes that it starts, as the workers of a fuzz test are: its settings, as
// JSON.
const StackEnv = "DOCEVENTS_TEST_STACK"

var shared struct {
	mu    sync.Mutex
	tried bool
	stack *Stack
	err   error
}

// Shared returns the stack of the test process, migrated, and starts it at the
// first call. It is that of StackEnv where this process was started by one that
// has a stack, else the project of [FromEnv], else a new one.
//
// Without PostgreSQL the test is skipped; where CI is set in the environment it
// fails instead.
func Shared(t testing.TB) *Stack {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if !shared.tried {
		shared.tried = true
		shared.stack, shared.err = openShared()
	}
	if shared.err != nil {
		giveUp(t, shared.err)
	}
	return shared.stack
}

// Own starts a stack, migrated, for a test that breaks it or needs another one
// than Shared. Without PostgreSQL it does as Shared does.
func Own(t testing.TB, opts Options) *Stack {
	t.Helper()
	stack, err := Start(t.Context(), opts)
	if err != nil {
		giveUp(t, err)
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

// giveUp ends a test that can't have a stack.
func giveUp(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, ErrNoPostgres) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	t.Fatal(err)
}

func openShared() (*Stack, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // a download may be part of it
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
	// A project that has the table is left as it is.
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

// Main runs a package's tests and closes the stack that they shared:
//
//	func TestMain(m *testing.M) { localstack.Main(m) }
//
// Where it doesn't get to that, as after a Ctrl-C or a test's time-out, the
// watchdog does it.
//
// Tests that are parallel wait for time to pass rather than for a processor: up
// to 16 run at once, unless the command line says -parallel, or -fuzz: then that
// is the number of workers.
func Main(m *testing.M) {
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" || f.Name == "test.fuzz" })
	if !chosen {
		_ = flag.Set("test.parallel", "16") // it is a number
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

// Table makes a table for this test alone, like document_processing_events in
// every respect, for docevents.WithTable. It goes away with the test.
//
// The table itself is shared by all tests and all processes: only Table keeps
// tests apart.
func (s *Stack) Table(t testing.TB) string {
	t.Helper()
	// Not t.Context: the clean-up runs after its end.
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
		// A test may have ended with PostgreSQL stopped.
		if _, err := s.pool.Exec(ctx, "DROP TABLE "+table); err != nil {
			t.Log(err)
		}
	})
	if err := s.Reload(ctx); err != nil {
		t.Fatal(err)
	}
	return name
}
