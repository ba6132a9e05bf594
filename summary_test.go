package docevents_test

import (
	"encoding/json"
	"errors"
	"fmt"
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

func TestSummary(t *testing.T) {
	since := time.Date(2026, 1, 1, 2, 0, 0, 1, time.FixedZone("", 2*3600)) // in another zone, and the nanosecond is cut off
	s := &script{answers: []answer{{body: `{"since" : "2026-01-01T00:00:00.000001+00:00", "until" : "2026-01-01T01:00:00+00:00", "documents" : 7,
		"completed" : 3, "failed" : 2, "under_way" : 1, "skipped" : 1, "last_completed" : "2026-01-01T00:59:00.5+00:00", "last_failure" : null,
		"interval_seconds" : 60, "series" : [{"at":"2026-01-01T00:00:00+00:00","completed":3,"failed":2,"under_way":1,"skipped":1,"failures":4}],
		"stages_total" : 2, "stages" : [{"stage":"extract","count":5,"failed":2,"measured":4,"p50_ms":1500,"p95_ms":9000,"max_ms":9001},
		{"stage":null,"count":3,"failed":0,"measured":0,"p50_ms":null,"p95_ms":null,"max_ms":null}],
		"errors_total" : 21, "errors" : [{"stage":"extract","error":"page #","count":4,"documents":3,"first_at":"2026-01-01T00:01:00+00:00",
		"last_at":"2026-01-01T00:02:00+00:00","example":"11111111-1111-4111-8111-111111111111"}],
		"stuck_total" : 1, "stuck" : [{"document_id":"11111111-1111-4111-8111-111111111111","started":"2026-01-01T00:03:00+00:00","starts":2,
		"last_event":"processing_started","last_stage":null,"last_at":"2026-01-01T00:04:00+00:00"}]}`}}}
	c, _ := newClient(t, s, docevents.WithSchema("app"), docevents.WithTable("steps"))
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
			{Name: "extract", Count: 5, Failed: 2, Measured: 4, P50: 1500 * time.Millisecond, P95: 9 * time.Second, Max: 9001 * time.Millisecond},
			{Count: 3},
		},
		StagesTotal: 2,
		Errors:      []docevents.ErrorGroup{{Stage: "extract", Message: "page #", Count: 4, Documents: 3, First: at(1), Last: at(2), Example: testDocument}},
		ErrorsTotal: 21,
		Stuck:       []docevents.StuckDocument{{DocumentID: testDocument, Since: at(3), Starts: 2, LastEvent: docevents.ProcessingStarted, LastAt: at(4)}},
		StuckTotal:  1,
	}
	if got, want := fmt.Sprintf("%+v", inUTC(got)), fmt.Sprintf("%+v", want); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	req := s.requests[0]
	if got := req.Method + " " + req.URL.Path; len(s.requests) != 1 || got != "GET /rest/v1/rpc/docevents_summary" {
		t.Errorf("%d requests, the first %s", len(s.requests), got)
	}
	// The functions are in the schema public, and the table is in another schema.
	if got := req.Header.Get("Apikey") + " " + req.Header.Get("Accept-Profile"); got != testKey+" public" {
		t.Errorf("key and schema: %q", got)
	}
	wantArguments(t, req, map[string]string{"since": "2026-01-01T00:00:00.000000Z", "until": "2026-01-01T01:00:00.000000Z", "stuck_after": "1800000000 microseconds"},
		`{"schema":"app","table":"steps","columns":{"id":"id","document":"document_id","user":"user_id","event":"event_type","duration":"duration_ms",
		"error":"error_message","stage":"stage","created":"created_at"},"events":{"arrived":["upload_started"],"started":["processing_started"],
		"completed":["completed"],"failed":["failed"],"skipped":null}}`)
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

// The table has other columns and types, and the query has a filter.
func TestSummaryOfAnotherTable(t *testing.T) {
	s := &script{answers: []answer{{body: emptySummary}}}
	c, _ := newClient(t, s, docevents.WithColumns(docevents.Columns{ID: "event_id", DocumentID: "doc", UserID: "-", Type: "kind", Stage: "-", Duration: "-"}),
		docevents.WithEventTypes(docevents.EventTypes{Arrived: []docevents.EventType{"queued"}, Skipped: []docevents.EventType{"cancelled", "skipped"}}))
	if _, err := c.Summary(t.Context(), docevents.Query{Since: time.Unix(0, 0), Until: time.Unix(60, 0), StuckAfter: 90 * time.Second, Where: map[string]string{"tenant_id": "7"}}); err != nil {
		t.Fatal(err)
	}
	wantArguments(t, s.requests[0], map[string]string{"since": "1970-01-01T00:00:00.000000Z", "until": "1970-01-01T00:01:00.000000Z", "stuck_after": "90000000 microseconds"},
		`{"schema":"public","table":"document_processing_events","columns":{"id":"event_id","document":"doc","user":"-","event":"kind","duration":"-",
		"error":"error_message","stage":"-","created":"created_at"},"events":{"arrived":["queued"],"started":["processing_started"],
		"completed":["completed"],"failed":["failed"],"skipped":["cancelled","skipped"]},"filters":{"tenant_id":"7"}}`)
}

// If the app lists the default of Arrived in another field, no type means arrived. The
// function has a default for null, so the argument is an empty list.
func TestSummaryWithoutArrivedTypes(t *testing.T) {
	for name, types := range map[string]docevents.EventTypes{
		"a note":    {Notes: []docevents.EventType{docevents.UploadStarted}},
		"a failure": {Failed: []docevents.EventType{docevents.UploadStarted}},
	} {
		t.Run(name, func(t *testing.T) {
			s := &script{answers: []answer{{body: emptySummary}}}
			c, _ := newClient(t, s, docevents.WithEventTypes(types))
			if _, err := c.Summary(t.Context(), lastHour()); err != nil {
				t.Fatal(err)
			}
			if source := s.requests[0].URL.Query().Get("source"); !strings.Contains(source, `"arrived":[]`) {
				t.Error(source)
			}
		})
	}
}

// The durations have fractions if their column has the type numeric.
func TestSummaryOfFractions(t *testing.T) {
	body := strings.Replace(emptySummary, `"stages":[]`, `"stages":[{"stage":"ocr","count":1,"failed":0,"measured":1,"p50_ms":1500.000,"p95_ms":1500.250,"max_ms":1e300}]`, 1)
	c, _ := newClient(t, &script{answers: []answer{{body: body}}})
	s, err := c.Summary(t.Context(), lastHour())
	want := docevents.Stage{Name: "ocr", Count: 1, Measured: 1, P50: 1500 * time.Millisecond, P95: 1500250 * time.Microsecond} // the Max overflows a Duration, so it is 0
	if err != nil || !reflect.DeepEqual(s.Stages, []docevents.Stage{want}) {
		t.Errorf("got %+v, %v", s, err)
	}
}

// inUTC converts the times to UTC, so that equal times print alike.
func inUTC(s *docevents.Summary) *docevents.Summary {
	times := []*time.Time{&s.Since, &s.Until, &s.LastCompleted, &s.LastFailure}
	for i := range s.Series {
		times = append(times, &s.Series[i].At)
	}
	for i := range s.Errors {
		times = append(times, &s.Errors[i].First, &s.Errors[i].Last)
	}
	for i := range s.Stuck {
		times = append(times, &s.Stuck[i].Since, &s.Stuck[i].LastAt)
	}
	for _, at := range times {
		*at = at.UTC()
	}
	return s
}

func lastHour() docevents.Query {
	return docevents.Query{Since: time.Now().Add(-time.Hour), Until: time.Now()}
}
