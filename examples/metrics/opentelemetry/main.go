// Opentelemetry shows how to use docevents with OpenTelemetry: each event has the id of
// the current trace, in the column trace_id, and each request of docevents is a span.
//
// Usage:
//
//	go run ./examples/metrics/opentelemetry [-n documents] [-table document_processing_events]
//
// It processes n made-up documents, and prints the spans on standard output as lines of
// JSON. A real app would export them with OTLP.
//
// It uses the project of SUPABASE_URL and SUPABASE_SECRET_KEY. For a project on this
// machine, use examples/localstack. The table needs this column:
//
//	ALTER TABLE document_processing_events ADD COLUMN trace_id text;
//
// The exit code is 0 if every event was stored, else 1.
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
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/docevents/docevents-go"
)

const timeout = 30 * time.Second

func main() {
	documents := flag.Int("n", 3, "number of documents")
	table := flag.String("table", docevents.DefaultTable, "a table with the column trace_id")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	if err := run(ctx, *documents, *table, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "opentelemetry:", err)
		os.Exit(1)
	}
}

// addTraceID adds the id of the current trace to an event.
func addTraceID(ctx context.Context, e *docevents.Event) bool {
	if span := trace.SpanContextFromContext(ctx); span.HasTraceID() {
		e.Extra["trace_id"] = span.TraceID().String()
	}
	return true
}

// options returns the options of the docevents client. tracerProvider records the
// spans.
//
// docevents calls addTraceID for each event. The HTTP transport records a span for each
// request, and sends the span's trace id in a header, so that the server can log the
// id.
//
// The span of a request has no parent, because a request contains the events of several
// traces. A span contains the URL, but no headers or body, and so no key and no events.
func options(table string, tracerProvider trace.TracerProvider) []docevents.Option {
	base := http.DefaultTransport.(*http.Transport).Clone()
	base.MaxIdleConnsPerHost = docevents.DefaultMaxInFlight + 1 // as in docevents' default transport
	return []docevents.Option{
		docevents.WithTable(table),
		docevents.WithColumns(docevents.Columns{Extra: []string{"trace_id"}}),
		docevents.WithBefore(addTraceID),
		docevents.WithTransport(otelhttp.NewTransport(base,
			otelhttp.WithTracerProvider(tracerProvider),
			otelhttp.WithPropagators(propagation.TraceContext{}),
			otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return "docevents " + r.Method }))),
	}
}

func run(ctx context.Context, documents int, table string, out io.Writer) (err error) {
	exporter, err := stdouttrace.New(stdouttrace.WithWriter(out))
	if err != nil {
		return err
	}
	tracing := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter))
	defer func() { err = errors.Join(err, tracing.Shutdown(context.WithoutCancel(ctx))) }() // prints the last spans

	client, err := docevents.NewFromEnv(options(table, tracing)...)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := client.Check(ctx); err != nil {
		return err
	}
	for range documents {
		err = errors.Join(err, process(ctx, client, tracing.Tracer("documents"), uuid.NewString()))
	}
	return errors.Join(err, client.Close(ctx))
}

// process stands in for your app's work on a document. It runs in a span.
func process(ctx context.Context, client *docevents.Client, tracer trace.Tracer, document string) error {
	ctx, span := tracer.Start(ctx, "process document")
	defer span.End()
	e := docevents.Event{DocumentID: document, UserID: docevents.SystemUser}
	return client.StepContext(ctx, e, func(context.Context) error { return nil /* the work */ })
}
