package e2e

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/docevents/docevents-go"
)

// plant inserts a row for each of the times. The stage of a row is its index.
func (b *bench) plant(times ...time.Time) {
	b.t.Helper()
	for i, at := range times {
		if _, err := b.stack.Pool().Exec(b.t.Context(), "INSERT INTO "+b.table+
			" (document_id, user_id, event_type, stage, created_at) VALUES ($1, $1, 'completed', $2, $3)",
			document, fmt.Sprint(i), at); err != nil {
			b.t.Fatal(err)
		}
	}
}

// TestPurgeBefore checks that a purge deletes exactly the rows before the cutoff.
func TestPurgeBefore(t *testing.T) {
	cutoff := time.Date(2026, 3, 29, 2, 30, 0, 123456000, time.UTC) // a local time that summer time skips in Berlin
	const µs = time.Microsecond
	times := []time.Time{
		0: cutoff.Add(-365 * 24 * time.Hour),
		1: cutoff.Add(-µs), 2: cutoff.Add(-µs), 3: cutoff.Add(-µs), 4: cutoff.Add(-µs), 5: cutoff.Add(-µs), // ties
		6: cutoff, 7: cutoff, 8: cutoff,
		9: cutoff.Add(µs), 10: cutoff.Add(time.Hour),
		11: time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	stay := []string{"6", "7", "8", "9", "10"}
	for _, tt := range []struct {
		name   string
		cutoff time.Time
		count  int64
		stay   []string
	}{
		{"to the microsecond", cutoff, 7, stay},
		{"in another zone", cutoff.In(time.FixedZone("", -7*3600)), 7, stay},
		{"in a half-hour zone", cutoff.In(time.FixedZone("", 5*3600+1800)), 7, stay},
		{"in local time", cutoff.Local(), 7, stay},
		{"a nanosecond after the rows", cutoff.Add(1), 10, []string{"9", "10"}},
		{"a nanosecond before the rows", cutoff.Add(-1), 7, stay},
		{"a microsecond before the rows", cutoff.Add(-µs), 2, append([]string{"1", "2", "3", "4", "5"}, stay...)},
		{"just after the zero time", time.Date(1, 1, 1, 0, 0, 0, 1, time.UTC), 1, append([]string{"0", "1", "2", "3", "4", "5"}, stay...)},
		{"after all rows", cutoff.Add(2 * time.Hour), 12, nil},
	} {
		for way, opts := range map[string][]docevents.Option{"at once": nil, "in steps": {docevents.WithPurgeBatch(3)}, "row by row": {docevents.WithPurgeBatch(1)}} {
			t.Run(tt.name+"/"+way, func(t *testing.T) {
				b := newBench(t, opts...)
				b.plant(times...)
				n, err := b.client.PurgeBefore(t.Context(), tt.cutoff)
				if n != tt.count || err != nil {
					t.Errorf("purged %d, %v, want %d", n, err, tt.count)
				}
				b.wantStages(tt.stay...)
				if n, err := b.client.PurgeBefore(t.Context(), tt.cutoff); n != 0 || err != nil {
					t.Errorf("the second purge: purged %d, %v", n, err)
				}
			})
		}
	}
}

// TestConcurrentPurges runs several purges of the same rows while events are
// recorded. Each deleted row must be counted by exactly one purge.
func TestConcurrentPurges(t *testing.T) {
	for way, opts := range map[string][]docevents.Option{"at once": nil, "in steps": {docevents.WithPurgeBatch(50)}} {
		t.Run(way, func(t *testing.T) {
			b := newBench(t, opts...)
			b.execute("INSERT INTO TABLE_NAME (document_id, user_id, event_type, created_at) " +
				"SELECT gen_random_uuid(), gen_random_uuid(), 'completed', now() - n * interval '1 day' FROM generate_series(2, 1001) n")
			var (
				wg     sync.WaitGroup
				counts = make([]int64, 4)
				stages []string
			)
			for i := range counts {
				wg.Go(func() {
					var err error
					if counts[i], err = b.client.PurgeOlderThan(t.Context(), 1); err != nil {
						t.Error(err)
					}
				})
			}
			for i := range 300 {
				stages = append(stages, fmt.Sprint("new ", i))
				b.client.Record(event(stages[i]))
			}
			wg.Wait()
			b.flush()
			total := int64(0)
			for _, n := range counts {
				total += n
			}
			if total != 1000 {
				t.Errorf("purged %v, %d in all, want 1000", counts, total)
			}
			b.wantStages(stages...)
		})
	}
}
