package docevents_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/docevents/docevents-go"
)

// The first client can't send its event before it ends. The next client replays
// the event from the spool.
func ExampleWithSpool() {
	dir, err := os.MkdirTemp("", "") // in production: a volume that outlives the container
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	unreachable := roundTripFunc(func(*http.Request) (*http.Response, error) { return nil, http.ErrServerClosed })
	client := newExampleClient(docevents.WithSpool(dir), docevents.WithTransport(unreachable))
	client.Record(docevents.Event{DocumentID: document, UserID: docevents.SystemUser, Type: docevents.Completed})
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // Close has no time to send the event
	client.Close(ctx)
	fmt.Println("kept:", client.Stats().Kept)

	stored := make(chan bool, 1)
	reachable := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		stored <- true
		return standIn{}.RoundTrip(req)
	})
	next := newExampleClient(docevents.WithSpool(dir), docevents.WithTransport(reachable))
	<-stored
	next.Close(context.Background())
	fmt.Println("replayed:", next.Stats().Replayed)
	// Output:
	// kept: 1
	// replayed: 1
}
