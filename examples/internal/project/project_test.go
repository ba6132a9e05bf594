package project

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/integration/localstack"
)

func TestMain(m *testing.M) { localstack.Main(m) }

// environment sets the settings that Open reads, and no others.
func environment(t *testing.T, url, name, key string) {
	t.Helper()
	for _, v := range []string{"SUPABASE_URL", "SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_SECRET_KEY", "SUPABASE_SERVICE_KEY"} {
		t.Setenv(v, "")
	}
	t.Setenv("SUPABASE_URL", url)
	if name != "" {
		t.Setenv(name, key)
	}
}

func TestOpenReadsTheEnvironment(t *testing.T) {
	for _, name := range []string{"SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_SECRET_KEY", "SUPABASE_SERVICE_KEY"} {
		t.Run(name, func(t *testing.T) {
			environment(t, "https://example.supabase.co", name, "sb_secret_x")
			p, err := Open(t.Context(), io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			if p.URL != "https://example.supabase.co" || p.Key != "sb_secret_x" || p.Local() {
				t.Errorf("got %+v", p)
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Half of the settings is a mistake, not a wish for a local stack.
func TestOpenRefusesHalfTheSettings(t *testing.T) {
	for _, test := range []struct{ url, name, key, want string }{
		{url: "https://example.supabase.co", want: "SUPABASE_SERVICE_ROLE_KEY"},
		{name: "SUPABASE_SECRET_KEY", key: "sb_secret_x", want: "SUPABASE_URL"},
		{url: "example.supabase.co", name: "SUPABASE_SECRET_KEY", key: "sb_secret_x", want: "https://"},
	} {
		environment(t, test.url, test.name, test.key)
		p, err := Open(t.Context(), io.Discard)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: got %v, %v, want an error that names %s", test, p, err, test.want)
		}
	}
}

func TestOpenStartsALocalStack(t *testing.T) {
	localstack.Shared(t) // skips where there is no PostgreSQL
	environment(t, "", "", "")
	var notes strings.Builder
	p, err := Open(t.Context(), &notes)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if !p.Local() || !strings.Contains(notes.String(), "starting a local PostgreSQL") {
		t.Errorf("local %v, notes %q", p.Local(), notes.String())
	}
	client, err := p.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestExplainStart(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	none := fmt.Errorf("localstack: %w: a long\ntale of a download", localstack.ErrNoPostgres)
	if got := explainStart(t.Context(), none).Error(); strings.Contains(got, "\n") ||
		!strings.Contains(got, "apt-get install postgresql") || !strings.Contains(got, "SUPABASE_URL") {
		t.Errorf("no PostgreSQL: %q", got)
	}
	if err := explainStart(ended, none); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	cause := errors.New("initdb: no space left")
	if err := explainStart(t.Context(), cause); !errors.Is(err, cause) {
		t.Errorf("another cause: %v", err)
	}
}

func TestConnectSaysWhatIsWrong(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	p := &Project{URL: server.URL, Key: "sb_secret_x"}
	if _, err := p.Connect(t.Context()); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("got %v, want an error with the status", err)
	}
}

func TestCount(t *testing.T) {
	stack := localstack.Shared(t)
	user := uuid.Must(uuid.NewV7()).String()
	for _, test := range []struct{ name, url, key string }{
		{"JWT", stack.URL, stack.ServiceRoleKey},
		{"secret key", stack.URL, stack.SecretKey},
		{"the API's own URL", stack.URL + "/rest/v1/", stack.ServiceRoleKey},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.key == "" {
				t.Skip("the project has no such key")
			}
			p := &Project{URL: test.url, Key: test.key}
			client, err := p.Connect(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			document := uuid.NewString()
			const rows = 1200 // more than a read returns
			for range rows {
				client.Record(docevents.Event{DocumentID: document, UserID: user, Type: docevents.Completed})
			}
			client.Record(docevents.Event{DocumentID: document, UserID: user, Type: docevents.Failed})
			if err := client.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, count := range []struct {
				eventType docevents.EventType
				want      int64
			}{{docevents.Completed, rows}, {docevents.Failed, 1}, {docevents.UploadStarted, 0}} {
				n, err := p.Count(t.Context(), map[string]string{"document_id": document, "event_type": string(count.eventType)})
				if n != count.want || err != nil {
					t.Errorf("%s: got %d, %v, want %d", count.eventType, n, err, count.want)
				}
			}
		})
	}
	t.Run("refused", func(t *testing.T) {
		p := &Project{URL: stack.URL, Key: "sb_secret_nonsense"}
		if n, err := p.Count(t.Context(), nil); err == nil {
			t.Errorf("got %d, want an error", n)
		}
	})
}
