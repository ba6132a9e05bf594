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

func TestInsertHeaders(t *testing.T) {
	serviceRole := jwt(`{"iss":"supabase","role":"service_role"}`)
	for name, test := range map[string]struct{ key, authorization string }{
		"a secret key only in apikey": {testKey, ""},
		"a service-role JWT in both":  {serviceRole, "Bearer " + serviceRole},
		"an opaque key in both":       {"self-hosted-key", "Bearer self-hosted-key"},
	} {
		t.Run(name, func(t *testing.T) {
			mock, wire := newMock(http.StatusCreated, "")
			c, err := docevents.New(testURL, test.key, docevents.WithTransport(mock))
			if err != nil {
				t.Fatal(err)
			}
			c.Record(event("a"))
			if err := c.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			sent := wire.only(t)
			if got := sent.header.Values("Apikey"); !reflect.DeepEqual(got, []string{test.key}) {
				t.Errorf("apikey: %q", got)
			}
			if got := strings.Join(sent.header.Values("Authorization"), "|"); got != test.authorization {
				t.Errorf("Authorization: %q, want %q", got, test.authorization)
			}
			if got, want := sent.header.Values("Prefer"), []string{"return=minimal", "resolution=ignore-duplicates"}; !reflect.DeepEqual(got, want) {
				t.Errorf("Prefer: %q, want %q", got, want)
			}
			if got := sent.header.Get("Content-Type"); got != "application/json" {
				t.Errorf("Content-Type: %q", got)
			}
			if got := sent.header.Values("X-Client-Info"); len(got) != 1 || !strings.HasPrefix(got[0], "docevents-go/") {
				t.Errorf("X-Client-Info: %q", got)
			}
			query := sent.url.Query()
			if got, want := query.Get("columns"), "id,document_id,user_id,event_type,duration_ms,error_message,stage,created_at"; got != want || len(query) != 1 {
				t.Errorf("query %q, want columns=%s", query, want)
			}
		})
	}
}

func TestSchemaAndTable(t *testing.T) {
	for name, test := range map[string]struct {
		opts         []docevents.Option
		schema, path string
	}{
		"default": {nil, "public", "document_processing_events"},
		"named":   {[]docevents.Option{docevents.WithSchema("audit"), docevents.WithTable("Events_2")}, "audit", "Events_2"},
	} {
		t.Run(name, func(t *testing.T) {
			wire := &wire{}
			mock := httpmock.NewMockTransport()
			mock.RegisterResponder("POST", testURL+"/rest/v1/"+test.path, wire.answer(http.StatusCreated, ""))
			mock.RegisterResponder("DELETE", testURL+"/rest/v1/"+test.path, wire.answer(http.StatusOK, "[]"))
			c, _ := newClient(t, mock, test.opts...)
			c.Record(event("a"))
			if err := c.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := c.PurgeOlderThan(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			for _, sent := range wire.all() {
				for _, header := range []string{"Accept-Profile", "Content-Profile"} {
					if got := sent.header.Values(header); !reflect.DeepEqual(got, []string{test.schema}) {
						t.Errorf("%s %s: %q, want %q", sent.method, header, got, test.schema)
					}
				}
			}
		})
	}
}

func TestPurgeHeaders(t *testing.T) {
	mock, wire := newMock(http.StatusOK, "[]")
	c, _ := newClient(t, mock)
	if _, err := c.PurgeOlderThan(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	sent := wire.only(t)
	query := sent.url.Query()
	if query.Get("select") != "id" || len(query) != 2 || sent.path() != tableURL {
		t.Errorf("sent %s, want created_at and select=id", sent.url)
	}
	if got, want := sent.header.Values("Prefer"), []string{"return=representation"}; !reflect.DeepEqual(got, want) {
		t.Errorf("Prefer: %q, want %q", got, want)
	}
	if got := sent.header.Get("Apikey"); got != testKey {
		t.Errorf("apikey: %q", got)
	}
	if got := sent.header.Values("X-Client-Info"); len(got) != 1 || !strings.HasPrefix(got[0], "docevents-go/") {
		t.Errorf("X-Client-Info: %q", got)
	}
}

func TestKeys(t *testing.T) {
	for name, key := range map[string]string{
		"secret":                      testKey,
		"service-role JWT":            jwt(`{"role":"service_role"}`),
		"with padding":                "e30." + base64.URLEncoding.EncodeToString([]byte(`{"role":"service_role"}`)) + ".c2ln",
		"opaque":                      "0123456789abcdef",
		"two dots but no JWT":         "a.b.c",
		"a JWT with a list as claims": "e30." + base64.RawURLEncoding.EncodeToString([]byte("[1]")) + ".x",
		"surrounding white space":     " \t" + testKey + "\r\n",
		"JWT with line ends around":   "\n" + jwt(`{"role":"service_role"}`) + "\n",
	} {
		mock, wire := newMock(http.StatusCreated, "")
		c, err := docevents.New(testURL, key, docevents.WithTransport(mock))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		c.Record(event("a"))
		if err := c.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := wire.only(t).header.Get("Apikey"); got != strings.TrimSpace(key) {
			t.Errorf("%s: sent %q", name, got)
		}
	}

	for name, test := range map[string]struct {
		key, want      string
		notServiceRole bool
	}{
		"empty":                     {"", "the service-role key is empty", false},
		"white space":               {" \n", "the service-role key is empty", false},
		"publishable":               {"sb_publishable_0123456789", "this is the publishable key", true},
		"publishable, untrimmed":    {"\nsb_publishable_0123456789 ", "this is the publishable key", true},
		"anon JWT":                  {jwt(`{"role":"anon"}`), `the token's role is "anon"`, true},
		"a user's JWT":              {jwt(`{"role":"authenticated"}`), `the token's role is "authenticated"`, true},
		"a JWT without a role":      {jwt(`{}`), `the token's role is ""`, true},
		"a JWT with an odd role":    {jwt(`{"role":7}`), `the token's role is ""`, true},
		"a JWT with a role in caps": {jwt(`{"ROLE":"service_role"}`), `the token's role is ""`, true},
		"an anon JWT with padding":  {"e30." + base64.URLEncoding.EncodeToString([]byte(`{"role": "anon"}`)) + ".c2ln", `the token's role is "anon"`, true},
		"a long role":               {jwt(`{"role":"` + strings.Repeat("secret", 1000) + `"}`), `the token's role is "secretsecretsecretse"`, true},
		"in quotes":                 {`"sb_secret_0123456789"`, "has quotes around it", false},
		"in single quotes":          {`'sb_secret_0123456789'`, "has quotes around it", false},
		"publishable, in quotes":    {`"sb_publishable_0123456789"`, "has quotes around it", false},
		"a JWT and a quote":         {jwt(`{"role":"service_role"}`) + `"`, "has quotes around it", false},
		"nothing but quotes":        {`""`, "has quotes around it", false},
		"a space inside":            {"sb_secret 0123456789", "contains a space", false},
		"a line end inside":         {"sb_secret_01\r\n23456789", "control character", false},
		"a NUL":                     {"sb_secret_01\x0023456789", "control character", false},
		"DEL":                       {"sb_secret_01\x7f23456789", "control character", false},
		"a non-ASCII letter":        {"sb_secret_0123456789é", "non-ASCII", false},
		"a byte order mark":         {"\ufeffsb_secret_0123456789", "non-ASCII", false},
		"invalid UTF-8":             {"sb_secret_0123\xff456789", "non-ASCII", false},
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
		"https://abcdefgh.supabase.co/":           "https://abcdefgh.supabase.co/rest/v1",
		"https://abcdefgh.supabase.co//":          "https://abcdefgh.supabase.co/rest/v1",
		"https://abcdefgh.supabase.co/rest/v1":    "https://abcdefgh.supabase.co/rest/v1",
		"https://abcdefgh.supabase.co/rest/v1/":   "https://abcdefgh.supabase.co/rest/v1",
		" HTTPS://abcdefgh.supabase.co\n":         "https://abcdefgh.supabase.co/rest/v1",
		"http://localhost:54321":                  "http://localhost:54321/rest/v1",
		"http://127.0.0.1:54321/":                 "http://127.0.0.1:54321/rest/v1",
		"http://[::1]:54321":                      "http://[::1]:54321/rest/v1",
		"http://[fe80::1%25eth0]:54321":           "http://[fe80::1%25eth0]:54321/rest/v1",
		"https://example.com/supabase":            "https://example.com/supabase/rest/v1",
		"https://example.com/supabase/":           "https://example.com/supabase/rest/v1",
		"https://example.com/supabase/rest/v1/":   "https://example.com/supabase/rest/v1",
		"https://example.com/rest/v1/x":           "https://example.com/rest/v1/x/rest/v1",
		"https://example.com/forest/v1":           "https://example.com/forest/v1/rest/v1",
		"https://example.com/project/a/rest/v1":   "https://example.com/project/a/rest/v1",
		"https://supabase.com.example.com":        "https://supabase.com.example.com/rest/v1",
		"https://example.com/projects/a":          "https://example.com/projects/a/rest/v1",
		"https://example.com:8443/a-b_c.d~e/rest": "https://example.com:8443/a-b_c.d~e/rest/rest/v1",
	} {
		wire := &wire{}
		mock := httpmock.NewMockTransport()
		mock.RegisterNoResponder(wire.answer(http.StatusCreated, ""))
		c, err := docevents.New(raw, testKey, docevents.WithTransport(mock))
		if err != nil {
			t.Errorf("%q: %v", raw, err)
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := c.Check(ctx); err != nil {
			t.Errorf("%q: Check: %v", raw, err)
		}
		for _, sent := range wire.all() {
			if got := sent.path(); got != want+"/document_processing_events" && (sent.method != http.MethodGet || got != want+"/") {
				t.Errorf("%q: sent to %s, want %s", raw, got, want)
			}
		}
	}

	const secret = "hunter2"
	for _, raw := range []string{
		"", "abcdefgh.supabase.co", "abcdefgh.supabase.co:443", "//abcdefgh.supabase.co",
		"ftp://abcdefgh.supabase.co", "postgres://u:hunter2@db:5432", "https:abcdefgh.supabase.co",
		"https://", "https:///rest/v1", "https://:443",
		"https://user:hunter2@a.co", "https://hunter2@a.co", "https://@a.co",
		"https://a.co?key=hunter2", "https://a.co?", "https://a.co/#hunter2",
		"https://a.co/hunter2%20", "https://a.co/hunter2 x", "https://a.co/a//hunter2",
		"https://a.co:hunter2", "https://u:hunter2@[::1", "https://a.co/\x00hunter2", "https://%zzhunter2",
	} {
		c, err := docevents.New(raw, testKey)
		if c != nil || err == nil || !strings.Contains(err.Error(), "the Supabase URL") {
			t.Errorf("%q: %v, want an error about the URL", raw, err)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%q: the error repeats the URL: %v", raw, err)
		}
	}
}

// New rejects the URLs of a project's pages in the dashboard and in Studio.
func TestDashboardURLs(t *testing.T) {
	for _, raw := range []string{
		"https://supabase.com/dashboard/project/abcdefgh", "https://supabase.com/dashboard/project/abcdefgh/settings/api?showConnect=true",
		"https://app.supabase.com/project/abcdefgh", "https://APP.supabase.io/project/abcdefgh/editor", "https://www.supabase.com:443/",
		"https://supabase.com/rest/v1", "https://api.supabase.com/v1/projects/abcdefgh", "http://127.0.0.1:54323/project/default", "http://studio.example.com/project/default/editor/17#x",
		"https://example.com/dashboard/project/abcdefgh", "https://example.com/dashboard",
	} {
		if c, err := docevents.New(raw, testKey); c != nil || err == nil || !strings.Contains(err.Error(), "the dashboard's: pass the project's URL") {
			t.Errorf("%q: %v", raw, err)
		}
	}
}

// New rejects the URL of a database, which doesn't serve HTTP, and a hosted
// project's URL without https, which would send the key unencrypted.
func TestDatabaseAndPlainHTTPURLs(t *testing.T) {
	for raw, want := range map[string]string{
		"https://db.abcdefgh.supabase.co":                                                 "the database's or its pooler's",
		"https://DB.abcdefgh.supabase.co:5432/postgres":                                   "the database's or its pooler's",
		"postgresql://postgres:hunter2@db.abcdefgh.supabase.co:5432/postgres":             "the database's or its pooler's",
		"postgresql://postgres:[hunter2 %]@db.abcdefgh.supabase.co:5432/postgres":         "the database's or its pooler's",
		"https://aws-0-eu-central-1.pooler.supabase.com":                                  "the database's or its pooler's",
		"postgres://postgres.abcdefgh:hunter2@aws-1-us-east-1.pooler.supabase.com:6543/a": "the database's or its pooler's",
		"http://abcdefgh.supabase.co":                                                     "unencrypted",
		"HTTP://abcdefgh.Supabase.co.:80/rest/v1":                                         "unencrypted",
	} {
		if c, err := docevents.New(raw, testKey); c != nil || err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v, want %q", raw, err, want)
		}
	}
	for _, raw := range []string{"https://db.example.com", "http://localhost:54321", "https://abcdefgh.supabase.co", "http://supabase.internal", "http://kong:8000"} {
		if _, err := docevents.New(raw, testKey); err != nil {
			t.Errorf("%q: %v", raw, err)
		}
	}
}

func TestNewReportsAllErrors(t *testing.T) {
	_, err := docevents.New("ftp://u:hunter2@a.co", "sb_publishable_0123456789",
		docevents.WithSchema(""), docevents.WithTable("a b"), docevents.WithEventTypes(docevents.EventTypes{Notes: []docevents.EventType{""}}),
		docevents.WithRequestTimeout(0), docevents.WithMaxInFlight(0), docevents.WithMaxBatch(0),
		docevents.WithQueueLimits(0, 0), docevents.WithPurgeBatch(0))
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"Supabase URL", "publishable", "WithSchema", "WithTable", "WithEventTypes", "WithRequestTimeout",
		"WithMaxInFlight", "WithMaxBatch", "WithQueueLimits", "events", "bytes", "WithPurgeBatch",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not named in: %v", want, err)
		}
	}
	if !errors.Is(err, docevents.ErrNotServiceRole) || !strings.HasPrefix(err.Error(), "docevents: ") {
		t.Error(err)
	}
	for _, secret := range []string{"hunter2", "sb_publishable_0123456789"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the error repeats %s", secret)
		}
	}
}

func TestNewFromEnv(t *testing.T) {
	const legacy = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoic2VydmljZV9yb2xlIn0.x" // its role is service_role
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
		"an empty default":               {env{testURL, `{"default":""}`, "first", "", ""}, "", `no key named "default"`},
		"keys that are not JSON":         {env{testURL, "hunter2", "first", "", ""}, "", "not a JSON object of keys by name"},
		"keys that are a list":           {env{testURL, `["hunter2"]`, "first", "", ""}, "", "not a JSON object of keys by name"},
		"keys that are not strings":      {env{testURL, `{"default":{"hunter2":1}}`, "first", "", ""}, "", `no key named "default"`},
		"null":                           {env{testURL, `null`, "first", "", ""}, "", `no key named "default"`},
		"keys without a URL":             {env{"", `{"default":"hunter2"}`, "", "", ""}, "", "SUPABASE_URL is not set"},
		"nothing":                        {env{}, "", "set SUPABASE_URL and SUPABASE_SECRET_KEYS, SUPABASE_SECRET_KEY, SUPABASE_SERVICE_ROLE_KEY or SUPABASE_SERVICE_KEY (SUPABASE_KEY is not read)"},
		"no URL":                         {env{"", "", "", "first", ""}, "", "SUPABASE_URL is not set"},
		"no key":                         {env{testURL, "", "", "", ""}, "", "no key is set: set SUPABASE_SECRET_KEYS, SUPABASE_SECRET_KEY, SUPABASE_SERVICE_ROLE_KEY or SUPABASE_SERVICE_KEY (SUPABASE_KEY is not read)"},
		"a bad URL":                      {env{"supabase.test", "", "first", "", ""}, "", "the Supabase URL"},
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
				if c != nil || err == nil || !strings.Contains(err.Error(), test.err) || !strings.HasPrefix(err.Error(), "docevents: ") {
					t.Fatalf("%v, want %q", err, test.err)
				}
				if strings.Contains(err.Error(), "hunter2") {
					t.Errorf("%v: repeats a key", err)
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
		c, o := newClient(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
			t.Errorf("%s %s", req.Method, req.URL)
			return nil, errReset
		}))
		synctest.Wait()
		checkStats(t, c, &docevents.Stats{})
		if lines := o.logged(); len(lines) != 0 {
			t.Errorf("logged %v", lines)
		}
	})
}

// The methods of a nil Client and a zero Client do nothing and succeed.
func TestNilClient(t *testing.T) {
	for name, c := range map[string]*docevents.Client{"nil": nil, "zero": {}} {
		t.Run(name, func(t *testing.T) { doesNothing(t, c) })
	}
}

func doesNothing(t *testing.T, c *docevents.Client) {
	c.Record(docevents.Event{})
	if got := c.Stats(); got != (docevents.Stats{}) {
		t.Errorf("Stats: %+v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // Flush and Close succeed even with a cancelled context
	for name, err := range map[string]error{"Flush": c.Flush(ctx), "Close": c.Close(ctx), "Check": c.Check(ctx)} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n, err := c.PurgeBefore(ctx, time.Time{}); n != 0 || err != nil {
		t.Errorf("PurgeBefore: %d, %v", n, err)
	}
	if n, err := c.PurgeOlderThan(ctx, -1); n != 0 || err != nil {
		t.Errorf("PurgeOlderThan: %d, %v", n, err)
	}
}

func TestReplacedDefaultTransport(t *testing.T) {
	before := http.DefaultTransport
	httpmock.Activate(t)
	httpmock.RegisterResponder("POST", tableURL, httpmock.NewStringResponder(http.StatusCreated, ""))
	c, err := docevents.New(testURL, testKey)
	if err != nil {
		t.Fatal(err)
	}
	http.DefaultTransport = before // New has read it
	c.Record(event("a"))
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := httpmock.GetTotalCallCount(); got != 1 {
		t.Errorf("%d requests through the replacement, want 1", got)
	}
}

func TestDefaultTransportReplacedTooLate(t *testing.T) {
	s := newLoopback(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) })
	c, err := docevents.New(s.URL, testKey)
	if err != nil {
		t.Fatal(err)
	}
	httpmock.Activate(t)
	c.Record(event("a"))
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := httpmock.GetTotalCallCount(); got != 0 {
		t.Errorf("%d requests through a replacement that came after New", got)
	}
	checkStats(t, c, &docevents.Stats{Recorded: 1, Delivered: 1})
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
	t.Run("WithTransport", func(t *testing.T) {
		s := newLoopback(t, created)
		foreign := &idleCounter{Transport: &http.Transport{}}
		t.Cleanup(foreign.Transport.CloseIdleConnections)
		for range 3 {
			use(t, s, docevents.WithTransport(foreign))
		}
		if got := s.opened(); got != 1 || foreign.closed != 0 {
			t.Errorf("%d connections, CloseIdleConnections called %d times, want 1 and 0", got, foreign.closed)
		}
	})
	t.Run("a replaced http.DefaultTransport", func(t *testing.T) {
		s := newLoopback(t, created)
		foreign := &idleCounter{Transport: &http.Transport{}}
		t.Cleanup(foreign.Transport.CloseIdleConnections)
		before := http.DefaultTransport
		t.Cleanup(func() { http.DefaultTransport = before })
		http.DefaultTransport = foreign
		for range 3 {
			use(t, s)
		}
		if got := s.opened(); got != 1 || foreign.closed != 0 {
			t.Errorf("%d connections, CloseIdleConnections called %d times, want 1 and 0", got, foreign.closed)
		}
	})
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
// pairs of name and value. A rehearsal of Check gets the answer of a rollback
// instead.
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
