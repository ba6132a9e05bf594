package sqltest

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/integration/internal/observe"
)

// execSection runs a block of SQL from a section of sql/README.md with the test's table
// names, and makes the REST API reload. If the block contains CONCURRENTLY, each statement
// runs in its own transaction.
func (d *db) execSection(title string, block int) {
	d.t.Helper()
	blocks := d.section("### " + title)
	if block >= len(blocks) {
		d.t.Fatalf("%s has %d blocks of SQL", title, len(blocks))
	}
	sql := d.own(blocks[block])
	conn := d.conn()
	if strings.Contains(sql, "CONCURRENTLY") {
		for _, statement := range strings.SplitAfter(strings.TrimSpace(sql), ";") {
			if _, err := conn.Exec(ctx(d.t), statement); err != nil {
				d.t.Fatalf("%s: %v", statement, err)
			}
		}
	} else if _, err := conn.Exec(ctx(d.t), sql); err != nil {
		d.t.Fatal(err)
	}
	d.reload()
}

// own replaces the names of the README's other tables by names for this test.
func (d *db) own(sql string) string {
	for _, name := range []string{"documents", "steps", "step_events"} {
		sql = strings.ReplaceAll(sql, "public."+name, "public."+d.table+"_"+name)
	}
	return sql
}

// ownTable creates one of the README's other tables.
func (d *db) ownTable(name, columns string) {
	d.t.Helper()
	name = d.own("public." + name)
	d.exec("CREATE TABLE " + name + " (" + columns + ")")
	d.t.Cleanup(func() { d.exec("DROP TABLE " + name + " CASCADE") })
}

// wantStoredOnce records 20 events of the document, whose answers are lost. It checks that
// each event is stored once, and purges the events, which are 40 days old.
func (d *db) wantStoredOnce(document string, opts ...docevents.Option) {
	d.t.Helper()
	const events = 20
	before := d.count()
	client := d.client(append(opts, observe.LostAnswers(), docevents.WithSlog(quiet))...)
	old := time.Now().AddDate(0, 0, -40).Truncate(time.Second)
	for i := range events {
		client.Record(docevents.Event{DocumentID: document, UserID: user, Type: docevents.Completed, Duration: time.Second, CreatedAt: old.Add(time.Duration(i) * time.Second)})
	}
	d.flush(client)
	if s := client.Stats(); s.Delivered != events || s.Retries == 0 {
		d.t.Errorf("%+v", s)
	}
	d.wantCount(before + events)
	timeline, err := client.Timeline(ctx(d.t), document)
	if err != nil || len(timeline) < events {
		d.t.Errorf("a timeline of %d events, %v", len(timeline), err)
	}
	steps := d.client(append(opts, docevents.WithPurgeBatch(7))...)
	for i, purging := range []*docevents.Client{steps, client} {
		n, err := purging.PurgeBefore(ctx(d.t), old.Add(time.Duration(i+1)*events/2*time.Second))
		if n != events/2 || err != nil {
			d.t.Errorf("purged %d, %v, want %d", n, err, events/2)
		}
	}
	d.wantCount(before)
}

// wantCheck checks that Check's error contains want, or that it is nil if want is
// empty, and that Check stores nothing.
func (d *db) wantCheck(want string, opts ...docevents.Option) {
	d.t.Helper()
	before := d.count()
	err := d.client(opts...).Check(ctx(d.t))
	switch {
	case want == "" && err != nil:
		d.t.Errorf("Check: %v", err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		d.t.Errorf("Check: %v, want %q", err, want)
	}
	d.wantCount(before)
}

// TestColumnFilled checks a trigger that fills a NOT NULL column from the event's document.
// One event is recorded before its document exists.
func TestColumnFilled(t *testing.T) {
	t.Parallel()
	both(t, newTable, func(t *testing.T, d *db) {
		d.ownTable("documents", "id uuid PRIMARY KEY, tenant_id uuid NOT NULL")
		document := func(id string) string {
			d.exec("INSERT INTO " + d.own("public.documents") + " VALUES ('" + id + "', '" + user + "')")
			return id
		}
		d.exec("ALTER TABLE " + d.table + " ADD COLUMN tenant_id uuid NOT NULL")
		d.reload()
		d.wantCheck(`null value in column "tenant_id"`)
		d.execSection("A column that the database fills", 0)
		d.wantCheck("")
		d.wantStoredOnce(document(uuid.NewString()))

		client := d.client(docevents.WithSlog(quiet))
		early := uuid.NewString()
		client.Record(docevents.Event{DocumentID: early, UserID: user, Type: docevents.UploadStarted})
		for range 5 { // the early event is retried while these are stored
			client.Record(docevents.Event{DocumentID: document(uuid.NewString()), UserID: user, Type: docevents.UploadStarted})
		}
		for client.Stats().Delivered < 5 {
			time.Sleep(time.Millisecond)
		}
		if s := client.Stats(); s.Pending != 1 {
			t.Errorf("%+v, want the early event pending", s)
		}
		document(early)
		d.flush(client)
		if n := d.number("SELECT count(*) FROM " + d.table + " WHERE tenant_id = '" + user + "'"); n != 6 {
			t.Errorf("%d rows of the tenant, want 6", n)
		}
	})
}

// TestColumnFilledWithNull checks a trigger that raises no error if the document doesn't
// exist. Then the event is dropped.
func TestColumnFilledWithNull(t *testing.T) {
	t.Parallel()
	d := newTable(t).migrated()
	d.ownTable("documents", "id uuid PRIMARY KEY, tenant_id uuid NOT NULL")
	d.exec("ALTER TABLE " + d.table + " ADD COLUMN tenant_id uuid NOT NULL")
	d.execSection("A column that the database fills", 0)
	body := d.text("SELECT pg_get_functiondef($1::regproc)", d.table+"_fill")
	begin, end := strings.Index(body, "IF NOT FOUND"), strings.Index(body, "RETURN NEW")
	d.exec(body[:begin] + body[end:])
	known := uuid.NewString()
	d.exec("INSERT INTO " + d.own("public.documents") + " VALUES ('" + known + "', '" + user + "')")
	client := d.client(docevents.WithSlog(quiet))
	for _, document := range []string{known, uuid.NewString(), known} {
		client.Record(docevents.Event{DocumentID: document, UserID: user, Type: docevents.UploadStarted})
	}
	if err := client.Flush(ctx(t)); err != nil {
		t.Fatal(err)
	}
	if s := client.Stats(); s.Delivered != 2 || s.Dropped.Rejected != 1 {
		t.Errorf("%+v, want the event without a document dropped", s)
	}
}

// TestUUIDNextToBigint adds a uuid column to a table that has rows and an id of type
// bigint, as Supabase's Table Editor creates it.
func TestUUIDNextToBigint(t *testing.T) {
	t.Parallel()
	for block, name := range []string{"small", "large"} {
		t.Run(name, func(t *testing.T) {
			d := newTable(t).migrated()
			d.plant(5, "now()")
			d.exec("ALTER TABLE " + d.table + " DROP COLUMN id, ADD id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY")
			d.reload()
			d.wantCheck("the type of the column id can't hold Event.ID")
			d.execSection("A uuid next to a bigint id", block)
			columns := docevents.WithColumns(docevents.Columns{ID: "event_id"})
			d.wantCheck("", columns)
			document := d.text("SELECT document_id::text FROM " + d.table + " LIMIT 1") // has a row from before the column was added
			d.wantStoredOnce(document, columns)
		})
	}
}

// newView creates the README's view on the table steps.
func newView(t testing.TB) *db {
	d := newTable(t)
	d.ownTable("steps", `id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, doc uuid NOT NULL, seconds numeric, message text,
		kind text NOT NULL CHECK (kind IN ('upload_started', 'processing_started', 'completed', 'failed')), at timestamptz NOT NULL`)
	d.exec("CREATE INDEX ON " + d.own("public.steps") + " (at)")
	d.execSection("A view, if the table can't change", 0)
	t.Cleanup(func() {
		d.exec("DROP VIEW " + d.table)
		d.exec("DROP TABLE " + d.own("public.step_events"))
	})
	return d
}

// TestView checks the README's view.
func TestView(t *testing.T) {
	t.Parallel()
	d := newView(t)
	steps, ids := d.own("public.steps"), d.own("public.step_events")
	d.exec("INSERT INTO " + steps + " (doc, kind, at) VALUES ('" + user + "', 'completed', now())") // a row of another program
	d.wantCheck("")
	d.wantStoredOnce(user)
	if n := d.number("SELECT count(*) FROM " + ids); n != 0 {
		t.Errorf("%d ids of purged rows are left", n)
	}

	t.Run("concurrent duplicates", func(t *testing.T) {
		first := d.conn()
		insert := "INSERT INTO " + d.table + " (id, document_id, event_type, duration_ms, created_at) VALUES ('" + user + "', '" + user + "', 'failed', 1500, now())"
		for _, sql := range []string{"BEGIN", insert} {
			if _, err := first.Exec(ctx(t), sql); err != nil {
				t.Fatal(err)
			}
		}
		second := make(chan error)
		go func() { second <- d.try(insert) }()
		for d.number("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'") == 0 {
			time.Sleep(5 * time.Millisecond)
		}
		if _, err := first.Exec(ctx(t), "COMMIT"); err != nil {
			t.Fatal(err)
		}
		if err := <-second; err != nil {
			t.Fatal(err)
		}
		d.wantCount(2)
		if got := d.text("SELECT seconds::float8::text FROM " + steps + " WHERE kind = 'failed'"); got != "1.5" {
			t.Errorf("%s seconds, want 1.5", got)
		}
	})
	t.Run("Check reports the table's constraints", func(t *testing.T) {
		d.wantCheck(`no event of type "ocr_started"`, docevents.WithEventTypes(docevents.EventTypes{Notes: []docevents.EventType{"ocr_started"}}))
		d.exec("ALTER TABLE " + steps + " ADD COLUMN tenant uuid NOT NULL DEFAULT gen_random_uuid(); ALTER TABLE " + steps + " ALTER tenant DROP DEFAULT")
		d.wantCheck(`null value in column "tenant"`)
		d.exec("ALTER TABLE " + steps + " DROP COLUMN tenant")
	})
	t.Run("other roles have no rights", func(t *testing.T) {
		for _, role := range []string{"anon", "authenticated"} {
			for _, table := range []string{d.table, ids} {
				if got := d.as(role, "SELECT FROM "+table); got != denied {
					t.Errorf("%s reads %s: error %q", role, table, got)
				}
			}
		}
	})
	t.Run("a plain key column", func(t *testing.T) {
		definition := d.text("SELECT pg_get_viewdef($1::regclass)", d.table)
		changed := strings.Replace(definition, "step.id + 0", "step.id", 1)
		if changed == definition {
			t.Fatal(definition)
		}
		d.exec("CREATE OR REPLACE VIEW " + d.table + " WITH (security_invoker = true) AS " + changed)
		d.reload()
		d.wantCheck("nothing makes the id unique") // 42P10
		d.exec("CREATE OR REPLACE VIEW " + d.table + " WITH (security_invoker = true) AS " + definition)
		d.reload()
	})
	t.Run("another name for the id", func(t *testing.T) {
		d.exec("ALTER VIEW " + d.table + " RENAME COLUMN id TO event_id")
		d.reload()
		d.wantCheck("nothing makes the id unique", docevents.WithColumns(docevents.Columns{ID: "event_id"}))
	})
}

// TestViewWithoutIds checks that Check reports a view whose trigger doesn't store the ids.
// Through such a view, an event could be stored twice.
func TestViewWithoutIds(t *testing.T) {
	t.Parallel()
	d := newView(t)
	body := d.text("SELECT pg_get_functiondef($1::regproc)", d.table+"_write")
	begin, end := strings.Index(body, "INSERT INTO "+d.own("public.step_events")), strings.LastIndex(body, "RETURN NEW")
	d.exec(body[:begin] + body[end:])
	d.wantCheck("nothing makes the column id unique")
}

// TestTimelineIndex checks that the index returns a document's events in order, and
// that running 013 again keeps the index.
func TestTimelineIndex(t *testing.T) {
	d := newTable(t).migrated()
	d.plant(20000, "now()")
	d.exec("UPDATE " + d.table + " SET document_id = '" + user + "' WHERE random() < 0.05")
	const query = "EXPLAIN SELECT * FROM %s WHERE document_id = '" + user + "' ORDER BY created_at, id LIMIT 100"
	inOrder := func() bool {
		d.exec("ANALYZE " + d.table)
		plan := strings.Join(d.texts(strings.Replace(query, "%s", d.table, 1)), "\n")
		return strings.Contains(plan, "Presorted Key: created_at") && strings.Contains(plan, "Index Cond: (document_id =")
	}
	if inOrder() {
		t.Fatal("the events are in order without the index")
	}
	d.execSection("An index for timelines", 0)
	d.run(migration)
	wantLines(t, "indexes", d.texts("SELECT indexname || substring(indexdef FROM ' \\(.*') FROM pg_indexes WHERE tablename = $1 ORDER BY 1", d.table),
		d.table+"_pkey (id)", "idx_"+d.table+"_created_at (created_at)", "idx_"+d.table+"_document_id (document_id, created_at)")
	if !inOrder() {
		t.Error("the plan sorts the events")
	}
	d.wantStoredOnce(uuid.NewString())
}

// BenchmarkOwnTable inserts 1,000 rows at a time, as docevents does under load, and
// purges them all.
func BenchmarkOwnTable(b *testing.B) {
	for name, table := range map[string]func(testing.TB) *db{
		"plain": func(t testing.TB) *db { return newTable(t).migrated() },
		"view":  newView,
		"a column filled": func(t testing.TB) *db {
			d := newTable(t).migrated()
			d.ownTable("documents", "id uuid PRIMARY KEY, tenant_id uuid NOT NULL")
			d.exec("INSERT INTO " + d.own("public.documents") + " SELECT md5(i::text)::uuid, gen_random_uuid() FROM generate_series(1, 1000) AS i")
			d.exec("ALTER TABLE " + d.table + " ADD COLUMN tenant_id uuid NOT NULL")
			d.execSection("A column that the database fills", 0)
			return d
		},
	} {
		b.Run(name, func(b *testing.B) {
			d := table(b)
			for b.Loop() {
				d.exec(`INSERT INTO ` + d.table + ` (id, document_id, user_id, event_type, created_at)
					SELECT gen_random_uuid(), md5(i::text)::uuid, '` + user + `', 'completed', now() - i * interval '1 millisecond' FROM generate_series(1, 1000) AS i`)
			}
			rows := float64(b.N * 1000)
			b.ReportMetric(float64(b.Elapsed().Microseconds())/rows, "µs/row")
			b.ReportMetric(0, "ns/op")
			begin := time.Now()
			if n, err := d.client().PurgeBefore(ctx(b), begin); n != int64(rows) || err != nil {
				b.Errorf("purged %d of %.0f, %v", n, rows, err)
			}
			b.ReportMetric(float64(time.Since(begin).Microseconds())/rows, "µs/purged")
		})
	}
}
