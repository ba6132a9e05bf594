// Quickstart records what happens to two documents, and prints what is stored.
//
//	go run ./examples/quickstart
//
// With SUPABASE_URL and SUPABASE_SECRET_KEY in the environment it works on
// that project, which must have the table of sql/. Without them it starts a local
// PostgreSQL with a REST API in front, for as long as it runs.
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
	"github.com/docevents/docevents-go/examples/internal/project"
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
	p, err := project.Open(ctx, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second) // it ends, also when the network is down
	defer cancel()

	client, err := docevents.New(p.URL, p.Key)
	if err != nil {
		return err
	}
	if err := client.Check(ctx); err != nil { // says what is wrong, and what to do
		return err
	}

	// Record neither waits nor fails: that is all there is to it in an app. An
	// event with a Stage is about that step, one without about the document.
	user := uuid.NewString()
	invoice := docevents.Event{DocumentID: uuid.NewString(), UserID: user}
	scan := docevents.Event{DocumentID: uuid.NewString(), UserID: user}
	for _, e := range []docevents.Event{invoice, scan} {
		e.Type = docevents.UploadStarted
		client.Record(e)
		e.Type, e.Stage = docevents.ProcessingStarted, "ocr"
		client.Record(e)
	}
	invoice.Type, invoice.Stage, invoice.Duration = docevents.Completed, "ocr", 1840*time.Millisecond
	client.Record(invoice)
	invoice.Stage, invoice.Duration = "", 2100*time.Millisecond
	client.Record(invoice)
	scan.Type, scan.Duration, scan.ErrorMessage = docevents.Failed, 12*time.Second, "page 3: image too small"
	client.Record(scan)

	// Close delivers what is queued. A server calls it when it ends.
	if err := client.Close(ctx); err != nil {
		return err
	}
	stats := client.Stats()
	rows, err := p.Rows(ctx, user)
	if err != nil {
		return err
	}
	for _, r := range rows {
		fmt.Fprintf(out, "%s  %s  %-18s  %-4s %9s  %s\n", r.CreatedAt.UTC().Format(time.TimeOnly), r.DocumentID,
			r.EventType, cmp.Or(r.Stage, "-"), time.Duration(r.DurationMS)*time.Millisecond, r.ErrorMessage)
	}
	fmt.Fprintf(out, "\nrecorded %d, delivered %d, dropped %d\n", stats.Recorded, stats.Delivered, stats.Dropped.Total())
	if int64(len(rows)) != stats.Recorded {
		return fmt.Errorf("%d events were recorded, but the table has %d", stats.Recorded, len(rows))
	}
	return nil
}
