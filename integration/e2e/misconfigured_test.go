package e2e

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

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
		"GRANT SELECT, INSERT, DELETE ON TABLE_NAME TO service_role"),
	fix:    statements("CREATE TABLE TABLE_NAME_new PARTITION OF TABLE_NAME FOR VALUES FROM ('2025-01-01') TO (MAXVALUE)"),
	status: 400, code: "23514",
	remedy: "make a partition for the event's created_at or type, or a DEFAULT one",
}

// TestFaultFixed records events during a fault and then fixes the fault. Close
// delivers all events.
func TestFaultFixed(t *testing.T) {
	t.Parallel()
	for _, f := range append(grants("INSERT", "SELECT"), missingTable(), missingColumn, missingPartition) {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel() // the client waits 5 s before it reports a misconfiguration
			b := newBench(t)
			f.cause(b)
			b.client.Record(event("first"))
			err := b.client.Flush(t.Context())
			remedy := strings.ReplaceAll(f.remedy, "%s", b.table)
			wantError(t, err, f.status, f.code, remedy)
			want := []string{"first"}
			for i := range 100 {
				b.client.Record(event(fmt.Sprint(i)))
				want = append(want, fmt.Sprint(i))
			}
			b.wantCounts(docevents.Stats{Recorded: 101, Pending: 101})
			f.fix(b)
			b.close()
			b.wantStages(want...)
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

// TestFaultNotFixed checks that Close ends although a fault lasts. It drops the
// events as abandoned, and their outcome is known, because the server rejected
// them.
func TestFaultNotFixed(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	f := missingTable()
	f.cause(b)
	for i := range 10 {
		b.client.Record(event(fmt.Sprint(i)))
	}
	err := b.client.Close(t.Context())
	wantError(t, err, f.status, f.code, f.remedy)
	if !strings.Contains(fmt.Sprint(err), "10 events abandoned") {
		t.Errorf("Close: %v", err)
	}
	b.wantCounts(docevents.Stats{Recorded: 10, Dropped: docevents.Drops{Abandoned: 10}})
	for _, d := range b.NewDrops() {
		if d.Reason != docevents.Abandoned || errors.Is(d.Err, docevents.ErrOutcomeUnknown) {
			t.Errorf("dropped as %s: %v", d.Reason, d.Err)
		}
	}
	f.fix(b)
}

// TestTableThatComesLate creates the table after the first event, with the NOTIFY
// of the migration that makes the REST server reload the schema.
func TestTableThatComesLate(t *testing.T) {
	t.Parallel()
	stack := localstack.Shared(t)
	b := benchOf(t, stack, stack.ServiceRoleKey, "late_"+strings.ToLower(rand.Text()[:12]))
	b.client.Record(event("early"))
	wantError(t, b.client.Flush(t.Context()), 404, "PGRST205", "create the table")
	b.execute("CREATE TABLE TABLE_NAME (LIKE public.document_processing_events INCLUDING ALL)",
		"GRANT SELECT, INSERT, DELETE ON TABLE_NAME TO service_role",
		"NOTIFY pgrst, 'reload schema'")
	defer b.execute("DROP TABLE TABLE_NAME")
	b.client.Record(event("late"))
	observe.Await(t, "the REST server knows the table", func() bool { return b.client.Check(t.Context()) == nil })
	b.close()
	b.wantStages("early", "late")
}

// TestForeignKey inserts an event's document after the event was rejected.
func TestForeignKey(t *testing.T) {
	b := newBench(t)
	b.execute("CREATE TABLE TABLE_NAME_documents (id uuid PRIMARY KEY)",
		"ALTER TABLE TABLE_NAME ADD CONSTRAINT document FOREIGN KEY (document_id) REFERENCES TABLE_NAME_documents")
	defer b.execute("ALTER TABLE TABLE_NAME DROP CONSTRAINT document", "DROP TABLE TABLE_NAME_documents")
	b.client.Record(event("a"))
	observe.Await(t, "the insert is rejected", func() bool { return len(b.Lines()) > 0 })
	if line := b.Lines()[0].Text; !strings.Contains(line, "23503") || !strings.Contains(line, "trying again") {
		t.Errorf("log: %s", line)
	}
	b.wantCounts(docevents.Stats{Recorded: 1, Pending: 1})
	b.execute("INSERT INTO TABLE_NAME_documents VALUES ('" + document + "')")
	b.flush()
	b.wantStages("a")
	b.wantCounts(docevents.Stats{Recorded: 1, Delivered: 1})
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

// TestCheck checks that Check reports each fault, returns nil after the fix, and
// doesn't change the table.
func TestCheck(t *testing.T) {
	t.Parallel()
	for _, f := range append(grants("INSERT", "SELECT", "DELETE"), missingTable(), missingColumn) {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel() // the client waits 5 s before it reports a misconfiguration
			b := newBench(t)
			b.execute("INSERT INTO TABLE_NAME (document_id, user_id, event_type, created_at) " +
				"VALUES ('" + document + "', '" + document + "', 'completed', '-infinity')")
			if err := b.client.Check(t.Context()); err != nil {
				t.Fatalf("before: %v", err)
			}
			f.cause(b)
			err := b.client.Check(t.Context())
			wantError(t, err, f.status, f.code, strings.ReplaceAll(f.remedy, "%s", b.table))
			if !strings.HasPrefix(err.Error(), "docevents: Check: ") || strings.Contains(err.Error(), b.stack.ServiceRoleKey) {
				t.Errorf("error %q", err)
			}
			f.fix(b)
			if err := b.client.Check(t.Context()); err != nil {
				t.Errorf("after: %v", err)
			}
			var n int
			if err := b.stack.Pool().QueryRow(t.Context(), "SELECT count(*) FROM "+b.table).Scan(&n); err != nil || n != 1 {
				t.Errorf("%d rows, %v, want 1", n, err)
			}
			b.wantCounts(docevents.Stats{})
		})
	}
	t.Run("an unreachable host", func(t *testing.T) {
		stack := localstack.Shared(t)
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if err := listener.Close(); err != nil {
			t.Fatal(err)
		}
		client, err := docevents.New("http://"+listener.Addr().String(), stack.ServiceRoleKey)
		if err != nil {
			t.Fatal(err)
		}
		err = client.Check(t.Context())
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("error %v, want the refused connection", err)
		}
		for _, want := range []string{"docevents: Check: insert: check SUPABASE_URL and the network", listener.Addr().String()} {
			if !strings.Contains(fmt.Sprint(err), want) {
				t.Errorf("error %v, want it to contain %q", err, want)
			}
		}
	})
}
