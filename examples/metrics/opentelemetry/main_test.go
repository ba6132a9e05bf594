package main

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/doceventstest"
	"github.com/docevents/docevents-go/examples/internal/exampletest"
	"github.com/docevents/docevents-go/integration/localstack"
)

func TestMain(m *testing.M) { exampletest.Main(m, main) }

// TestProgram runs the program as a user would.
func TestProgram(t *testing.T) {
	stack := localstack.Shared(t)
	for name, cmd := range map[string]*exec.Cmd{
		"on a project":            exampletest.CommandOn(stack.URL, stack.ServiceRoleKey, "-n", "2"),
		"with a stack of its own": exampletest.Command("-n", "2"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			outcome := exampletest.Run(t, cmd)
			if outcome.Code != 0 {
				t.Errorf("got %+v", outcome)
			}
			if strings.Contains(outcome.Stdout, stack.ServiceRoleKey) {
				t.Error("the key is in a span")
			}
			seen := map[string]int{}
			spans := json.NewDecoder(strings.NewReader(outcome.Stdout))
			for spans.More() {
				var span struct {
					Name       string
					Attributes []struct {
						Key   string
						Value struct{ Value any }
					}
				}
				if err := spans.Decode(&span); err != nil {
					t.Fatal(err)
				}
				for _, a := range span.Attributes {
					if a.Key == "http.response.status_code" {
						seen[fmt.Sprint(span.Name, " ", a.Value.Value)]++
					}
				}
			}
			// Of Check: the description, an insert that is rolled back and a delete. Of the events: one request
			// or some. Of the purge: one.
			if seen["docevents GET 200"] != 1 || seen["docevents POST 406"] != 1 || seen["docevents POST 201"] < 1 || seen["docevents DELETE 204"] != 1 || seen["docevents DELETE 200"] != 1 || len(seen) != 5 {
				t.Errorf("got the spans %v", seen)
			}
		})
	}
}

// A failed request and its repetition are a span each, and the first tells.
func TestFailedRequest(t *testing.T) {
	exporter := tracetest.NewInMemoryExporter()
	tracing := trace.NewTracerProvider(trace.WithSyncer(exporter))
	server := doceventstest.NewServer(t)
	client := server.Client(docevents.WithTransport(transport(tracing)))
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
			t.Errorf("the span has more than it may: %s", text)
		}
	}
}
