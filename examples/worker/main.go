// Worker handles jobs from a queue, such as SQS or pgmq, that may deliver a job twice.
// If a job runs twice, its events have the same ids, so each event is stored once.
//
// In this example, the queue is standard input, with jobs as JSON objects:
//
//	echo '{"id": "0198a5e2-0000-7000-8000-0000000000aa", "document_id": "0198a5e2-0000-7000-8000-000000000001", "file": "README.md"}' |
//		go run ./examples/worker
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/docevents/docevents-go"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	client, err := docevents.NewFromEnv()
	if err != nil {
		log.Fatal(err)
	}
	if err := run(ctx, client, os.Stdin, 4); err != nil {
		log.Fatal(err)
	}
}

// A job is a message of the queue.
type job struct {
	ID         uuid.UUID `json:"id"` // the same at each delivery of the job
	DocumentID string    `json:"document_id"`
	File       string    `json:"file"`
}

// run processes up to maxRunning jobs at the same time, until the queue or ctx ends.
// Then it waits up to 10 s for the events to be stored.
func run(ctx context.Context, client *docevents.Client, queue io.Reader, maxRunning int) error {
	jobs := make(chan job)
	var running sync.WaitGroup
	for range maxRunning {
		running.Go(func() {
			for j := range jobs {
				if err := handle(client, j); err != nil {
					log.Printf("job %s: %v", j.ID, err)
				}
			}
		})
	}
	err := receive(ctx, queue, jobs)
	close(jobs)
	running.Wait() // before Close, because Record drops events after Close

	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return errors.Join(err, client.Close(closing))
}

// receive stands in for your queue's client.
func receive(ctx context.Context, queue io.Reader, jobs chan<- job) error {
	decoder := json.NewDecoder(queue)
	for ctx.Err() == nil {
		var j job
		if err := decoder.Decode(&j); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("reading a job: %w", err)
		}
		select {
		case jobs <- j:
		case <-ctx.Done(): // the queue will deliver the job again
		}
	}
	return nil
}

// handle processes a job. The Event's ID is derived from the job's id and the stage.
// The method Step records two events, whose ids it derives from this ID. If the job
// runs again, its events have the same ids, so the server ignores those that are
// already in the table.
func handle(client *docevents.Client, j job) error {
	const stage = "count"
	return client.Step(docevents.Event{
		ID:         uuid.NewSHA1(j.ID, []byte(stage)).String(),
		DocumentID: j.DocumentID,
		UserID:     docevents.SystemUser,
		Stage:      stage,
	}, func() error {
		_, err := os.ReadFile(j.File) // stands in for your app's work
		return err
	})
}
