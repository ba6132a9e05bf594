// Package sqltest runs the files of the folder sql, unchanged, on a real PostgreSQL. It
// also runs the SQL in sql/README.md, and checks its statements.
package sqltest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/integration/localstack"
)

func TestMain(m *testing.M) { localstack.Main(m) }

const (
	tableName = "document_processing_events"
	migration = "013_create_processing_events_table.sql"
	user      = "22222222-2222-4222-8222-222222222222"
)

// A db is a database of the shared PostgreSQL, with an events table.
type db struct {
	t     testing.TB
	stack *localstack.Stack
	pool  *pgxpool.Pool
	table string // replaces tableName, also in the SQL files
}

// shared returns the shared stack, or skips the test if another process runs that
// stack.
func shared(t testing.TB) *localstack.Stack {
	t.Helper()
	stack := localstack.Shared(t)
	if !stack.Ours() {
		t.Skip("the test changes the database's roles and schemas")
	}
	return stack
}

// newTable returns the database that the REST API serves, with a new name for the table. It
// doesn't create the table.
func newTable(t testing.TB) *db {
	t.Helper()
	stack := shared(t)
	d := &db{t, stack, stack.Pool(), "events_" + strings.ToLower(rand.Text()[:12])}
	t.Cleanup(func() {
		d.exec("DROP TABLE IF EXISTS " + d.table + " CASCADE")
		for _, routine := range d.texts("SELECT oid::regprocedure::text FROM pg_proc WHERE proname LIKE $1", "%"+d.table+"%") {
			d.exec("DROP ROUTINE " + routine)
		}
	})
	return d
}

// newDatabase returns an empty database. The REST API doesn't serve it.
func newDatabase(t testing.TB) *db {
	t.Helper()
	stack := shared(t)
	name := "sql_" + strings.ToLower(rand.Text()[:12])
	owner := &db{t, stack, stack.Pool(), tableName}
	owner.exec("CREATE DATABASE " + name)
	config := stack.Pool().Config()
	config.ConnConfig.Database = name
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		pool.Close()
		owner.exec("DROP DATABASE " + name + " WITH (FORCE)")
	})
	d := &db{t, stack, pool, tableName}
	d.exec("GRANT USAGE ON SCHEMA public TO anon, authenticated, service_role") // as in every Supabase project
	return d
}

// ctx returns a context that also works in the cleanup of a test, where t.Context is
// canceled already.
func ctx(t testing.TB) context.Context {
	c, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return c
}

// read returns a file of the folder sql, with the table's name replaced. It uses
// the link in testdata, because Go's test cache notices only changes of files in
// the test's module.
func (d *db) read(name string) string {
	d.t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "sql", name))
	if err != nil {
		d.t.Fatal(err)
	}
	return d.rename(string(text))
}

func (d *db) rename(text string) string { return strings.ReplaceAll(text, tableName, d.table) }

// run runs a file in one transaction, as the SQL editor does.
func (d *db) run(name string) {
	d.t.Helper()
	d.exec(d.read(name))
}

// migrated runs 013 and returns d.
func (d *db) migrated() *db {
	d.t.Helper()
	d.run(migration)
	d.reload()
	return d
}

// reload makes the REST API read the schema again, and waits until it has.
func (d *db) reload() {
	d.t.Helper()
	if err := d.stack.Reload(ctx(d.t)); err != nil {
		d.t.Fatal(err)
	}
}

// exec runs SQL. Several statements run in one transaction.
func (d *db) exec(sql string) {
	d.t.Helper()
	if err := d.try(sql); err != nil {
		d.t.Fatalf("%.200s: %v", sql, err)
	}
}

func (d *db) try(sql string) error {
	_, err := d.pool.Exec(ctx(d.t), sql)
	return err
}

// texts returns the first column of a query's rows, as text.
func (d *db) texts(sql string, args ...any) []string {
	d.t.Helper()
	rows, err := d.pool.Query(ctx(d.t), sql, args...)
	if err != nil {
		d.t.Fatalf("%.200s: %v", sql, err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		d.t.Fatalf("%.200s: %v", sql, err)
	}
	return list
}

// text returns the single value of a query.
func (d *db) text(sql string, args ...any) string {
	d.t.Helper()
	list := d.texts(sql, args...)
	if len(list) != 1 {
		d.t.Fatalf("%.200s: %d rows, want 1", sql, len(list))
	}
	return list[0]
}

func (d *db) number(sql string, args ...any) (n int64) {
	d.t.Helper()
	if err := d.pool.QueryRow(ctx(d.t), sql, args...).Scan(&n); err != nil {
		d.t.Fatalf("%.200s: %v", sql, err)
	}
	return n
}

func (d *db) count() int64 {
	d.t.Helper()
	return d.number("SELECT count(*) FROM " + d.table)
}

func (d *db) wantCount(want int64) {
	d.t.Helper()
	if got := d.count(); got != want {
		d.t.Errorf("%d rows in the table, want %d", got, want)
	}
}

// plant inserts n rows, one per second. end is an SQL expression for the time of
// the last row.
func (d *db) plant(n int, end string) {
	d.t.Helper()
	d.exec(fmt.Sprintf(`INSERT INTO %s (document_id, user_id, event_type, created_at)
		SELECT gen_random_uuid(), '%s', 'completed', %s - i * interval '1 second' FROM generate_series(0, %d - 1) AS i`,
		d.table, user, end, n))
}

// conn returns a new connection to the database.
func (d *db) conn() *pgx.Conn {
	d.t.Helper()
	conn, _ := d.noted()
	return conn
}

// noted returns a new connection, and the notices that the server sends on it.
func (d *db) noted() (*pgx.Conn, *[]string) {
	d.t.Helper()
	notices := &[]string{}
	config := d.pool.Config().ConnConfig
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol // as psql and pg_cron do
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { *notices = append(*notices, n.Message) }
	conn, err := pgx.ConnectConfig(ctx(d.t), config)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = conn.Close(ctx(d.t)) })
	return conn, notices
}

// as runs SQL as the role, rolls it back, and returns the code of its error, or "".
func (d *db) as(role, sql string) string {
	d.t.Helper()
	tx, err := d.pool.Begin(ctx(d.t))
	if err != nil {
		d.t.Fatal(err)
	}
	defer tx.Rollback(ctx(d.t))
	if _, err := tx.Exec(ctx(d.t), "SET LOCAL ROLE "+role); err != nil {
		d.t.Fatal(err)
	}
	_, err = tx.Exec(ctx(d.t), sql)
	return sqlState(d.t, err)
}

// sqlState returns the code of an error of PostgreSQL, or "" for nil. Other errors
// fail the test.
func sqlState(t testing.TB, err error) string {
	t.Helper()
	if pg := (*pgconn.PgError)(nil); errors.As(err, &pg) {
		return pg.Code
	}
	if err != nil {
		t.Fatal(err)
	}
	return ""
}

const denied = "42501"

// apiRoles are the roles as which the REST API runs requests.
var apiRoles = []string{"anon", "authenticated", "service_role"}

// client returns a docevents client for the table. It is closed after the test.
func (d *db) client(opts ...docevents.Option) *docevents.Client {
	d.t.Helper()
	opts = append([]docevents.Option{docevents.WithTable(d.table)}, opts...)
	client, err := docevents.New(d.stack.URL, d.stack.ServiceRoleKey, opts...)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() {
		if err := client.Close(ctx(d.t)); err != nil {
			d.t.Error(err)
		}
	})
	return client
}

// flush waits for the client's events and checks that all were delivered.
func (d *db) flush(client *docevents.Client) {
	d.t.Helper()
	if err := client.Flush(ctx(d.t)); err != nil {
		d.t.Fatal(err)
	}
	if s := client.Stats(); s.Delivered != s.Recorded {
		d.t.Errorf("%+v, want all events delivered", s)
	}
}

// token returns a signed-in user's token, as Supabase's auth server issues it.
func (d *db) token(sub string) string {
	d.t.Helper()
	claims := jwt.MapClaims{"role": "authenticated", "sub": sub, "exp": time.Now().Add(time.Hour).Unix()}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(d.stack.JWTSecret))
	if err != nil {
		d.t.Fatal(err)
	}
	return token
}

// request sends a request to the REST API.
func (d *db) request(method, query, body, token string) (status int, answer string) {
	d.t.Helper()
	req, err := http.NewRequestWithContext(ctx(d.t), method, d.stack.URL+"/rest/v1/"+query, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	req.Header.Set("Apikey", d.stack.AnonKey)
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// commented returns the SQL in the comments of a file. Its lines begin with "--   ".
func commented(t testing.TB, file string) string {
	t.Helper()
	var sql strings.Builder
	for _, line := range regexp.MustCompile(`(?m)^--   (.*)$`).FindAllStringSubmatch(file, -1) {
		sql.WriteString(line[1] + "\n")
	}
	if sql.Len() == 0 {
		t.Fatal("the comments contain no SQL")
	}
	return sql.String()
}

// steps splits a file into its steps, which begin with a line "-- Step n: ...".
// Only comments may come before the first step.
func steps(t testing.TB, file string) []string {
	t.Helper()
	parts := regexp.MustCompile(`(?m)^-- Step \d:`).Split(file, -1)
	for line := range strings.Lines(parts[0]) {
		if !strings.HasPrefix(line, "--") && strings.TrimSpace(line) != "" {
			t.Fatalf("before the first step: %s", line)
		}
	}
	if len(parts) < 3 {
		t.Fatal("no steps")
	}
	for i, part := range parts {
		parts[i] = "-- " + part // the rest of the title
	}
	return parts[1:]
}

// blocked waits until want sessions wait for a lock on the table or on one of its
// partitions.
func (d *db) blocked(want int64) {
	d.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		n := d.number("SELECT count(DISTINCT pid) FROM pg_locks JOIN pg_class ON pg_class.oid = relation WHERE NOT granted AND relname LIKE $1",
			d.table+"%")
		if n == want {
			return
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("%d sessions wait for a lock, want %d", n, want)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// roundTripFunc is an http.RoundTripper.
type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func wantLines(t testing.TB, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
