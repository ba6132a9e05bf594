package docevents_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docevents/docevents-go"
	"github.com/google/uuid"
	"github.com/jarcoal/httpmock"
	"github.com/sirupsen/logrus"
	logrustest "github.com/sirupsen/logrus/hooks/test"
)

const tableURL = testURL + "/rest/v1/document_processing_events"

// TestDesign contains the six cases of the original design, under their original
// names.
func TestDesign(t *testing.T) {
	t.Run("the insert carries the expected fields, created_at included", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { // begins at midnight, 2000-01-01
			mock, wire := newMock(http.StatusCreated, "")
			c, _ := newClient(t, mock)
			c.Record(docevents.Event{
				DocumentID:   "11111111-1111-4111-8111-111111111111",
				UserID:       "22222222-2222-4222-8222-222222222222",
				Type:         docevents.Failed,
				Duration:     1234567 * time.Microsecond,
				ErrorMessage: "page 3: no text",
				Stage:        "ocr",
			})
			if err := c.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			sent := wire.only(t)
			if sent.method != http.MethodPost || sent.path() != tableURL {
				t.Errorf("%s %s, want POST %s", sent.method, sent.path(), tableURL)
			}
			rows := sent.rows(t)
			if len(rows) != 1 {
				t.Fatalf("%d rows", len(rows))
			}
			id, _ := rows[0]["id"].(string)
			if parsed, err := uuid.Parse(id); err != nil || parsed.Version() != 7 {
				t.Errorf("id %q, want a UUID v7", id)
			}
			delete(rows[0], "id")
			want := map[string]any{
				"document_id":   "11111111-1111-4111-8111-111111111111",
				"user_id":       "22222222-2222-4222-8222-222222222222",
				"event_type":    "failed",
				"duration_ms":   1234.0,
				"error_message": "page 3: no text",
				"stage":         "ocr",
				"created_at":    "2000-01-01T00:00:00.000000Z",
			}
			if !reflect.DeepEqual(rows[0], want) {
				t.Errorf("sent %v, want %v", rows[0], want)
			}
		})
	})

	t.Run("Record returns nothing and returns before the insert has finished", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			answered := make(chan struct{})
			mock := httpmock.NewMockTransport()
			mock.RegisterResponder("POST", tableURL, func(*http.Request) (*http.Response, error) {
				<-answered
				return httpmock.NewStringResponse(http.StatusCreated, ""), nil
			})
			c, _ := newClient(t, mock)
			var record func(docevents.Event) = c.Record // no results
			record(event("a"))
			synctest.Wait()
			if got := mock.GetTotalCallCount(); got != 1 {
				t.Fatalf("%d inserts under way after Record, want 1", got)
			}
			checkStats(t, c, &docevents.Stats{Recorded: 1, Pending: 1})
			close(answered)
			if err := c.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			checkStats(t, c, &docevents.Stats{Recorded: 1, Delivered: 1})
		})
	})

	t.Run("a failure is logged at Error, and nothing panics or blocks", func(t *testing.T) {
		for name, fail := range map[string]http.RoundTripper{
			"no connection":    always(httpmock.NewErrorResponder(errReset)),
			"a server's error": always(httpmock.NewStringResponder(http.StatusInternalServerError, `{"code":"XX000","message":"disk full"}`)),
			"the body null":    always(httpmock.NewStringResponder(http.StatusServiceUnavailable, "null")),
			"refused data":     always(httpmock.NewStringResponder(http.StatusBadRequest, `{"code":"23514","message":"violates check constraint"}`)),
			"a panic":          roundTripFunc(func(*http.Request) (*http.Response, error) { panic("in the transport") }),
		} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					log, hook := logrustest.NewNullLogger()
					c, _ := newClient(t, fail, docevents.WithLogger(log))
					start := time.Now()
					c.Record(event("a"))
					synctest.Wait()
					if took := time.Since(start); took != 0 {
						t.Errorf("took %s", took)
					}
					entries := hook.AllEntries()
					if len(entries) != 1 {
						t.Fatalf("%d log entries, want 1", len(entries))
					}
					err, _ := entries[0].Data[logrus.ErrorKey].(error)
					if entries[0].Level != logrus.ErrorLevel || err == nil || !strings.HasPrefix(entries[0].Message, "docevents: ") {
						t.Errorf("logged %q at %s, error %v", entries[0].Message, entries[0].Level, err)
					}
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					if err := c.Close(ctx); err == nil {
						t.Error("Close: nil, with an event that was not delivered")
					}
				})
			})
		}
	})

	t.Run("optional fields are sent as explicit nulls", func(t *testing.T) {
		mock, wire := newMock(http.StatusCreated, "")
		c, _ := newClient(t, mock)
		c.Record(docevents.Event{DocumentID: testDocument, UserID: docevents.SystemUser, Type: docevents.UploadStarted})
		if err := c.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		row := wire.only(t).rows(t)[0]
		for _, column := range []string{"duration_ms", "error_message", "stage"} {
			if value, sent := row[column]; !sent || value != nil {
				t.Errorf("%s: sent %v, value %v, want an explicit null", column, sent, value)
			}
		}
	})

	t.Run("the purge's cutoff is now - days and reaches the wire as lt. with an ISO time in UTC", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mock, wire := newMock(http.StatusOK, "[]")
			c, _ := newClient(t, mock)
			time.Sleep(3*time.Hour + 4*time.Minute + 5*time.Second + 678901*time.Microsecond)
			if _, err := c.PurgeOlderThan(t.Context(), 30); err != nil {
				t.Fatal(err)
			}
			sent := wire.only(t)
			if got, want := sent.url.Query().Get("created_at"), "lt.1999-12-02T03:04:05.678901Z"; sent.method != http.MethodDelete || got != want {
				t.Errorf("%s created_at=%s, want DELETE created_at=%s", sent.method, got, want)
			}
		})
	})

	t.Run("the number of rows returned is returned", func(t *testing.T) {
		for _, rows := range []int{0, 1, 3, 2500} {
			mock, _ := newMock(http.StatusOK, idRows(rows))
			c, _ := newClient(t, mock)
			if got, err := c.PurgeOlderThan(t.Context(), 30); got != int64(rows) || err != nil {
				t.Errorf("%d, %v, want %d", got, err, rows)
			}
		}
	})
}

// An insert and a DELETE go to the table, with the key in the headers. TestPurgeIsOneDelete
// holds the rest of the DELETE.
func TestRequestsOfAClient(t *testing.T) {
	serviceRole := jwt(`{"role":"service_role"}`)
	padded := "e30." + base64.URLEncoding.EncodeToString([]byte(`{"role":"service_role"}`)) + ".c2ln"
	for name, test := range map[string]struct {
		key, authorization string
		opts               []docevents.Option
		schema, table      string
	}{
		"a secret key":         {testKey, "", nil, "public", "document_processing_events"},
		"a service-role JWT":   {serviceRole, "Bearer " + serviceRole, nil, "public", "document_processing_events"},
		"a JWT with padding":   {padded, "Bearer " + padded, nil, "public", "document_processing_events"},
		"an opaque key":        {"a.b.c", "Bearer a.b.c", nil, "public", "document_processing_events"},
		"a key in white space": {" \t" + testKey + "\r\n", "", nil, "public", "document_processing_events"},
		"another table":        {testKey, "", []docevents.Option{docevents.WithSchema("audit"), docevents.WithTable("Events_2")}, "audit", "Events_2"},
	} {
		t.Run(name, func(t *testing.T) {
			wire := &wire{}
			transport := roundTripFunc(wire.answer(http.StatusCreated, "[]"))
			c, err := docevents.New(testURL, test.key, append(test.opts, docevents.WithTransport(transport))...)
			if err != nil {
				t.Fatal(err)
			}
			c.Record(event("a"))
			if err := c.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := c.PurgeOlderThan(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			requests := wire.all()
			if len(requests) != 2 {
				t.Fatalf("%d requests, want 2", len(requests))
			}
			for _, sent := range requests {
				for name, want := range map[string]string{
					"Apikey": strings.TrimSpace(test.key), "Authorization": test.authorization,
					"Accept-Profile": test.schema, "Content-Profile": test.schema,
				} {
					if got := strings.Join(sent.header.Values(name), "|"); got != want {
						t.Errorf("%s: %s: %q, want %q", sent.method, name, got, want)
					}
				}
				if got := sent.header.Values("X-Client-Info"); len(got) != 1 || !strings.HasPrefix(got[0], "docevents-go/") {
					t.Errorf("%s: X-Client-Info: %q", sent.method, got)
				}
				if got, want := sent.path(), testURL+"/rest/v1/"+test.table; got != want {
					t.Errorf("%s %s, want %s", sent.method, got, want)
				}
			}
			insert := requests[0]
			if got, want := insert.header.Values("Prefer"), []string{"return=minimal", "resolution=ignore-duplicates"}; !reflect.DeepEqual(got, want) {
				t.Errorf("Prefer: %q, want %q", got, want)
			}
			if got := insert.header.Get("Content-Type"); got != "application/json" {
				t.Errorf("Content-Type: %q", got)
			}
			if got, want := insert.url.Query(), (url.Values{"columns": {"id,document_id,user_id,event_type,duration_ms,error_message,stage,created_at"}}); !reflect.DeepEqual(got, want) {
				t.Errorf("query %q, want %q", got, want)
			}
		})
	}
}

func TestBadKeys(t *testing.T) {
	for name, test := range map[string]struct {
		key, want      string
		notServiceRole bool
	}{
		"white space":              {" \n", "the service-role key is empty", false},
		"publishable":              {"\nsb_publishable_0123456789 ", "this is the publishable key", true},
		"anon JWT":                 {jwt(`{"role":"anon"}`), `the token's role is "anon"`, true},
		"an anon JWT with padding": {"e30." + base64.URLEncoding.EncodeToString([]byte(`{"role": "anon"}`)) + ".c2ln", `the token's role is "anon"`, true},
		"a JWT without a role":     {jwt(`{}`), `the token's role is ""`, true},
		"a JWT with an odd role":   {jwt(`{"role":7}`), `the token's role is ""`, true},
		"a long role":              {jwt(`{"role":"` + strings.Repeat("secret", 1000) + `"}`), `the token's role is "secretsecretsecretse"`, true},
		"in quotes":                {`"sb_secret_0123456789"`, "has quotes around it", false},
		"publishable, in quotes":   {`'sb_publishable_0123456789'`, "has quotes around it", false},
		"a space inside":           {"sb_secret 0123456789", "contains a space", false},
		"a line end inside":        {"sb_secret_01\r\n23456789", "control character", false},
		"DEL":                      {"sb_secret_01\x7f23456789", "control character", false},
		"a non-ASCII letter":       {"sb_secret_0123456789é", "non-ASCII", false},
		"a byte order mark":        {"\ufeffsb_secret_0123456789", "non-ASCII", false},
		"invalid UTF-8":            {"sb_secret_0123\xff456789", "non-ASCII", false},
	} {
		c, err := docevents.New(testURL, test.key)
		if c != nil || err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
			continue
		}
		if errors.Is(err, docevents.ErrNotServiceRole) != test.notServiceRole {
			t.Errorf("%s: %v matches ErrNotServiceRole: %v", name, err, !test.notServiceRole)
		}
		if key := strings.TrimSpace(test.key); key != "" && (strings.Contains(err.Error(), key) || strings.Contains(err.Error(), "0123456789") || len(err.Error()) > 300) {
			t.Errorf("%s: the error repeats the key: %v", name, err)
		}
	}
}

func TestURLs(t *testing.T) {
	for raw, want := range map[string]string{
		"https://abcdefgh.supabase.co":            "https://abcdefgh.supabase.co/rest/v1",
		"https://abcdefgh.supabase.co//":          "https://abcdefgh.supabase.co/rest/v1",
		"https://abcdefgh.supabase.co/rest/v1/":   "https://abcdefgh.supabase.co/rest/v1",
		" HTTPS://abcdefgh.supabase.co\n":         "https://abcdefgh.supabase.co/rest/v1",
		"http://localhost:54321":                  "http://localhost:54321/rest/v1",
		"http://[fe80::1%25eth0]:54321/":          "http://[fe80::1%25eth0]:54321/rest/v1",
		"http://supabase.internal":                "http://supabase.internal/rest/v1",
		"https://db.example.com":                  "https://db.example.com/rest/v1",
		"https://example.com/supabase/rest/v1/":   "https://example.com/supabase/rest/v1",
		"https://example.com/rest/v1/x":           "https://example.com/rest/v1/x/rest/v1",
		"https://example.com/forest/v1":           "https://example.com/forest/v1/rest/v1",
		"https://example.com/project/a/rest/v1":   "https://example.com/project/a/rest/v1",
		"https://example.com/projects/a":          "https://example.com/projects/a/rest/v1",
		"https://supabase.com.example.com":        "https://supabase.com.example.com/rest/v1",
		"https://example.com:8443/a-b_c.d~e/rest": "https://example.com:8443/a-b_c.d~e/rest/rest/v1",
	} {
		wire := &wire{}
		c, err := docevents.New(raw, testKey, docevents.WithTransport(roundTripFunc(wire.answer(http.StatusCreated, ""))))
		if err != nil {
			t.Errorf("%q: %v", raw, err)
			continue
		}
		c.Record(event("a"))
		if err := c.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := wire.only(t).path(); got != want+"/document_processing_events" {
			t.Errorf("%q: sent to %s, want %s", raw, got, want)
		}
	}
}

// New rejects a URL that isn't the project's. The error says which URL to pass, and
// doesn't repeat a password.
func TestBadURLs(t *testing.T) {
	for want, urls := range map[string][]string{
		"the Supabase URL is not valid": {
			"", "abcdefgh.supabase.co", "abcdefgh.supabase.co:443", "//abcdefgh.supabase.co", "https:abcdefgh.supabase.co",
			"ftp://abcdefgh.supabase.co", "postgres://u:hunter2@db:5432", "https:///rest/v1", "https://:443",
			"https://a.co:hunter2", "https://u:hunter2@[::1", "https://a.co/\x00hunter2", "https://%zzhunter2",
		},
		"the Supabase URL must consist of scheme, host and path": {
			"https://user:hunter2@a.co", "https://@a.co", "https://a.co?key=hunter2", "https://a.co?", "https://a.co/#hunter2",
			"https://a.co/hunter2%20", "https://a.co/a//hunter2",
		},
		"the dashboard's: pass the project's URL": {
			"https://supabase.com/dashboard/project/abcdefgh/settings/api?showConnect=true", "https://APP.supabase.io/project/abcdefgh/editor",
			"https://www.supabase.com:443/", "https://supabase.com/rest/v1", "http://127.0.0.1:54323/project/default",
			"http://studio.example.com/project/default/editor/17#x", "https://example.com/dashboard/project/abcdefgh", "https://example.com/dashboard",
		},
		"the database's or its pooler's": { // they don't serve HTTP
			"https://DB.abcdefgh.supabase.co:5432/postgres",
			"postgresql://postgres:[hunter2 %]@db.abcdefgh.supabase.co:5432/postgres",
			"postgres://postgres.abcdefgh:hunter2@aws-1-us-east-1.pooler.supabase.com:6543/a",
		},
		"would send the key unencrypted": {"http://abcdefgh.supabase.co", "HTTP://abcdefgh.Supabase.co.:80/rest/v1"},
	} {
		for _, raw := range urls {
			c, err := docevents.New(raw, testKey)
			if c != nil || err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%q: %v, want %q", raw, err, want)
			}
		}
	}
}

func TestNewReportsAllErrors(t *testing.T) {
	_, err := docevents.New("ftp://u:hunter2@a.co", "sb_publishable_0123456789",
		docevents.WithSchema(""), notes(""), docevents.WithColumns(docevents.Columns{ID: "-"}),
		docevents.WithRequestTimeout(0), docevents.WithMaxInFlight(0), docevents.WithMaxBatch(0),
		docevents.WithQueueLimits(0, 0), docevents.WithPurgeBatch(0))
	if !errors.Is(err, docevents.ErrNotServiceRole) || !strings.HasPrefix(err.Error(), "docevents: ") {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Supabase URL", "publishable", "WithSchema", "WithEventTypes", "WithColumns", "WithRequestTimeout",
		"WithMaxInFlight", "WithMaxBatch", "WithQueueLimits' events", "WithQueueLimits' bytes", "WithPurgeBatch",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not named in: %v", want, err)
		}
	}
	for _, secret := range []string{"hunter2", "0123456789"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the error repeats %s", secret)
		}
	}
}

func TestNewFromEnv(t *testing.T) {
	const legacy = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoic2VydmljZV9yb2xlIn0.x" // its role is service_role
	const variables = "SUPABASE_SECRET_KEYS, SUPABASE_SECRET_KEY, SUPABASE_SERVICE_ROLE_KEY or SUPABASE_SERVICE_KEY (SUPABASE_KEY is not read)"
	type env struct{ url, keys, secret, serviceRole, service string }
	for name, test := range map[string]struct {
		env
		key string // "" for an error
		err string
	}{
		"SUPABASE_SECRET_KEYS first":     {env{testURL, `{"default":"zeroth","ci":"other"}`, "first", legacy, "third"}, "zeroth", ""},
		"then SUPABASE_SECRET_KEY":       {env{testURL, "", testKey, legacy, "third"}, testKey, ""}, // Vercel's integration sets both
		"then SUPABASE_SERVICE_ROLE_KEY": {env{testURL, "", "", legacy, "third"}, legacy, ""},
		"then SUPABASE_SERVICE_KEY":      {env{testURL, "", "", "", "third"}, "third", ""},
		"the first that is set counts":   {env{testURL, "", "sb_publishable_x", legacy, ""}, "", "publishable"},
		"keys without a default":         {env{testURL, `{"ci":"hunter2"}`, "first", "", ""}, "", `no key named "default"`},
		"keys that are not JSON":         {env{testURL, "hunter2", "first", "", ""}, "", "not a JSON object of keys by name"},
		"keys that are not strings":      {env{testURL, `{"default":{"hunter2":1}}`, "first", "", ""}, "", `no key named "default"`},
		"nothing":                        {env{}, "", "set SUPABASE_URL and " + variables},
		"no URL":                         {env{"", `{"default":"hunter2"}`, "", "", ""}, "", "SUPABASE_URL is not set"},
		"no key":                         {env{testURL, "", "", "", ""}, "", "no key is set: set " + variables},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("SUPABASE_URL", test.url)
			t.Setenv("SUPABASE_SECRET_KEYS", test.keys)
			t.Setenv("SUPABASE_SECRET_KEY", test.secret)
			t.Setenv("SUPABASE_SERVICE_ROLE_KEY", test.serviceRole)
			t.Setenv("SUPABASE_SERVICE_KEY", test.service)
			mock, wire := newMock(http.StatusCreated, "")
			c, err := docevents.NewFromEnv(docevents.WithTransport(mock))
			if test.key == "" {
				if c != nil || err == nil || !strings.Contains(err.Error(), test.err) || !strings.HasPrefix(err.Error(), "docevents: ") || strings.Contains(err.Error(), "hunter2") {
					t.Fatalf("%v, want %q", err, test.err)
				}
				if got, want := errors.Is(err, docevents.ErrNoSettings), test.env == (env{}); got != want {
					t.Errorf("%v matches ErrNoSettings: %v, want %v", err, got, want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			c.Record(event("a"))
			if err := c.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := wire.only(t).header.Get("Apikey"); got != test.key {
				t.Errorf("key %q, want %q", got, test.key)
			}
		})
	}
}

// synctest fails if New leaves a goroutine behind.
func TestNewDoesNoIO(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, o := newClient(t, refuseAll(t))
		synctest.Wait()
		checkStats(t, c, &docevents.Stats{})
		if lines := o.logged(); len(lines) != 0 {
			t.Errorf("logged %v", lines)
		}
	})
}

// The methods of a nil Client and a zero Client do nothing and succeed, even with a
// cancelled context and bad arguments.
func TestNilClient(t *testing.T) {
	for name, c := range map[string]*docevents.Client{"nil": nil, "zero": {}} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			c.Record(docevents.Event{})
			if got := c.Stats(); got != (docevents.Stats{}) {
				t.Errorf("Stats: %+v", got)
			}
			if err := errors.Join(c.Flush(ctx), c.Close(ctx), c.Check(ctx)); err != nil {
				t.Error(err)
			}
			before, err1 := c.PurgeBefore(ctx, time.Time{})
			older, err2 := c.PurgeOlderThan(ctx, -1)
			if err := errors.Join(err1, err2); err != nil || before != 0 || older != 0 {
				t.Errorf("purged %d and %d, %v", before, older, err)
			}
			timeline, err1 := c.Timeline(ctx, "42")
			earlier, err2 := c.TimelineBefore(ctx, "", time.Time{})
			summary, err3 := c.Summary(ctx, docevents.Query{})
			page, err4 := c.Documents(ctx, docevents.DocumentsQuery{})
			if err := errors.Join(err1, err2, err3, err4); err != nil || timeline != nil || earlier != nil || summary != nil || page != nil {
				t.Errorf("read %v, %v, %v and %v, %v", timeline, earlier, summary, page, err)
			}
			h, err := c.Health(ctx, docevents.Limits{})
			if err != nil || !h.OK || h.Problems == nil || h.At.IsZero() {
				t.Errorf("Health: %+v, %v", h, err)
			}
		})
	}
}

// New takes http.DefaultTransport as it is at that time. It makes no difference if the
// app replaces it later.
func TestNewTakesTheDefaultTransport(t *testing.T) {
	s := newLoopback(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) })
	record := func(url string, change func()) {
		c, err := docevents.New(url, testKey)
		if err != nil {
			t.Fatal(err)
		}
		change()
		c.Record(event("a"))
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		checkStats(t, c, &docevents.Stats{Recorded: 1, Delivered: 1})
	}
	original := http.DefaultTransport
	record(s.URL, func() { httpmock.Activate(t) })
	if got := httpmock.GetTotalCallCount(); got != 0 {
		t.Errorf("%d requests through a replacement that came after New", got)
	}
	httpmock.RegisterResponder("POST", tableURL, httpmock.NewStringResponder(http.StatusCreated, ""))
	record(testURL, func() { http.DefaultTransport = original })
	if got := httpmock.GetTotalCallCount(); got != 1 {
		t.Errorf("%d requests through the replacement, want 1", got)
	}
}

// Four requests are in flight at once, twice. The second four use the connections
// of the first four; http.DefaultTransport would have kept only two. There may be a
// fifth connection, because net/http may dial while a connection becomes free.
func TestDefaultTransportKeepsConnections(t *testing.T) {
	var (
		mu      sync.Mutex
		arrived int
		all     chan struct{} // closed when four requests have arrived
	)
	s := newLoopback(t, func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		arrived++
		if arrived == docevents.DefaultMaxInFlight {
			close(all)
		}
		wait := all
		mu.Unlock()
		<-wait
		w.WriteHeader(http.StatusCreated)
	})
	c, err := docevents.New(s.URL, testKey, docevents.WithMaxBatch(1))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		mu.Lock()
		arrived, all = 0, make(chan struct{})
		mu.Unlock()
		for range 2 * docevents.DefaultMaxInFlight {
			c.Record(event("a"))
		}
		if err := c.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	opened := s.opened()
	if opened < docevents.DefaultMaxInFlight || opened > docevents.DefaultMaxInFlight+1 {
		t.Errorf("%d connections, want %d or one more", opened, docevents.DefaultMaxInFlight)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.awaitClosed(opened) // hangs if Close leaves a connection open
}

func TestCloseKeepsOtherConnections(t *testing.T) {
	created := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) }
	use := func(t *testing.T, s *loopback, opts ...docevents.Option) {
		c, err := docevents.New(s.URL, testKey, opts...)
		if err != nil {
			t.Fatal(err)
		}
		c.Record(event("a"))
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for name, replace := range map[string]bool{"WithTransport": false, "a replaced http.DefaultTransport": true} {
		t.Run(name, func(t *testing.T) {
			s := newLoopback(t, created)
			foreign := &idleCounter{Transport: &http.Transport{}}
			t.Cleanup(foreign.Transport.CloseIdleConnections)
			opts := []docevents.Option{docevents.WithTransport(foreign)}
			if replace {
				replaceDefaultTransport(t, foreign)
				opts = nil
			}
			for range 3 {
				use(t, s, opts...)
			}
			if got := s.opened(); got != 1 || foreign.closed != 0 {
				t.Errorf("%d connections, CloseIdleConnections called %d times, want 1 and 0", got, foreign.closed)
			}
		})
	}
	t.Run("http.DefaultTransport itself", func(t *testing.T) {
		s := newLoopback(t, created)
		get := func() {
			resp, err := http.Get(s.URL)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
		}
		get()
		use(t, s)
		if got := s.opened(); got != 2 { // one of the app and one of the client
			t.Errorf("%d connections, want 2", got)
		}
		get()
		if got := s.opened(); got != 2 {
			t.Errorf("%d connections: Close has closed the app's", got)
		}
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	})
}

// A roundTripFunc is a function that is a transport.
type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// A wire records the requests that a mock transport receives.
type wire struct {
	mu       sync.Mutex
	requests []sentRequest
}

type sentRequest struct {
	method string
	url    *url.URL
	header http.Header
	body   string
}

// path returns the URL without its query.
func (s *sentRequest) path() string {
	u := *s.url
	u.RawQuery = ""
	return u.String()
}

func (s *sentRequest) rows(t *testing.T) []map[string]any {
	t.Helper()
	var rows []map[string]any
	if err := json.Unmarshal([]byte(s.body), &rows); err != nil {
		t.Fatalf("%v: %q", err, s.body)
	}
	return rows
}

// answer returns a responder that always gives the same answer, with headers as
// pairs of name and value. But a rehearsal of Check gets the answer of a rollback.
func (w *wire) answer(status int, body string, headers ...string) httpmock.Responder {
	return func(req *http.Request) (*http.Response, error) {
		sent := sentRequest{method: req.Method, url: req.URL, header: req.Header}
		if req.Body != nil {
			b, err := io.ReadAll(req.Body)
			if err != nil {
				return nil, err
			}
			sent.body = string(b)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.requests = append(w.requests, sent)
		if status < 300 && req.Header.Get("Accept") == "application/vnd.pgrst.object+json" {
			return rolledBack(strings.Count(sent.body, `"id":`) / 2).response(req), nil
		}
		resp := httpmock.NewStringResponse(status, body)
		for i := 0; i < len(headers); i += 2 {
			resp.Header.Set(headers[i], headers[i+1])
		}
		return resp, nil
	}
}

func (w *wire) all() []sentRequest {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]sentRequest(nil), w.requests...)
}

func (w *wire) only(t *testing.T) *sentRequest {
	t.Helper()
	sent := w.all()
	if len(sent) != 1 {
		t.Fatalf("%d requests, want 1", len(sent))
	}
	return &sent[0]
}

// newMock returns a transport that gives the same answer to all inserts and
// purges, and the wire that records them.
func newMock(status int, body string) (*httpmock.MockTransport, *wire) {
	w := &wire{}
	mock := httpmock.NewMockTransport()
	mock.RegisterResponder("POST", tableURL, w.answer(status, body))
	mock.RegisterResponder("DELETE", tableURL, w.answer(status, body))
	return mock, w
}

// idRows returns the body of the answer to a DELETE of n rows with select=id.
func idRows(n int) string {
	rows := make([]string, n)
	for i := range rows {
		rows[i] = fmt.Sprintf(`{"id":"bbbbbbbb-0000-4000-8000-%012d"}`, i)
	}
	return "[" + strings.Join(rows, ",") + "]"
}

// jwt returns a token with these claims and an invalid signature.
func jwt(claims string) string {
	part := base64.RawURLEncoding.EncodeToString
	return part([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + part([]byte(claims)) + "." + part([]byte("signature"))
}

// A loopback is an HTTP server on a real socket. It counts its connections.
type loopback struct {
	*httptest.Server
	mu             sync.Mutex
	changed        sync.Cond
	opens, closeds int
}

func newLoopback(t *testing.T, handler http.HandlerFunc) *loopback {
	s := &loopback{Server: httptest.NewUnstartedServer(handler)}
	s.changed.L = &s.mu
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch state {
		case http.StateNew:
			s.opens++
		case http.StateClosed:
			s.closeds++
		}
		s.changed.Broadcast()
	}
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func (s *loopback) opened() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opens
}

func (s *loopback) awaitClosed(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.closeds < n {
		s.changed.Wait()
	}
}

// An idleCounter is a transport of the app. It counts the calls to
// CloseIdleConnections.
type idleCounter struct {
	*http.Transport
	closed int
}

func (c *idleCounter) CloseIdleConnections() {
	c.closed++
	c.Transport.CloseIdleConnections()
}
