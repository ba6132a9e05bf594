package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/doceventstest"
	"github.com/docevents/docevents-go/integration/localstack"
)

func TestMain(m *testing.M) { localstack.Main(m) }

// TestProgram runs the program on a table with the column trace_id.
func TestProgram(t *testing.T) {
	stack := localstack.Shared(t)
	table := "traced_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	exec := func(sql string) {
		t.Helper()
		if _, err := stack.Pool().Exec(t.Context(), strings.ReplaceAll(sql, "traced", table)); err != nil {
			t.Fatal(err)
		}
	}
	exec("CREATE TABLE traced (LIKE document_processing_events INCLUDING ALL); ALTER TABLE traced ADD COLUMN trace_id text; GRANT ALL ON traced TO service_role")
	defer exec("DROP TABLE traced")
	if err := stack.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SUPABASE_URL", stack.URL)
	t.Setenv("SUPABASE_SECRET_KEYS", "")
	t.Setenv("SUPABASE_SECRET_KEY", stack.ServiceRoleKey)
	var out strings.Builder
	if err := run(t.Context(), 2, table, &out); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), stack.ServiceRoleKey) {
		t.Error("the key is in a span")
	}
	traces, requests := map[string]bool{}, 0
	for spans := json.NewDecoder(strings.NewReader(out.String())); spans.More(); {
		var span struct {
			Name        string
			SpanContext struct{ TraceID string }
		}
		if err := spans.Decode(&span); err != nil {
			t.Fatal(err)
		}
		switch span.Name {
		case "process document":
			traces[span.SpanContext.TraceID] = true
		case "docevents POST":
			requests++
		}
	}
	if len(traces) != 2 || requests == 0 {
		t.Errorf("got %d documents and %d requests in %s", len(traces), requests, out.String())
	}
	for id := range traces {
		var n int
		if err := stack.Pool().QueryRow(t.Context(), "SELECT count(*) FROM "+table+" WHERE trace_id = $1", id).Scan(&n); err != nil || n != 2 {
			t.Errorf("%d events of the trace %s, %v; want the start and the end", n, id, err)
		}
	}
}

// TestTraceparent checks that a request has the trace id of its span in a header.
func TestTraceparent(t *testing.T) {
	exporter := tracetest.NewInMemoryExporter()
	tracing := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
	parents := make(chan string, 1)
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		parents <- r.Header.Get("Traceparent")
		w.WriteHeader(http.StatusCreated)
	}))
	defer gateway.Close()
	client, err := docevents.New(gateway.URL, "sb_secret_test", options(docevents.DefaultTable, tracing)...)
	if err != nil {
		t.Fatal(err)
	}
	client.Record(docevents.Event{DocumentID: uuid.NewString(), UserID: docevents.SystemUser, Type: docevents.Completed})
	if err := client.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	parent := <-parents
	if spans := exporter.GetSpans(); len(spans) != 1 || !strings.Contains(parent, spans[0].SpanContext.TraceID().String()) {
		t.Errorf("the header is %q, the spans are %+v", parent, spans)
	}
}

// TestFailedRequest checks that a failed request and its retry each have a span, and
// that the first span shows the error but neither the key nor an event's text.
func TestFailedRequest(t *testing.T) {
	exporter := tracetest.NewInMemoryExporter()
	tracing := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
	server := doceventstest.NewServer(t)
	server.Columns = docevents.Columns{Extra: []string{"trace_id"}}
	client := server.Client(options(docevents.DefaultTable, tracing)...)
	server.FailNext(503, "PGRST000")
	client.Record(docevents.Event{DocumentID: uuid.NewString(), UserID: docevents.SystemUser, Type: docevents.Completed, ErrorMessage: "confidential"})
	if err := client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	spans := exporter.GetSpans()
	if len(spans) != 2 || spans[0].Status.Code != codes.Error || spans[1].Status.Code != codes.Unset {
		t.Fatalf("got %+v", spans)
	}
	for _, span := range spans {
		if text := fmt.Sprint(span.Attributes, span.Events, span.Status); strings.Contains(text, server.Key) || strings.Contains(text, "confidential") {
			t.Errorf("the span contains the key or an event's text: %s", text)
		}
	}
}
