// Package retention tests and measures purges on a real PostgreSQL, with the
// statement timeout of hosted Supabase, 8 s. These commands measure purges of large
// tables:
//
//	go test ./integration/retention -run '^$' -bench '^BenchmarkPurge$' -benchtime 5x -rows 1000000
//	go test ./integration/retention -run '^$' -bench RecordDuringPurge -benchtime 3x -rows 1000000
//	go test ./integration/retention -run '^$' -bench 'PurgeHalf|Partition' -benchtime 1x -rows 10000000 -timeout 1h
package retention

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/integration/localstack"
)

var rows = flag.Int("rows", 50_000, "rows of the tables")

func TestMain(m *testing.M) { localstack.Main(m) }

// A table is a table of a stack, with rows to purge and rows to keep.
type table struct {
	testing.TB
	stack *localstack.Stack
	name  string
}

func (t *table) exec(sql string) (affected int64) {
	t.Helper()
	tag, err := t.stack.Pool().Exec(context.Background(), sql)
	if err != nil {
		t.Fatalf("%.200s: %v", sql, err)
	}
	return tag.RowsAffected()
}

// newTable creates a table with a new name by running a file of the folder sql.
func newTable(t testing.TB, file string) *table {
	t.Helper()
	stack := localstack.Shared(t)
	if !stack.Ours() {
		t.Skip("the test fills a database")
	}
	table := &table{t, stack, strings.ReplaceAll("events_"+uuid.NewString()[:18], "-", "")}
	t.Cleanup(func() {
		table.exec("DROP TABLE " + table.name)
		table.exec("DO $$ DECLARE f regprocedure; BEGIN FOR f IN SELECT oid FROM pg_proc WHERE proname LIKE '" + table.name +
			"%' LOOP EXECUTE 'DROP FUNCTION ' || f; END LOOP; END $$")
	})
	table.run(file)
	if err := stack.Reload(context.Background()); err != nil {
		t.Fatal(err)
	}
	return table
}

// run runs a file of the folder sql, one step at a time if it has steps.
func (t *table) run(file string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "sqltest", "testdata", "sql", file))
	if err != nil {
		t.Fatal(err)
	}
	sql := strings.ReplaceAll(string(text), "document_processing_events", t.name)
	for _, step := range regexp.MustCompile(`(?m)^-- Step \d:`).Split(sql, -1) {
		t.exec("-- " + step)
	}
}

const plain = "013_create_processing_events_table.sql"

// epoch is the time of the first planted row.
var epoch = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

// plant inserts n rows, spread evenly over the given number of days from epoch, as an
// app would have recorded them: the ids are in the order of time (UUID v7), and a
// document has three events. Then plant vacuums and analyzes the table.
func (t *table) plant(n, days int) {
	t.Helper()
	index := "idx_" + t.name + "_document_id" // faster to build after the inserts, since its order is random
	t.exec("DROP INDEX " + index)
	t.exec(fmt.Sprintf(`INSERT INTO %s (id, document_id, user_id, event_type, duration_ms, stage, created_at)
		SELECT (substr(ms, 1, 12) || '7' || substr(random, 1, 3) || '8' || substr(random, 4, 15))::uuid,
			md5((i / 3)::text)::uuid, '22222222-2222-4222-8222-222222222222',
			(ARRAY['upload_started', 'processing_started', 'completed'])[1 + i %% 3],
			CASE WHEN i %% 3 = 2 THEN i %% 20000 END, 'extract', at
		FROM generate_series(0::bigint, %d - 1) AS i
		CROSS JOIN LATERAL (SELECT timestamptz '%s' + i * interval '%d microseconds' AS at) AS a
		CROSS JOIN LATERAL (SELECT lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') AS ms, md5(i::text) AS random) AS r`,
		t.name, n, epoch.Format(time.RFC3339), int64(days)*24*3600*1e6/int64(n)))
	t.exec(fmt.Sprintf("CREATE INDEX %s ON %s (document_id)", index, t.name))
	t.exec("VACUUM ANALYZE " + t.name)
	t.exec("CHECKPOINT")
}

func (t *table) empty() {
	t.Helper()
	t.exec("TRUNCATE " + t.name)
}

func (t *table) wantCount(want int) {
	t.Helper()
	var n int
	if err := t.stack.Pool().QueryRow(context.Background(), "SELECT count(*) FROM "+t.name).Scan(&n); err != nil || n != want {
		t.Fatalf("%d rows are left, %v; want %d", n, err, want)
	}
}

func (t *table) client(opts ...docevents.Option) *docevents.Client {
	t.Helper()
	client, err := docevents.New(t.stack.URL, t.stack.ServiceRoleKey, append([]docevents.Option{docevents.WithTable(t.name)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return client
}

// purge purges the rows before the cutoff and checks that there are n.
func (t *table) purge(client *docevents.Client, cutoff time.Time, n int) {
	t.Helper()
	if got, err := client.PurgeBefore(context.Background(), cutoff); got != int64(n) || err != nil {
		t.Errorf("purged %d, %v; want %d", got, err, n)
	}
}

// A heapMeter is a transport that measures the largest heap size at its requests.
type heapMeter struct{ before, most uint64 }

func (h *heapMeter) start() {
	runtime.GC()
	h.before = heap()
	h.most = h.before
}

// growth returns the growth of the heap in MiB. The heap includes the local stack's
// stand-in for PostgREST, whose part is the same for every row count.
func (h *heapMeter) growth() float64 { return float64(h.most-h.before) / (1 << 20) }

func (h *heapMeter) RoundTrip(req *http.Request) (*http.Response, error) {
	h.most = max(h.most, heap())
	resp, err := http.DefaultTransport.RoundTrip(req)
	h.most = max(h.most, heap())
	return resp, err
}

// heap returns the allocated bytes, including garbage.
func heap() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// maxGrowth is the limit in MiB for any number of rows. In measurements, a purge in
// steps needed 0.4 MiB for 50,000 rows and 1.9 MiB for a million. A purge whose answer
// has the ids needed 6.4 MiB for 50,000 rows and 50.7 MiB for 400,000.
const maxGrowth = 5

// TestPurgeInSteps checks that a purge's count is exact, and that its memory
// doesn't grow with the rows.
func TestPurgeInSteps(t *testing.T) {
	table := newTable(t, plain)
	keep := *rows / 10
	table.plant(*rows+keep, 11)
	meter := &heapMeter{}
	client := table.client(docevents.WithPurgeBatch(10_000), docevents.WithTransport(meter))
	meter.start()
	table.purge(client, cutAt(*rows, *rows+keep, 11), *rows)
	if meter.growth() > maxGrowth {
		t.Errorf("the heap grew by %.1f MiB, want at most %d", meter.growth(), maxGrowth)
	}
	table.wantCount(keep)
}

// cutAt returns the time of row n, counted from 0, of the planted rows.
func cutAt(n, of, days int) time.Time {
	step := time.Duration(int64(days)*24*3600*1e6/int64(of)) * time.Microsecond
	return epoch.Add(time.Duration(n) * step)
}

func median[T float64 | time.Duration](values []T) T {
	slices.Sort(values)
	return values[len(values)/2]
}

// BenchmarkPurge compares a purge in steps with a single DELETE of the same rows.
func BenchmarkPurge(b *testing.B) {
	table := newTable(b, plain)
	meter := &heapMeter{}
	client := table.client(docevents.WithPurgeBatch(10_000), docevents.WithTransport(meter))
	keep := *rows / 10
	cutoff := cutAt(*rows, *rows+keep, 11)
	var purges, bare, ratios []float64
	growth := 0.0
	for b.Loop() {
		table.empty()
		table.plant(*rows+keep, 11)
		start := time.Now()
		if n := table.exec(fmt.Sprintf("DELETE FROM %s WHERE created_at < '%s'", table.name, cutoff.Format(time.RFC3339Nano))); n != int64(*rows) {
			b.Fatalf("the DELETE deleted %d rows, want %d", n, *rows)
		}
		bare = append(bare, time.Since(start).Seconds())

		table.empty()
		table.plant(*rows+keep, 11)
		meter.start()
		start = time.Now()
		table.purge(client, cutoff, *rows)
		purges = append(purges, time.Since(start).Seconds())
		growth = max(growth, meter.growth())
		table.wantCount(keep)
		ratios = append(ratios, purges[len(purges)-1]/bare[len(bare)-1])
		b.Logf("%d rows: DELETE %.2f s, purge %.2f s, heap +%.1f MiB", *rows, bare[len(bare)-1], purges[len(purges)-1], meter.growth())
	}
	b.ReportMetric(0, "ns/op") // would include the planting
	b.ReportMetric(median(bare), "DELETE-s")
	b.ReportMetric(median(purges), "purge-s")
	b.ReportMetric(median(ratios), "ratio")
	b.ReportMetric(growth, "heap-MiB")
}

// BenchmarkRecordDuringPurge compares the time to store an event with and without a
// running purge. It records one event at a time.
func BenchmarkRecordDuringPurge(b *testing.B) {
	table := newTable(b, plain)
	purger := table.client(docevents.WithPurgeBatch(10_000))
	recorder := table.client()
	record := func(until <-chan struct{}) (latencies []time.Duration) {
		for {
			select {
			case <-until:
				return latencies
			default:
			}
			start := time.Now()
			recorder.Record(docevents.Event{DocumentID: uuid.NewString(), UserID: docevents.SystemUser, Type: docevents.Completed})
			if err := recorder.Flush(context.Background()); err != nil {
				b.Fatal(err)
			}
			latencies = append(latencies, time.Since(start))
		}
	}
	var alone, during []time.Duration
	for b.Loop() {
		table.empty()
		table.plant(*rows, 10)
		record(after(100 * time.Millisecond)) // warms up the connection and the plans
		purged := make(chan struct{})
		start := time.Now()
		go func() {
			defer close(purged)
			table.purge(purger, cutAt(*rows, *rows, 10), *rows)
		}()
		during = append(during, record(purged)...)
		took := time.Since(start)
		alone = append(alone, record(after(took))...)
	}
	if s := recorder.Stats(); s.Delivered != s.Recorded {
		b.Errorf("%+v", s)
	}
	b.ReportMetric(0, "ns/op")
	slices.Sort(alone)
	slices.Sort(during)
	ms := func(l []time.Duration, share float64) float64 {
		return float64(l[int(share*float64(len(l)-1))].Microseconds()) / 1000
	}
	b.ReportMetric(ms(alone, 0.5), "alone-p50-ms")
	b.ReportMetric(ms(alone, 0.99), "alone-p99-ms")
	b.ReportMetric(ms(during, 0.5), "during-p50-ms")
	b.ReportMetric(ms(during, 0.99), "during-p99-ms")
	b.ReportMetric(ms(during, 0.5)/ms(alone, 0.5), "p50-ratio")
	b.ReportMetric(float64(len(during)), "events")
}

func after(d time.Duration) <-chan struct{} {
	done := make(chan struct{})
	time.AfterFunc(d, func() { close(done) })
	return done
}

// BenchmarkPurgeHalf compares two ways to purge half of a table: deleting rows in
// steps, and dropping partitions, which counts their rows first.
func BenchmarkPurgeHalf(b *testing.B) {
	const days = 100
	half := cutAt(*rows/2, *rows, days)
	b.Run("steps", func(b *testing.B) {
		table := newTable(b, plain)
		client := table.client(docevents.WithPurgeBatch(10_000))
		var took []float64
		for b.Loop() {
			table.empty()
			table.plant(*rows, days)
			start := time.Now()
			table.purge(client, half, *rows/2)
			took = append(took, time.Since(start).Seconds())
			table.wantCount(*rows - *rows/2)
		}
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(median(took), "s")
	})
	b.Run("partitions", func(b *testing.B) {
		table := newTable(b, "optional/partitioned.sql")
		var took []float64
		for b.Loop() {
			table.empty()
			table.exec(fmt.Sprintf(`SELECT %s_add_partition(day, day + interval '1 day')
				FROM generate_series(timestamptz '%s', timestamptz '%[2]s' + interval '%d days', interval '1 day') AS day
				WHERE to_regclass('%[1]s_p' || to_char(day AT TIME ZONE 'UTC', 'YYYYMMDD')) IS NULL`,
				table.name, epoch.Format(time.RFC3339), days-1))
			table.plant(*rows, days)
			start := time.Now()
			var n int
			err := table.stack.Pool().QueryRow(context.Background(),
				"SELECT "+table.name+"_drop_partitions(now() - $1::timestamptz)", half).Scan(&n)
			took = append(took, time.Since(start).Seconds())
			if err != nil || n != *rows/2 {
				b.Fatalf("dropped %d rows, %v; want %d", n, err, *rows/2)
			}
			table.wantCount(*rows - *rows/2)
		}
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(median(took), "s")
	})
}

// BenchmarkPartition makes the plain table a partition of the partitioned table.
func BenchmarkPartition(b *testing.B) {
	for _, prepare := range []bool{true, false} {
		b.Run(fmt.Sprintf("prepared %t", prepare), func(b *testing.B) {
			for b.Loop() {
				table := newTable(b, plain)
				table.plant(*rows, 100)
				start := time.Now()
				if prepare {
					table.run("optional/partitioned_prepare.sql")
				}
				prepared := time.Now()
				table.run("optional/partitioned.sql")
				b.ReportMetric(prepared.Sub(start).Seconds(), "prepare-s")
				b.ReportMetric(time.Since(prepared).Seconds(), "locked-s")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}
