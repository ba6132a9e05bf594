package docevents_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"log"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docevents/docevents-go"
	"github.com/jarcoal/httpmock"
	"github.com/sirupsen/logrus"
)

// What the examples use. New does no I/O, so that those with nothing to send
// need no stand-in.
const (
	projectURL = "https://abcdefgh.supabase.co"
	secretKey  = "sb_secret_of_this_project"

	document = "0198a5e2-0000-7000-8000-000000000001"
)

// newExampleClient is a client of a stand-in for a project, which lets the
// examples run offline.
func newExampleClient(opts ...docevents.Option) *docevents.Client {
	opts = append([]docevents.Option{docevents.WithTransport(standIn{}), docevents.WithSlog(discard)}, opts...)
	client, err := docevents.New(projectURL, secretKey, opts...)
	if err != nil {
		log.Fatal(err)
	}
	return client
}

// always answers every request in the same way.
func always(responder httpmock.Responder) http.RoundTripper {
	mock := httpmock.NewMockTransport()
	mock.RegisterNoResponder(responder)
	return mock
}

func ExampleNew() {
	client, err := docevents.New("https://abcdefgh.supabase.co", "sb_secret_of_this_project",
		docevents.WithQueueLimits(500_000, 512<<20),
		docevents.WithSlog(slog.Default()))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(client.Stats().Recorded)

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := client.Close(ctx); err != nil {
		log.Print(err)
	}
	// Output: 0
}

// All that is wrong is said at once.
func ExampleNew_refused() {
	_, err := docevents.New("abcdefgh.supabase.co", "sb_publishable_of_this_project", docevents.WithMaxInFlight(1000))
	fmt.Println(errors.Is(err, docevents.ErrNotServiceRole))
	fmt.Println(err)
	// Output:
	// true
	// docevents: the Supabase URL is not valid: pass the project's, such as https://abcdefgh.supabase.co
	// not a service-role key: this is the publishable key; copy the secret key (sb_secret_...)
	// WithMaxInFlight must be from 1 to 64, not 1000
}

// Without settings, as on a laptop, the nil client does nothing and succeeds.
func ExampleNewFromEnv() {
	for _, name := range []string{"SUPABASE_URL", "SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_SECRET_KEY", "SUPABASE_SERVICE_KEY"} {
		os.Unsetenv(name) // for the example's sake
	}

	client, err := docevents.NewFromEnv()
	switch {
	case errors.Is(err, docevents.ErrNoSettings):
		fmt.Println("events are not recorded here")
	case err != nil:
		log.Fatal(err)
	}
	client.Record(docevents.Event{DocumentID: document, UserID: docevents.SystemUser, Type: docevents.Completed})
	fmt.Println(client.Close(context.Background()))
	// Output:
	// events are not recorded here
	// <nil>
}

func ExampleClient_Record() {
	client := newExampleClient() // see New

	start := time.Now()
	// ... the step that takes a while ...
	client.Record(docevents.Event{
		DocumentID: document,
		UserID:     docevents.SystemUser,
		Type:       docevents.Completed,
		Stage:      "ocr",
		Duration:   time.Since(start),
	})

	client.Flush(context.Background())
	fmt.Println(client.Stats().Delivered)
	// Output: 1
}

// A step of a pipeline is recorded with the time it takes and how it ends.
func ExampleClient_Step() {
	client := newExampleClient()
	err := client.Step(docevents.Event{DocumentID: document, UserID: docevents.SystemUser, Stage: "ocr"}, func() error {
		return errors.New("page 3 can't be read")
	})
	client.Close(context.Background())
	fmt.Println(err)
	fmt.Println(client.Stats().Delivered, "events") // processing_started and failed
	// Output:
	// page 3 can't be read
	// 2 events
}

// A job that must not report success before its events are stored.
func ExampleClient_Flush() {
	client := newExampleClient()
	client.Record(docevents.Event{DocumentID: document, UserID: docevents.SystemUser, Type: docevents.Completed})

	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := client.Flush(ctx); err != nil {
		fmt.Println("still on their way:", err)
	}
	fmt.Println(client.Stats().Pending)
	// Output: 0
}

// At the end of a program, within the time that its platform leaves it.
func ExampleClient_Close() {
	client := newExampleClient()
	client.Record(docevents.Event{DocumentID: document, UserID: docevents.SystemUser, Type: docevents.Completed})

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	fmt.Println(client.Close(ctx))

	client.Record(docevents.Event{DocumentID: document, UserID: docevents.SystemUser, Type: docevents.Completed})
	fmt.Println(client.Stats().Delivered, "delivered,", client.Stats().Dropped.Closed, "too late")
	// Output:
	// <nil>
	// 1 delivered, 1 too late
}

// With the server away, Close gives up at the end of its context and says how
// many events are lost.
func ExampleClient_Close_abandoned() {
	client, err := docevents.New(projectURL, secretKey,
		docevents.WithTransport(always(httpmock.NewStringResponder(http.StatusUnauthorized, `{"code":"PGRST301","message":"no key"}`))),
		docevents.WithSlog(slog.New(slog.DiscardHandler)))
	if err != nil {
		log.Fatal(err)
	}
	client.Record(docevents.Event{DocumentID: document, UserID: docevents.SystemUser, Type: docevents.Completed})

	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	fmt.Println(client.Close(ctx)) // after 5 s it would end by itself: time doesn't mend a refused key
	// Output: docevents: Close: 1 events abandoned: context deadline exceeded, after: HTTP 401 PGRST301: no key; check the key: it must be the service-role (secret) key of this very project
}

func ExampleClient_Stats() {
	client := newExampleClient()
	client.Record(docevents.Event{DocumentID: document, UserID: docevents.SystemUser, Type: docevents.Completed})
	client.Record(docevents.Event{DocumentID: "invoice.pdf", UserID: docevents.SystemUser, Type: docevents.Completed})
	client.Flush(context.Background())

	s := client.Stats()
	fmt.Println(s.Recorded, "=", s.Delivered, "+", s.Dropped.Total(), "+", s.Pending)
	// Output: 2 = 1 + 1 + 0
}

func ExampleDrops_Total() {
	d := docevents.Drops{Invalid: 1, QueueFull: 20, Abandoned: 300}
	fmt.Println(d.Total())
	// Output: 321
}

// At the start of a program: a wrong setting is found before the first event.
func ExampleClient_Check() {
	client := newExampleClient()
	if err := client.Check(context.Background()); err != nil {
		log.Fatal(err) // says what to do
	}
	fmt.Println("ready")
	// Output: ready
}

func ExampleClient_PurgeOlderThan() {
	client := newExampleClient()
	purged, err := client.PurgeOlderThan(context.Background(), 30)
	fmt.Println(purged, err)
	// Output: 3 <nil>
}

// A purge by the calendar, where PurgeOlderThan counts 24 hours a day.
func ExampleClient_PurgeBefore() {
	client := newExampleClient()
	now := time.Now()
	firstOfLastMonth := time.Date(now.Year(), now.Month()-1, 1, 0, 0, 0, 0, time.Local)

	purged, err := client.PurgeBefore(context.Background(), firstOfLastMonth)
	if errors.Is(err, docevents.ErrCountIncomplete) {
		fmt.Println("at least", purged)
		return
	}
	fmt.Println(purged, err)
	// Output: 3 <nil>
}

// The SQL that makes the table, to be run whole, in the order of the names.
func ExampleMigrations() {
	names, err := fs.Glob(docevents.Migrations(), "*.sql")
	fmt.Println(names, err)
	// Output: [013_create_processing_events_table.sql 014_create_docevents_reading.sql] <nil>
}

// The server's answer, behind an error of this package.
func ExampleError() {
	client, err := docevents.New(projectURL, secretKey, docevents.WithTransport(always(
		httpmock.NewStringResponder(http.StatusNotFound, `{"code":"PGRST205","message":"Could not find the table"}`))))
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err = client.Check(ctx)
	if e := (*docevents.Error)(nil); errors.As(err, &e) {
		fmt.Println(e.Status, e.Code)
	}
	// Output: 404 PGRST205
}

func ExampleError_Error() {
	err := &docevents.Error{Status: 404, Code: "PGRST205", Message: "Could not find the table", Hint: "Perhaps you meant another"}
	fmt.Println(err)
	// Output: HTTP 404 PGRST205: Could not find the table (hint: Perhaps you meant another)
}

func ExampleWithLogger() {
	logger := logrus.New()
	logger.SetOutput(os.Stdout)
	logger.SetFormatter(&logrus.TextFormatter{DisableTimestamp: true})
	client := newExampleClient(docevents.WithLogger(logger))

	client.Record(docevents.Event{DocumentID: "invoice.pdf", UserID: docevents.SystemUser, Type: docevents.Completed})
	client.Close(context.Background())
	// Output: level=error msg="docevents: event dropped, it can't be stored" count=1 error="DocumentID is not a UUID: pass the document's UUID; if the column is text or a number, use WithColumns(Columns{TextIDs: true})" event_type=completed
}

func ExampleWithSlog() {
	withoutTime := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: withoutTime}))
	client := newExampleClient(docevents.WithSlog(logger))

	client.Record(docevents.Event{DocumentID: document, UserID: docevents.SystemUser, Type: "archived"})
	client.Close(context.Background())
	// Output: level=ERROR msg="docevents: event dropped, it can't be stored" count=1 error="the event's Type is not one of the accepted types: use the constants, or list the table's types with WithEventTypes" document_id=0198a5e2-0000-7000-8000-000000000001 event_type=archived
}

// What the server refuses, or what waits too long, can be kept elsewhere.
func ExampleWithDropHandler() {
	client, err := docevents.New(projectURL, secretKey,
		docevents.WithTransport(standIn{}),
		docevents.WithSlog(slog.New(slog.DiscardHandler)),
		docevents.WithDropHandler(func(e docevents.Event, reason docevents.DropReason, err error) {
			fmt.Println(e.Stage, reason, err)
			if errors.Is(err, docevents.ErrOutcomeUnknown) {
				fmt.Println("but it may be stored")
			}
		}))
	if err != nil {
		log.Fatal(err)
	}
	client.Record(docevents.Event{DocumentID: "report.pdf", UserID: docevents.SystemUser, Type: docevents.Completed, Stage: "ocr"})
	client.Close(context.Background())
	// Output: ocr invalid DocumentID is not a UUID: pass the document's UUID; if the column is text or a number, use WithColumns(Columns{TextIDs: true})
}

// Every request passes through, such as one for tracing.
func ExampleWithTransport() {
	traced := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		fmt.Println(req.Method, req.URL.Path)
		return standIn{}.RoundTrip(req) // http.DefaultTransport.RoundTrip(req), rather
	})
	client, err := docevents.New(projectURL, secretKey, docevents.WithTransport(traced))
	if err != nil {
		log.Fatal(err)
	}
	client.Record(docevents.Event{DocumentID: document, UserID: docevents.SystemUser, Type: docevents.Completed})
	client.Close(context.Background())
	// Output: POST /rest/v1/document_processing_events
}

// A table in a schema of its own, which the project must expose.
func ExampleWithSchema() {
	client, err := docevents.New(projectURL, secretKey, docevents.WithSchema("audit"), docevents.WithTransport(
		roundTripFunc(func(req *http.Request) (*http.Response, error) {
			fmt.Println(req.Header.Get("Content-Profile"), req.URL.Path)
			return standIn{}.RoundTrip(req)
		})))
	if err != nil {
		log.Fatal(err)
	}
	client.Record(docevents.Event{DocumentID: document, UserID: docevents.SystemUser, Type: docevents.Completed})
	client.Close(context.Background())
	// Output: audit /rest/v1/document_processing_events
}

func ExampleWithTable() {
	client, err := docevents.New(projectURL, secretKey, docevents.WithTable("ingest_events"), docevents.WithTransport(
		roundTripFunc(func(req *http.Request) (*http.Response, error) {
			fmt.Println(req.Header.Get("Content-Profile"), req.URL.Path)
			return standIn{}.RoundTrip(req)
		})))
	if err != nil {
		log.Fatal(err)
	}
	client.Record(docevents.Event{DocumentID: document, UserID: docevents.SystemUser, Type: docevents.Completed})
	client.Close(context.Background())
	// Output: public /rest/v1/ingest_events
}

// For a table whose CHECK has been changed.
func ExampleWithEventTypes() {
	const archived docevents.EventType = "archived"
	client := newExampleClient(docevents.WithEventTypes(docevents.EventTypes{
		Skipped: []docevents.EventType{archived}, // the four constants stay
	}))
	client.Record(docevents.Event{DocumentID: document, UserID: docevents.SystemUser, Type: archived})
	client.Close(context.Background())
	fmt.Println(client.Stats().Delivered)
	// Output: 1
}

// For a table of one's own: a text id of the document, no user, a tenant and
// some JSON, and a number that counts the rows as its primary key.
func ExampleWithColumns() {
	client := newExampleClient(docevents.WithColumns(docevents.Columns{
		ID:         "event_id", // uuid NOT NULL UNIQUE
		DocumentID: "-",
		UserID:     "-",
		Type:       "status",
		Extra:      []string{"document_id", "tenant_id", "metadata"},
	}))
	client.Record(docevents.Event{Type: docevents.Completed, Extra: map[string]any{
		"document_id": "invoice-2026-0042",
		"tenant_id":   "0198a5e2-0000-7000-8000-0000000000bb",
		"metadata":    map[string]any{"pages": 3},
	}})
	client.Close(context.Background())
	fmt.Println(client.Stats().Delivered)
	// Output: 1
}

func ExampleWithRequestTimeout() {
	client, err := docevents.New(projectURL, secretKey, docevents.WithRequestTimeout(5*time.Second))
	fmt.Println(client != nil, err)
	// Output: true <nil>
}

// More connections are of use where the way to the server is long.
func ExampleWithMaxInFlight() {
	client, err := docevents.New(projectURL, secretKey, docevents.WithMaxInFlight(8))
	fmt.Println(client != nil, err)
	// Output: true <nil>
}

// Smaller requests, for a gateway that bounds their size.
func ExampleWithMaxBatch() {
	client, err := docevents.New(projectURL, secretKey, docevents.WithMaxBatch(100))
	fmt.Println(client != nil, err)
	// Output: true <nil>
}

// A small machine: what doesn't fit is dropped, and counted.
func ExampleWithQueueLimits() {
	answered := make(chan struct{})
	client, err := docevents.New(projectURL, secretKey, docevents.WithQueueLimits(2, 1<<20), docevents.WithSlog(slog.New(slog.DiscardHandler)),
		docevents.WithTransport(roundTripFunc(func(req *http.Request) (*http.Response, error) {
			<-answered
			return standIn{}.RoundTrip(req)
		})))
	if err != nil {
		log.Fatal(err)
	}
	for range 5 {
		client.Record(docevents.Event{DocumentID: document, UserID: docevents.SystemUser, Type: docevents.Completed})
	}
	fmt.Println(client.Stats().Pending, "wait,", client.Stats().Dropped.QueueFull, "dropped")
	close(answered)
	client.Close(context.Background())
	// Output: 2 wait, 3 dropped
}

// A purge in steps from the start, for a table with millions of old rows.
func ExampleWithPurgeBatch() {
	client, err := docevents.New(projectURL, secretKey, docevents.WithPurgeBatch(50_000))
	fmt.Println(client != nil, err)
	// Output: true <nil>
}

// Every exported function and method has an example, so that pkg.go.dev shows
// its use.
func TestEveryExportHasAnExample(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	exports, examples := map[string]bool{}, map[string]bool{}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range parsed.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			name := f.Name.Name
			if strings.HasSuffix(file, "_test.go") {
				if example, ok := strings.CutPrefix(name, "Example"); ok {
					examples[example] = true
				}
				continue
			}
			if f.Recv != nil {
				of := f.Recv.List[0].Type
				if star, ok := of.(*ast.StarExpr); ok {
					of = star.X
				}
				receiver := of.(*ast.Ident).Name
				if !ast.IsExported(receiver) {
					continue
				}
				name = receiver + "_" + name
			}
			if ast.IsExported(f.Name.Name) {
				exports[name] = true
			}
		}
	}
	if len(exports) < 20 {
		t.Errorf("found only %v", exports)
	}
	for name := range exports {
		if !examples[name] {
			t.Errorf("no Example%s", name)
		}
	}
}
