package docevents_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/jarcoal/httpmock"

	"github.com/docevents/docevents-go"
)

// A middleware stores the trace id in the context under traceKey.
type traceKey struct{}

// addTrace adds the trace id to the message of each failure.
func addTrace(ctx context.Context, e *docevents.Event) bool {
	if id, ok := ctx.Value(traceKey{}).(string); ok && e.ErrorMessage != "" {
		e.ErrorMessage = "trace " + id + ": " + e.ErrorMessage
	}
	return true
}

// The function drops the events of one stage. They are passed to the drop handler.
func ExampleWithBefore() {
	client := newExampleClient(
		docevents.WithBefore(func(_ context.Context, e *docevents.Event) bool { return e.Stage != "heartbeat" }),
		docevents.WithDropHandler(func(e docevents.Event, reason docevents.DropReason, err error) {
			fmt.Println(e.Stage, reason, err)
		}))
	client.Record(docevents.Event{DocumentID: document, UserID: docevents.SystemUser, Type: docevents.Completed, Stage: "heartbeat"})
	client.Close(context.Background())
	fmt.Println(client.Stats().Dropped.Filtered, "filtered")
	// Output:
	// heartbeat filtered WithBefore's function returned false
	// 1 filtered
}

// The context of a request carries the trace id. The event is stored even though
// the request, and with it the context, has ended.
func ExampleClient_RecordContext() {
	client := newExampleClient(docevents.WithBefore(addTrace))
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), traceKey{}, "4bf92f35"))
	cancel()
	client.RecordContext(ctx, docevents.Event{DocumentID: document, UserID: docevents.SystemUser, Type: docevents.Failed, ErrorMessage: "page 3 can't be read"})
	client.Close(context.Background())
	fmt.Println(client.Stats().Delivered, "event")
	// Output:
	// 1 event
}

// The work of the step and the function of WithBefore get the same context.
func ExampleClient_StepContext() {
	client := newExampleClient(docevents.WithBefore(addTrace))
	ctx := context.WithValue(context.Background(), traceKey{}, "4bf92f35")
	err := client.StepContext(ctx, docevents.Event{DocumentID: document, UserID: docevents.SystemUser, Stage: "ocr"}, func(ctx context.Context) error {
		return errors.New("page 3 can't be read")
	})
	client.Close(context.Background())
	fmt.Println(err)
	fmt.Println(client.Stats().Delivered, "events") // processing_started and failed
	// Output:
	// page 3 can't be read
	// 2 events
}

// This check reports a problem if more than 20 % of a tenant's documents fail.
func ExampleClient_Health() {
	client := newExampleClient(docevents.WithTransport(always(httpmock.NewStringResponder(200, `{
		"since": "2026-11-25T13:00:00Z", "until": "2026-11-25T14:00:00Z", "interval_seconds": 60, "completed": 30, "failed": 10}`))))
	h, err := client.Health(context.Background(), docevents.Limits{MaxFailureRate: 0.2, Where: map[string]string{"tenant_id": "acme"}})
	if err != nil {
		fmt.Println(err) // the table couldn't be read: there is no verdict
		return
	}
	fmt.Println(h.OK, h.Problems)
	// Output:
	// false [10 of the 40 documents that ended in the last 60 min failed, 25.0 %; the limit is 20.0 %.]
}
