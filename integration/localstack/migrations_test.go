package localstack_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/integration/localstack"
)

// description is the migrated table, as the query describe returns it from
// PostgreSQL's catalog.
const description = `
column id uuid NOT NULL gen_random_uuid()
column document_id uuid NOT NULL
column user_id uuid NOT NULL
column event_type text NOT NULL
column duration_ms integer
column error_message text
column stage text
column created_at timestamp with time zone NOT NULL now()
constraint document_processing_events_event_type_check CHECK ((event_type = ANY (ARRAY['upload_started'::text, 'processing_started'::text, 'completed'::text, 'failed'::text])))
constraint document_processing_events_pkey PRIMARY KEY (id)
index document_processing_events_pkey btree (id)
index idx_document_processing_events_created_at btree (created_at)
index idx_document_processing_events_document_id btree (document_id)
row-level security on
policies 0
`

const describe = `
SELECT line FROM (
	SELECT 1 AS part, lpad(attnum::text, 4, '0') AS sort, concat_ws(' ', 'column', attname, format_type(atttypid, atttypmod),
		CASE WHEN attnotnull THEN 'NOT NULL' END, pg_get_expr(adbin, adrelid)) AS line
	FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
	WHERE attrelid = 'public.document_processing_events'::regclass AND attnum > 0 AND NOT attisdropped
UNION ALL
	SELECT 2, conname, concat_ws(' ', 'constraint', conname, pg_get_constraintdef(oid))
	FROM pg_constraint WHERE conrelid = 'public.document_processing_events'::regclass AND contype <> 'n'
UNION ALL
	SELECT 3, indexname, concat_ws(' ', 'index', indexname, substring(indexdef FROM 'USING (.*)'))
	FROM pg_indexes WHERE schemaname = 'public' AND tablename = 'document_processing_events'
UNION ALL
	SELECT 4, '', 'row-level security ' || CASE WHEN relrowsecurity THEN 'on' ELSE 'off' END
	FROM pg_class WHERE oid = 'public.document_processing_events'::regclass
UNION ALL
	SELECT 5, '', 'policies ' || count(*)
	FROM pg_policy WHERE polrelid = 'public.document_processing_events'::regclass
) AS lines ORDER BY part, sort`

// database creates an empty database on the stack's PostgreSQL.
func database(t *testing.T, stack *localstack.Stack) *pgxpool.Pool {
	t.Helper()
	if !stack.Ours() {
		t.Skip("the test creates databases")
	}
	name := "migrations_" + strings.ToLower(strings.NewReplacer("/", "_", " ", "_").Replace(t.Name()))
	execute(t, stack, "CREATE DATABASE "+name)
	config := stack.Pool().Config()
	config.ConnConfig.Database = name
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		pool.Close()
		execute(t, stack, "DROP DATABASE "+name+" WITH (FORCE)")
	})
	// Every Supabase project has this grant.
	if _, err := pool.Exec(t.Context(), "GRANT USAGE ON SCHEMA public TO anon, authenticated, service_role"); err != nil {
		t.Fatal(err)
	}
	return pool
}

// ownVersions is the version table that sql/README.md recommends for these migrations.
const ownVersions = "docevents_db_version"

// gooseUp runs the migrations with goose, which records them in the version table, and
// returns the number of files that goose ran.
func gooseUp(t *testing.T, pool *pgxpool.Pool, table string) int {
	t.Helper()
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close()
	provider, err := goose.NewProvider(goose.DialectPostgres, db, docevents.Migrations(),
		goose.WithTableName(table), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		t.Fatal(err)
	}
	results, err := provider.Up(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return len(results)
}

// runFiles runs the migrations unchanged, as if pasted into the SQL editor.
func runFiles(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	files := docevents.Migrations()
	names, err := fs.Glob(files, "*.sql")
	if err != nil || len(names) == 0 {
		t.Fatalf("%d files, %v", len(names), err)
	}
	for _, name := range names {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pool.Exec(t.Context(), string(text)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
}

func checkTable(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	rows, _ := pool.Query(t.Context(), describe) // CollectRows returns its error
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(strings.TrimSpace(description), "\n")
	if !slices.Equal(lines, want) {
		t.Errorf("the table is\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
}

// sqlState runs SQL as the role, rolls back, and returns the error's code, or "".
func sqlState(t *testing.T, pool *pgxpool.Pool, role, sql string) string {
	t.Helper()
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	if _, err := tx.Exec(t.Context(), "SET LOCAL ROLE "+role); err != nil {
		t.Fatal(err)
	}
	_, err = tx.Exec(t.Context(), sql)
	if pg := (*pgconn.PgError)(nil); errors.As(err, &pg) {
		return pg.Code
	} else if err != nil {
		t.Fatal(err)
	}
	return ""
}

const insertEvent = `INSERT INTO document_processing_events (document_id, user_id, event_type)
	VALUES ('11111111-1111-4111-8111-111111111111', '22222222-2222-4222-8222-222222222222', 'completed')`

func checkRights(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	const denied = "42501"
	tests := []struct{ role, sql, want string }{
		{"service_role", insertEvent, ""},
		{"service_role", insertEvent + " ON CONFLICT (id) DO NOTHING", ""},
		{"service_role", "SELECT FROM document_processing_events", ""},
		{"service_role", "DELETE FROM document_processing_events WHERE created_at < now()", ""},
		{"service_role", "UPDATE document_processing_events SET stage = 'x'", denied},
		{"service_role", "TRUNCATE document_processing_events", denied},
		{"service_role", strings.Replace(insertEvent, "completed", "nope", 1), "23514"},
		{"service_role", strings.Replace(insertEvent, "'completed'", "NULL", 1), "23502"},
	}
	for _, role := range []string{"anon", "authenticated"} {
		for _, sql := range []string{
			insertEvent, "SELECT FROM document_processing_events", "DELETE FROM document_processing_events",
			"UPDATE document_processing_events SET stage = 'x'", "TRUNCATE document_processing_events",
		} {
			tests = append(tests, struct{ role, sql, want string }{role, sql, denied})
		}
	}
	for _, tt := range tests {
		if got := sqlState(t, pool, tt.role, tt.sql); got != tt.want {
			t.Errorf("%s: %s: error %q, want %q", tt.role, tt.sql, got, tt.want)
		}
	}
}

// appUp migrates an app that has the migrations 1 to n. They are Go functions in
// goose's global registry, where goose's package-level functions put them.
func appUp(t *testing.T, pool *pgxpool.Pool, n int) (ran int, err error) {
	t.Helper()
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close()
	goose.ResetGlobalMigrations()
	t.Cleanup(goose.ResetGlobalMigrations) // until then they stay registered, as in an app
	for i := range n {
		nothing := &goose.GoFunc{RunTx: func(context.Context, *sql.Tx) error { return nil }}
		if err := goose.SetGlobalMigrations(goose.NewGoMigration(int64(i+1), nothing, nil)); err != nil {
			t.Fatal(err)
		}
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, nil)
	if err != nil {
		t.Fatal(err)
	}
	results, err := provider.Up(t.Context())
	return len(results), err
}

// TestMigrationsWithAppMigrations checks that goose runs both an app's migrations and
// these, whatever numbers the app uses.
func TestMigrationsWithAppMigrations(t *testing.T) {
	stack := localstack.Shared(t)
	for _, own := range []int{5, 12, 13, 20} {
		t.Run(fmt.Sprint(own), func(t *testing.T) {
			pool := database(t, stack)
			if n, err := appUp(t, pool, own); n != own || err != nil {
				t.Fatalf("goose ran %d of the app's files, %v", n, err)
			}
			for _, want := range []int{2, 0} {
				if n := gooseUp(t, pool, ownVersions); n != want {
					t.Errorf("goose ran %d files, want %d", n, want)
				}
			}
			checkTable(t, pool)
			checkRights(t, pool)
			if n, err := appUp(t, pool, own+1); n != 1 || err != nil {
				t.Errorf("the app's next migration: %d, %v", n, err)
			}
			if n := gooseUp(t, pool, ownVersions); n != 0 {
				t.Errorf("afterwards goose ran %d files, want none", n)
			}
		})
	}
}

// TestMigrationsInTheAppsTable checks the problems that sql/README.md describes if
// these migrations share the app's version table, and the way to fix them.
func TestMigrationsInTheAppsTable(t *testing.T) {
	const apps = goose.DefaultTablename
	stack := localstack.Shared(t)
	t.Run("skipped", func(t *testing.T) {
		pool := database(t, stack)
		if _, err := appUp(t, pool, 20); err != nil {
			t.Fatal(err)
		}
		if n := gooseUp(t, pool, apps); n != 0 {
			t.Errorf("goose ran %d files, but sql/README.md warns that it skips them", n)
		}
	})
	t.Run("out of order", func(t *testing.T) {
		pool := database(t, stack)
		if _, err := appUp(t, pool, 5); err != nil {
			t.Fatal(err)
		}
		gooseUp(t, pool, apps)
		if _, err := appUp(t, pool, 6); err == nil {
			t.Error("goose ran the app's sixth migration, but sql/README.md warns that it doesn't")
		}
		if _, err := pool.Exec(t.Context(), "DELETE FROM goose_db_version WHERE version_id IN (13, 14)"); err != nil {
			t.Fatal(err)
		}
		if n, err := appUp(t, pool, 6); n != 1 || err != nil {
			t.Errorf("the app's sixth migration: %d, %v", n, err)
		}
		if n := gooseUp(t, pool, ownVersions); n != 2 {
			t.Errorf("goose ran %d files, want 2", n)
		}
		checkTable(t, pool)
	})
}

// TestMigrations runs the migrations as plain SQL, twice and then again with goose. It
// also runs them on databases with other privileges and without Supabase's roles.
func TestMigrations(t *testing.T) {
	stack := localstack.Shared(t)
	t.Run("plain SQL", func(t *testing.T) {
		pool := database(t, stack)
		runFiles(t, pool)
		checkTable(t, pool)
		checkRights(t, pool)
		if _, err := pool.Exec(t.Context(), insertEvent); err != nil {
			t.Fatal(err)
		}
		runFiles(t, pool)
		gooseUp(t, pool, ownVersions) // runs both files again, because its version table is empty
		checkTable(t, pool)
		checkRights(t, pool)
		var n int
		if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM document_processing_events").Scan(&n); err != nil || n != 1 {
			t.Errorf("%d rows after the migrations ran again, %v; want 1", n, err)
		}
	})
	t.Run("default privileges", func(t *testing.T) {
		// In projects from before 2026, the API roles get all rights on new tables.
		pool := database(t, stack)
		if _, err := pool.Exec(t.Context(), "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO anon, authenticated"); err != nil {
			t.Fatal(err)
		}
		runFiles(t, pool)
		checkTable(t, pool)
		checkRights(t, pool)
	})
	t.Run("no roles", func(t *testing.T) {
		// A plain PostgreSQL. Databases share the roles, so this needs a separate
		// server.
		plain := localstack.Own(t, localstack.Options{})
		if err := plain.StopREST(); err != nil {
			t.Fatal(err)
		}
		execute(t, plain,
			"DROP TABLE document_processing_events",
			"DROP OWNED BY anon, authenticated, service_role, authenticator",
			"DROP ROLE anon, authenticated, service_role, authenticator")
		if n := gooseUp(t, plain.Pool(), ownVersions); n != 2 {
			t.Errorf("goose ran %d files, want 2", n)
		}
		runFiles(t, plain.Pool())
		checkTable(t, plain.Pool())
	})
}
