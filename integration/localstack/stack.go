// Package localstack runs what a Supabase project's REST API is made of, on
// this machine and for as long as a test or a program needs it: a real
// PostgreSQL with Supabase's roles, and in front of it a real PostgREST where
// there is one, else a gateway of our own that answers the same way.
//
//	stack, err := localstack.Start(ctx, localstack.Options{})
//	if err != nil { ... }
//	defer stack.Close()
//	err = stack.Migrate(ctx)
//	client, err := docevents.New(stack.URL, stack.ServiceRoleKey)
//
// Tests of one package share a stack: see [Shared] and [Main].
//
// PostgreSQL is the one on PATH or in the distribution's folder, from version
// 14; where there is none it is downloaded. PostgREST, from version 13, is the
// program that POSTGREST_BIN names or that is on PATH. All there is of a stack
// is processes of ours, one TCP port on the loopback interface, and one
// temporary folder. Close removes it all; should this process die without one, a
// watchdog does.
//
// It runs on Unix systems.
package localstack

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/docevents/docevents-go"
)

// Options of a stack. The zero value is like a hosted project.
type Options struct {
	// Addr is where the REST API listens: a loopback address and a port.
	// Empty: 127.0.0.1, and a free port.
	Addr string
	// Log receives what PostgreSQL and PostgREST write, and what happens to the
	// stack. nil: nothing is logged.
	Log io.Writer
	// Schemas are those that the REST API exposes; the first is the one that a
	// request without a profile means. Empty: public alone.
	Schemas []string
	// MaxRows is the most rows that a read returns. 0: 1000, as hosted.
	MaxRows int
	// PoolSize is the number of the REST server's database connections.
	// 0: 10, PostgREST's default.
	PoolSize int
	// StatementTimeout is that of the role authenticator, and so of
	// service_role, in whole milliseconds. 0: 8 s, as hosted.
	StatementTimeout time.Duration
	// PostgREST is the path of a PostgREST, or [Gateway]. Empty: POSTGREST_BIN,
	// else postgrest on PATH, else the gateway.
	PostgREST string
}

// Gateway stands for our own gateway in Options, also where there is a PostgREST.
const Gateway = "gateway"

// Settings are what a client needs of a stack.
type Settings struct {
	URL            string // as SUPABASE_URL: without /rest/v1
	ServiceRoleKey string // a JWT, as Supabase's legacy keys are
	AnonKey        string // a JWT
	SecretKey      string // sb_secret_..., for the apikey header alone
	JWTSecret      string // for tokens of a test's own, HS256
	DatabaseURL    string // of the database's owner
}

// Stack is a running stack. All its methods may be called from several
// goroutines; those that stop and start things run one at a time.
type Stack struct {
	Settings

	opts     Options
	dir      string
	cluster  *cluster // nil where the stack is another's: see [FromEnv]
	pool     *pgxpool.Pool
	watchdog *watchdog

	mu     sync.Mutex // held while something is stopped or started
	rest   *restServer
	closed bool
}

// ErrNotOurs says that a stack can't be stopped or killed in part, since
// another process started it.
var ErrNotOurs = errors.New("the stack was not started by this process")

// Start starts a stack and waits until it answers. ctx bounds the start only.
func Start(ctx context.Context, opts Options) (*Stack, error) {
	s := &Stack{opts: opts.withDefaults()}
	if err := s.start(ctx); err != nil {
		return nil, fmt.Errorf("localstack: %w", errors.Join(err, s.Close()))
	}
	return s, nil
}

func (opts Options) withDefaults() Options {
	opts.Addr = cmp.Or(opts.Addr, "127.0.0.1:0")
	opts.MaxRows = cmp.Or(opts.MaxRows, 1000)
	opts.PoolSize = cmp.Or(opts.PoolSize, 10)
	opts.StatementTimeout = cmp.Or(opts.StatementTimeout, 8*time.Second)
	if len(opts.Schemas) == 0 {
		opts.Schemas = []string{"public"}
	}
	return opts
}

// start fills the stack; what it has started when it fails is Close's to stop.
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
	s.JWTSecret = rand.Text() + rand.Text() // PostgREST wants 32 bytes or more
	s.SecretKey = "sb_secret_" + rand.Text()
	if s.AnonKey, err = token(s.JWTSecret, anonRole); err != nil {
		return err
	}
	if s.ServiceRoleKey, err = token(s.JWTSecret, "service_role"); err != nil {
		return err
	}
	return s.StartREST(ctx)
}

// Pool is a pool of connections as the database's owner, for a test's own
// statements.
func (s *Stack) Pool() *pgxpool.Pool { return s.pool }

// Migrate applies docevents' migrations, each whole and in order, and waits until
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

// Reload makes the REST server read the schema and the roles' settings anew,
// and waits until it has. PostgREST doesn't say when it is done: a table made for
// the purpose shows up in the API.
func (s *Stack) Reload(ctx context.Context) error {
	schema := "public"
	if len(s.opts.Schemas) > 0 {
		schema = s.opts.Schemas[0]
	}
	probe := "localstack_reload_" + rand.Text()
	table := quote(schema) + "." + quote(probe)
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

// awaitREST asks until the status is one that is waited for.
func (s *Stack) awaitREST(ctx context.Context, path string, good func(status int) bool) error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+restPrefix+path, nil)
		if err != nil {
			return err
		}
		req.Header.Set("Apikey", s.ServiceRoleKey)
		req.Header.Set("Authorization", "Bearer "+s.ServiceRoleKey)
		resp, err := client.Do(req)
		if err == nil {
			resp.Body.Close()
			if good(resp.StatusCode) {
				return nil
			}
			err = errors.New(resp.Status)
		}
		if pause(ctx) != nil {
			return fmt.Errorf("the REST API is not ready: %w", err)
		}
	}
}

// restServer is the REST API: a listener, and a backend behind the gate.
type restServer struct {
	http    *http.Server
	backend backend
	done    chan struct{} // closed when Serve has returned
}

// backend is a PostgREST, ours or the real one.
type backend interface {
	http.Handler
	io.Closer
}

// StartREST starts the REST server on its address, which stays the same for
// the life of the stack, and waits until it answers or, with PostgreSQL
// stopped, refuses. It does nothing while the server runs.
func (s *Stack) StartREST(ctx context.Context) error {
	if s.cluster == nil {
		return ErrNotOurs
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rest != nil {
		return nil
	}
	listener, err := s.listen(ctx)
	if err != nil {
		return err
	}
	if s.URL == "" { // once: later starts may have readers beside them
		s.opts.Addr = listener.Addr().String()
		s.URL = "http://" + s.opts.Addr
	}
	behind, err := s.newBackend()
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	rest := &restServer{
		http:    &http.Server{Handler: &gate{s.Settings, behind}, ReadHeaderTimeout: time.Minute},
		backend: behind,
		done:    make(chan struct{}),
	}
	go func() {
		defer close(rest.done)
		_ = rest.http.Serve(listener) // always ErrServerClosed
	}()
	s.rest = rest
	s.logf("REST API on %s", s.URL)
	if !s.cluster.server.running() {
		return nil
	}
	return s.awaitREST(ctx, "/", func(status int) bool { return status < http.StatusInternalServerError })
}

// listen takes the stack's port, again if need be: while nobody listened, a
// client's attempt to connect may have taken it for a moment.
func (s *Stack) listen(ctx context.Context) (net.Listener, error) {
	for attempt := 0; ; attempt++ {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.opts.Addr)
		if err == nil || attempt == 100 || s.URL == "" {
			return listener, err
		}
		if pause(ctx) != nil {
			return nil, err
		}
	}
}

// StopREST ends the REST server as its death would: connections break, and what
// has not been committed is rolled back. It does nothing while none runs.
func (s *Stack) StopREST() error {
	if s.cluster == nil {
		return ErrNotOurs
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopREST()
}

func (s *Stack) stopREST() error {
	if s.rest == nil {
		return nil
	}
	s.logf("REST API stops")
	err := errors.Join(s.rest.http.Close(), s.rest.backend.Close())
	<-s.rest.done
	s.rest = nil
	return err
}

// StopPostgres shuts PostgreSQL down in order: sessions are broken off, as they
// are when a project is restarted.
func (s *Stack) StopPostgres() error {
	return s.withCluster("stops", (*cluster).stop)
}

// KillPostgres ends all of PostgreSQL's processes with SIGKILL, as a crash
// would. What was committed survives: StartPostgres recovers it.
func (s *Stack) KillPostgres() error {
	return s.withCluster("is killed", (*cluster).kill)
}

// StartPostgres starts PostgreSQL again and waits until it takes connections.
// The REST server finds it by itself, a moment later. It does nothing while the
// server runs.
func (s *Stack) StartPostgres(ctx context.Context) error {
	return s.withCluster("starts", func(c *cluster) error { return c.start(ctx) })
}

// RestartPostgres is StopPostgres and StartPostgres.
func (s *Stack) RestartPostgres(ctx context.Context) error {
	return s.withCluster("restarts", func(c *cluster) error { return errors.Join(c.stop(), c.start(ctx)) })
}

func (s *Stack) withCluster(what string, do func(*cluster) error) error {
	if s.cluster == nil {
		return ErrNotOurs
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logf("PostgreSQL %s", what)
	err := do(s.cluster)
	s.pool.Reset() // its connections are broken
	return err
}

// Ours reports whether this process started the stack, and so may stop it.
func (s *Stack) Ours() bool { return s.cluster != nil }

// Close stops everything and removes the folder. Twice is harmless.
func (s *Stack) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	var errs []error
	if s.rest != nil {
		errs = append(errs, s.stopREST())
	}
	if s.pool != nil {
		s.pool.Close()
	}
	if s.cluster != nil {
		errs = append(errs, s.cluster.discard())
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	if s.watchdog != nil {
		errs = append(errs, s.watchdog.close())
	}
	return errors.Join(errs...)
}

func (s *Stack) logf(format string, args ...any) {
	if s.opts.Log != nil {
		fmt.Fprintf(s.opts.Log, "localstack: "+format+"\n", args...)
	}
}
