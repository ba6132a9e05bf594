package docevents_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/docevents/docevents-go"
)

// A pipeline processes documents and records each step.
type pipeline struct {
	events *docevents.Client // may be nil: then nothing is recorded
}

func (p *pipeline) process(document, owner, text string) error {
	event := docevents.Event{DocumentID: document, UserID: owner, Stage: "summarize"}
	return p.events.Step(event, func() error { return summarize(text) })
}

func summarize(text string) error {
	if text == "" {
		return errors.New("no text in the document")
	}
	return nil
}

// A program with a pipeline, from start to end. It uses a stand-in for the server
// in order to run offline. An app calls docevents.NewFromEnv instead of New.
func Example() {
	client, err := docevents.New("https://abcdefgh.supabase.co", "sb_secret_of_this_project", docevents.WithTransport(standIn{}))
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := client.Check(context.Background()); err != nil { // the error says what to fix
		fmt.Println(err)
		return
	}

	p := pipeline{events: client}
	fmt.Println(p.process("0198a5e2-0000-7000-8000-000000000001", "0198a5e2-0000-7000-8000-0000000000aa", "an invoice"))
	fmt.Println(p.process("0198a5e2-0000-7000-8000-000000000002", docevents.SystemUser, ""))

	purged, err := client.PurgeOlderThan(context.Background(), 30)
	if err != nil {
		fmt.Println(err)
	}

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := client.Close(ctx); err != nil { // sends the queued events
		fmt.Println(err)
	}
	stats := client.Stats()
	fmt.Printf("recorded %d, delivered %d, dropped %d, purged %d\n", stats.Recorded, stats.Delivered, stats.Dropped.Total(), purged)
	// Output:
	// <nil>
	// no text in the document
	// recorded 4, delivered 4, dropped 0, purged 3
}

// A standIn answers like a project whose table has three old rows.
type standIn struct{}

func (standIn) RoundTrip(req *http.Request) (*http.Response, error) {
	answer := func(status int, body string) (*http.Response, error) {
		return &http.Response{
			StatusCode: status,
			Header:     http.Header{"Content-Range": {"*/0"}},
			Body:       io.NopCloser(strings.NewReader(body)),
		}, nil
	}
	body := []byte{}
	if req.Body != nil {
		body, _ = io.ReadAll(req.Body)
	}
	switch {
	case strings.HasSuffix(req.Header.Get("Accept"), "object+json"): // Check's rehearsal, which sends each row twice: the second one is a duplicate
		rows := bytes.Count(body, []byte(`"id":`)) / 2
		return answer(http.StatusNotAcceptable, fmt.Sprintf(`{"code":"PGRST116","details":"The result contains %d rows"}`, rows))
	case req.Method == http.MethodPost:
		return answer(http.StatusCreated, "")
	case strings.Contains(req.Header.Get("Prefer"), "return=representation"):
		return answer(http.StatusOK, `[{"id":"1"},{"id":"2"},{"id":"3"}]`)
	}
	return answer(http.StatusNoContent, "")
}
