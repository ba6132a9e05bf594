package docevents

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/docevents/docevents-go/internal/row"
	"github.com/google/uuid"
)

// A stalled server takes a request and never answers.
type stalled struct{}

func (stalled) RoundTrip(req *http.Request) (*http.Response, error) {
	_, _ = io.Copy(io.Discard, req.Body)
	<-req.Context().Done()
	return nil, req.Context().Err()
}

// newStalled returns a client of a stalled server, with a queue for the given
// number of events.
func newStalled(tb testing.TB, events int, opts ...Option) *Client {
	tb.Helper()
	opts = append([]Option{
		WithTransport(stalled{}), WithSlog(slog.New(slog.DiscardHandler)), WithRequestTimeout(10 * time.Minute),
		WithQueueLimits(events, 1<<30),
	}, opts...)
	c, err := New("http://supabase.test", "sb_secret_0123456789", opts...)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// abandon closes c without waiting.
func abandon(c *Client) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = c.Close(ctx) // the error is the number of abandoned events
}

var benchEvent = Event{
	DocumentID: "11111111-1111-4111-8111-111111111111",
	UserID:     SystemUser,
	Type:       Completed,
	Duration:   1234 * time.Millisecond,
	Stage:      "ocr",
}

// failedEvent has an error message, which Record copies.
var failedEvent = func() Event {
	e := benchEvent
	e.Type, e.ErrorMessage = Failed, "page 7: the scanner's text layer ends within a UTF-8 sequence"
	return e
}()

// extraEvent has values for three extra columns.
var extraEvent = func() Event {
	e := benchEvent
	e.Extra = map[string]any{"tenant_id": SystemUser, "job_id": 4711, "metadata": map[string]any{"pages": 3}}
	return e
}()

var extraColumns = WithColumns(Columns{Extra: []string{"tenant_id", "job_id", "metadata"}})

// benchEvents is the number of events that a client gets before the benchmark
// creates a new client.
const benchEvents = DefaultQueueEvents

// BenchmarkRecord measures Record while the server doesn't answer. It should take at
// most four times as long as BenchmarkFloor, with 0 allocs/op.
func BenchmarkRecord(b *testing.B) {
	filling := func(name string, e Event, opts func() []Option) {
		b.Run(name, func(b *testing.B) { benchmarkFilling(b, e, opts) })
	}
	none := func() []Option { return nil }
	filling("filling", benchEvent, none)
	filling("filling, with a message", failedEvent, none)
	filling("filling, with a spool", benchEvent, func() []Option { return []Option{WithSpool(b.TempDir())} })
	b.Run("full", func(b *testing.B) {
		b.ReportAllocs()
		c := newStalled(b, 1)
		c.Record(benchEvent)
		recorded := int64(0)
		for b.Loop() {
			c.Record(benchEvent)
			recorded++
		}
		b.StopTimer()
		if got := c.Stats().Dropped.QueueFull; got != recorded {
			b.Fatalf("%d events dropped, want %d", got, recorded)
		}
		abandon(c)
	})
}

// BenchmarkRecordExtra measures Record with three extra columns and with none. The
// three columns should cost at most 1 us and 5 allocs/op more.
func BenchmarkRecordExtra(b *testing.B) {
	opts := func() []Option { return []Option{extraColumns} }
	b.Run("none", func(b *testing.B) { benchmarkFilling(b, benchEvent, opts) })
	b.Run("three", func(b *testing.B) { benchmarkFilling(b, extraEvent, opts) })
}

// benchmarkFilling records e again and again, and creates a new client when the queue is
// full.
func benchmarkFilling(b *testing.B, e Event, opts func() []Option) {
	b.ReportAllocs()
	c := newStalled(b, benchEvents, opts()...)
	recorded := 0
	for b.Loop() {
		if recorded == benchEvents {
			b.StopTimer()
			abandon(c)
			c, recorded = newStalled(b, benchEvents, opts()...), 0
			runtime.GC() // so that collecting the old queue isn't measured
			b.StartTimer()
		}
		c.Record(e)
		recorded++
	}
	b.StopTimer()
	if got := c.Stats().Pending; got != int64(recorded) {
		b.Fatalf("%d events pending, want %d", got, recorded)
	}
	abandon(c)
}

// BenchmarkBody measures how long it takes to encode the body of a full request.
func BenchmarkBody(b *testing.B) {
	b.ReportAllocs()
	c, err := newConfig(nil)
	if err != nil {
		b.Fatal(err)
	}
	r, err := newRecord(&benchEvent, &c)
	if err != nil {
		b.Fatal(err)
	}
	records := slices.Repeat([]record{r}, DefaultMaxBatch)
	for b.Loop() {
		c.columns.rows.Encode(rowsOf(records))
	}
}

// BenchmarkFloor does only the minimum that Record needs: it parses two UUIDs,
// takes the time, locks and appends. Its memory is allocated already, unlike a
// queue's.
func BenchmarkFloor(b *testing.B) {
	b.ReportAllocs()
	var mu sync.Mutex
	queue := make([]record, 0, benchEvents)
	for b.Loop() {
		if len(queue) == cap(queue) {
			queue = queue[:0]
		}
		document, err := uuid.Parse(benchEvent.DocumentID)
		if err != nil {
			b.Fatal(err)
		}
		user, err := uuid.Parse(benchEvent.UserID)
		if err != nil {
			b.Fatal(err)
		}
		r := record{Row: row.Row{
			DocumentID: document, UserID: user, Type: string(benchEvent.Type), Stage: benchEvent.Stage,
			Duration: benchEvent.Duration, CreatedAt: time.Now().UnixMicro(),
		}}
		mu.Lock()
		queue = append(queue, r)
		mu.Unlock()
	}
}

func TestExtraAllocatesLittle(t *testing.T) {
	if testing.Short() {
		t.Skip("CI runs the short tests with the race detector, under which sync.Pool drops values")
	}
	c := newStalled(t, benchEvents, extraColumns)
	defer abandon(c)
	if allocs := testing.AllocsPerRun(20_000, func() { c.Record(extraEvent) }); allocs > 5 {
		t.Errorf("%v allocations per event", allocs)
	}
}

// Record allocates nothing, except as the queue grows.
func TestRecordDoesNotAllocate(t *testing.T) {
	for name, test := range map[string]struct {
		event  Event
		events int  // for which the queue has room
		stuck  bool // the handler doesn't return
		spool  string
	}{
		"the queue fills, with a spool":            {failedEvent, benchEvents, false, t.TempDir()},
		"the queue is full":                        {benchEvent, 1, false, ""},
		"the queue is full, and the handler stuck": {failedEvent, 1, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			stuck := make(chan struct{})
			handler := func(Event, DropReason, error) { <-stuck }
			if !test.stuck {
				handler = nil
			}
			c := newStalled(t, test.events, WithDropHandler(handler), WithSpool(test.spool))
			defer abandon(c)
			defer close(stuck)
			for range 2 * maxNotices { // fills the queue of handler calls, which is bounded
				c.Record(test.event)
			}
			if allocs := testing.AllocsPerRun(20_000, func() { c.Record(test.event) }); allocs != 0 {
				t.Errorf("%v allocations per event", allocs)
			}
			if st := c.Stats(); st.Recorded != st.Pending+st.Dropped.QueueFull || (st.Dropped.QueueFull == 0) != (test.events > 1) {
				t.Errorf("%+v", st)
			}
		})
	}
}
