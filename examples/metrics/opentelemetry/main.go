// Opentelemetry traces the requests that docevents sends, through WithTransport.
//
// Usage:
//
//	go run ./examples/metrics/opentelemetry [-n documents]
//
// It records the events of some documents and a purge, and prints a span for
// each request to the standard output, a line of JSON each. An app would export
// them by OTLP.
//
// With SUPABASE_URL and SUPABASE_SECRET_KEY in the environment the events
// go to that project, which must have the table. Without them it starts a local
// PostgreSQL with a REST API in front, for as long as it runs.
//
// The exit code is 0 where every event was delivered, else 1.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/exporters/stdout/stdouttrace"
	"go.opentelemetry.io/otel/sdk/trace"
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/examples/internal/project"
)

// deliveryTimeout is how long the few events may take.
const deliveryTimeout = 30 * time.Second

func main() {
	documents := flag.Int("n", 3, "documents")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal kills
	if err := run(ctx, *documents, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "opentelemetry:", err)
		os.Exit(1)
	}
}

// transport wraps what docevents would use by itself, a clone of the default
// transport that keeps a connection for each request under way.
//
// The spans are roots: an event is recorded without a context, and shares its
// request with others. They have the URL, with the times of a purge in it, but
// neither headers, and so not the key, nor bodies.
func transport(tracing oteltrace.TracerProvider) http.RoundTripper {
	base := http.DefaultTransport.(*http.Transport).Clone()
	base.MaxIdleConnsPerHost = docevents.DefaultMaxInFlight + 1
	return otelhttp.NewTransport(base,
		otelhttp.WithTracerProvider(tracing),
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return "docevents " + r.Method }))
}

func run(ctx context.Context, documents int, out, notes io.Writer) (err error) {
	exporter, err := stdouttrace.New(stdouttrace.WithWriter(out))
	if err != nil {
		return err
	}
	tracing := trace.NewTracerProvider(trace.WithBatcher(exporter))
	defer func() { err = errors.Join(err, tracing.Shutdown(context.WithoutCancel(ctx))) }() // prints the last ones

	p, err := project.Open(ctx, notes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	client, err := p.Connect(ctx, docevents.WithTransport(transport(tracing)))
	if err != nil {
		return err
	}
	for range documents {
		e := docevents.Event{DocumentID: uuid.NewString(), UserID: docevents.SystemUser}
		for _, e.Type = range []docevents.EventType{docevents.UploadStarted, docevents.ProcessingStarted, docevents.Completed} {
			client.Record(e)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, deliveryTimeout)
	defer cancel()
	_, purgeErr := client.PurgeBefore(ctx, time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC)) // deletes nothing of anybody's
	return errors.Join(purgeErr, client.Close(ctx))
}
