package sqltest

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/docevents/docevents-go"
)

const (
	readOwnFile    = "optional/read_own.sql"
	eventTypesFile = "optional/event_types.sql"
	foreignKeyFile = "optional/foreign_key.sql"
)

// both runs a test on the plain table and on the partitioned table.
func both(t *testing.T, table func(testing.TB) *db, test func(t *testing.T, d *db)) {
	for _, file := range []string{migration, partitionedFile} {
		t.Run(file, func(t *testing.T) {
			d := table(t)
			d.run(file)
			d.reload()
			test(t, d)
		})
	}
}

// fakeAuth creates Supabase's function auth.uid(). In the test, the function also runs the
// statements in more.
func (d *db) fakeAuth(more string) {
	d.t.Helper()
	d.exec(`CREATE SCHEMA IF NOT EXISTS auth;
		GRANT USAGE ON SCHEMA auth TO anon, authenticated, service_role;
		CREATE OR REPLACE FUNCTION auth.uid() RETURNS uuid LANGUAGE plpgsql STABLE AS $$
		BEGIN
			` + more + `
			RETURN (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid;
		END $$`)
}

func TestReadOwn(t *testing.T) {
	both(t, newTable, func(t *testing.T, d *db) {
		d.fakeAuth("")
		d.run(readOwnFile)
		d.run(readOwnFile)
		d.reload()
		const alice, bob, carol = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa", "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb", "cccccccc-cccc-4ccc-8ccc-cccccccccccc"
		client := d.client()
		for owner, n := range map[string]int{alice: 3, bob: 2, docevents.SystemUser: 4} {
			for range n {
				client.Record(docevents.Event{DocumentID: uuid.NewString(), UserID: owner, Type: docevents.Failed, ErrorMessage: "no text on page 3"})
			}
		}
		d.flush(client)

		read := func(query, token string) (owners []string, status int) {
			t.Helper()
			status, body := d.request("GET", d.table+"?"+query, "", token)
			var rows []struct {
				UserID string `json:"user_id"`
			}
			if status == 200 {
				if err := json.Unmarshal([]byte(body), &rows); err != nil {
					t.Fatal(err)
				}
			}
			for _, row := range rows {
				owners = append(owners, row.UserID)
			}
			return owners, status
		}
		for owner, want := range map[string][]string{alice: {alice, alice, alice}, bob: {bob, bob}, carol: nil} {
			if got, status := read("select=*", d.token(owner)); !slices.Equal(got, want) || status != 200 {
				t.Errorf("%s reads the rows of %q (%d), want %q", owner, got, status, want)
			}
		}
		if got, _ := read("user_id=eq."+bob, d.token(alice)); len(got) > 0 {
			t.Errorf("a filter reads the rows of %q", got)
		}
		if got, status := read("select=*", d.stack.AnonKey); status != 401 || len(got) > 0 {
			t.Errorf("without a signed-in user: %d, %d rows", status, len(got))
		}
		// The file grants nothing else.
		wantLines(t, "policies", d.texts("SELECT cmd || ' ' || roles::text FROM pg_policies WHERE tablename = $1", d.table), "SELECT {authenticated}")
		body := fmt.Sprintf(`{"document_id":"%s","user_id":"%[1]s","event_type":"completed"}`, alice)
		for method, query := range map[string]string{"POST": "", "DELETE": "?user_id=eq." + alice, "PATCH": "?user_id=eq." + alice} {
			if status, answer := d.request(method, d.table+query, body, d.token(alice)); status < 400 {
				t.Errorf("%s: %d %s", method, status, answer)
			}
		}
		for _, sql := range []string{"INSERT INTO %s DEFAULT VALUES", "UPDATE %s SET stage = 'x'", "DELETE FROM %s", "TRUNCATE %s"} {
			if got := d.as("authenticated", fmt.Sprintf(sql, d.table)); got != denied {
				t.Errorf("authenticated: "+sql+": error %q", d.table, got)
			}
		}
		d.wantCount(9)
		if n, err := client.PurgeBefore(t.Context(), longAgo); n != 0 || err != nil {
			t.Errorf("the service role's purge: %d, %v", n, err)
		}

		// The variant in the file's comment hides error_message.
		d.exec(commented(t, d.read(readOwnFile)))
		if _, status := read("select=*", d.token(alice)); status != 403 {
			t.Errorf("select=*: %d, want 403", status)
		}
		if _, status := read("select=error_message", d.token(alice)); status != 403 {
			t.Errorf("select=error_message: %d, want 403", status)
		}
		if status, body := d.request("GET", d.table+"?select=document_id,event_type", "", d.token(alice)); status != 200 || strings.Count(body, "failed") != 3 {
			t.Errorf("%d %s", status, body)
		}
	})
}

// TestReadOwnIsFast checks that the policy calls auth.uid() once per query, and
// that the query uses the index.
func TestReadOwnIsFast(t *testing.T) {
	both(t, newDatabase, func(t *testing.T, d *db) {
		d.fakeAuth("PERFORM nextval('calls');")
		d.exec("CREATE SEQUENCE calls; GRANT ALL ON SEQUENCE calls TO authenticated")
		d.run(readOwnFile)
		d.plant(5000, "now()")
		d.exec("UPDATE document_processing_events SET user_id = gen_random_uuid() WHERE created_at < now() - interval '100 seconds'; ANALYZE document_processing_events")
		tx, err := d.pool.Begin(ctx(t))
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback(ctx(t))
		if _, err := tx.Exec(ctx(t), `SET LOCAL ROLE authenticated; SET LOCAL request.jwt.claims = '{"sub":"`+user+`"}'`); err != nil {
			t.Fatal(err)
		}
		const list = "SELECT * FROM document_processing_events ORDER BY created_at DESC"
		var n int
		if err := tx.QueryRow(ctx(t), "SELECT count(*) FROM ("+list+") AS l").Scan(&n); err != nil || n < 99 || n > 101 {
			t.Errorf("%d rows, %v; want about 100", n, err)
		}
		var plan string
		if err := tx.QueryRow(ctx(t), "EXPLAIN (FORMAT JSON) "+list).Scan(&plan); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(plan, "user_id") || strings.Contains(plan, "Seq Scan") && d.number("SELECT count(*) FROM pg_inherits") == 0 {
			t.Errorf("the plan doesn't use the index: %s", plan)
		}
		if err := tx.Rollback(ctx(t)); err != nil {
			t.Fatal(err)
		}
		if calls := d.number("SELECT last_value FROM calls"); calls != 1 {
			t.Errorf("%d calls of auth.uid() for one query", calls)
		}
	})
}

func TestEventTypes(t *testing.T) {
	both(t, newTable, func(t *testing.T, d *db) {
		const ocr = docevents.EventType("ocr_started")
		d.plant(100, "now()")
		before := d.client(docevents.WithEventTypes(docevents.EventTypes{Notes: []docevents.EventType{ocr}}), docevents.WithSlog(quiet))
		before.Record(docevents.Event{DocumentID: uuid.NewString(), UserID: user, Type: ocr})
		before.Record(docevents.Event{DocumentID: uuid.NewString(), UserID: user, Type: docevents.Completed}) // shows the client that the server stores other rows
		if err := before.Flush(ctx(t)); err != nil {
			t.Fatal(err)
		}
		if s := before.Stats(); s.Dropped.Rejected != 1 {
			t.Fatalf("without the file: %+v", s)
		}
		conn := d.conn()
		for range 2 {
			list := steps(t, d.read(eventTypesFile))
			for i, step := range list {
				if _, err := conn.Exec(ctx(t), step); err != nil {
					t.Fatal(err)
				}
				// The types are accepted after step 1, before the rows are checked,
				// and after step 2.
				client := d.client(docevents.WithEventTypes(docevents.EventTypes{Notes: []docevents.EventType{ocr}}))
				client.Record(docevents.Event{DocumentID: uuid.NewString(), UserID: user, Type: ocr})
				client.Record(docevents.Event{DocumentID: uuid.NewString(), UserID: user, Type: docevents.Completed})
				d.flush(client)
				valid := d.number("SELECT count(*) FROM pg_constraint WHERE conrelid::regclass::text LIKE $1 AND conname LIKE '%event_type_check' AND convalidated", d.table+"%")
				if i == 0 && valid != 0 || i == 1 && valid == 0 {
					t.Errorf("after step %d %d constraints are valid", i+1, valid)
				}
			}
		}
		err := d.try("INSERT INTO " + d.table + " (document_id, user_id, event_type) VALUES (gen_random_uuid(), gen_random_uuid(), 'nonsense')")
		if sqlState(t, err) != "23514" {
			t.Errorf("%v, want 23514", err)
		}
		// As the comment in the file says, step 2 fails while rows have a removed type.
		shorter := steps(t, strings.ReplaceAll(d.read(eventTypesFile), ", 'ocr_started'", ""))
		d.exec(shorter[0])
		if err := d.try(shorter[1]); sqlState(t, err) != "23514" {
			t.Errorf("step 2 with rows of another type: %v, want 23514", err)
		}
	})
}

var quiet = slog.New(slog.DiscardHandler)

// TestForeignKey records an event before its document is committed.
func TestForeignKey(t *testing.T) {
	d := newTable(t).migrated()
	documents := d.table + "_documents"
	d.exec("CREATE TABLE " + documents + " (id uuid PRIMARY KEY)")
	t.Cleanup(func() { d.exec("DROP TABLE " + documents + " CASCADE") })
	file := strings.ReplaceAll(d.read(foreignKeyFile), "public.documents", documents)
	list := steps(t, file)

	d.plant(3, "now()") // their documents don't exist
	d.exec(list[0])
	d.exec(list[0])
	if err := d.try(list[1]); sqlState(t, err) != "23503" {
		t.Errorf("step 2: %v, want 23503", err)
	}
	d.exec(commented(t, list[1]))
	d.wantCount(0)
	d.exec(list[1])

	document := func() string {
		id := uuid.NewString()
		d.exec(fmt.Sprintf("INSERT INTO %s VALUES ('%s')", documents, id))
		return id
	}
	rejected := make(chan bool, 1)
	client := d.client(docevents.WithSlog(quiet), docevents.WithTransport(roundTripFunc(func(req *http.Request) (*http.Response, error) {
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err == nil && resp.StatusCode == http.StatusConflict {
			select {
			case rejected <- true:
			default:
			}
		}
		return resp, err
	})))
	early := uuid.NewString()
	client.Record(docevents.Event{DocumentID: early, UserID: user, Type: docevents.UploadStarted})
	<-rejected
	// The rejected event doesn't delay other events.
	for range 5 {
		client.Record(docevents.Event{DocumentID: document(), UserID: user, Type: docevents.UploadStarted})
	}
	for client.Stats().Delivered < 5 {
		time.Sleep(time.Millisecond)
	}
	d.exec(fmt.Sprintf("INSERT INTO %s VALUES ('%s')", documents, early))
	d.flush(client)
	d.wantCount(6)

	d.exec(fmt.Sprintf("DELETE FROM %s WHERE id = '%s'", documents, early))
	d.wantCount(5)
	d.exec(strings.Replace(list[0], "CASCADE", "NO ACTION", 1))
	if err := d.try("DELETE FROM " + documents); sqlState(t, err) != "23503" {
		t.Errorf("NO ACTION: %v, want 23503", err)
	}
}

func TestForeignKeyPartitioned(t *testing.T) {
	d := newDatabase(t)
	d.run(partitionedFile)
	d.exec("CREATE TABLE documents (id uuid PRIMARY KEY)")
	step := steps(t, d.read(foreignKeyFile))[0]
	if old := d.number("SELECT current_setting('server_version_num')::int") < 180000; old {
		if err := d.try(step); err == nil {
			t.Error("PostgreSQL accepted NOT VALID: the file's comment is wrong")
		}
	}
	step = strings.Replace(step, " NOT VALID", "", 1)
	d.exec(step)
	const insert = "INSERT INTO document_processing_events (document_id, user_id, event_type) VALUES ('" + user + "', '" + user + "', 'completed')"
	if err := d.try(insert); sqlState(t, err) != "23503" {
		t.Errorf("%v, want 23503", err)
	}
	d.exec("INSERT INTO documents VALUES ('" + user + "'); " + insert)
	d.exec("DELETE FROM documents")
	d.wantCount(0)
}

// TestGoose runs each file as a goose migration after 013.
func TestGoose(t *testing.T) {
	for _, name := range []string{retentionFile, partitionedFile, readOwnFile, eventTypesFile, foreignKeyFile} {
		t.Run(name, func(t *testing.T) {
			d := newDatabase(t)
			d.fakeAuth("")
			d.exec("CREATE TABLE documents (id uuid PRIMARY KEY)")
			files := fstest.MapFS{
				migration:        {Data: []byte(d.read(migration))},
				"014_option.sql": {Data: []byte(d.read(name))},
			}
			pool := stdlib.OpenDBFromPool(d.pool)
			defer pool.Close()
			provider, err := goose.NewProvider(goose.DialectPostgres, pool, files)
			if err != nil {
				t.Fatal(err)
			}
			if results, err := provider.Up(ctx(t)); err != nil || len(results) != 2 {
				t.Errorf("%d files, %v", len(results), err)
			}
		})
	}
}

// BenchmarkForeignKey inserts 1,000 rows at a time, as docevents does under load.
// Their documents exist.
func BenchmarkForeignKey(b *testing.B) {
	for _, with := range []bool{false, true} {
		b.Run(fmt.Sprintf("foreign key %t", with), func(b *testing.B) {
			d := newDatabase(b)
			d.run(migration)
			d.exec("CREATE TABLE documents (id uuid PRIMARY KEY); INSERT INTO documents SELECT md5(i::text)::uuid FROM generate_series(1, 100000) AS i")
			d.exec("VACUUM ANALYZE documents")
			if with {
				d.exec(steps(b, d.read(foreignKeyFile))[0])
			}
			n := 0
			for b.Loop() {
				d.exec(fmt.Sprintf(`INSERT INTO document_processing_events (document_id, user_id, event_type)
					SELECT md5((1 + (%d + i * 7919) %% 100000)::text)::uuid, '%s', 'completed' FROM generate_series(1, 1000) AS i`, n, user))
				n++
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(n*1000), "µs/row")
			b.ReportMetric(0, "ns/op")
		})
	}
}
