// Quickstart records the events of two documents, reads them from the table and prints
// them.
//
//	go run ./examples/quickstart
//
// If SUPABASE_URL and SUPABASE_SECRET_KEY are set, quickstart uses the project at
// SUPABASE_URL, which must have the table of
// sql/013_create_processing_events_table.sql. If neither is set, it starts PostgreSQL
// and a REST API on this machine, and removes them at the end.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/integration/localstack"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) (err error) {
	client, err := docevents.NewFromEnv()
	if errors.Is(err, docevents.ErrNoSettings) {
		fmt.Fprintln(out, "SUPABASE_URL is not set, so this starts PostgreSQL and a REST API on this machine.")
		stack, startErr := localstack.Start(ctx, localstack.Options{})
		if startErr != nil {
			return startErr
		}
		defer func() { err = errors.Join(err, stack.Close()) }()
		if err := stack.Migrate(ctx); err != nil {
			return err
		}
		client, err = docevents.New(stack.URL, stack.ServiceRoleKey)
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := client.Check(ctx); err != nil { // the error says what to fix
		return errors.Join(err, client.Close(ctx))
	}

	// Record returns before the event is stored, and returns no error. An event with a
	// Stage is about one step of the document. Without a Stage, it is about the whole
	// document.
	user := uuid.NewString()
	invoice := docevents.Event{DocumentID: uuid.NewString(), UserID: user, Type: docevents.UploadStarted}
	client.Record(invoice)
	scan := docevents.Event{DocumentID: uuid.NewString(), UserID: user, Type: docevents.UploadStarted}
	client.Record(scan)

	// Step records that the step in Stage has started, calls the function, and records
	// an event with the function's duration and error.
	invoice.Stage, scan.Stage = "ocr", "ocr"
	_ = client.Step(invoice, func() error { time.Sleep(40 * time.Millisecond); return nil })
	_ = client.Step(scan, func() error { return errors.New("page 3: image too small") })
	invoice.Stage, invoice.Type, invoice.Duration = "", docevents.Completed, 60*time.Millisecond
	client.Record(invoice)

	// Close waits until all events are stored. A server calls it when it shuts down.
	if err := client.Close(ctx); err != nil {
		return err
	}
	for _, document := range []string{invoice.DocumentID, scan.DocumentID} {
		events, err := client.Timeline(ctx, document)
		if err != nil {
			return err
		}
		for _, e := range events {
			fmt.Fprintf(out, "%s  %s  %-18s  %-4s %6s  %s\n", e.CreatedAt.Format(time.TimeOnly), e.DocumentID,
				e.Type, cmp.Or(e.Stage, "-"), e.Duration, e.ErrorMessage)
		}
	}
	stats := client.Stats()
	fmt.Fprintf(out, "\nrecorded %d, stored %d, dropped %d\n", stats.Recorded, stats.Delivered, stats.Dropped.Total())
	return nil
}
