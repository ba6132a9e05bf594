package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/dashboard"
	"github.com/docevents/docevents-go/integration/internal/observe"
)

// A shape is a table of docs/your-table.md that works without changes in the
// database.
type shape struct {
	make     []string // statements that turn the migration's table, TABLE_NAME, into it
	columns  *docevents.Columns
	types    docevents.EventTypes
	document string                 // the events' DocumentID
	user     string                 // their UserID
	fill     func(*docevents.Event) // sets further fields that the table requires
	noStep   bool                   // the table requires a field that stepShape leaves empty
}

// fresh returns SQL that replaces the table with a table of these columns. rest follows
// the columns in CREATE TABLE, such as PARTITION BY.
func fresh(rest string, columns ...string) []string {
	return []string{
		"DROP TABLE TABLE_NAME",
		"CREATE TABLE TABLE_NAME (" + strings.Join(columns, ", ") + ") " + rest,
		"GRANT SELECT, INSERT, DELETE ON TABLE_NAME TO service_role",
	}
}

const (
	standard = "duration_ms integer, error_message text, stage text, created_at timestamptz NOT NULL DEFAULT now()"
	employee = "22222222-2222-4222-8222-222222222222"
)

// renamed names every column differently from the migration.
var renamed = docevents.Columns{
	ID: "event", DocumentID: "doc", UserID: "owner", Type: "kind", Duration: "ms", ErrorMessage: "error", Stage: "step", CreatedAt: "at",
}

var shapes = map[string]shape{
	"bigint document id": {
		make:     []string{"ALTER TABLE TABLE_NAME DROP document_id, ADD document_id bigint NOT NULL"},
		columns:  &docevents.Columns{TextIDs: true},
		document: "9007199254740993", user: docevents.SystemUser,
	},
	"text document id": {
		make:     []string{"ALTER TABLE TABLE_NAME ALTER document_id TYPE text"},
		columns:  &docevents.Columns{TextIDs: true},
		document: `contracts/2026/a, "b" & c (1)=é.pdf`, user: docevents.SystemUser,
	},
	"own words in an enum": {
		make: []string{
			"CREATE TYPE TABLE_NAME_kind AS ENUM ('queued', 'begun', 'done', 'broken', 'cancelled', 'progress')",
			"ALTER TABLE TABLE_NAME DROP CONSTRAINT document_processing_events_event_type_check, ALTER event_type TYPE TABLE_NAME_kind USING NULL",
		},
		types: docevents.EventTypes{
			Arrived: words("queued"), Started: words("begun"), Completed: words("done"), Failed: words("broken"),
			Skipped: words("cancelled"), Notes: words("progress"),
		},
		document: document, user: docevents.SystemUser,
	},
	"status and type": {
		make: fresh("",
			"id uuid PRIMARY KEY", "document_id uuid NOT NULL", "event_type text NOT NULL CHECK (event_type IN ('ocr', 'split', 'index'))",
			"status text NOT NULL CHECK (status IN ('pending', 'running', 'succeeded', 'failed'))",
			"duration_ms integer", "error_message text", "created_at timestamptz NOT NULL"),
		columns: &docevents.Columns{Type: "status", Stage: "event_type", UserID: "-"},
		types: docevents.EventTypes{
			Arrived: words("pending"), Started: words("running"), Completed: words("succeeded"), Failed: words("failed"),
		},
		document: document,
	},
	"timestamp without zone": {
		make:     []string{"ALTER TABLE TABLE_NAME ALTER created_at TYPE timestamp"},
		document: document, user: docevents.SystemUser,
	},
	"numeric duration": {
		make:     []string{"ALTER TABLE TABLE_NAME ALTER duration_ms TYPE numeric(12, 3)"},
		document: document, user: docevents.SystemUser,
	},
	"user_id of auth.users, nullable": {
		make: []string{
			"CREATE SCHEMA IF NOT EXISTS auth", "CREATE TABLE IF NOT EXISTS auth.users (id uuid PRIMARY KEY)",
			"INSERT INTO auth.users (id) VALUES ('" + employee + "') ON CONFLICT DO NOTHING",
			"ALTER TABLE TABLE_NAME ALTER user_id DROP NOT NULL, ADD FOREIGN KEY (user_id) REFERENCES auth.users",
		},
		columns:  &docevents.Columns{},
		document: document, user: "",
		fill: func(e *docevents.Event) {
			if e.Type == docevents.Failed {
				e.UserID = employee
			}
		},
	},
	"message NOT NULL, set in every event": {
		make:     []string{"ALTER TABLE TABLE_NAME ALTER error_message SET NOT NULL"},
		document: document, user: docevents.SystemUser,
		fill: func(e *docevents.Event) {
			if e.ErrorMessage == "" {
				e.ErrorMessage = "ok"
			}
		},
		noStep: true,
	},
	"message NOT NULL, filled by a trigger": {
		make: []string{
			"ALTER TABLE TABLE_NAME ALTER error_message SET NOT NULL",
			"CREATE FUNCTION TABLE_NAME_message() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.error_message := coalesce(NEW.error_message, ''); RETURN NEW; END $$",
			"CREATE TRIGGER message BEFORE INSERT ON TABLE_NAME FOR EACH ROW EXECUTE FUNCTION TABLE_NAME_message()",
		},
		document: document, user: docevents.SystemUser,
	},
	"serial primary key plus event_id": {
		make: []string{
			"ALTER TABLE TABLE_NAME DROP id, ADD id bigserial PRIMARY KEY, ADD event_id uuid NOT NULL UNIQUE",
			"GRANT USAGE ON SEQUENCE TABLE_NAME_id_seq TO service_role",
		},
		columns:  &docevents.Columns{ID: "event_id"},
		document: document, user: docevents.SystemUser,
	},
	"a tenant in every event": {
		make:     []string{"ALTER TABLE TABLE_NAME ADD tenant_id uuid NOT NULL"},
		columns:  &docevents.Columns{Extra: []string{"tenant_id"}},
		document: document, user: docevents.SystemUser,
		fill:   func(e *docevents.Event) { e.Extra = map[string]any{"tenant_id": employee} },
		noStep: true,
	},
	"partitions by list of type": {
		make: append(fresh("PARTITION BY LIST (event_type)",
			"id uuid", "document_id uuid NOT NULL", "user_id uuid NOT NULL", "event_type text NOT NULL", standard, "PRIMARY KEY (id, event_type)"),
			"CREATE TABLE TABLE_NAME_ends PARTITION OF TABLE_NAME FOR VALUES IN ('completed', 'failed')",
			"CREATE TABLE TABLE_NAME_starts PARTITION OF TABLE_NAME FOR VALUES IN ('upload_started', 'processing_started')",
		),
		document: document, user: docevents.SystemUser,
	},
	"a view with renamed columns": {
		make: []string{
			"ALTER TABLE TABLE_NAME RENAME TO BARE_NAME_rows",
			"CREATE VIEW TABLE_NAME AS SELECT id AS event, document_id AS doc, user_id AS owner, event_type AS kind, " +
				"duration_ms AS ms, error_message AS error, stage AS step, created_at AS at FROM TABLE_NAME_rows",
			"GRANT SELECT, INSERT, DELETE ON TABLE_NAME TO service_role",
		},
		columns:  &renamed,
		document: document, user: docevents.SystemUser,
	},
	"hash partitions": {
		make: append(fresh("PARTITION BY HASH (document_id)",
			"id uuid", "document_id uuid NOT NULL", "user_id uuid NOT NULL", "event_type text NOT NULL", standard, "PRIMARY KEY (id, document_id)"),
			"CREATE TABLE TABLE_NAME_0 PARTITION OF TABLE_NAME FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
			"CREATE TABLE TABLE_NAME_1 PARTITION OF TABLE_NAME FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
		),
		document: document, user: docevents.SystemUser,
	},
}

func words(types ...docevents.EventType) []docevents.EventType { return types }

// TestShapes runs each operation of the client on each table, in this order.
func TestShapes(t *testing.T) {
	t.Parallel()
	for name, s := range shapes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := s.bench(t)
			for _, operation := range []struct {
				name string
				do   func(*testing.T, *shapeBench)
			}{
				{"Check", checkShape},
				{"Record", recordShape},
				{"Step", stepShape},
				{"Timeline", timelineShape},
				{"Summary", summaryShape},
				{"Documents", documentsShape},
				{"page", pageShape},
				{"purge", purgeShape},
			} {
				t.Run(operation.name, func(t *testing.T) {
					b.t = t
					operation.do(t, b)
				})
			}
		})
	}
}

// A shapeBench is a client with a table of a shape, and the events that it has recorded.
type shapeBench struct {
	*bench
	shape
	types    docevents.EventTypes // the shape's, or the migration's for empty fields
	recorded []docevents.Event    // in the order of their times
}

func (s shape) bench(t *testing.T) *shapeBench {
	b := newBench(t)
	b.dropAll()
	for _, statement := range s.make {
		b.execute(strings.ReplaceAll(statement, "BARE_NAME", b.table))
	}
	b.reload()
	opts := []docevents.Option{observe.LostAnswers(), docevents.WithEventTypes(s.types), docevents.WithMaxInFlight(1)}
	if s.columns != nil {
		opts = append(opts, docevents.WithColumns(*s.columns))
	}
	b = benchOf(t, b.stack, b.stack.ServiceRoleKey, b.table, opts...)
	t.Cleanup(func() { _ = b.client.Close(context.Background()) })
	full := s.types
	for _, field := range []struct {
		types *[]docevents.EventType
		word  docevents.EventType
	}{
		{&full.Arrived, docevents.UploadStarted},
		{&full.Started, docevents.ProcessingStarted},
		{&full.Completed, docevents.Completed},
		{&full.Failed, docevents.Failed},
	} {
		if len(*field.types) == 0 {
			*field.types = words(field.word)
		}
	}
	return &shapeBench{bench: b, shape: s, types: full}
}

func checkShape(t *testing.T, b *shapeBench) {
	// A new client, because Check doesn't handle lost answers.
	opts := []docevents.Option{docevents.WithEventTypes(b.shape.types)}
	if b.columns != nil {
		opts = append(opts, docevents.WithColumns(*b.columns))
	}
	if err := benchOf(t, b.stack, b.stack.ServiceRoleKey, b.table, opts...).client.Check(t.Context()); err != nil {
		t.Errorf("Check: %v", err)
	}
	b.wantRows(0)
}

// recordShape records a document's events of 40 days ago, with lost answers.
func recordShape(t *testing.T, b *shapeBench) {
	start := time.Now().AddDate(0, 0, -40).UTC().Truncate(time.Second)
	for i, e := range []docevents.Event{
		{Type: b.types.Arrived[0], Stage: "ocr"},
		{Type: b.types.Started[0], Stage: "ocr"},
		{Type: b.types.Failed[0], Stage: "ocr", Duration: 1500 * time.Millisecond, ErrorMessage: "page 3: no text"},
		{Type: b.types.Started[0], Stage: "index"},
		{Type: b.types.Completed[0], Stage: "index", Duration: 2500 * time.Millisecond},
	} {
		e.DocumentID, e.UserID = b.document, b.user
		e.CreatedAt = start.Add(time.Duration(i) * time.Second)
		if b.fill != nil {
			b.fill(&e)
		}
		b.client.Record(e)
		b.recorded = append(b.recorded, e)
	}
	b.flush()
	if st := b.client.Stats(); st.Delivered != int64(len(b.recorded)) || st.Retries == 0 {
		t.Errorf("%+v, dropped %+v", st, b.NewDrops())
	}
	b.wantRows(len(b.recorded))
}

// stepShape runs a step that succeeds and a step that fails.
func stepShape(t *testing.T, b *shapeBench) {
	if b.noStep {
		t.Skip("the table requires a further field")
	}
	before := len(b.recorded)
	for i, outcome := range []error{nil, errors.New("no text")} {
		e := docevents.Event{DocumentID: b.document, UserID: b.user, Stage: "split", CreatedAt: time.Now().Truncate(time.Minute).Add(time.Duration(i-2) * time.Minute)}
		if err := b.client.Step(e, func() error { return outcome }); !errors.Is(err, outcome) {
			t.Errorf("got %v, want %v", err, outcome)
		}
		started, ended := e, e
		started.Type, ended.Type = b.types.Started[0], b.types.Completed[0]
		if outcome != nil {
			ended.Type, ended.ErrorMessage = b.types.Failed[0], outcome.Error()
		}
		b.recorded = append(b.recorded, started, ended)
	}
	b.flush()
	if drops := b.NewDrops(); len(drops) > 0 {
		t.Errorf("dropped %+v", drops)
	}
	b.wantRows(before + 4)
}

// timelineShape compares the timeline with the recorded events.
func timelineShape(t *testing.T, b *shapeBench) {
	got, err := b.client.Timeline(t.Context(), b.document)
	if err != nil {
		t.Fatal(err)
	}
	name := func(e docevents.Event) string {
		return fmt.Sprintf("%q %q %s %s %q %d", e.DocumentID, e.UserID, e.Type, e.Stage, e.ErrorMessage, e.CreatedAt.Truncate(time.Minute).Unix())
	}
	var gotNames, wantNames []string
	for _, e := range got {
		gotNames = append(gotNames, name(e))
	}
	for _, e := range b.recorded {
		wantNames = append(wantNames, name(e))
	}
	if !slices.Equal(gotNames, wantNames) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(gotNames, "\n"), strings.Join(wantNames, "\n"))
	} else if got[2].Duration != 1500*time.Millisecond || got[4].Duration != 2500*time.Millisecond {
		t.Errorf("durations %s, %s", got[2].Duration, got[4].Duration)
	}
}

// summaryShape checks the summary of the old document, which is completed.
func summaryShape(t *testing.T, b *shapeBench) {
	s, err := b.client.Summary(t.Context(), b.ofOldDocument())
	if err != nil {
		t.Fatal(err)
	}
	if s.Documents != 1 || s.Completed != 1 || s.Failed != 0 || s.UnderWay != 0 || s.ErrorsTotal != 1 || s.StagesTotal != 2 {
		t.Errorf("got %+v", s)
	}
	if len(s.Errors) != 1 || s.Errors[0].Example != b.document || s.Errors[0].Stage != "ocr" {
		t.Errorf("errors %+v, want one of %q", s.Errors, b.document)
	}
	if len(s.Stages) != 2 || s.Stages[0].P50 != 2500*time.Millisecond || s.Stages[1].P50 != 1500*time.Millisecond {
		t.Errorf("stages %+v", s.Stages)
	}
}

// documentsShape lists the old document.
func documentsShape(t *testing.T, b *shapeBench) {
	page, err := b.client.Documents(t.Context(), docevents.DocumentsQuery{Query: b.ofOldDocument(), State: docevents.StateCompleted})
	if err != nil {
		t.Fatal(err)
	}
	last := b.recorded[4]
	if len(page.Documents) != 1 || page.Next != "" {
		t.Fatalf("got %+v", page)
	}
	d := page.Documents[0]
	if d.ID != b.document || d.UserID != last.UserID || d.Type != last.Type || d.Stage != last.Stage || !d.LastAt.Equal(last.CreatedAt) {
		t.Errorf("got %+v, want the document of %+v", d, last)
	}
}

// ofOldDocument returns a query for the range of recordShape's events.
func (b *shapeBench) ofOldDocument() docevents.Query {
	return docevents.Query{Since: b.recorded[0].CreatedAt, Until: b.recorded[4].CreatedAt.Add(time.Second)}
}

// pageShape opens the dashboard's overview, which shows today's events of Step, and
// the document's page.
func pageShape(t *testing.T, b *shapeBench) {
	handler := dashboard.Handler(b.client, dashboard.WithLoopback())
	open := func(path string, wants ...string) {
		req := httptest.NewRequest(http.MethodGet, path, nil)
		req.RemoteAddr, req.Host = "127.0.0.1:50000", "localhost"
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, req)
		if answer.Code != http.StatusOK {
			t.Errorf("%s: %d", path, answer.Code)
		}
		for _, want := range wants {
			if !strings.Contains(answer.Body.String(), want) {
				t.Errorf("%s lacks %q", path, want)
			}
		}
	}
	if b.noStep {
		open("/")
	} else {
		open("/", "split")
	}
	open("/document?id="+url.QueryEscape(b.document), "page 3: no text", string(b.recorded[4].Type))
}

// purgeShape purges the old document and keeps today's events of Step.
func purgeShape(t *testing.T, b *shapeBench) {
	left := len(b.recorded) - 5
	if n, err := b.client.PurgeOlderThan(t.Context(), 30); n != 5 || err != nil {
		t.Errorf("purged %d, %v, want 5", n, err)
	}
	b.wantRows(left)
}
