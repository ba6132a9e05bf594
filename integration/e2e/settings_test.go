package e2e

import (
	"crypto/rand"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/integration/internal/observe"
	"github.com/docevents/docevents-go/integration/localstack"
)

// A fault is a misconfiguration of the table, with which no event can be stored
// until it is fixed.
type fault struct {
	name         string
	cause, fix   func(*bench)
	status       int
	code, remedy string // parts of every error about the fault
}

func statements(sql ...string) func(*bench) {
	return func(b *bench) {
		b.t.Helper()
		b.execute(sql...)
		b.reload()
	}
}

// grants returns a fault for each missing privilege. The statement in the error
// fixes it.
func grants(privileges ...string) []fault {
	var faults []fault
	for _, p := range privileges {
		faults = append(faults, fault{
			name:   "no " + p,
			cause:  statements("REVOKE " + p + " ON TABLE_NAME FROM service_role"),
			fix:    func(b *bench) { b.followRemedy() },
			status: 403, code: "42501",
			remedy: "run: GRANT SELECT, INSERT, DELETE ON public.%s TO service_role;",
		})
	}
	return faults
}

// followRemedy runs the GRANT statement in Check's error.
func (b *bench) followRemedy() {
	b.t.Helper()
	err := b.client.Check(b.t.Context())
	grant := regexp.MustCompile(`GRANT [^;]+;`).FindString(fmt.Sprint(err))
	if grant == "" {
		b.t.Fatalf("no GRANT in %v", err)
	}
	b.execute(grant)
}

// missingTable renames the table, and the fix renames it back.
func missingTable() fault {
	return fault{
		name: "no table",
		cause: func(b *bench) {
			b.execute("ALTER TABLE TABLE_NAME RENAME TO hidden_" + b.table)
			b.reload()
		},
		fix: func(b *bench) {
			b.execute("ALTER TABLE public.hidden_" + b.table + " RENAME TO " + b.table)
			b.reload()
		},
		status: 404, code: "PGRST205",
		remedy: "create the table: run sql/013_create_processing_events_table.sql",
	}
}

var missingColumn = fault{
	name:   "no column",
	cause:  statements("ALTER TABLE TABLE_NAME DROP COLUMN stage"),
	fix:    statements("ALTER TABLE TABLE_NAME ADD COLUMN stage text"),
	status: 400, code: "PGRST204",
	remedy: "add the column: public.%s needs those of sql/013_create_processing_events_table.sql",
}

var missingPartition = fault{
	name: "no partition",
	cause: statements(
		"DROP TABLE TABLE_NAME",
		"CREATE TABLE TABLE_NAME (LIKE public.document_processing_events, PRIMARY KEY (id, created_at)) PARTITION BY RANGE (created_at)",
		"CREATE TABLE TABLE_NAME_old PARTITION OF TABLE_NAME FOR VALUES FROM (MINVALUE) TO ('2025-01-01')",
		planted,
		"GRANT SELECT, INSERT, DELETE ON TABLE_NAME TO service_role"),
	fix:    statements("CREATE TABLE TABLE_NAME_new PARTITION OF TABLE_NAME FOR VALUES FROM ('2025-01-01') TO (MAXVALUE)"),
	status: 400, code: "23514",
	remedy: "make a partition for the event's created_at or type, or a DEFAULT one",
}

// planted is a row that a test puts into the table before a fault.
const planted = "INSERT INTO TABLE_NAME (id, document_id, user_id, event_type, created_at) " +
	"VALUES (gen_random_uuid(), '" + document + "', '" + document + "', 'completed', '-infinity')"

// TestFaultFixed checks that Check reports each fault and doesn't change the table. The
// events recorded during a fault must be stored after the fault is fixed.
func TestFaultFixed(t *testing.T) {
	t.Parallel()
	for _, f := range append(grants("INSERT", "SELECT"), missingTable(), missingColumn, missingPartition) {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel() // the client waits 5 s before it reports a misconfiguration
			b := newBench(t)
			b.execute(planted)
			if err := b.client.Check(t.Context()); err != nil {
				t.Fatalf("Check before the fault: %v", err)
			}
			f.cause(b)
			remedy := strings.ReplaceAll(f.remedy, "%s", b.table)
			wantError(t, b.client.Check(t.Context()), f.status, f.code, remedy)
			b.client.Record(event("first"))
			wantError(t, b.client.Flush(t.Context()), f.status, f.code, remedy)
			for i := range 100 {
				b.client.Record(event(fmt.Sprint(i)))
			}
			b.wantCounts(docevents.Stats{Recorded: 101, Pending: 101})
			f.fix(b)
			if err := b.client.Check(t.Context()); err != nil {
				t.Errorf("Check after the fix: %v", err)
			}
			b.close()
			b.wantRows(102)
			b.wantCounts(docevents.Stats{Recorded: 101, Delivered: 101})
			lines := b.Lines()
			last := len(lines) - 1
			loud := slices.IndexFunc(lines, func(l observe.Line) bool { return strings.Contains(l.Text, "refused until this is fixed") })
			if loud < 0 || !strings.Contains(lines[loud].Text, remedy) || !strings.Contains(lines[last].Text, "delivering again") {
				t.Errorf("log %q, want a line with the remedy %q and a last line about the recovery", lines, remedy)
			}
		})
	}
}

// foreignKey returns a service-role key with the signature of another project.
func foreignKey(t *testing.T) string {
	t.Helper()
	key, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"role": "service_role", "iss": "supabase"}).
		SignedString([]byte(rand.Text() + rand.Text()))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestWrongSettings checks the errors for a client with a wrong key, schema or table.
func TestWrongSettings(t *testing.T) {
	t.Parallel()
	stack := localstack.Shared(t)
	table := stack.Table(t)
	for _, tt := range []struct {
		name   string
		key    string
		opts   []docevents.Option
		status int
		code   string
		remedy string
	}{
		{"another project's key", foreignKey(t), nil, 401, "", "check the key: it must be the service-role (secret) key of this very project"},
		{"an unknown secret key", "sb_secret_" + rand.Text(), nil, 401, "", "check the key"},
		{"a schema that isn't exposed", stack.ServiceRoleKey, []docevents.Option{docevents.WithSchema("nowhere")}, 406, "PGRST106", "expose the schema nowhere in the project's API settings"},
		{"another table", stack.ServiceRoleKey, []docevents.Option{docevents.WithTable("nothing_here")}, 404, "PGRST205", "create the table"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel() // the client waits 5 s before it reports a misconfiguration
			b := benchOf(t, stack, tt.key, table, tt.opts...)
			var check, purge error
			var others sync.WaitGroup
			others.Go(func() { check = b.client.Check(t.Context()) })
			others.Go(func() { _, purge = b.client.PurgeOlderThan(t.Context(), 30) })
			b.client.Record(event("a"))
			flush := b.client.Flush(t.Context())
			others.Wait()
			var lines []observe.Line
			for _, err := range []error{check, flush, purge, b.client.Close(t.Context())} {
				wantError(t, err, tt.status, tt.code, tt.remedy)
				lines = append(lines, observe.Line{Text: fmt.Sprint(err)})
			}
			b.wantCounts(docevents.Stats{Recorded: 1, Dropped: docevents.Drops{Abandoned: 1}})
			b.wantStages()
			for _, line := range append(lines, b.Lines()...) {
				text, _, _ := strings.Cut(line.Text, " document_id=") // the line about a drop may name the document
				if strings.Contains(text, tt.key) || strings.Contains(text, document) {
					t.Errorf("the text contains the key or the row: %s", text)
				}
			}
		})
	}
}

// TestSecretKey uses a key of the new style (sb_secret_...), which is not a JWT.
func TestSecretKey(t *testing.T) {
	b := newBench(t)
	if b.stack.SecretKey == "" {
		t.Skip("SUPABASE_SECRET_KEY is not set")
	}
	secret := benchOf(t, b.stack, b.stack.SecretKey, b.table)
	if err := secret.client.Check(t.Context()); err != nil {
		t.Error(err)
	}
	old := event("old")
	old.CreatedAt = time.Now().AddDate(0, 0, -31)
	secret.client.Record(old)
	secret.client.Record(event("new"))
	secret.flush()
	if n, err := secret.client.PurgeOlderThan(t.Context(), 30); n != 1 || err != nil {
		t.Errorf("purged %d, %v, want 1", n, err)
	}
	secret.close()
	b.wantStages("new")
}
