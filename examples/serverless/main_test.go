package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/uuid"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/doceventstest"
	"github.com/docevents/docevents-go/examples/internal/exampletest"
	"github.com/docevents/docevents-go/integration/localstack"
)

func TestMain(m *testing.M) { exampletest.Main(m, main) }

// TestProgram kills the program after a reply, as a platform may. The events are
// in the table by then.
func TestProgram(t *testing.T) {
	t.Parallel()
	stack := localstack.Shared(t)
	program := exampletest.Listen(t, exampletest.CommandOn(stack.URL, stack.ServiceRoleKey, "-addr", "127.0.0.1:0"))
	for i := range 5 {
		id := uuid.NewString()
		if status, body := exampletest.Request(t, http.MethodPost, program.URL+"/documents/"+id, "three short words"); status != 200 || !strings.Contains(body, `"Words":3`) {
			t.Errorf("got %d %s", status, body)
		}
		if i == 4 {
			program.Signal(syscall.SIGKILL)
		}
		var n int
		err := stack.Pool().QueryRow(t.Context(), "SELECT count(*) FROM document_processing_events WHERE document_id = $1", id).Scan(&n)
		if n != 2 || err != nil {
			t.Errorf("after the reply the table has %d events, %v, want 2", n, err)
		}
	}
	program.Wait()
}

func TestProgramWithItsOwnStack(t *testing.T) {
	t.Parallel()
	localstack.Shared(t) // skips where there is no PostgreSQL
	program := exampletest.Listen(t, exampletest.Command("-addr", "127.0.0.1:0"))
	if printed := program.Try(1); !strings.Contains(printed[0], `"Words":`) {
		t.Errorf("its own line prints %q", printed)
	}
	program.Signal(syscall.SIGTERM)
	if outcome := program.Wait(); outcome.Code != 0 || outcome.Stderr != "" {
		t.Errorf("got %+v", outcome)
	}
}

func TestHandler(t *testing.T) {
	for _, test := range []struct {
		name, id, text string
		status         int
		want           []docevents.EventType
	}{
		{"text", uuid.NewString(), "text", 200, []docevents.EventType{docevents.ProcessingStarted, docevents.Completed}},
		{"binary", uuid.NewString(), "\x00", 422, []docevents.EventType{docevents.ProcessingStarted, docevents.Failed}},
		{"too large", uuid.NewString(), strings.Repeat("text ", maxDocument/5+1), 422, []docevents.EventType{docevents.ProcessingStarted, docevents.Failed}},
		{"no UUID", "invoice.pdf", "text", 400, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := doceventstest.NewServer(t)
			w := httptest.NewRecorder()
			handler(server.Client()).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/documents/"+test.id, strings.NewReader(test.text)))
			if w.Code != test.status {
				t.Errorf("got %d %s, want %d", w.Code, w.Body, test.status)
			}
			var types []docevents.EventType
			for _, e := range server.Events() { // no waiting: they are there
				types = append(types, e.Type)
			}
			if !slices.Equal(types, test.want) {
				t.Errorf("got %v, want %v", types, test.want)
			}
		})
	}
}

// A caller that has gone costs no event.
func TestCallerGone(t *testing.T) {
	server := doceventstest.NewServer(t)
	ctx, cancel := context.WithCancel(t.Context())
	req := httptest.NewRequest(http.MethodPost, "/documents/"+uuid.NewString(), strings.NewReader("text")).WithContext(ctx)
	cancel()
	handler(server.Client()).ServeHTTP(httptest.NewRecorder(), req)
	if n := len(server.Events()); n != 2 {
		t.Errorf("%d events, want 2", n)
	}
}

// A project that refuses the events holds up the reply for flushTimeout, and no
// longer. They stay queued.
func TestReplyDespiteARefusal(t *testing.T) {
	t.Parallel()
	server := doceventstest.NewServer(t)
	client := server.Client()
	for range 100 { // more than there are attempts
		server.FailNext(http.StatusUnauthorized, "")
	}
	w := httptest.NewRecorder()
	handler(client).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/documents/"+uuid.NewString(), strings.NewReader("text")))
	if w.Code != http.StatusOK {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	if stats := client.Stats(); stats.Pending != 2 || fmt.Sprint(stats.Dropped) != fmt.Sprint(docevents.Drops{}) {
		t.Errorf("got %+v", stats)
	}
}
