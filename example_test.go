package docevents_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/docevents/docevents-go"
	"github.com/jarcoal/httpmock"
	"github.com/sirupsen/logrus"
)

// These are shared by the examples. New does no I/O, so the examples that send no
// request need no stand-in for the server.
const (
	projectURL = "https://abcdefgh.supabase.co"
	secretKey  = "sb_secret_of_this_project"

	document = "0198a5e2-0000-7000-8000-000000000001"
)

// newExampleClient returns a client that sends its requests to a standIn, so the
// examples run offline.
func newExampleClient(opts ...docevents.Option) *docevents.Client {
	opts = append([]docevents.Option{docevents.WithTransport(standIn{}), docevents.WithSlog(discard)}, opts...)
	client, err := docevents.New(projectURL, secretKey, opts...)
	if err != nil {
		log.Fatal(err)
	}
	return client
}

// always returns a transport that answers every request with responder.
func always(responder httpmock.Responder) http.RoundTripper {
	mock := httpmock.NewMockTransport()
	mock.RegisterNoResponder(responder)
	return mock
}

// printTable prints the schema and the path of each request.
var printTable = roundTripFunc(func(req *http.Request) (*http.Response, error) {
	fmt.Println(req.Header.Get("Content-Profile"), req.URL.Path)
	return standIn{}.RoundTrip(req)
})

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

// The error that New returns lists everything that is wrong.
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

// Without settings, as on a laptop, NewFromEnv returns a nil client. Its methods
// do nothing and succeed.
func ExampleNewFromEnv() {
	for _, name := range []string{"SUPABASE_URL", "SUPABASE_SECRET_KEYS", "SUPABASE_SECRET_KEY", "SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_SERVICE_KEY"} {
		os.Unsetenv(name) // only for this example
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
	client := newExampleClient() // an app calls New or NewFromEnv

	start := time.Now()
	// ... the step runs here ...
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

// Step records the start of a step, and its end with its duration and error.
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

// A job calls Flush if it must not report success before its events are stored.
func ExampleClient_Flush() {
	client := newExampleClient()
	client.Record(docevents.Event{DocumentID: document, UserID: docevents.SystemUser, Type: docevents.Completed})

	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := client.Flush(ctx); err != nil {
		fmt.Println("not stored yet:", err)
	}
	fmt.Println(client.Stats().Pending)
	// Output: 0
}

// A program calls Close before it ends. The timeout must be shorter than the time
// that the platform gives a program to shut down.
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

// The server refuses every request. When ctx ends, Close returns an error with the
// number of events that it abandons.
func ExampleClient_Close_abandoned() {
	client := newExampleClient(docevents.WithTransport(always(
		httpmock.NewStringResponder(http.StatusUnauthorized, `{"code":"PGRST301","message":"no key"}`))))
	client.Record(docevents.Event{DocumentID: document, UserID: docevents.SystemUser, Type: docevents.Completed})

	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	fmt.Println(client.Close(ctx)) // with a longer timeout, Close returns after 5 s of refusals
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

// A program calls Check when it starts, to find wrong settings before the first
// event.
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

// This purges all rows before the first day of the previous month.
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

// Run these files in the order of their names.
func ExampleMigrations() {
	names, err := fs.Glob(docevents.Migrations(), "*.sql")
	fmt.Println(names, err)
	// Output: [013_create_processing_events_table.sql 014_create_docevents_reading.sql] <nil>
}

// errors.As finds the server's answer in an error of this package.
func ExampleError() {
	client := newExampleClient(docevents.WithTransport(always(
		httpmock.NewStringResponder(http.StatusNotFound, `{"code":"PGRST205","message":"Could not find the table"}`))))
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond) // otherwise Check retries this answer for 5 s
	defer cancel()
	err := client.Check(ctx)
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

// The drop handler could store the lost events elsewhere.
func ExampleWithDropHandler() {
	client := newExampleClient(docevents.WithDropHandler(func(e docevents.Event, reason docevents.DropReason, err error) {
		fmt.Println(e.Stage, reason, err)
		if errors.Is(err, docevents.ErrOutcomeUnknown) {
			fmt.Println("the event may have been stored")
		}
	}))
	client.Record(docevents.Event{DocumentID: "report.pdf", UserID: docevents.SystemUser, Type: docevents.Completed, Stage: "ocr"})
	client.Close(context.Background())
	// Output: ocr invalid DocumentID is not a UUID: pass the document's UUID; if the column is text or a number, use WithColumns(Columns{TextIDs: true})
}

// All requests of the client pass through this transport. It could add tracing.
func ExampleWithTransport() {
	traced := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		fmt.Println(req.Method, req.URL.Path)
		return standIn{}.RoundTrip(req) // an app calls http.DefaultTransport.RoundTrip(req)
	})
	client := newExampleClient(docevents.WithTransport(traced))
	client.Record(docevents.Event{DocumentID: document, UserID: docevents.SystemUser, Type: docevents.Completed})
	client.Close(context.Background())
	// Output: POST /rest/v1/document_processing_events
}

// The project's API settings must expose the schema.
func ExampleWithSchema() {
	client := newExampleClient(docevents.WithSchema("audit"), docevents.WithTransport(printTable))
	client.Record(docevents.Event{DocumentID: document, UserID: docevents.SystemUser, Type: docevents.Completed})
	client.Close(context.Background())
	// Output: audit /rest/v1/document_processing_events
}

func ExampleWithTable() {
	client := newExampleClient(docevents.WithTable("ingest_events"), docevents.WithTransport(printTable))
	client.Record(docevents.Event{DocumentID: document, UserID: docevents.SystemUser, Type: docevents.Completed})
	client.Close(context.Background())
	// Output: public /rest/v1/ingest_events
}

// The CHECK of this table also allows the type archived.
func ExampleWithEventTypes() {
	const archived docevents.EventType = "archived"
	client := newExampleClient(docevents.WithEventTypes(docevents.EventTypes{
		Skipped: []docevents.EventType{archived}, // the other fields keep their default types
	}))
	client.Record(docevents.Event{DocumentID: document, UserID: docevents.SystemUser, Type: archived})
	client.Close(context.Background())
	fmt.Println(client.Stats().Delivered)
	// Output: 1
}

// This table has a number as its primary key, a document id of type text, no user,
// a tenant, and a jsonb column.
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

// More requests in flight help if the round trip to the server takes a long time.
func ExampleWithMaxInFlight() {
	client, err := docevents.New(projectURL, secretKey, docevents.WithMaxInFlight(8))
	fmt.Println(client != nil, err)
	// Output: true <nil>
}

// Small batches suit a gateway that limits the size of a request.
func ExampleWithMaxBatch() {
	client, err := docevents.New(projectURL, secretKey, docevents.WithMaxBatch(100))
	fmt.Println(client != nil, err)
	// Output: true <nil>
}

// A small queue suits a small machine. Events that don't fit are dropped.
func ExampleWithQueueLimits() {
	answered := make(chan struct{})
	slow := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		<-answered
		return standIn{}.RoundTrip(req)
	})
	client := newExampleClient(docevents.WithQueueLimits(2, 1<<20), docevents.WithTransport(slow))
	for range 5 {
		client.Record(docevents.Event{DocumentID: document, UserID: docevents.SystemUser, Type: docevents.Completed})
	}
	fmt.Println(client.Stats().Pending, "pending,", client.Stats().Dropped.QueueFull, "dropped")
	close(answered)
	client.Close(context.Background())
	// Output: 2 pending, 3 dropped
}

// Purging in steps from the start suits a table with millions of old rows.
func ExampleWithPurgeBatch() {
	client, err := docevents.New(projectURL, secretKey, docevents.WithPurgeBatch(50_000))
	fmt.Println(client != nil, err)
	// Output: true <nil>
}

// Every exported function and method has an example on pkg.go.dev.
func TestEveryExportHasAnExample(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	example := regexp.MustCompile(`(?m)^func Example(\w+)\(`)
	export := regexp.MustCompile(`(?m)^func (?:\(\w+ \*?([A-Z]\w*)\) )?([A-Z]\w*)\(`)
	exports, examples := map[string]bool{}, map[string]bool{}
	for _, file := range files {
		code, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(file, "_test.go") {
			for _, found := range example.FindAllStringSubmatch(string(code), -1) {
				examples[found[1]] = true
			}
			continue
		}
		for _, found := range export.FindAllStringSubmatch(string(code), -1) {
			exports[strings.TrimPrefix(found[1]+"_"+found[2], "_")] = true // Type_Method, or Function
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
