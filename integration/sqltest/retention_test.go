package sqltest

import (
	"slices"
	"strings"
	"testing"
)

const retentionFile = "optional/retention_pg_cron.sql"

// call calls the procedure as pg_cron does, in a single statement.
func (d *db) call(args string) (deleted int64, err error) {
	d.t.Helper()
	conn := d.conn()
	err = conn.QueryRow(ctx(d.t), "CALL public.purge_"+d.table+"("+args+")").Scan(&deleted)
	return deleted, err
}

func (d *db) mustCall(args string, want int64) {
	d.t.Helper()
	if n, err := d.call(args); n != want || err != nil {
		d.t.Errorf("CALL (%s): %d rows deleted, %v; want %d", args, n, err, want)
	}
}

const monthAgo = "now() - interval '30 days'"

func TestRetention(t *testing.T) {
	d := newDatabase(t).migrated()
	d.run(retentionFile)
	d.mustCall("'30 days'", 0) // an empty table

	d.plant(12_345, monthAgo+" - interval '1 second'") // due
	d.plant(100, monthAgo+" + interval '1 hour'")      // not due; the rows span 100 s
	d.plant(7_000, "now()")
	// The time limit ends the call after a batch. The next call deletes the rest.
	d.mustCall("'30 days', 5000, '0'", 5000)
	d.wantCount(12_345 - 5000 + 7100)
	d.mustCall("'30 days', time_limit => '0'", 5000)
	d.mustCall("'30 days'", 2345)
	d.mustCall("'30 days'", 0)
	d.wantCount(7100)

	// More rows with the same time than a batch.
	d.exec(`INSERT INTO document_processing_events (document_id, user_id, event_type, created_at)
		SELECT gen_random_uuid(), gen_random_uuid(), 'failed', now() - interval '40 days' FROM generate_series(1, 23)`)
	d.plant(5, monthAgo+" - interval '1 hour'")
	d.mustCall("'30 days', 10", 28)

	d.plant(100, monthAgo+" - interval '1 second'")
	for _, args := range []string{"NULL", "'0'", "'-1 day'", "'30 days', 0", "'30 days', NULL"} {
		if _, err := d.call(args); sqlState(t, err) != "P0001" {
			t.Errorf("CALL (%s): %v, want P0001", args, err)
		}
	}
	d.wantCount(7200)
}

// TestRetentionCommits checks that if a purge fails in its third batch, the rows of the
// first two batches stay deleted.
func TestRetentionCommits(t *testing.T) {
	d := newDatabase(t).migrated()
	d.run(retentionFile)
	d.plant(50, monthAgo+" - interval '1 second'")
	d.exec(`CREATE FUNCTION stumble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'stumbled'; END $$;
		CREATE TRIGGER stumble BEFORE DELETE ON document_processing_events FOR EACH ROW
		WHEN (OLD.stage = 'stone') EXECUTE FUNCTION stumble();
		UPDATE document_processing_events SET stage = 'stone'
		WHERE id = (SELECT id FROM document_processing_events ORDER BY created_at OFFSET 25 LIMIT 1)`)
	if _, err := d.call("'30 days', 10"); sqlState(t, err) != "P0001" {
		t.Errorf("%v, want the trigger's error", err)
	}
	d.wantCount(30)
}

// TestRetentionWithinStatementTimeout checks that the purge stops after half of the
// statement timeout if that is shorter than time_limit.
func TestRetentionWithinStatementTimeout(t *testing.T) {
	t.Parallel()
	d := newDatabase(t).migrated()
	d.run(retentionFile)
	d.plant(50, monthAgo+" - interval '1 second'")
	d.exec(`CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(3); RETURN NULL; END $$;
		CREATE TRIGGER dawdle AFTER DELETE ON document_processing_events FOR EACH STATEMENT EXECUTE FUNCTION dawdle()`)
	conn := d.conn()
	if _, err := conn.Exec(ctx(t), "SET statement_timeout = '6s'"); err != nil {
		t.Fatal(err)
	}
	var deleted int64
	err := conn.QueryRow(ctx(t), "CALL purge_document_processing_events('30 days', 10, '1 hour')").Scan(&deleted)
	if deleted != 10 || err != nil {
		t.Errorf("%d rows deleted, %v; want 10, and an end before the timeout", deleted, err)
	}
	d.wantCount(40)
}

// TestRetentionLateRow inserts a row with an old time during the purge. The last batch
// deletes the row.
func TestRetentionLateRow(t *testing.T) {
	d := newDatabase(t).migrated()
	d.run(retentionFile)
	d.plant(50, monthAgo+" - interval '1 second'")
	d.exec(`CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			INSERT INTO document_processing_events (document_id, user_id, event_type, created_at)
			VALUES (gen_random_uuid(), gen_random_uuid(), 'failed', now() - interval '1 year');
			RETURN NULL; END $$;
		CREATE TRIGGER late AFTER DELETE ON document_processing_events FOR EACH ROW
		WHEN (OLD.stage = 'middle') EXECUTE FUNCTION late();
		UPDATE document_processing_events SET stage = 'middle'
		WHERE id = (SELECT id FROM document_processing_events ORDER BY created_at OFFSET 25 LIMIT 1)`)
	d.mustCall("'30 days', 10", 51)
	d.wantCount(0)
}

// fakeCron creates the part of pg_cron's schema that the files use.
func (d *db) fakeCron() {
	d.t.Helper()
	d.exec(`CREATE SCHEMA IF NOT EXISTS cron;
		CREATE TABLE cron.job (jobname text PRIMARY KEY, schedule text, command text);
		CREATE FUNCTION cron.schedule(text, text, text) RETURNS bigint LANGUAGE sql AS $$
			INSERT INTO cron.job VALUES ($1, $2, $3)
			ON CONFLICT (jobname) DO UPDATE SET schedule = $2, command = $3 RETURNING 1 $$;
		CREATE FUNCTION cron.unschedule(text) RETURNS boolean LANGUAGE sql AS $$
			DELETE FROM cron.job WHERE jobname = $1 RETURNING true $$`)
}

// jobs returns a line for each scheduled job.
func (d *db) jobs() []string {
	d.t.Helper()
	return d.texts("SELECT jobname || ' | ' || schedule || ' | ' || command FROM cron.job ORDER BY 1")
}

func TestRetentionSchedule(t *testing.T) {
	d := newDatabase(t).migrated()
	d.fakeCron()
	d.run(retentionFile)
	d.run(retentionFile)
	const job = "CALL public.purge_document_processing_events('30 days')"
	wantLines(t, "jobs", d.jobs(), "purge_document_processing_events | 17 * * * * | "+job)

	d.plant(10, monthAgo+" - interval '1 second'")
	d.plant(10, "now()")
	if _, err := d.conn().Exec(ctx(t), job); err != nil {
		t.Error(err)
	}
	d.wantCount(10)
	// The file warns of this: pg_cron sends a job's statements as one query.
	_, err := d.conn().Exec(ctx(t), "SET statement_timeout = '10min'; "+job)
	if got := sqlState(t, err); got != "2D000" {
		t.Errorf("a CALL after a SET: error %q, want 2D000", got)
	}
}

// TestNotScheduled checks that without pg_cron the files send a notice and don't
// fail.
func TestNotScheduled(t *testing.T) {
	for _, file := range []string{retentionFile, partitionedFile} {
		d := newDatabase(t)
		if file == retentionFile {
			d.migrated()
		}
		conn, notices := d.noted()
		if _, err := conn.Exec(ctx(t), d.read(file)); err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(*notices, func(s string) bool { return strings.HasPrefix(s, "pg_cron is not installed") }) {
			t.Errorf("%s: notices %q", file, *notices)
		}
	}
}

// TestRoutineRights checks that the API roles can't call the files' routines, even
// if the default privileges grant that.
func TestRoutineRights(t *testing.T) {
	calls := map[string][]string{
		retentionFile: {"CALL purge_document_processing_events('30 days')"},
		partitionedFile: {
			"SELECT document_processing_events_partitions()",
			"SELECT document_processing_events_protect('pg_class')",
			"SELECT document_processing_events_add_partition(now(), now())",
			"SELECT document_processing_events_add_partitions('day', '1 day')",
			"SELECT document_processing_events_drop_partitions('1 day')",
		},
	}
	for file, calls := range calls {
		d := newDatabase(t)
		d.exec("ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON FUNCTIONS TO anon, authenticated, service_role")
		if file == retentionFile {
			d.migrated()
		}
		d.run(file)
		made := d.number("SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace")
		if made != int64(len(calls)) {
			t.Errorf("%s creates %d routines, but this test calls %d", file, made, len(calls))
		}
		for _, role := range apiRoles {
			for _, call := range calls {
				if got := d.as(role, call); got != denied {
					t.Errorf("%s: %s: error %q, want %s", role, call, got, denied)
				}
			}
		}
	}
}
