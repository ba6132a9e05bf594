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

// partitions returns the partitions' names without the table's, their bounds
// and how many rows they hold.
func (d *db) partitions() []string {
	d.t.Helper()
	return d.texts(d.rename(`SELECT concat_ws(' ',
			replace(partition::text, 'document_processing_events_', ''),
			coalesce(to_char(lower_bound AT TIME ZONE 'UTC', 'YYYY-MM-DD'), '-'),
			coalesce(to_char(upper_bound AT TIME ZONE 'UTC', 'YYYY-MM-DD'), '-'),
			(SELECT count(*) FROM document_processing_events WHERE tableoid = partition))
		FROM document_processing_events_partitions()`))
}

// day and month return the start of the day or month so many ahead of now, as
// the database sees it, in the format.
func (d *db) day(n int, format string) string {
	d.t.Helper()
	return d.text("SELECT to_char(date_trunc('day', now() AT TIME ZONE 'UTC') + $1 * interval '1 day', $2)", n, format)
}

func (d *db) month(n int, format string) string {
	d.t.Helper()
	return d.text("SELECT to_char(date_trunc('month', now() AT TIME ZONE 'UTC') + $1 * interval '1 month', $2)", n, format)
}

const (
	inName  = `"p"YYYYMMDD`
	inBound = "YYYY-MM-DD"
)

// newPartitioned returns a table that has the default partition alone.
func newPartitioned(t testing.TB) *db {
	t.Helper()
	d := newDatabase(t)
	d.run(partitionedFile)
	for _, table := range d.texts("SELECT partition::text FROM document_processing_events_partitions() WHERE upper_bound IS NOT NULL") {
		d.exec("DROP TABLE " + table)
	}
	return d
}

// addDay adds the partition of the day so many ahead of now, and rows that are
// the last of that day.
func (d *db) addDay(n, rows int) {
	d.t.Helper()
	d.exec(fmt.Sprintf(`SELECT document_processing_events_add_partition(day, day + interval '1 day')
		FROM (SELECT date_trunc('day', now(), 'UTC') + interval '%d days' AS day) AS d`, n))
	d.plant(rows, fmt.Sprintf("date_trunc('day', now(), 'UTC') + interval '%d days' - interval '1 microsecond'", n+1))
}

// monthPartition is what partitions says of a whole month.
func (d *db) monthPartition(n int, rows int) string {
	d.t.Helper()
	return fmt.Sprintf("%s %s %s %d", d.month(n, inName), d.month(n, inBound), d.month(n+1, inBound), rows)
}

func (d *db) dayPartition(n int, rows int) string {
	d.t.Helper()
	return fmt.Sprintf("%s %s %s %d", d.day(n, inName), d.day(n, inBound), d.day(n+1, inBound), rows)
}

// TestPartitionedLikePlain compares the table with that of 013.
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

// TestPartitionsAreClosed: a partition can be named in a query, and has neither
// the table's grants nor its policies.
func TestPartitionsAreClosed(t *testing.T) {
	d := newDatabase(t)
	// As in projects from before 2026: everybody gets everything on new tables.
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

// lossy is a transport that loses answers to inserts: the rows are stored by
// then.
type lossy struct{ lose atomic.Int64 } // how many of the next ones

func (l *lossy) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil || req.Method != http.MethodPost || l.lose.Add(-1) < 0 {
		return resp, err
	}
	resp.Body.Close()
	return nil, errors.New("connection reset by peer")
}

// TestPartitionedRecord has events sent again, by the library, since the answer
// to the first time was lost.
func TestPartitionedRecord(t *testing.T) {
	tests := map[string]struct {
		transport func(http.RoundTripper) http.RoundTripper
	}{
		"again, with its id": {func(rt http.RoundTripper) http.RoundTripper { return rt }},
		// A gateway that drops Prefer: then the same row is an error, 23505, and
		// the library knows it for its own by the constraint's name.
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
				t.Errorf("answers were lost, and yet: %+v", client.Stats())
			}
			if n := d.number(d.rename("SELECT count(*) FROM document_processing_events_default")); n != 50 {
				t.Errorf("%d rows in the default partition, want the 50 that no other one covers", n)
			}
			if n := d.number("SELECT count(DISTINCT id) FROM " + d.table); n != 100 {
				t.Errorf("%d ids, want 100", n)
			}
			d.wantCount(100)
		})
	}
}

// TestPartitionedDuplicate is what the library's rule for duplicates builds on:
// PostgreSQL names the partition's own constraint.
func TestPartitionedDuplicate(t *testing.T) {
	d := newTable(t)
	d.run(migration)
	d.plant(1, "now()")
	d.run(partitionedFile)
	d.plant(1, "now() + interval '40 days'")
	d.plant(1, "now() - interval '400 days'") // all three kinds of partitions
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
			d.plant(1000, "now() - interval '40 days' + interval '500 seconds'") // half in it, half in the default one
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
		t.Errorf("added %d partitions to those there are", n)
	}
	if n := add("'month', '4 months'"); n != 1 {
		t.Errorf("added %d partitions, want 1", n)
	}
	for _, args := range []string{"'hour', '1 day'", "NULL, '1 day'", "'day', NULL", "'day', '-1 day'"} {
		if err := d.try("SELECT document_processing_events_add_partitions(" + args + ")"); sqlState(t, err) != "P0001" {
			t.Errorf("(%s): %v, want it refused", args, err)
		}
	}

	// Nobody has added partitions for ten days; meanwhile events came.
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

	// From days to months: the first ends with its month.
	if n := add("'month', '1 month'"); n < 1 || n > 3 {
		t.Errorf("added %d partitions", n)
	}
	all := d.partitions()
	if last, want := strings.Fields(all[len(all)-2])[2], d.text("SELECT to_char(date_trunc('month', now() AT TIME ZONE 'UTC' + interval '1 month') + interval '1 month', $1)", inBound); last != want {
		t.Errorf("the months reach to %s, want %s", last, want)
	}
}

// TestAddPartitionUnderWrites adds the partition of a range for which inserts
// are under way to the default partition.
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
		t.Errorf("%d rows of an empty table", n)
	}
	for i := 45; i > 35; i-- {
		d.addDay(-i, i)
	}
	d.plant(7, "now() - interval '1 year'")
	d.plant(9, "now() - interval '10 days'") // in the default partition, too
	d.plant(11, "now()")
	// A cutoff at a midnight: what ends there goes, what begins there stays.
	if n := drop("now() - date_trunc('day', now(), 'UTC') + interval '40 days'"); n != 45+44+43+42+41+7 {
		t.Errorf("%d rows went", n)
	}
	left := d.partitions()
	if want := d.dayPartition(-40, 40); left[0] != want {
		t.Errorf("the oldest partition is %s, want %s", left[0], want)
	}
	d.wantCount(40 + 39 + 38 + 37 + 36 + 9 + 11)
	for _, keep := range []string{"NULL", "'0'", "'-1 day'"} {
		if err := d.try("SELECT document_processing_events_drop_partitions(" + keep + ")"); sqlState(t, err) != "P0001" {
			t.Errorf("(%s): %v, want it refused", keep, err)
		}
	}
	if n := drop("'5 days'"); n != 40+39+38+37+36+9 {
		t.Errorf("%d rows went", n)
	}
	d.wantCount(11)
}

// TestDropPartitionsGivesWay: with a reader in its way the drop fails after its
// lock_timeout, changes nothing, and inserts go on.
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
		t.Errorf("%d rows went, want 5", n)
	}
}

// TestPartitionedSchedule runs what the file schedules, and what it offers.
func TestPartitionedSchedule(t *testing.T) {
	d := newDatabase(t)
	d.fakeCron()
	d.run(partitionedFile)
	_, offer, found := strings.Cut(d.read(partitionedFile), "\n-- SELECT cron.schedule(")
	if !found {
		t.Fatal("the file offers no job for the drop")
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

// A trickle records an event every millisecond or so.
type trickle struct {
	*docevents.Client
	stop func() // returns when nothing is recorded any more
}

func newTrickle(client *docevents.Client) *trickle {
	stop := make(chan bool)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond): // a rate, not a wait for anything
				client.Record(docevents.Event{DocumentID: uuid.NewString(), UserID: user, Type: docevents.Completed})
			}
		}
	})
	return &trickle{client, func() {
		close(stop)
		wg.Wait()
	}}
}

// more waits until n events more are delivered.
func (c *trickle) more(t *testing.T, n int64) {
	for target := c.Stats().Delivered + n; c.Stats().Delivered < target && !t.Failed(); {
		time.Sleep(time.Millisecond)
	}
}

// TestPartitionPlainTable turns a table in use into the first partition of the
// new one, while events are recorded through the library.
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
			answers.lose.Store(1) // stored in the plain table, sent again to the other
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
				t.Errorf("the table was not read: %t, want %t; %q", implied, prepare, *notices)
			}
			wantLines(t, "keys and checks", d.texts(`SELECT replace(conname, $1::text || '_', '') FROM pg_constraint
				WHERE conrelid = $2::regclass ORDER BY 1`, d.table, legacy), "event_type_check", "legacy_pkey")
			wantLines(t, "checks of the table", d.texts(`SELECT replace(conname, $1::text || '_', '') FROM pg_constraint
				WHERE conrelid = $1::regclass AND contype = 'c' ORDER BY 1`, d.table), "event_type_check")

			// Rows of both kinds go as before, and at last the old table itself.
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

// TestPartitionPlainTableDatedAhead: rows dated beyond the first partition find
// their place, and a table that can't be locked is left as it is.
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
		t.Errorf("it left a relation of kind %s", kind)
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

// TestPrepareRefusesRowsAhead: what partitioned_prepare.sql says of step 3.
func TestPrepareRefusesRowsAhead(t *testing.T) {
	d := newDatabase(t).migrated()
	d.plant(1, "now() + interval '1 year'")
	for i, step := range steps(t, d.read(prepareFile)) {
		_, err := d.conn().Exec(ctx(t), step)
		if want := []string{"", "", "23514"}[i]; sqlState(t, err) != want {
			t.Errorf("step %d: %v, want %q", i+1, err, want)
		}
	}
	// And how to give up.
	head, _, _ := strings.Cut(d.read(prepareFile), "-- Step 1")
	_, undo, _ := strings.Cut(head, "To undo the preparation:\n")
	for statement := range strings.SplitSeq(strings.ReplaceAll(undo, "--", ""), ";") {
		if _, err := d.conn().Exec(ctx(t), statement); err != nil {
			t.Error(err)
		}
	}
	wantLines(t, "constraints", d.texts("SELECT conname::text FROM pg_constraint WHERE conrelid = 'document_processing_events'::regclass ORDER BY 1"),
		"document_processing_events_event_type_check", "document_processing_events_pkey")
}
