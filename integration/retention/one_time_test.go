package retention

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/integration/localstack"
)

// A requestCounter is a transport that counts its requests.
type requestCounter struct{ atomic.Int64 }

func (r *requestCounter) RoundTrip(req *http.Request) (*http.Response, error) {
	r.Add(1)
	return http.DefaultTransport.RoundTrip(req)
}

// TestPurgeOfOneTime purges many rows that have the same created_at, as after a backfill
// in one transaction. The statement timeout is 100 ms, which is much less than the
// purge takes, so the purge must delete the rows in steps. For comparison, the test
// also purges rows with different times. With -rows 150000 there are 1.5 million rows.
func TestPurgeOfOneTime(t *testing.T) {
	n := 10 * *rows
	if testing.Short() {
		t.Skip("the test fills a table three times")
	}
	stack := localstack.Own(t, localstack.Options{StatementTimeout: 100 * time.Millisecond})
	table := &table{t, stack, docevents.DefaultTable}
	for _, test := range []struct{ name, at string }{
		{"spread", "timestamptz '2025-06-01Z' + i * interval '1 second'"},
		{"one time", "'2025-06-01Z'"},
		{"a third of one time", fmt.Sprintf("timestamptz '2025-06-01Z' + (CASE WHEN i BETWEEN %d AND %d THEN %[1]d ELSE i END) * interval '1 second'", n/3, 2*n/3)},
	} {
		t.Run(test.name, func(t *testing.T) {
			table.empty()
			table.exec(fmt.Sprintf(`INSERT INTO %s (id, document_id, user_id, event_type, created_at)
				SELECT lpad(to_hex(i), 32, '0')::uuid, '%s', '%[2]s', 'completed', %s FROM generate_series(1, %d) AS i`,
				table.name, docevents.SystemUser, test.at, n))
			table.exec("VACUUM ANALYZE " + table.name)
			requests := &requestCounter{}
			client := table.client(docevents.WithTransport(requests))
			start := time.Now()
			got, err := client.PurgeOlderThan(context.Background(), 30)
			if got != int64(n) || err != nil {
				t.Errorf("purged %d, %v; want %d", got, err, n)
			}
			table.wantCount(0)
			if requests.Load() < 50 {
				t.Errorf("%d requests, want at least 50 steps", requests.Load())
			}
			t.Logf("%d rows in %.1f s and %d requests", got, time.Since(start).Seconds(), requests.Load())
		})
	}
}
