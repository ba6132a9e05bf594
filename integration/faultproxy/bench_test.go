package faultproxy_test

import (
	"bytes"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/integration/faultproxy"
	"github.com/docevents/docevents-go/integration/internal/observe"
	"github.com/docevents/docevents-go/integration/localstack"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

func TestMain(m *testing.M) {
	recordUntilKilled()
	localstack.Main(m)
}

// A fixture is a table that several benches share, because creating a table takes as
// long as a test.
type fixture struct {
	stack *localstack.Stack
	table string
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	stack := localstack.Shared(t)
	return &fixture{stack, stack.Table(t)}
}

// A bench is a client that sends to a real server through a proxy. Each bench has
// its own proxy and document. Tests name the document's events by their stage.
type bench struct {
	*fixture
	observe.Observer
	t        *testing.T
	proxy    *faultproxy.Proxy
	client   *docevents.Client
	document string
}

func (s *fixture) open(t *testing.T, opts ...docevents.Option) *bench {
	t.Helper()
	proxy, err := faultproxy.Start(s.stack.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := proxy.Close(); err != nil {
			t.Error(err)
		}
	})
	return s.through(t, proxy, opts...)
}

func (s *fixture) through(t *testing.T, proxy *faultproxy.Proxy, opts ...docevents.Option) *bench {
	t.Helper()
	b := &bench{fixture: s, t: t, proxy: proxy, document: uuid.NewString()}
	var err error
	b.client, err = docevents.New(proxy.URL, s.stack.ServiceRoleKey, slices.Concat(b.Options(), []docevents.Option{docevents.WithTable(s.table)}, opts)...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) event(stage string) docevents.Event {
	return docevents.Event{DocumentID: b.document, UserID: docevents.SystemUser, Type: docevents.Completed, Stage: stage}
}

func (b *bench) record(stage string) { b.client.Record(b.event(stage)) }

// batch records events that the client sends in one request, and makes that request the
// first one under the plan. To collect the events in one request, it records an event
// "first" before them, and delays its request in the proxy. The client must have at
// most one request in flight.
func (b *bench) batch(plan faultproxy.Plan, stages ...string) {
	b.t.Helper()
	held, release := make(chan bool), make(chan bool)
	b.proxy.Deal(func(*faultproxy.Request) faultproxy.Fault {
		close(held)
		<-release
		return faultproxy.Fault{}
	})
	b.record("first")
	<-held
	for _, stage := range stages {
		b.record(stage)
	}
	b.proxy.Deal(func(r *faultproxy.Request) faultproxy.Fault {
		if n := bytes.Count(r.Body, []byte(`"document_id"`)); r.Number == 0 && n != len(stages) {
			b.t.Errorf("the request has %d rows, want %d", n, len(stages))
		}
		return plan(r)
	})
	close(release)
}

func (b *bench) flush() {
	b.t.Helper()
	if err := b.client.Flush(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) close(want error) {
	b.t.Helper()
	if err := b.client.Close(b.t.Context()); !errors.Is(err, want) {
		b.t.Errorf("Close: %v, want %v", err, want)
	}
}

// wantStats compares Stats without PendingBytes.
func (b *bench) wantStats(want docevents.Stats) {
	b.t.Helper()
	got := b.client.Stats()
	got.PendingBytes = 0
	if got != want {
		b.t.Errorf("stats %+v, want %+v", got, want)
	}
}

// wantCounts compares Stats without PendingBytes, Requests and Retries.
func (b *bench) wantCounts(want docevents.Stats) {
	b.t.Helper()
	got := b.client.Stats()
	want.Requests, want.Retries = got.Requests, got.Retries
	b.wantStats(want)
}

// wantStored checks the stages of the bench's stored events.
func (b *bench) wantStored(want ...string) {
	b.t.Helper()
	rows, _ := b.stack.Pool().Query(b.t.Context(), "SELECT stage FROM "+b.table+" WHERE document_id = $1", b.document) // CollectRows returns its error
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		b.t.Fatal(err)
	}
	slices.Sort(got)
	if want = slices.Sorted(slices.Values(want)); !slices.Equal(got, want) {
		b.t.Errorf("stored %q, want %q", got, want)
	}
}

// wantDrop checks that exactly this event was dropped, and returns the drop's error.
func (b *bench) wantDrop(stage string, reason docevents.DropReason, unknown bool) error {
	b.t.Helper()
	drops := b.Drops()
	if len(drops) != 1 {
		b.t.Fatalf("%d drops, want 1: %+v", len(drops), drops)
	}
	d := drops[0]
	if d.Event.Stage != stage || d.Event.DocumentID != b.document || d.Reason != reason {
		b.t.Errorf("dropped %+v as %s, want %q as %s", d.Event, d.Reason, stage, reason)
	}
	if errors.Is(d.Err, docevents.ErrOutcomeUnknown) != unknown {
		b.t.Errorf("dropped with %v, want the outcome unknown: %t", d.Err, unknown)
	}
	return d.Err
}

// wantAnswer checks that err has the status and the code of a fault's answer, or no
// answer if the fault has none.
func (b *bench) wantAnswer(err error, want *faultproxy.Answer) {
	b.t.Helper()
	var e *docevents.Error
	got := errors.As(err, &e)
	if want == nil {
		if err == nil || got {
			b.t.Errorf("error %v, want one without an answer", err)
		}
		return
	}
	if !got || e.Status != want.Status {
		b.t.Errorf("error %v, want status %d", err, want.Status)
		return
	}
	code := ""
	if match := ownCode.FindSubmatch(want.Body); match != nil {
		code = string(match[1])
	}
	if e.Code != code {
		b.t.Errorf("code %q of the answer %.200s", e.Code, want.Body)
	}
}

// ownCode matches a code of PostgreSQL or PostgREST. The client ignores other codes.
var ownCode = regexp.MustCompile(`"code":"([0-9A-Z]{5}|PGRST...)"`)

// wantLines checks that the log has these lines and contains no secrets.
func (b *bench) wantLines(want ...string) {
	b.t.Helper()
	lines := b.Lines()
	matches := len(lines) == len(want)
	for i, l := range lines {
		matches = matches && strings.Contains(l.Text, want[i])
		for _, secret := range []string{b.stack.ServiceRoleKey, b.document, faultproxy.SecretRow, "columns="} {
			if strings.Contains(l.Text, secret) {
				b.t.Errorf("%q in the log: %s", secret, l.Text)
			}
		}
	}
	if !matches {
		b.t.Errorf("log %v, want %q", lines, want)
	}
}
