package sqltest

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docevents/docevents-go"
)

const alertFile = "optional/alert_pg_cron.sql"

// fakeNet creates the part of pg_net's schema that the file uses.
func (d *db) fakeNet() {
	d.t.Helper()
	d.exec(`CREATE SCHEMA net;
		CREATE TABLE net.posted (id bigint GENERATED ALWAYS AS IDENTITY, url text, body jsonb);
		CREATE FUNCTION net.http_post(url text, body jsonb DEFAULT '{}', params jsonb DEFAULT '{}',
			headers jsonb DEFAULT '{"Content-Type": "application/json"}', timeout_milliseconds int DEFAULT 5000)
		RETURNS bigint LANGUAGE sql AS $$ INSERT INTO net.posted (url, body) VALUES ($1, $2) RETURNING id $$`)
}

// alerting returns a database in which the alert is scheduled with these limits.
func alerting(t *testing.T, limits string) *db {
	t.Helper()
	d := newDatabase(t).migrated()
	d.run(readingFile)
	d.fakeCron()
	d.fakeNet()
	text := strings.Replace(d.read(alertFile), "webhook text := ''", "webhook text := 'https://hooks.test/it''s'", 1)
	text = strings.Replace(text, "$job$public.docevents_health()$job$", "$job$public.docevents_health("+limits+")$job$", 1)
	for range 2 {
		d.exec(text)
	}
	return d
}

// minute runs the scheduled jobs once and returns the texts that they post.
func (d *db) minute() []string {
	d.t.Helper()
	for _, command := range d.texts("SELECT command FROM cron.job WHERE jobname LIKE 'docevents_alert%' ORDER BY jobname") {
		if _, err := d.conn().Exec(ctx(d.t), command); err != nil {
			d.t.Fatal(err)
		}
	}
	return d.texts("WITH posted AS (DELETE FROM net.posted RETURNING *) SELECT body ->> 'text' FROM posted ORDER BY id")
}

// happened inserts n events, each of another document.
func (d *db) happened(n int, eventType, age string) {
	d.t.Helper()
	d.exec(fmt.Sprintf(`INSERT INTO document_processing_events (document_id, user_id, event_type, created_at)
		SELECT gen_random_uuid(), '%s', '%s', now() - interval '%s' FROM generate_series(1, %d)`, user, eventType, age, n))
}

func TestAlert(t *testing.T) {
	d := alerting(t, "'{}', silence => '20 minutes'")
	wantLines(t, "jobs", d.jobs(), "docevents_alert | * * * * * | SELECT public.docevents_alert('https://hooks.test/it''s', public.docevents_health('{}', silence => '20 minutes'))")
	posts := func(when string, want ...string) {
		t.Helper()
		got := d.minute()
		if len(got) != len(want) {
			t.Fatalf("%s: posted %q", when, got)
		}
		for i := range want {
			if !strings.Contains(got[i], want[i]) {
				t.Errorf("%s: posted %q, want %q", when, got[i], want[i])
			}
		}
	}
	posts("an empty table")
	d.happened(30, "completed", "50 minutes")
	d.happened(1, "processing_started", "10 minutes")
	posts("all is well")

	d.happened(1, "processing_started", "25 minutes")
	posts("silence", "docevents: documents: No document has completed since ")
	posts("the silence goes on")
	d.happened(2, "processing_started", "31 minutes")
	posts("stuck as well", "docevents: documents: 2 documents have been under way for longer than 30 min, the oldest since ")
	d.happened(1, "processing_started", "40 minutes")
	posts("one more stuck document")
	d.happened(40, "failed", "1 minute")
	posts("failing as well", " 40 of the 70 documents that ended in the last 60 min failed, 57.1 %; the limit is 50.0 %. No document")

	// Running the file again keeps the last posted kinds.
	d.run(alertFile)
	posts("after the file ran again")
	if body := d.text("SELECT docevents_health()::text"); !strings.Contains(body, `"kinds": ["stuck", "failing"]`) {
		t.Errorf("without silence: %s", body)
	}

	d.exec("UPDATE document_processing_events SET event_type = 'completed', created_at = now() - interval '1 minute'")
	posts("recovered", "docevents: documents: all is well again.")
	posts("the recovery goes on")
}

// TestAlertsByName checks that alerts with different names don't affect each other.
func TestAlertsByName(t *testing.T) {
	d := alerting(t, "")
	d.exec(`SELECT cron.schedule('docevents_alert_2', '* * * * *', $$SELECT docevents_alert('https://hooks.test/2',
		docevents_health('{"filters": {"user_id": "` + user + `"}}', max_stuck => 5), 'user 2')$$)`)
	d.happened(3, "processing_started", "1 hour")
	if got := d.minute(); len(got) != 1 || !strings.HasPrefix(got[0], "docevents: documents: 3 documents") {
		t.Errorf("posted %q", got)
	}
	d.happened(3, "processing_started", "1 hour")
	if got := d.minute(); len(got) != 1 || !strings.HasPrefix(got[0], "docevents: user 2: 6 documents") {
		t.Errorf("posted %q", got)
	}
	wantLines(t, "state", d.texts("SELECT name || ' ' || kinds::text FROM docevents_alerts ORDER BY name"), "documents {stuck}", "user 2 {stuck}")
}

// TestAlertNotQueued checks that if pg_net can't queue a post, the next run sends it.
func TestAlertNotQueued(t *testing.T) {
	d := alerting(t, "")
	d.happened(1, "processing_started", "1 hour")
	d.exec("ALTER TABLE net.posted RENAME TO away")
	if got := sqlState(t, d.try(d.text("SELECT command FROM cron.job"))); got != "42P01" {
		t.Errorf("error %q", got)
	}
	d.exec("ALTER TABLE net.away RENAME TO posted")
	if got := d.minute(); len(got) != 1 {
		t.Errorf("posted %q", got)
	}
}

// TestAlertIsHealth compares docevents_health with Client.Health for random rows
// and limits. The verdicts must be identical.
func TestAlertIsHealth(t *testing.T) {
	d := newDatabase(t).migrated()
	d.run(readingFile)
	d.run(alertFile)
	d.anyType()
	client := d.reader()
	r := rand.New(rand.NewPCG(1, 2))
	seen := map[string]int{}
	for round := range 60 {
		until := time.Now().Add(30 * time.Second) // so that no event is exactly at a limit
		rows := randomRows(r, until.Add(-3*time.Hour), until, 3)
		if round%2 == 0 {
			rows = slices.DeleteFunc(rows, func(row stored) bool { return row.Type == "completed" })
		}
		d.store(rows)
		d.happened(1, "completed", "20 hours 30 seconds")
		l := docevents.Limits{
			Window: time.Duration(1+r.IntN(180)) * time.Minute, StuckAfter: time.Duration(1+r.IntN(7200)) * time.Second,
			MaxStuck: r.IntN(12), MaxFailureRate: float64(1+r.IntN(100)) / 100, MinEnded: 1 + r.IntN(10), Silence: time.Duration(r.IntN(60)) * time.Minute,
			Where: map[string]string{"user_id": user},
		}
		got, err := client.Health(ctx(t), l)
		if err != nil {
			t.Fatal(err)
		}
		text := d.text(`SELECT docevents_health('{"filters": {"user_id": "`+user+`"}}', $1::text::interval, $2::text::interval, $3, $4, $5, nullif($6::text, '0s')::interval)::text`,
			l.Window.String(), l.StuckAfter.String(), l.MaxStuck, l.MaxFailureRate, l.MinEnded, l.Silence.String())
		var want docevents.Health
		if err := json.Unmarshal([]byte(text), &want); err != nil {
			t.Fatal(err)
		}
		got.Stats, got.At, want.At = docevents.Stats{}, time.Time{}, time.Time{}
		for _, h := range []*docevents.Health{&got, &want} {
			h.StuckSince, h.LastCompleted = h.StuckSince.UTC(), h.LastCompleted.UTC()
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("round %d, %+v:\nGo  %+v\nSQL %+v", round, l, got, want)
		}
		for _, problem := range got.Problems {
			seen[problem[strings.LastIndexByte(problem, ' '):]]++
			seen[strings.Fields(problem)[0]]++
		}
		seen[fmt.Sprint(got.OK)]++
	}
	if seen["No"] == 0 || seen["true"] == 0 || len(seen) < 10 {
		t.Errorf("the rounds don't differ enough: %v", seen)
	}
}

// TestAlertRights checks that the API roles have no rights on the alert's functions
// and table.
func TestAlertRights(t *testing.T) {
	d := newDatabase(t)
	d.exec(`ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON FUNCTIONS TO anon, authenticated, service_role;
		ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO anon, authenticated, service_role`)
	d.migrated()
	d.run(alertFile)
	for _, role := range apiRoles {
		for _, sql := range []string{
			"SELECT docevents_health()", "SELECT FROM docevents_alerts", "DELETE FROM docevents_alerts", "INSERT INTO docevents_alerts VALUES ('a')",
		} {
			if got := d.as(role, sql); got != denied {
				t.Errorf("%s: %s: error %q, want %s", role, sql, got, denied)
			}
		}
		if n := d.number("SELECT count(*) FROM pg_proc WHERE proname IN ('docevents_health', 'docevents_alert') AND NOT has_function_privilege($1, oid, 'EXECUTE')", role); n != 2 {
			t.Errorf("%s may not execute %d functions, want 2", role, n)
		}
	}
	if got := d.text("SELECT relrowsecurity::text FROM pg_class WHERE relname = 'docevents_alerts'"); got != "true" {
		t.Errorf("row-level security: %s", got)
	}
}

// TestAlertNotScheduled runs the file without a webhook or without the extensions. The file
// then schedules nothing and sends a notice.
func TestAlertNotScheduled(t *testing.T) {
	for want, prepare := range map[string]func(*db){
		"pg_cron or pg_net is not installed": func(d *db) { d.fakeCron() },
		"no webhook":                         func(d *db) { d.fakeCron(); d.fakeNet() },
	} {
		d := newDatabase(t)
		prepare(d)
		conn, notices := d.noted()
		if _, err := conn.Exec(ctx(t), d.read(alertFile)); err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(*notices, func(s string) bool { return strings.HasPrefix(s, want) }) || len(d.jobs()) > 0 {
			t.Errorf("%s: notices %q, jobs %q", want, *notices, d.jobs())
		}
	}
}
