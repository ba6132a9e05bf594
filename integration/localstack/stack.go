// Package localstack runs the REST API of a Supabase project on this machine, for tests
// and programs. A stack is PostgREST and a PostgreSQL server with Supabase's roles. If
// there is no PostgREST, a stand-in gives the same answers to docevents' requests.
//
//	stack, err := localstack.Start(ctx, localstack.Options{})
//	if err != nil { ... }
//	defer stack.Close()
//	err = stack.Migrate(ctx)
//	client, err := docevents.New(stack.URL, stack.ServiceRoleKey)
//
// The tests of a package can share a stack: see [Shared] and [Main].
//
// localstack needs PostgreSQL 14 or later. It looks for PostgreSQL on PATH and in the
// folders in which package managers install it. If it finds none, it downloads
// PostgreSQL. PostgREST 13 or later is optional: see [Options].
//
// A stack consists of child processes, a TCP port on the loopback interface, and a
// temporary folder. Close removes them. If this process ends without Close, a watchdog
// process removes them.
//
// localstack runs only on Unix systems.
package localstack

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/docevents/docevents-go"
)

// Options are the options of a stack. The zero value behaves like a hosted project.
type Options struct {
	// Addr is the loopback address and port of the REST API. The default is 127.0.0.1
	// with a free port.
	Addr string
	// Log receives the output of PostgreSQL and PostgREST, and the stack's log lines.
	// nil means no log.
	Log io.Writer
	// StatementTimeout limits each SQL statement of a request that runs as
	// service_role. It is rounded down to milliseconds. The default is 8 s, as in a
	// hosted project.
	StatementTimeout time.Duration
	// PostgREST is the path of a PostgREST program, or [StandIn]. The default is the
	// path in the environment variable POSTGREST_BIN, or the program postgrest on PATH,
	// or else StandIn.
	PostgREST string
}

// StandIn is a value for Options.PostgREST: a Go imitation of PostgREST answers the
// requests, even if this machine has a PostgREST.
const StandIn = "stand-in"

// Settings are the addresses and keys of a stack.
type Settings struct {
	URL            string // the value of SUPABASE_URL, without /rest/v1
	ServiceRoleKey string // a JWT, like Supabase's legacy keys
	AnonKey        string // a JWT
	SecretKey      string // sb_secret_..., only for the apikey header
	JWTSecret      string // the HS256 secret that signs tokens
	DatabaseURL    string // connects as the database's owner
}

// Stack is a running PostgreSQL with a REST API. Its methods are safe for concurrent
// use. Only the process that started the stack can start and stop its servers.
type Stack struct {
	Settings

	opts     Options
	dir      string
	cluster  *cluster // nil if this process didn't start the stack
	pool     *pgxpool.Pool
	watchdog *watchdog

	mu   sync.Mutex // guards rest; held while a server starts or stops
	rest *restServer
}

// Start starts a stack and waits until it answers. ctx limits only the start.
func Start(ctx context.Context, opts Options) (*Stack, error) {
	s := &Stack{opts: opts.withDefaults()}
	if err := s.start(ctx); err != nil {
		return nil, fmt.Errorf("localstack: %w", errors.Join(err, s.Close()))
	}
	return s, nil
}

func (opts Options) withDefaults() Options {
	opts.Addr = cmp.Or(opts.Addr, "127.0.0.1:0")
	opts.StatementTimeout = cmp.Or(opts.StatementTimeout, 8*time.Second)
	return opts
}

// start sets up the stack. If it fails, Close stops the started parts.
func (s *Stack) start(ctx context.Context) error {
	as, err := serverAccount()
	if err != nil {
		return err
	}
	if s.dir, err = stackFolder(as); err != nil {
		return err
	}
	if s.watchdog, err = startWatchdog(s.dir); err != nil {
		return err
	}
	programs, err := findPostgres(ctx, s.dir)
	if err != nil {
		return err
	}
	s.cluster = &cluster{programs: programs, dir: s.dir, as: as, log: s.opts.Log}
	if err := s.cluster.create(ctx); err != nil {
		return err
	}
	if err := s.cluster.start(ctx); err != nil {
		return err
	}
	s.DatabaseURL = s.cluster.databaseURL("postgres")
	if s.pool, err = pgxpool.New(ctx, s.DatabaseURL); err != nil {
		return err
	}
	for _, sql := range roles(s.opts.StatementTimeout) {
		if _, err := s.pool.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	s.JWTSecret = rand.Text() + rand.Text() // PostgREST requires at least 32 bytes
	s.SecretKey = "sb_secret_" + rand.Text()
	if s.AnonKey, err = token(s.JWTSecret, anonRole); err != nil {
		return err
	}
	if s.ServiceRoleKey, err = token(s.JWTSecret, "service_role"); err != nil {
		return err
	}
	return s.StartREST(ctx)
}

// Pool returns a pool of connections as the database's owner, for tests that run SQL.
func (s *Stack) Pool() *pgxpool.Pool { return s.pool }

// Migrate runs docevents' SQL migrations, each in its own transaction, and waits until
// the REST API knows the table.
func (s *Stack) Migrate(ctx context.Context) error {
	if err := s.migrate(ctx); err != nil {
		return fmt.Errorf("localstack: migrate: %w", err)
	}
	return nil
}

func (s *Stack) migrate(ctx context.Context) error {
	files := docevents.Migrations()
	names, err := fs.Glob(files, "*.sql") // sorted
	if err != nil {
		return err
	}
	for _, name := range names {
		sql, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		if _, err := s.pool.Exec(ctx, string(sql)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return s.Reload(ctx)
}

// Reload makes the REST API read the database schema and the roles' settings again, and
// waits until it has done so. PostgREST doesn't report when it has read them, so Reload
// creates a table and waits until the REST API knows it.
func (s *Stack) Reload(ctx context.Context) error {
	probe := "localstack_reload_" + rand.Text()
	table := exposed + "." + quote(probe)
	if _, err := s.pool.Exec(ctx, "CREATE TABLE "+table+" (id int);"+
		"GRANT SELECT ON "+table+" TO service_role;"+
		"NOTIFY pgrst, 'reload config'; NOTIFY pgrst, 'reload schema'"); err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	known := s.awaitREST(ctx, "/"+probe+"?limit=0", func(status int) bool {
		return status != http.StatusNotFound && status < http.StatusInternalServerError
	})
	_, err := s.pool.Exec(ctx, "DROP TABLE "+table)
	return errors.Join(known, err)
}

// KillPostgres ends all processes of PostgreSQL with SIGKILL, like a crash.
// StartPostgres recovers committed data.
func (s *Stack) KillPostgres() error {
	return s.withCluster("is killed", func(c *cluster) error { return c.server.kill() })
}

// StartPostgres starts PostgreSQL after KillPostgres, and waits until PostgreSQL
// accepts connections. The REST API reconnects a moment later. If PostgreSQL is
// running, StartPostgres doesn't start it again.
func (s *Stack) StartPostgres(ctx context.Context) error {
	return s.withCluster("starts", func(c *cluster) error { return c.start(ctx) })
}

func (s *Stack) withCluster(what string, do func(*cluster) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logf("PostgreSQL %s", what)
	err := do(s.cluster)
	s.pool.Reset() // its connections are broken
	return err
}

// Ours reports whether this process started the stack, and so can start and stop its
// servers.
func (s *Stack) Ours() bool { return s.cluster != nil }

// Close stops the stack and removes its folder. It is safe to call Close twice.
func (s *Stack) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	errs := []error{s.stopREST()}
	if s.pool != nil {
		s.pool.Close()
	}
	if s.cluster != nil {
		errs = append(errs, s.cluster.server.quit())
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	if s.watchdog != nil {
		errs = append(errs, s.watchdog.close())
		s.watchdog = nil
	}
	return errors.Join(errs...)
}

func (s *Stack) logf(format string, args ...any) {
	if s.opts.Log != nil {
		fmt.Fprintf(s.opts.Log, "localstack: "+format+"\n", args...)
	}
}
