package docevents_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docevents/docevents-go"
)

// A script gives its answers one after the other, the last one again and again.
type script struct {
	answers  []answer
	requests []*http.Request
}

func (s *script) RoundTrip(req *http.Request) (*http.Response, error) {
	a := s.answers[min(len(s.requests), len(s.answers)-1)]
	s.requests = append(s.requests, req)
	if a.delay > 0 {
		select {
		case <-time.After(a.delay):
		case <-req.Context().Done():
			return nil, req.Context().Err()
		}
	}
	if a.err != nil {
		return nil, a.err
	}
	if a.status == 0 {
		a.status = http.StatusOK
	}
	return a.response(req), nil
}

const timelineRow = `{"id":"bbbbbbbb-0000-4000-8000-000000000001","document_id":"11111111-1111-4111-8111-111111111111",` +
	`"user_id":"22222222-2222-4222-8222-222222222222","event_type":"failed","duration_ms":1500,` +
	`"error_message":"page 3: too small","stage":"extract","created_at":"2026-01-02T03:04:05.678901+02:00"}`

// rowsOf is an answer with n rows.
func rowsOf(n int) answer {
	return answer{body: "[" + strings.TrimSuffix(strings.Repeat(timelineRow+", \n ", n), ", \n ") + "]"}
}

func TestTimeline(t *testing.T) {
	nulls := `{"id":"bbbbbbbb-0000-4000-8000-000000000000","document_id":"11111111-1111-4111-8111-111111111111","user_id":"00000000-0000-0000-0000-000000000000",` +
		`"event_type":"upload_started","duration_ms":null,"error_message":null,"stage":null,"created_at":"2026-01-01T00:00:00+00:00"}`
	s := &script{answers: []answer{{body: "[" + nulls + ",\n" + timelineRow + "]"}}}
	c, _ := newClient(t, s)
	got, err := c.Timeline(t.Context(), "{11111111-1111-4111-8111-111111111111}")
	if err != nil {
		t.Fatal(err)
	}
	want := []docevents.Event{
		{
			ID: "bbbbbbbb-0000-4000-8000-000000000000", DocumentID: testDocument, UserID: docevents.SystemUser, Type: docevents.UploadStarted,
			CreatedAt: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		},
		{
			ID: "bbbbbbbb-0000-4000-8000-000000000001", DocumentID: testDocument, UserID: "22222222-2222-4222-8222-222222222222", Type: docevents.Failed,
			Duration: 1500 * time.Millisecond, ErrorMessage: "page 3: too small", Stage: "extract",
			CreatedAt: time.Date(2026, 1, 2, 1, 4, 5, 678_901_000, time.UTC),
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	req := s.requests[0]
	if got := req.Method + " " + req.URL.Path; len(s.requests) != 1 || got != "GET /rest/v1/document_processing_events" {
		t.Errorf("%d requests, the first %s", len(s.requests), got)
	}
	wantQuery := url.Values{
		"document_id": {"eq." + testDocument}, "order": {"created_at.asc,id.asc"}, "limit": {"1000"},
		"select": {"id,document_id,user_id,event_type,duration_ms,error_message,stage,created_at"},
	}
	if got := req.URL.Query(); !reflect.DeepEqual(got, wantQuery) {
		t.Errorf("query %v, want %v", got, wantQuery)
	}
	if got := req.Header.Get("Apikey") + " " + req.Header.Get("Accept-Profile") + " " + req.Header.Get("Prefer"); got != testKey+" public count=exact" {
		t.Errorf("key, schema and preference: %q", got)
	}
}

// A table whose columns differ: renamed, left out, and further ones.
func TestTimelineColumns(t *testing.T) {
	s := &script{answers: []answer{{body: `[{"event_id":"bbbbbbbb-0000-4000-8000-000000000001","doc":"` + testDocument + `","kind":"failed",
		"duration_ms":7,"error_message":"x","at":"2026-01-01T00:00:00+00:00","stage":12345678901234567890,"document_id":null}]`}}}
	c, _ := newClient(t, s, docevents.WithColumns(docevents.Columns{
		ID: "event_id", DocumentID: "doc", UserID: "-", Type: "kind", Stage: "-", CreatedAt: "at", Extra: []string{"stage", "document_id"},
	}))
	got, err := c.Timeline(t.Context(), testDocument)
	want := []docevents.Event{{
		ID: "bbbbbbbb-0000-4000-8000-000000000001", DocumentID: testDocument, Type: docevents.Failed, Duration: 7 * time.Millisecond, ErrorMessage: "x",
		CreatedAt: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Extra: map[string]any{"stage": json.Number("12345678901234567890"), "document_id": nil},
	}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
	wantQuery := url.Values{
		"doc": {"eq." + testDocument}, "order": {"at.asc,event_id.asc"}, "limit": {"1000"},
		"select": {"event_id,doc,kind,duration_ms,error_message,at,stage,document_id"},
	}
	if got := s.requests[0].URL.Query(); !reflect.DeepEqual(got, wantQuery) {
		t.Errorf("query %v, want %v", got, wantQuery)
	}
	c, _ = newClient(t, s, docevents.WithColumns(docevents.Columns{DocumentID: "-"}))
	if _, err := c.Timeline(t.Context(), testDocument); err == nil || !strings.Contains(err.Error(), "no column for DocumentID") {
		t.Errorf("without such a column: %v", err)
	}
}

// Columns of other types, which take all the same what is sent.
func TestTimelineTypes(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, test := range map[string]struct {
		createdAt, duration string
		wantAt              time.Time
		want                time.Duration
	}{
		"a timestamp":       {`"2026-01-02T03:04:05"`, "7", at, 7 * time.Millisecond},
		"of microseconds":   {`"2026-01-02T03:04:05.000001"`, "0", at.Add(time.Microsecond), 0},
		"NULL":              {"null", "null", time.Time{}, 0},
		"numeric":           {`"2026-01-02T04:04:05+01:00"`, "1500.250", at, 1500250 * time.Microsecond},
		"more than integer": {`"2026-01-02T03:04:05Z"`, "86400000000", at, 1000 * 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			row := strings.NewReplacer(`"2026-01-02T03:04:05.678901+02:00"`, test.createdAt, "1500", test.duration).Replace(timelineRow)
			c, _ := newClient(t, &script{answers: []answer{{body: "[" + row + "]"}}})
			got, err := c.Timeline(t.Context(), testDocument)
			if err != nil || !got[0].CreatedAt.Equal(test.wantAt) || got[0].Duration != test.want {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestTimelineBounds(t *testing.T) {
	long := answer{body: "[" + strings.TrimSuffix(strings.Repeat(strings.Replace(timelineRow, "page 3", strings.Repeat("x", 64<<10), 1)+",", 999), ",") + "]"}
	counted := func(rows, of int) answer {
		return answer{body: rowsOf(rows).body, header: map[string]string{"Content-Range": fmt.Sprintf("0-%d/%d", rows-1, of)}}
	}
	for _, tt := range []struct {
		name   string
		answer answer
		events int // at least
		more   bool
	}{
		{"none", rowsOf(0), 0, false},
		{"one less than a page", rowsOf(999), 999, false},
		{"a page, or more: nobody has counted", rowsOf(1000), 1000, true},
		{"a page", counted(1000, 1000), 1000, false},
		{"more than a page", counted(1000, 1001), 1000, true},
		{"more than the project returns at once", counted(500, 501), 500, true},
		{"long messages", long, 200, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &script{answers: []answer{tt.answer}}
			c, _ := newClient(t, s)
			got, err := c.Timeline(t.Context(), testDocument)
			if errors.Is(err, docevents.ErrTruncated) != tt.more || err != nil && !tt.more {
				t.Errorf("error %v", err)
			}
			if len(got) < tt.events || len(got) > 1000 || len(s.requests) != 1 {
				t.Errorf("%d events in %d requests, want %d in one", len(got), len(s.requests), tt.events)
			}
		})
	}
}

const emptySummary = `{"since":"2026-01-01T00:00:00+00:00","until":"2026-01-01T01:00:00+00:00","documents":0,"completed":0,"failed":0,` +
	`"under_way":0,"last_completed":null,"last_failure":null,"interval_seconds":60,"series":[],"stages_total":0,"stages":[],` +
	`"errors_total":0,"errors":[],"stuck_total":0,"stuck":[]}`

func TestSummary(t *testing.T) {
	since := time.Date(2026, 1, 1, 2, 0, 0, 1, time.FixedZone("", 2*3600)) // a nanosecond past the hour
	s := &script{answers: []answer{{body: `{"since" : "2026-01-01T00:00:00.000001+00:00", "until" : "2026-01-01T01:00:00+00:00", "documents" : 7,
		"completed" : 3, "failed" : 2, "under_way" : 1, "last_completed" : "2026-01-01T00:59:00.5+00:00", "last_failure" : null,
		"interval_seconds" : 60, "series" : [{"at":"2026-01-01T00:00:00+00:00","completed":3,"failed":2,"under_way":1,"failures":4}],
		"stages_total" : 2, "stages" : [{"stage":"extract","count":5,"failed":2,"measured":4,"p50_ms":1500,"p95_ms":9000,"max_ms":9001},
		{"stage":null,"count":3,"failed":0,"measured":0,"p50_ms":null,"p95_ms":null,"max_ms":null}],
		"errors_total" : 21, "errors" : [{"stage":"extract","error":"page #","count":4,"documents":3,"first_at":"2026-01-01T00:01:00+00:00",
		"last_at":"2026-01-01T00:02:00+00:00","example":"11111111-1111-4111-8111-111111111111"}],
		"stuck_total" : 1, "stuck" : [{"document_id":"11111111-1111-4111-8111-111111111111","started":"2026-01-01T00:03:00+00:00","starts":2,
		"last_event":"processing_started","last_stage":null,"last_at":"2026-01-01T00:04:00+00:00"}]}`}}}
	c, _ := newClient(t, s, docevents.WithSchema("app"), docevents.WithTable("steps"))
	got, err := c.Summary(t.Context(), since, since.Add(time.Hour-1))
	if err != nil {
		t.Fatal(err)
	}
	at := func(minute int) time.Time { return time.Date(2026, 1, 1, 0, minute, 0, 0, time.UTC) }
	want := &docevents.Summary{
		Since: at(0).Add(time.Microsecond), Until: at(60), Documents: 7, Completed: 3, Failed: 2, UnderWay: 1,
		LastCompleted: at(59).Add(500 * time.Millisecond), Interval: time.Minute,
		Series: []docevents.Point{{At: at(0), Completed: 3, Failed: 2, UnderWay: 1, Failures: 4}},
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
	if got := req.Method + " " + req.URL.String(); len(s.requests) != 1 ||
		got != "GET "+testURL+"/rest/v1/rpc/steps_summary?since=2026-01-01T00%3A00%3A00.000001Z&until=2026-01-01T01%3A00%3A00.000000Z" {
		t.Errorf("%d requests, the first %s", len(s.requests), got)
	}
	if got := req.Header.Get("Apikey") + " " + req.Header.Get("Accept-Profile"); got != testKey+" app" {
		t.Errorf("key and schema: %q", got)
	}
}

// inUTC makes times print alike that are the same.
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

// What both do about a failure: one retry where it may pass, none elsewhere, and
// an error that says what to do, without the key, the query or the row.
func TestReadFailures(t *testing.T) {
	const (
		sql014 = "sql/014_create_document_processing_events_summary.sql"
		secret = `"secret"`
	)
	bodyless := func(status int, code, text string) answer { return answer{status: status, code: code, text: text} }
	for _, tt := range []struct {
		name     string
		answer   answer
		requests int
		timeline string // what the error says
		summary  string
	}{
		{"no answer", answer{err: errReset}, 2, "connection reset", "connection reset"},
		{"cut short", answer{body: `[{"stage":` + secret, cut: true}, 2, "cut short", "cut short"},
		{"an end that came too early", answer{body: `[{"stage":` + secret}, 2, "cut short", "cut short"},
		{"a gateway's 502", answer{status: 502}, 2, "HTTP 502", "HTTP 502"},
		{"asks to be left alone", answer{status: 503, header: map[string]string{"Retry-After": "20"}}, 1, "HTTP 503", "HTTP 503"},
		{"another service", answer{body: `"secret"`}, 2, "not what PostgREST gives", "not what PostgREST gives"},
		{"another type", answer{body: `[{"stage":7}]`}, 2, "not what PostgREST gives", "not what PostgREST gives"},
		{"an empty object", answer{body: `{}`}, 2, "not what PostgREST gives", "run " + sql014 + " again"},
		{"a web page", answer{body: `<!doctype html><p>secret`}, 1, "check SUPABASE_URL", "check SUPABASE_URL"},
		{"a refused key", bodyless(401, "", ""), 1, "check the key", "check the key"},
		{"no table", bodyless(404, "42P01", "relation does not exist"), 1, "run sql/013", "run sql/013"},
		{"no function", bodyless(404, "PGRST202", "Could not find the function"), 1, "create the function", "create the function: run " + sql014},
		{"a function that has gone", bodyless(404, "42883", "function public.events_summary(since) does not exist"), 1, "create the function", "create the function: run " + sql014},
		{"no right to it", bodyless(403, "42501", "permission denied for function events_summary"), 1, "run " + sql014, "run " + sql014 + " again: it grants"},
		{"renamed columns", bodyless(400, "42703", "column stage does not exist"), 1, "add the column", "put your columns' names into " + sql014},
		{"a statement timeout", bodyless(500, "57014", "canceling statement"), 1, "HTTP 500 57014", "ask for a shorter range"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				check := func(method, want string, read func(*docevents.Client) error) {
					s := &script{answers: []answer{tt.answer}}
					c, _ := newClient(t, s)
					err := read(c)
					if err == nil || !strings.HasPrefix(err.Error(), "docevents: "+method+": ") || !strings.Contains(err.Error(), want) {
						t.Errorf("error %v, want %q", err, want)
					}
					for _, leak := range []string{testKey, "secret", "document_id", "supabase.test"} {
						if err != nil && strings.Contains(strings.ReplaceAll(err.Error(), "the service-role (secret) key", ""), leak) {
							t.Errorf("it repeats %q: %v", leak, err)
						}
					}
					if len(s.requests) != tt.requests {
						t.Errorf("%s: %d requests, want %d", method, len(s.requests), tt.requests)
					}
				}
				check("Timeline", tt.timeline, func(c *docevents.Client) error {
					_, err := c.Timeline(t.Context(), testDocument)
					return err
				})
				check("Summary", tt.summary, func(c *docevents.Client) error {
					_, err := c.Summary(t.Context(), time.Now().Add(-time.Hour), time.Now())
					return err
				})
			})
		})
	}
}

// A failure that passes is not noticed.
func TestReadRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: []answer{{status: 502}, rowsOf(3), {body: rowsOf(3).body, cut: true}, {body: emptySummary}}}
		c, _ := newClient(t, s)
		if got, err := c.Timeline(t.Context(), testDocument); err != nil || len(got) != 3 {
			t.Errorf("%d events, %v", len(got), err)
		}
		if got, err := c.Summary(t.Context(), time.Time{}, time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC) /* the widest range */); err != nil || got.Interval != time.Minute {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

// A server that hangs is left after the request timeout, or when ctx ends,
// without a second try.
func TestReadTimeouts(t *testing.T) {
	for name, limit := range map[string]time.Duration{"the request timeout": 5 * time.Second, "ctx": time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{answers: []answer{{delay: time.Hour}}}
				c, _ := newClient(t, s, docevents.WithRequestTimeout(5*time.Second))
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				if name != "ctx" {
					ctx = t.Context()
				}
				defer cancel()
				start := time.Now()
				_, err := c.Summary(ctx, start.Add(-time.Hour), start)
				if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != limit || len(s.requests) != 1 {
					t.Errorf("after %v and %d requests: %v", time.Since(start), len(s.requests), err)
				}
			})
		})
	}
}

func TestReadArguments(t *testing.T) {
	s := &script{answers: []answer{rowsOf(1)}}
	c, _ := newClient(t, s)
	now := time.Now()
	if _, err := c.Timeline(t.Context(), "42"); err == nil || !strings.Contains(err.Error(), "docevents: Timeline: the document's id is not a UUID") {
		t.Errorf("a bad id: %v", err)
	}
	for name, r := range map[string][2]time.Time{
		"nothing":     {now, now},
		"backwards":   {now, now.Add(-time.Second)},
		"year 10,000": {now, time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)},
		"year 0":      {time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC), now},
	} {
		if _, err := c.Summary(t.Context(), r[0], r[1]); err == nil || !strings.Contains(err.Error(), "docevents: Summary: since must be before until") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(s.requests) > 0 {
		t.Errorf("%d requests", len(s.requests))
	}
	for name, none := range map[string]*docevents.Client{"nil": nil, "zero": {}} {
		if events, err := none.Timeline(t.Context(), "42"); events != nil || err != nil {
			t.Errorf("a %s client's Timeline: %v, %v", name, events, err)
		}
		if s, err := none.Summary(t.Context(), now, now); s != nil || err != nil {
			t.Errorf("a %s client's Summary: %v, %v", name, s, err)
		}
	}
}

// FuzzRead: whatever answers, there is a result or an error, which doesn't repeat
// the answer.
func FuzzRead(f *testing.F) {
	for _, body := range []string{"[" + timelineRow + "]", emptySummary, "[]", "{}", "null", `[{"created_at":1}]`, `[null]`, "["} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		synctest.Test(t, func(t *testing.T) {
			c, _ := newClient(t, &script{answers: []answer{{body: body}}})
			if events, err := c.Timeline(t.Context(), testDocument); len(events) > 1000 || err != nil && len(body) > 20 && strings.Contains(err.Error(), body) {
				t.Errorf("%d events, %v", len(events), err)
			}
			s, err := c.Summary(t.Context(), time.Now().Add(-time.Hour), time.Now())
			if (s == nil) == (err == nil) || err != nil && len(body) > 20 && strings.Contains(err.Error(), body) {
				t.Errorf("%v, %v", s, err)
			}
		})
	})
}
