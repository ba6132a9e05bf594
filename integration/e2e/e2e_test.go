// Package e2e tests docevents from end to end. The tests record events with the public
// API, through a REST server into a real PostgreSQL, and read the tables by SQL. They
// use a local stack, or the Supabase project that the environment names (see
// localstack.FromEnv). Each test creates its own tables.
package e2e

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/integration/internal/observe"
	"github.com/docevents/docevents-go/integration/localstack"
	"github.com/jackc/pgx/v5"
)

func TestMain(m *testing.M) { localstack.Main(m) }

// A bench is a client and its table.
type bench struct {
	observe.Observer
	t      testing.TB
	stack  *localstack.Stack
	table  string
	client *docevents.Client
}

// newBench returns a client with a new table.
func newBench(t testing.TB, opts ...docevents.Option) *bench {
	t.Helper()
	stack := localstack.Shared(t)
	return benchOf(t, stack, stack.ServiceRoleKey, stack.Table(t), opts...)
}

func benchOf(t testing.TB, stack *localstack.Stack, key, table string, opts ...docevents.Option) *bench {
	t.Helper()
	b := &bench{t: t, stack: stack, table: table}
	var err error
	b.client, err = docevents.New(stack.URL, key, slices.Concat(b.Options(), []docevents.Option{docevents.WithTable(table)}, opts)...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// event returns a valid event. Tests tell events apart by the stage.
func event(stage string) docevents.Event {
	return docevents.Event{DocumentID: document, UserID: docevents.SystemUser, Type: docevents.Completed, Stage: stage}
}

const document = "11111111-1111-4111-8111-111111111111"

// flush waits until all events are delivered or dropped.
func (b *bench) flush() {
	b.t.Helper()
	if err := b.client.Flush(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) close() {
	b.t.Helper()
	if err := b.client.Close(b.t.Context()); err != nil {
		b.t.Error(err)
	}
}

// execute runs statements as the database's owner. TABLE_NAME in them stands for
// the bench's table.
func (b *bench) execute(statements ...string) {
	b.t.Helper()
	for _, sql := range statements {
		if _, err := b.stack.Pool().Exec(b.t.Context(), strings.ReplaceAll(sql, "TABLE_NAME", "public."+b.table)); err != nil {
			b.t.Fatalf("%s: %v", sql, err)
		}
	}
}

// dropAll drops the table and everything that a test has made under its name, when the
// test ends.
func (b *bench) dropAll() {
	b.t.Cleanup(func() {
		for _, kind := range []string{"VIEW", "TABLE"} {
			_, _ = b.stack.Pool().Exec(context.Background(), "DROP "+kind+" IF EXISTS public."+b.table) // fails if it is of the other kind
		}
		for _, made := range []string{"TABLE IF EXISTS TABLE_NAME_rows", "TYPE IF EXISTS TABLE_NAME_kind", "FUNCTION IF EXISTS TABLE_NAME_message"} {
			if _, err := b.stack.Pool().Exec(context.Background(), "DROP "+strings.ReplaceAll(made, "TABLE_NAME", "public."+b.table)); err != nil {
				b.t.Error(err)
			}
		}
	})
}

// reload makes the REST server read the schema again, and waits until it has.
func (b *bench) reload() {
	b.t.Helper()
	if err := b.stack.Reload(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

// wantStages checks the stages of the stored events, in any order.
func (b *bench) wantStages(want ...string) {
	b.t.Helper()
	rows, _ := b.stack.Pool().Query(b.t.Context(), "SELECT coalesce(stage, 'NULL') FROM "+b.table) // CollectRows returns its error
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		b.t.Fatal(err)
	}
	slices.Sort(got)
	if want = slices.Sorted(slices.Values(want)); !slices.Equal(got, want) {
		b.t.Errorf("the table has %q, want %q", got, want)
	}
}

func (b *bench) wantRows(want int) {
	b.t.Helper()
	got := 0
	if err := b.stack.Pool().QueryRow(b.t.Context(), "SELECT count(*) FROM "+b.table).Scan(&got); err != nil || got != want {
		b.t.Errorf("%d rows, %v, want %d", got, err, want)
	}
}

// wantCounts compares Stats without PendingBytes, Requests and Retries.
func (b *bench) wantCounts(want docevents.Stats) {
	b.t.Helper()
	got := b.client.Stats()
	want.Requests, want.Retries, want.PendingBytes = got.Requests, got.Retries, got.PendingBytes
	if got != want {
		b.t.Errorf("stats %+v, want %+v", got, want)
	}
}

// wantError checks an error's status and code, and that it contains the remedy
// exactly once.
func wantError(t testing.TB, err error, status int, code, remedy string) {
	t.Helper()
	var e *docevents.Error
	if !errors.As(err, &e) || e.Status != status || e.Code != code {
		t.Errorf("error %v, want status %d, code %q", err, status, code)
		return
	}
	if strings.Count(err.Error(), remedy) != 1 {
		t.Errorf("error %q, want it to contain %q once", err, remedy)
	}
}
