package docevents_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/docevents/docevents-go"
)

const emptySummary = `{"since":"2026-01-01T00:00:00+00:00","until":"2026-01-01T01:00:00+00:00","documents":0,"completed":0,"failed":0,` +
	`"under_way":0,"last_completed":null,"last_failure":null,"interval_seconds":60,"series":[],"stages_total":0,"stages":[],` +
	`"errors_total":0,"errors":[],"stuck_total":0,"stuck":[]}`

// migrationSource is the argument source for the migrations' table.
const migrationSource = `{"schema":"public","table":"document_processing_events","columns":{"id":"id","document":"document_id","user":"user_id","event":"event_type",
	"duration":"duration_ms","error":"error_message","stage":"stage","created":"created_at"},"events":{"arrived":["upload_started"],"started":["processing_started"],
	"completed":["completed"],"failed":["failed"],"skipped":null}}`

func TestSummary(t *testing.T) {
	since := time.Date(2026, 1, 1, 2, 0, 0, 1, time.FixedZone("", 2*3600)) // in another zone, and the nanosecond is cut off
	s := &script{answers: []answer{{body: `{"since" : "2026-01-01T00:00:00.000001Z", "until" : "2026-01-01T01:00:00Z", "documents" : 7,
		"completed" : 3, "failed" : 2, "under_way" : 1, "skipped" : 1, "last_completed" : "2026-01-01T00:59:00.5Z", "last_failure" : null,
		"interval_seconds" : 60, "series" : [{"at":"2026-01-01T00:00:00Z","completed":3,"failed":2,"under_way":1,"skipped":1,"failures":4}],
		"stages_total" : 2, "stages" : [{"stage":"extract","count":5,"failed":2,"measured":4,"p50_ms":1500.000,"p95_ms":9000.250,"max_ms":1e300},
		{"stage":null,"count":3,"failed":0,"measured":0,"p50_ms":null,"p95_ms":null,"max_ms":null}],
		"errors_total" : 21, "errors" : [{"stage":"extract","error":"page #","count":4,"documents":3,"first_at":"2026-01-01T00:01:00Z",
		"last_at":"2026-01-01T00:02:00Z","example":"11111111-1111-4111-8111-111111111111"}],
		"stuck_total" : 1, "stuck" : [{"document_id":"11111111-1111-4111-8111-111111111111","started":"2026-01-01T00:03:00Z","starts":2,
		"last_event":"processing_started","last_stage":null,"last_at":"2026-01-01T00:04:00Z"}]}`}}}
	c, _ := newClient(t, s)
	got, err := c.Summary(t.Context(), docevents.Query{Since: since, Until: since.Add(time.Hour - 1)})
	if err != nil {
		t.Fatal(err)
	}
	at := func(minute int) time.Time { return time.Date(2026, 1, 1, 0, minute, 0, 0, time.UTC) }
	want := &docevents.Summary{
		Since: at(0).Add(time.Microsecond), Until: at(60), Documents: 7, Completed: 3, Failed: 2, UnderWay: 1, Skipped: 1,
		LastCompleted: at(59).Add(500 * time.Millisecond), Interval: time.Minute,
		Series: []docevents.Point{{At: at(0), Completed: 3, Failed: 2, UnderWay: 1, Skipped: 1, Failures: 4}},
		Stages: []docevents.Stage{
			{Name: "extract", Count: 5, Failed: 2, Measured: 4, P50: 1500 * time.Millisecond, P95: 9000250 * time.Microsecond}, // Max overflows a Duration, so it is 0,
			{Count: 3},
		},
		StagesTotal: 2,
		Errors:      []docevents.ErrorGroup{{Stage: "extract", Message: "page #", Count: 4, Documents: 3, First: at(1), Last: at(2), Example: testDocument}},
		ErrorsTotal: 21,
		Stuck:       []docevents.StuckDocument{{DocumentID: testDocument, Since: at(3), Starts: 2, LastEvent: docevents.ProcessingStarted, LastAt: at(4)}},
		StuckTotal:  1,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	req := s.requests[0]
	if got := req.Method + " " + req.URL.Path; len(s.requests) != 1 || got != "GET /rest/v1/rpc/docevents_summary" {
		t.Errorf("%d requests, the first %s", len(s.requests), got)
	}
	if got := req.Header.Get("Apikey"); got != testKey {
		t.Errorf("key %q", got)
	}
	wantArguments(t, req, map[string]string{"since": "2026-01-01T00:00:00.000000Z", "until": "2026-01-01T01:00:00.000000Z", "stuck_after": "1800000000 microseconds"}, migrationSource)
}

// wantArguments compares the arguments of a function. The argument source is JSON, whose
// keys may be in any order.
func wantArguments(t *testing.T, req *http.Request, want map[string]string, source string) {
	t.Helper()
	got := map[string]string{}
	for name, values := range req.URL.Query() {
		got[name] = values[0]
	}
	var gotSource, wantSource any
	if err := errors.Join(json.Unmarshal([]byte(got["source"]), &gotSource), json.Unmarshal([]byte(source), &wantSource)); err != nil || !reflect.DeepEqual(gotSource, wantSource) {
		t.Errorf("source %v, want %v; %v", gotSource, wantSource, err)
	}
	if delete(got, "source"); !reflect.DeepEqual(got, want) {
		t.Errorf("arguments %v, want %v", got, want)
	}
}

// The table has another name and other columns and types, and the query has a filter.
func TestSummaryOfAnotherTable(t *testing.T) {
	s := &script{answers: []answer{{body: emptySummary}}}
	c, _ := newClient(t, s, docevents.WithSchema("app"), docevents.WithTable("steps"),
		docevents.WithColumns(docevents.Columns{ID: "event_id", DocumentID: "doc", UserID: "-", Type: "kind", Stage: "-", Duration: "-"}),
		docevents.WithEventTypes(docevents.EventTypes{Arrived: []docevents.EventType{"queued"}, Skipped: []docevents.EventType{"cancelled", "skipped"}}))
	if _, err := c.Summary(t.Context(), docevents.Query{Since: time.Unix(0, 0), Until: time.Unix(60, 0), StuckAfter: 90 * time.Second, Where: map[string]string{"tenant_id": "7"}}); err != nil {
		t.Fatal(err)
	}
	if got := s.requests[0].Header.Get("Accept-Profile"); got != "public" {
		t.Errorf("called the function of the schema %q", got)
	}
	wantArguments(t, s.requests[0], map[string]string{"since": "1970-01-01T00:00:00.000000Z", "until": "1970-01-01T00:01:00.000000Z", "stuck_after": "90000000 microseconds"},
		`{"schema":"app","table":"steps","columns":{"id":"event_id","document":"doc","user":"-","event":"kind","duration":"-",
		"error":"error_message","stage":"-","created":"created_at"},"events":{"arrived":["queued"],"started":["processing_started"],
		"completed":["completed"],"failed":["failed"],"skipped":["cancelled","skipped"]},"filters":{"tenant_id":"7"}}`)
}

// If the app lists the default of Arrived in another field, no type means arrived. The
// function has a default for null, so the argument is an empty list.
func TestSummaryWithoutArrivedTypes(t *testing.T) {
	s := &script{answers: []answer{{body: emptySummary}}}
	c, _ := newClient(t, s, notes(docevents.UploadStarted))
	if _, err := c.Summary(t.Context(), lastHour()); err != nil {
		t.Fatal(err)
	}
	if source := s.requests[0].URL.Query().Get("source"); !strings.Contains(source, `"arrived":[]`) {
		t.Error(source)
	}
}

func lastHour() docevents.Query {
	return docevents.Query{Since: time.Now().Add(-time.Hour), Until: time.Now()}
}
