package doceventstest_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/doceventstest"
)

// t stands for the *testing.T of your test.
var t exampleT

type exampleT struct {
	testing.TB
	cleanups []func()
}

func (t *exampleT) Helper()                  {}
func (t *exampleT) Context() context.Context { return context.Background() }
func (t *exampleT) Output() io.Writer        { return io.Discard }
func (t *exampleT) Fatal(args ...any)        { panic(fmt.Sprint(args...)) }

func (t *exampleT) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func (t *exampleT) Cleanup(f func()) { t.cleanups = append(t.cleanups, f) }

func TestMain(m *testing.M) {
	code := m.Run()
	for i := range t.cleanups {
		t.cleanups[len(t.cleanups)-1-i]()
	}
	os.Exit(code)
}

// An archive is an app that records events.
type archive struct{ events *docevents.Client }

func (a *archive) store(document, text string) {
	e := docevents.Event{DocumentID: document, UserID: docevents.SystemUser, Stage: "store"}
	e.Type = docevents.ProcessingStarted
	a.events.Record(e)
	e.Type = docevents.Completed
	if text == "" {
		e.Type, e.ErrorMessage = docevents.Failed, "empty document"
	}
	a.events.Record(e)
}

const invoice = "0198a5e2-0000-7000-8000-000000000001"

// This example tests an app that takes its client as an argument.
func ExampleServer_WaitFor() {
	server := doceventstest.NewServer(&t)
	app := archive{events: server.Client()}

	app.store(invoice, "")

	for _, e := range server.WaitFor(2) {
		fmt.Printf("%s %s %q\n", e.Type, e.Stage, e.ErrorMessage)
	}
	// Output:
	// processing_started store ""
	// failed store "empty document"
}

// This example tests an app that creates its own client. The app also closes it.
func ExampleNewServer() {
	server := doceventstest.NewServer(&t)
	client, err := docevents.New(server.URL, server.Key)
	if err != nil {
		fmt.Println(err)
		return
	}
	app := archive{events: client}

	app.store(invoice, "Total: 12 EUR")

	if err := client.Close(t.Context()); err != nil {
		fmt.Println(err)
	}
	fmt.Println(len(server.Events()), "events")
	// Output: 2 events
}

// This example passes options to the client.
func ExampleServer_Client() {
	server := doceventstest.NewServer(&t)
	dropped := make(chan docevents.DropReason, 1)
	client := server.Client(docevents.WithDropHandler(func(_ docevents.Event, reason docevents.DropReason, _ error) {
		dropped <- reason
	}))

	client.Record(docevents.Event{DocumentID: "invoice.pdf", UserID: docevents.SystemUser, Type: docevents.Completed})

	fmt.Println(<-dropped)
	// Output: invalid
}

// This example purges an old event.
func ExampleServer_Events() {
	server := doceventstest.NewServer(&t)
	client := server.Client()
	e := docevents.Event{DocumentID: invoice, UserID: docevents.SystemUser, Type: docevents.Completed}
	client.Record(e)
	e.CreatedAt = time.Now().AddDate(0, 0, -40)
	client.Record(e)
	server.WaitFor(2)

	purged, err := client.PurgeOlderThan(t.Context(), 30)

	fmt.Println(purged, err, len(server.Events()))
	// Output: 1 <nil> 1
}

// This example makes an insert fail. The client retries it.
func ExampleServer_FailNext() {
	server := doceventstest.NewServer(&t)
	client := server.Client()
	server.FailNext(503, "PGRST000")

	client.Record(docevents.Event{DocumentID: invoice, UserID: docevents.SystemUser, Type: docevents.Completed})

	server.WaitFor(1)
	fmt.Println(client.Stats().Retries, "retry")
	// Output: 1 retry
}

// This example uses a table whose columns differ from the migration's.
func ExampleServer_Client_columns() {
	server := doceventstest.NewServer(&t)
	server.Columns = docevents.Columns{UserID: "-", Extra: []string{"tenant_id", "metadata"}}
	client := server.Client() // has the same Columns

	client.Record(docevents.Event{DocumentID: invoice, Type: docevents.Completed, Extra: map[string]any{
		"tenant_id": "acme", "metadata": map[string]any{"pages": 3},
	}})

	fmt.Println(server.WaitFor(1)[0].Extra)
	// Output: map[metadata:map[pages:3] tenant_id:acme]
}
