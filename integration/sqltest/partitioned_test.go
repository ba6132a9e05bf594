package sqltest

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/docevents/docevents-go"
)

const (
	partitionedFile = "optional/partitioned.sql"
	prepareFile     = "optional/partitioned_prepare.sql"
)

// partitions returns a line for each partition: its name without the table's name,
// its bounds, and the number of its rows.
func (d *db) partitions() []string {
	d.t.Helper()
	return d.texts(d.rename(`SELECT concat_ws(' ',
			replace(partition::text, 'document_processing_events_', ''),
			coalesce(to_char(lower_bound AT TIME ZONE 'UTC', 'YYYY-MM-DD'), '-'),
			coalesce(to_char(upper_bound AT TIME ZONE 'UTC', 'YYYY-MM-DD'), '-'),
			(SELECT count(*) FROM document_processing_events WHERE tableoid = partition))
		FROM document_processing_events_partitions()`))
}

// day returns the start of the day n days from now, by the database's clock, formatted by
// to_char.
func (d *db) day(n int, format string) string {
	d.t.Helper()
	return d.text("SELECT to_char(date_trunc('day', now() AT TIME ZONE 'UTC') + $1 * interval '1 day', $2)", n, format)
}

// month returns the start of the month n months from now, as day does.
func (d *db) month(n int, format string) string {
	d.t.Helper()
	return d.text("SELECT to_char(date_trunc('month', now() AT TIME ZONE 'UTC') + $1 * interval '1 month', $2)", n, format)
}

const (
	inName  = `"p"YYYYMMDD`
	inBound = "YYYY-MM-DD"
)

// newPartitioned returns a partitioned table that has only the default partition.
func newPartitioned(t testing.TB) *db {
	t.Helper()
	d := newDatabase(t)
	d.run(partitionedFile)
	for _, table := range d.texts("SELECT partition::text FROM document_processing_events_partitions() WHERE upper_bound IS NOT NULL") {
		d.exec("DROP TABLE " + table)
	}
	return d
}

// addDay adds the partition of the day n days from now, and rows at the end of that
// day.
func (d *db) addDay(n, rows int) {
	d.t.Helper()
	d.exec(fmt.Sprintf(`SELECT document_processing_events_add_partition(day, day + interval '1 day')
		FROM (SELECT date_trunc('day', now(), 'UTC') + interval '%d days' AS day) AS d`, n))
	d.plant(rows, fmt.Sprintf("date_trunc('day', now(), 'UTC') + interval '%d days' - interval '1 microsecond'", n+1))
}

// monthPartition returns the line of partitions for the month n months from now.
func (d *db) monthPartition(n int, rows int) string {
	d.t.Helper()
	return fmt.Sprintf("%s %s %s %d", d.month(n, inName), d.month(n, inBound), d.month(n+1, inBound), rows)
}

// dayPartition returns the line of partitions for the day n days from now.
func (d *db) dayPartition(n int, rows int) string {
	d.t.Helper()
	return fmt.Sprintf("%s %s %s %d", d.day(n, inName), d.day(n, inBound), d.day(n+1, inBound), rows)
}

// TestPartitionedLikePlain compares the partitioned table with the table of 013.
func TestPartitionedLikePlain(t *testing.T) {
	const describe = `SELECT concat_ws(' ', attname, format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid))
		FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
		WHERE attrelid = 'document_processing_events'::regclass AND attnum > 0 ORDER BY attnum`
	const checks = `SELECT conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
		WHERE conrelid = 'document_processing_events'::regclass AND contype = 'c'`
	const keys = `SELECT indexname || ' ' || substring(indexdef FROM 'USING (.*)') FROM pg_indexes
		WHERE tablename = 'document_processing_events' ORDER BY indexname`
	const rights = `SELECT grantee || ' ' || privilege_type FROM information_schema.role_table_grants
		WHERE table_name = 'document_processing_events' AND grantee <> 'postgres' ORDER BY 1`
	plain := newDatabase(t).migrated()
	d := newDatabase(t)
	for range 2 {
		d.run(partitionedFile)
		for _, query := range []string{describe, checks, rights} {
			wantLines(t, query, d.texts(query), plain.texts(query)...)
		}
		wantLines(t, "keys", d.texts(keys),
			"document_processing_events_pkey btree (id, created_at)",
			"idx_document_processing_events_created_at btree (created_at)",
			"idx_document_processing_events_document_id btree (document_id)")
		wantLines(t, "partitions", d.partitions(),
			d.monthPartition(0, 0), d.monthPartition(1, 0), d.monthPartition(2, 0), d.monthPartition(3, 0), "default - - 0")
		d.run(migration) // changes nothing
	}
}

// TestPartitionsAreClosed checks that the API roles have no rights on the
// partitions, which don't have the policies of the main table.
func TestPartitionsAreClosed(t *testing.T) {
	d := newDatabase(t)
	// In projects from before 2026, the API roles get all rights on new tables.
	d.exec("ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO anon, authenticated, service_role")
	d.run(migration)
	d.plant(3, "now()")
	d.run(partitionedFile)
	d.plant(3, "now() + interval '40 days'")
	tables := d.texts("SELECT partition::text FROM document_processing_events_partitions()")
	if len(tables) < 5 {
		t.Fatalf("partitions %q", tables)
	}
	for _, table := range tables {
		for _, role := range apiRoles {
			for _, sql := range []string{"SELECT FROM ", "DELETE FROM ", "TRUNCATE "} {
				if got := d.as(role, sql+table); got != denied {
					t.Errorf("%s: %s%s: error %q, want %s", role, sql, table, got, denied)
				}
			}
		}
		if d.text("SELECT relrowsecurity::text FROM pg_class WHERE oid = $1::regclass", table) != "true" {
			t.Errorf("%s has no row-level security", table)
		}
	}
	for _, role := range []string{"anon", "authenticated"} {
		if got := d.as(role, "SELECT FROM document_processing_events"); got != denied {
			t.Errorf("%s reads the table: error %q", role, got)
		}
	}
	for _, sql := range []string{"SELECT FROM", "DELETE FROM"} {
		if got := d.as("service_role", sql+" document_processing_events"); got != "" {
			t.Errorf("service_role: %s: error %q", sql, got)
		}
	}
}

// lossy is a transport that loses the answers to the next inserts, after the server
// has stored the rows.
type lossy struct{ lose atomic.Int64 } // the number of answers to lose

func (l *lossy) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil || req.Method != http.MethodPost || l.lose.Add(-1) < 0 {
		return resp, err
	}
	resp.Body.Close()
	return nil, errors.New("connection reset by peer")
}

// TestPartitionedRecord checks that events are stored once if the answer to their insert is
// lost, and docevents sends them again.
func TestPartitionedRecord(t *testing.T) {
	tests := map[string]struct {
		transport func(http.RoundTripper) http.RoundTripper
	}{
		"with Prefer": {func(rt http.RoundTripper) http.RoundTripper { return rt }},
		// A gateway removes the header Prefer. Then the server answers a duplicate
		// row with an error (23505). The name of the constraint shows docevents that
		// the duplicate is the id.
		"without Prefer": {func(rt http.RoundTripper) http.RoundTripper {
			return roundTripFunc(func(req *http.Request) (*http.Response, error) {
				req.Header.Del("Prefer")
				return rt.RoundTrip(req)
			})
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d := newTable(t)
			d.run(partitionedFile)
			d.reload()
			answers := &lossy{}
			client := d.client(docevents.WithTransport(tt.transport(answers)), docevents.WithMaxBatch(10))
			if err := client.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
			answers.lose.Store(3)
			now := time.Now()
			for i := range 25 {
				for _, at := range []time.Time{now.AddDate(-1, 0, 0), now, now.AddDate(0, 2, 0), now.AddDate(1, 0, 0)} {
					client.Record(docevents.Event{
						DocumentID: uuid.NewString(), UserID: user, Type: docevents.Completed,
						CreatedAt: at.Add(time.Duration(i) * time.Microsecond),
					})
				}
			}
			d.flush(client)
			if client.Stats().Retries < 3 {
				t.Errorf("%+v, want 3 retries because of 3 lost answers", client.Stats())
			}
			if n := d.number(d.rename("SELECT count(*) FROM document_processing_events_default")); n != 50 {
				t.Errorf("%d rows in the default partition, want the 50 that no other partition covers", n)
			}
			if n := d.number("SELECT count(DISTINCT id) FROM " + d.table); n != 100 {
				t.Errorf("%d ids, want 100", n)
			}
			d.wantCount(100)
		})
	}
}

// TestPartitionedDuplicate checks that PostgreSQL's error for a duplicate names the
// constraint of the partition, which ends in _pkey. docevents depends on that.
func TestPartitionedDuplicate(t *testing.T) {
	d := newTable(t)
	d.run(migration)
	d.plant(1, "now()")
	d.run(partitionedFile)
	d.plant(1, "now() + interval '40 days'")
	d.plant(1, "now() - interval '400 days'") // with the legacy and the month partition, all kinds of partitions
	d.plant(1, "now() + interval '400 days'")
	for _, id := range d.texts("SELECT id::text FROM " + d.table) {
		err := d.try(fmt.Sprintf("INSERT INTO %s SELECT * FROM %[1]s WHERE id = '%s'", d.table, id))
		if sqlState(t, err) != "23505" || !strings.Contains(err.Error(), `_pkey"`) {
			t.Errorf("%v, want a duplicate's error that names a constraint ending in _pkey", err)
		}
	}
}

func TestPartitionedPurgeBefore(t *testing.T) {
	for name, opts := range map[string][]docevents.Option{
		"at once":  nil,
		"in steps": {docevents.WithPurgeBatch(100)},
	} {
		t.Run(name, func(t *testing.T) {
			d := newTable(t)
			d.run(partitionedFile)
			d.reload()
			d.exec(d.rename("SELECT document_processing_events_add_partition(now() - interval '80 days', now() - interval '40 days')"))
			d.plant(1000, "now() - interval '40 days' + interval '500 seconds'") // half in this partition, half in the default partition
			d.plant(1000, "now()")
			n, err := d.client(opts...).PurgeBefore(t.Context(), time.Now().AddDate(0, 0, -39))
			if n != 1000 || err != nil {
				t.Errorf("purged %d, %v; want 1000", n, err)
			}
			d.wantCount(1000)
		})
	}
}

func TestAddPartitions(t *testing.T) {
	d := newDatabase(t)
	d.run(partitionedFile)
	add := func(args string) int64 {
		t.Helper()
		return d.number("SELECT document_processing_events_add_partitions(" + args + ")")
	}
	if n := add("'month', '3 months'"); n != 0 {
		t.Errorf("added %d partitions, want none", n)
	}
	if n := add("'month', '4 months'"); n != 1 {
		t.Errorf("added %d partitions, want 1", n)
	}
	for _, args := range []string{"'hour', '1 day'", "NULL, '1 day'", "'day', NULL", "'day', '-1 day'"} {
		if err := d.try("SELECT document_processing_events_add_partitions(" + args + ")"); sqlState(t, err) != "P0001" {
			t.Errorf("(%s): %v, want P0001", args, err)
		}
	}

	// Nobody has added partitions for ten days, in which events were stored.
	d = newPartitioned(t)
	d.exec(`SELECT document_processing_events_add_partition(d - interval '12 days', d - interval '10 days')
		FROM date_trunc('day', now(), 'UTC') AS d`)
	d.plant(10, "date_trunc('day', now(), 'UTC') - interval '10 days' - interval '1 microsecond'")
	d.plant(20, "date_trunc('day', now(), 'UTC') - interval '9 days' - interval '1 microsecond'")
	d.plant(30, "date_trunc('day', now(), 'UTC') + interval '1 minute'")
	d.plant(40, "now() + interval '1 year'")
	if n := add("'day', '1 day'"); n != 12 {
		t.Errorf("added %d partitions, want those of ten days, today's and tomorrow's", n)
	}
	want := []string{fmt.Sprintf("%s %s %s 10", d.day(-12, inName), d.day(-12, inBound), d.day(-10, inBound)), d.dayPartition(-10, 20)}
	for i := -9; i < 0; i++ {
		want = append(want, d.dayPartition(i, 0))
	}
	want = append(want, d.dayPartition(0, 30), d.dayPartition(1, 0), "default - - 40")
	wantLines(t, "partitions", d.partitions(), want...)
	wantLines(t, "indexes of a partition", d.texts(`SELECT regexp_replace(indexname, '_p\d+', '') || ' ' || substring(indexdef FROM 'USING (.*)')
			FROM pg_indexes WHERE tablename = 'document_processing_events_'||$1 ORDER BY 1`, d.day(0, inName)),
		"document_processing_events_created_at_idx btree (created_at)",
		"document_processing_events_document_id_idx btree (document_id)",
		"document_processing_events_pkey btree (id, created_at)")

	// After a change from days to months, the first new partition ends with its
	// month.
	if n := add("'month', '1 month'"); n < 1 || n > 3 {
		t.Errorf("added %d partitions", n)
	}
	all := d.partitions()
	if last, want := strings.Fields(all[len(all)-2])[2], d.text("SELECT to_char(date_trunc('month', now() AT TIME ZONE 'UTC' + interval '1 month') + interval '1 month', $1)", inBound); last != want {
		t.Errorf("the partitions end at %s, want %s", last, want)
	}
}

// TestAddPartitionUnderWrites adds a partition while rows of its range are being
// inserted into the default partition.
func TestAddPartitionUnderWrites(t *testing.T) {
	d := newDatabase(t)
	d.run(partitionedFile)
	const at = "now() + interval '1 year'"
	insert := `INSERT INTO document_processing_events (document_id, user_id, event_type, created_at)
		VALUES (gen_random_uuid(), gen_random_uuid(), 'completed', ` + at + `)`
	before, adding, after := d.conn(), d.conn(), d.conn()
	if _, err := before.Exec(ctx(t), "BEGIN; "+insert); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := adding.Exec(ctx(t), "SELECT document_processing_events_add_partition("+at+" - interval '1 day', "+at+" + interval '1 day')"); err != nil {
			t.Error(err)
		}
	})
	d.blocked(1)
	wg.Go(func() {
		if _, err := after.Exec(ctx(t), insert); err != nil {
			t.Error(err)
		}
	})
	d.blocked(2)
	if _, err := before.Exec(ctx(t), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if n := d.number("SELECT count(*) FROM document_processing_events_default"); n != 0 {
		t.Errorf("%d rows in the default partition, want them in the new one", n)
	}
	d.wantCount(2)
}

func TestDropPartitions(t *testing.T) {
	d := newPartitioned(t)
	drop := func(keep string) int64 {
		t.Helper()
		return d.number("SELECT document_processing_events_drop_partitions(" + keep + ")")
	}
	if n := drop("'1 day'"); n != 0 {
		t.Errorf("dropped %d rows of an empty table", n)
	}
	for i := 45; i > 35; i-- {
		d.addDay(-i, i)
	}
	d.plant(7, "now() - interval '1 year'")
	d.plant(9, "now() - interval '10 days'") // also in the default partition
	d.plant(11, "now()")
	// The cutoff is a midnight. The partition that ends at this time is dropped. The
	// partition that starts at this time stays.
	if n := drop("now() - date_trunc('day', now(), 'UTC') + interval '40 days'"); n != 45+44+43+42+41+7 {
		t.Errorf("dropped %d rows", n)
	}
	left := d.partitions()
	if want := d.dayPartition(-40, 40); left[0] != want {
		t.Errorf("the oldest partition is %s, want %s", left[0], want)
	}
	d.wantCount(40 + 39 + 38 + 37 + 36 + 9 + 11)
	for _, keep := range []string{"NULL", "'0'", "'-1 day'"} {
		if err := d.try("SELECT document_processing_events_drop_partitions(" + keep + ")"); sqlState(t, err) != "P0001" {
			t.Errorf("(%s): %v, want P0001", keep, err)
		}
	}
	if n := drop("'5 days'"); n != 40+39+38+37+36+9 {
		t.Errorf("dropped %d rows", n)
	}
	d.wantCount(11)
}

// TestDropPartitionsGivesWay drops a partition while a reader has a lock on it. The drop
// fails after its lock_timeout and changes nothing. Inserts still work.
func TestDropPartitionsGivesWay(t *testing.T) {
	d := newPartitioned(t)
	d.addDay(-9, 5)
	d.exec("ALTER FUNCTION document_processing_events_drop_partitions SET lock_timeout = '50ms'")
	reader := d.conn()
	if _, err := reader.Exec(ctx(t), "BEGIN; SELECT FROM document_processing_events"); err != nil {
		t.Fatal(err)
	}
	const drop = "SELECT document_processing_events_drop_partitions('5 days')"
	if err := d.try(drop); sqlState(t, err) != "55P03" {
		t.Errorf("%v, want 55P03", err)
	}
	d.plant(3, "now()")
	d.wantCount(8)
	if _, err := reader.Exec(ctx(t), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	if n := d.number(drop); n != 5 {
		t.Errorf("dropped %d rows, want 5", n)
	}
}

// TestPartitionedSchedule runs the job that the file schedules, and the job in its
// last comment.
func TestPartitionedSchedule(t *testing.T) {
	d := newDatabase(t)
	d.fakeCron()
	d.run(partitionedFile)
	_, offer, found := strings.Cut(d.read(partitionedFile), "\n-- SELECT cron.schedule(")
	if !found {
		t.Fatal("the file has no comment with a job that drops partitions")
	}
	d.exec("SELECT cron.schedule(" + offer)
	wantLines(t, "jobs", d.jobs(),
		"document_processing_events_add_partitions | 7 1 * * * | SELECT public.document_processing_events_add_partitions('month', '3 months')",
		"document_processing_events_drop_partitions | 37 1 * * * | SELECT public.document_processing_events_drop_partitions('30 days')")
	for _, job := range d.texts("SELECT command FROM cron.job") {
		if _, err := d.conn().Exec(ctx(t), job); err != nil {
			t.Errorf("%s: %v", job, err)
		}
	}
}

// A trickle records an event about every millisecond.
type trickle struct {
	*docevents.Client
	stop func() // stops recording and waits until it has stopped
}

func newTrickle(client *docevents.Client) *trickle {
	stop := make(chan bool)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond): // the rate of recording
				client.Record(docevents.Event{DocumentID: uuid.NewString(), UserID: user, Type: docevents.Completed})
			}
		}
	})
	return &trickle{client, func() {
		close(stop)
		wg.Wait()
	}}
}

// more waits until n more events are delivered.
func (c *trickle) more(t *testing.T, n int64) {
	for target := c.Stats().Delivered + n; c.Stats().Delivered < target && !t.Failed(); {
		time.Sleep(time.Millisecond)
	}
}

// TestPartitionPlainTable makes a plain table the first partition of the
// partitioned table while docevents records events.
func TestPartitionPlainTable(t *testing.T) {
	for _, prepare := range []bool{true, false} {
		t.Run(fmt.Sprintf("prepared %t", prepare), func(t *testing.T) {
			d := newTable(t).migrated()
			const there = 20_000
			d.plant(there, "now()")
			file := d.text("SELECT pg_relation_filepath($1::regclass)", d.table)

			answers := &lossy{}
			client := newTrickle(d.client(docevents.WithTransport(answers)))
			client.more(t, 50)
			conn, notices := d.noted()
			exec := func(sql string) {
				if _, err := conn.Exec(ctx(t), sql); err != nil {
					t.Errorf("%.200s: %v", sql, err)
				}
			}
			if prepare {
				for _, step := range steps(t, d.read(prepareFile)) {
					answers.lose.Store(1)
					exec(step)
					client.more(t, 20)
				}
			}
			exec("SET client_min_messages = debug1")
			answers.lose.Store(1) // the event is stored in the plain table and sent again to the new table
			exec(d.read(partitionedFile))
			client.more(t, 50)
			client.stop()
			d.flush(client.Client)
			all := there + client.Stats().Recorded
			d.wantCount(all)
			if n := d.number("SELECT count(DISTINCT id) FROM " + d.table); n != all {
				t.Errorf("%d ids of %d rows", n, all)
			}
			legacy := d.table + "_legacy"
			if got := d.text("SELECT pg_relation_filepath($1::regclass)", legacy); got != file {
				t.Error("the rows were moved to another file")
			}
			days := 1
			if prepare {
				days = 8
			}
			want := fmt.Sprintf("legacy - %s %d", d.day(days, inBound), all)
			if got := d.partitions()[0]; got != want {
				t.Errorf("the first partition is %q, want %q", got, want)
			}
			implied := slices.ContainsFunc(*notices, func(s string) bool {
				return strings.Contains(s, "partition constraint for table \""+legacy+"\" is implied by existing constraints")
			})
			if implied != prepare {
				t.Errorf("PostgreSQL skipped reading the table: %t, want %t; %q", implied, prepare, *notices)
			}
			wantLines(t, "keys and checks", d.texts(`SELECT replace(conname, $1::text || '_', '') FROM pg_constraint
				WHERE conrelid = $2::regclass ORDER BY 1`, d.table, legacy), "event_type_check", "legacy_pkey")
			wantLines(t, "checks of the table", d.texts(`SELECT replace(conname, $1::text || '_', '') FROM pg_constraint
				WHERE conrelid = $1::regclass AND contype = 'c' ORDER BY 1`, d.table), "event_type_check")

			// A purge deletes rows of both tables.
			if n, err := client.PurgeBefore(t.Context(), time.Now().Add(-time.Hour)); n < there/2 || err != nil {
				t.Errorf("purged %d, %v", n, err)
			}
			left := d.count()
			d.exec(d.rename("ALTER TABLE document_processing_events DETACH PARTITION document_processing_events_legacy;" +
				"ALTER TABLE document_processing_events ATTACH PARTITION document_processing_events_legacy FOR VALUES FROM (MINVALUE) TO ('" +
				d.day(days, inBound) + "+00')"))
			d.wantCount(left)
		})
	}
}

// TestPartitionPlainTableDatedAhead checks that rows dated after the first
// partition move to the partitions of their time, and that the file changes nothing
// if it can't lock the table.
func TestPartitionPlainTableDatedAhead(t *testing.T) {
	d := newDatabase(t).migrated()
	d.plant(10, "date_trunc('day', now(), 'UTC') + interval '1 day' - interval '1 microsecond'")
	d.plant(20, "date_trunc('month', now(), 'UTC') + interval '2 months' + interval '1 hour'")
	d.plant(30, "now() + interval '10 years'")
	writer := d.conn()
	if _, err := writer.Exec(ctx(t), "BEGIN; DELETE FROM document_processing_events WHERE id = '"+user+"'"); err != nil {
		t.Fatal(err)
	}
	impatient := strings.Replace(d.read(partitionedFile), "set_config('lock_timeout', '5s'", "set_config('lock_timeout', '50ms'", 1)
	if err := d.try(impatient); sqlState(t, err) != "55P03" {
		t.Errorf("with a writer: %v, want 55P03", err)
	}
	if kind := d.text("SELECT relkind::text FROM pg_class WHERE relname = 'document_processing_events'"); kind != "r" {
		t.Errorf("the relation is now of kind %s, want r", kind)
	}
	if _, err := writer.Exec(ctx(t), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	d.run(partitionedFile)
	got := d.partitions()
	if want := fmt.Sprintf("legacy - %s 10", d.day(1, inBound)); got[0] != want {
		t.Errorf("first: %s, want %s", got[0], want)
	}
	if got := got[len(got)-1]; got != "default - - 30" {
		t.Errorf("last: %s", got)
	}
	if want := d.monthPartition(2, 20); !slices.Contains(got, want) {
		t.Errorf("%q, want %s", got, want)
	}
	d.wantCount(60)
}

// TestPrepareRejectsRowsAhead checks that step 3 of partitioned_prepare.sql fails
// if rows are dated too far ahead, and that the file's undo works.
func TestPrepareRejectsRowsAhead(t *testing.T) {
	d := newDatabase(t).migrated()
	d.plant(1, "now() + interval '1 year'")
	for i, step := range steps(t, d.read(prepareFile)) {
		_, err := d.conn().Exec(ctx(t), step)
		if want := []string{"", "", "23514"}[i]; sqlState(t, err) != want {
			t.Errorf("step %d: %v, want %q", i+1, err, want)
		}
	}
	// Undo the preparation.
	head, _, _ := strings.Cut(d.read(prepareFile), "-- Step 1")
	for statement := range strings.SplitSeq(commented(t, head), ";") {
		if _, err := d.conn().Exec(ctx(t), statement); err != nil {
			t.Error(err)
		}
	}
	wantLines(t, "constraints", d.texts("SELECT conname::text FROM pg_constraint WHERE conrelid = 'document_processing_events'::regclass ORDER BY 1"),
		"document_processing_events_event_type_check", "document_processing_events_pkey")
}
