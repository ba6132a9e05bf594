package docevents_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/docevents/docevents-go"
)

const timelineRow = `{"id":"bbbbbbbb-0000-4000-8000-000000000001","document_id":"11111111-1111-4111-8111-111111111111",` +
	`"user_id":"22222222-2222-4222-8222-222222222222","event_type":"failed","duration_ms":1500,` +
	`"error_message":"page 3: too small","stage":"extract","created_at":"2026-01-02T03:04:05.678901+02:00"}`

// rowsOf returns an answer with n rows.
func rowsOf(n int) answer {
	return answer{body: "[" + strings.TrimSuffix(strings.Repeat(timelineRow+", \n ", n), ", \n ") + "]"}
}

func TestTimeline(t *testing.T) {
	nulls := `{"id":"bbbbbbbb-0000-4000-8000-000000000000","document_id":"11111111-1111-4111-8111-111111111111","user_id":"00000000-0000-0000-0000-000000000000",` +
		`"event_type":"upload_started","duration_ms":null,"error_message":null,"stage":null,"created_at":"2026-01-01T00:00:00+00:00"}`
	s := &script{answers: []answer{{body: "[" + timelineRow + ",\n" + nulls + "]"}}}
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
		"document_id": {"eq." + testDocument}, "order": {"created_at.desc,id.desc"}, "limit": {"1000"},
		"select": {"id::text,document_id::text,user_id::text,event_type::text,duration_ms::text,error_message::text,stage::text,created_at"},
	}
	if got := req.URL.Query(); !reflect.DeepEqual(got, wantQuery) {
		t.Errorf("query %v, want %v", got, wantQuery)
	}
	if got := req.Header.Get("Apikey") + " " + req.Header.Get("Accept-Profile") + " " + req.Header.Get("Prefer"); got != testKey+" public count=exact" {
		t.Errorf("key, schema and preference: %q", got)
	}
}

// The table's columns are renamed or missing, and there are extra columns.
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
		"doc": {"eq." + testDocument}, "order": {"at.desc,event_id.desc"}, "limit": {"1000"},
		"select": {"event_id::text,doc::text,kind::text,duration_ms::text,error_message::text,at,stage,document_id"},
	}
	if got := s.requests[0].URL.Query(); !reflect.DeepEqual(got, wantQuery) {
		t.Errorf("query %v, want %v", got, wantQuery)
	}
	c, _ = newClient(t, s, docevents.WithColumns(docevents.Columns{DocumentID: "-"}))
	if _, err := c.Timeline(t.Context(), testDocument); err == nil || !strings.Contains(err.Error(), "no column for DocumentID") {
		t.Errorf("without such a column: %v", err)
	}
}

// The columns have other types. A value that doesn't fit leaves its field empty.
func TestTimelineTypes(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, test := range map[string]struct {
		createdAt, duration string
		wantAt              time.Time
		want                time.Duration
	}{
		"a timestamp":                      {`"2026-01-02T03:04:05"`, "7", at, 7 * time.Millisecond},
		"NULL":                             {"null", "null", time.Time{}, 0},
		"numeric":                          {`"2026-01-02T04:04:05+01:00"`, "1500.250", at, 1500250 * time.Microsecond},
		"more than an integer":             {`"2026-01-02T03:04:05Z"`, "86400000000", at, 1000 * 24 * time.Hour},
		"more than a Duration":             {`"2026-01-02"`, "1e20", time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC), 0},
		"an interval, infinity":            {`"infinity"`, `"00:00:01.5"`, time.Time{}, 0},
		"NaN, a number":                    {`1767322000`, `"NaN"`, time.Time{}, 0},
		"an old offset with seconds, east": {`"1937-01-01T12:19:32.5+00:19:32"`, "7", time.Date(1937, 1, 1, 12, 0, 0, 5e8, time.UTC), 7 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			row := strings.NewReplacer(`"2026-01-02T03:04:05.678901+02:00"`, test.createdAt, "1500", test.duration).Replace(timelineRow)
			c, _ := newClient(t, &script{answers: []answer{{body: "[" + row + "]"}}})
			got, err := c.Timeline(t.Context(), testDocument)
			if err != nil || !got[0].CreatedAt.Equal(test.wantAt) || got[0].Duration != test.want || got[0].Stage != "extract" {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

// The columns of text fields and ids may have other types, or be NULL.
func TestTimelineTexts(t *testing.T) {
	const row = `[{"id":7,"document_id":12345678901234567890,"user_id":null,"event_type":true,"duration_ms":null,"error_message":{"page": 3},"stage":3,"created_at":null}]`
	c, _ := newClient(t, &script{answers: []answer{{body: row}}}, docevents.WithColumns(docevents.Columns{TextIDs: true}))
	got, err := c.Timeline(t.Context(), "7")
	want := []docevents.Event{{ID: "7", DocumentID: "12345678901234567890", Type: "true", ErrorMessage: `{"page": 3}`, Stage: "3"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
}

// A document's id must be a UUID. With TextIDs it may be any text, and is sent unchanged.
func TestTimelineIDs(t *testing.T) {
	for _, tt := range []struct {
		id, want, err string
		textIDs       bool
	}{
		{"urn:uuid:" + testDocument, "eq." + testDocument, "", false},
		{"42", "", "or set TextIDs", false},
		{"", "", "bytes of valid text", true},
		{strings.Repeat("x", 1025), "", "bytes of valid text", true},
		{"42", "eq.42", "", true},
		{`inv, "7".eq=(null)&x`, `eq.inv, "7".eq=(null)&x`, "", true},
	} {
		s := &script{answers: []answer{rowsOf(0)}}
		c, _ := newClient(t, s, docevents.WithColumns(docevents.Columns{TextIDs: tt.textIDs}))
		_, err := c.Timeline(t.Context(), tt.id)
		switch {
		case tt.err != "":
			if err == nil || !strings.HasPrefix(err.Error(), "docevents: Timeline: the document's id ") || !strings.Contains(err.Error(), tt.err) || len(s.requests) > 0 {
				t.Errorf("%q: %d requests, %v", tt.id, len(s.requests), err)
			}
		case err != nil || s.requests[0].URL.Query().Get("document_id") != tt.want:
			t.Errorf("%q: %v, %v", tt.id, s.requests, err)
		}
	}
}

func TestTimelineBefore(t *testing.T) {
	s := &script{answers: []answer{rowsOf(2)}}
	c, _ := newClient(t, s)
	before := time.Date(2026, 1, 1, 2, 0, 0, 1, time.FixedZone("", 2*3600)) // in another zone, and the nanosecond is cut off
	if got, err := c.TimelineBefore(t.Context(), testDocument, before); err != nil || len(got) != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	if got := s.requests[0].URL.Query().Get("created_at"); got != "lt.2026-01-01T00:00:00.000000Z" {
		t.Errorf("created_at=%s", got)
	}
	yearZero := time.Date(1, 1, 1, 0, 0, 0, 0, time.FixedZone("", 9*3600)) // in UTC
	for _, bad := range []time.Time{{}, time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC), yearZero} {
		if _, err := c.TimelineBefore(t.Context(), testDocument, bad); err == nil || !strings.HasPrefix(err.Error(), "docevents: TimelineBefore: the time is") || len(s.requests) > 1 {
			t.Errorf("%v: %d requests, %v", bad, len(s.requests), err)
		}
	}
}

func TestTimelineBounds(t *testing.T) {
	long := answer{body: "[" + strings.TrimSuffix(strings.Repeat(strings.Replace(timelineRow, "page 3", strings.Repeat("x", 64<<10), 1)+",", 300), ",") + "]"}
	counted := func(rows, of int) answer {
		return answer{body: rowsOf(rows).body, header: map[string]string{"Content-Range": fmt.Sprintf("0-%d/%d", rows-1, of)}}
	}
	for _, tt := range []struct {
		name   string
		answer answer
		events int // the least number of events to return
		more   bool
	}{
		{"none", rowsOf(0), 0, false},
		{"one less than a page", rowsOf(999), 999, false},
		{"a page without a count", rowsOf(1000), 1000, true},
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
