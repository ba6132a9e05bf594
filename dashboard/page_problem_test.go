package dashboard_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docevents/docevents-go"
)

const noNetwork = "No answer from the server"

// TestProblems checks the page if the events can't be read. The page names the cause
// and what to do, and still shows the counts of this process. It blames the network
// only if the network failed.
func TestProblems(t *testing.T) {
	noDocuments := docevents.WithColumns(docevents.Columns{DocumentID: "-", Extra: []string{"document_id"}})
	for _, tt := range []struct {
		name   string
		server *server
		status int
		want   string
	}{
		{"empty table", &server{summary: emptySummary}, 200, "No events in the last 24 hours"},
		{"no series", &server{summary: strings.Replace(emptySummary, `[{"at":"2026-01-01T00:00:00+00:00"}]`, "[]", 1)}, 200, "No events in the last 24 hours"},
		{"no function", &server{}, 502, "Run sql/014_create_docevents_reading.sql"},
		{"no function, by SQLSTATE", &server{status: 404, code: "42883", message: "function public.docevents_source(jsonb) does not exist"}, 502, "Run sql/014_create_docevents_reading.sql"},
		{"a time that is text", &server{status: 404, code: "42883", message: "operator does not exist: text >= timestamp with time zone"}, 502, "A column has the wrong type"},
		{"no table", &server{status: 404, code: "42P01", message: `relation \"public.events\" does not exist`}, 502, "The table was not found"},
		{"no column", &server{status: 400, code: "42703", message: `column \"tenant\" of relation \"public.events\" does not exist`}, 502, "The table lacks a column"},
		{"no schema", &server{status: 406, code: "PGRST106"}, 502, "The schema can&#39;t be read"},
		{"a filter of another type", &server{status: 400, code: "22P02", message: `invalid input syntax for type uuid: \"jane@example.com\"`}, 400, "A filter or an id doesn&#39;t fit its column"},
		{"refused key", &server{status: 401}, 502, "The server refused the key"},
		{"no grant", &server{status: 403, code: "42501"}, 502, "The server refused the key"},
		{"paused project", &server{status: 540}, 502, "The project is paused or over its quota"},
		{"too many requests", &server{status: 429}, 502, "Too many requests to the server"},
		{"statement timeout", &server{status: 500, code: "57014"}, 504, "The server took too long"},
		{"gateway timeout", &server{status: 504}, 504, "The server took too long"},
		{"hanging server", &server{delay: time.Hour}, 504, "The server took too long"},
		{"server fault", &server{status: 500}, 502, "The server failed"},
		{"refusal of another kind", &server{status: 400, code: "22023"}, 502, "The server refused the request"},
		{"another API", &server{status: 404, message: "no Route matched"}, 502, "The answer is not from Supabase&#39;s API"},
		{"a web site", &server{summary: "<!DOCTYPE html><p>Welcome"}, 502, "The answer is not from Supabase&#39;s API"},
		{"another version's function", &server{summary: `{"documents":1}`}, 502, "The answer is not from the reading functions of this version"},
		{"null", &server{summary: "null"}, 502, "The answer is not from the reading functions of this version"},
		{"fields of another type", &server{summary: strings.Replace(emptySummary, `"documents":0`, `"documents":"jane@example.com"`, 1)}, 502, "The answer is not from the reading functions of this version"},
		{"an answer cut short", &server{summary: emptySummary[:100]}, 502, noNetwork},
		{"refused connection", &server{err: &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}}, 502, noNetwork},
		{"no such host", &server{err: &net.DNSError{Err: "no such host", Name: "other.test", IsNotFound: true}}, 502, noNetwork},
		{"closed connection", &server{err: io.EOF}, 502, noNetwork},
		{"bad certificate", &server{err: &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}}, 502, noNetwork},
		{"error of a transport", &server{err: errors.New("jane@example.com is out of credit")}, 502, "The events could not be read"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				w := get(handler(newClient(t, tt.server)), "/")
				check(t, w, tt.status, tt.want, "This process", "Stored")
				if took := time.Since(start); took > 15*time.Second {
					t.Errorf("it took %v", took)
				}
				wantNoRow(t, w.Body.String())
				if tt.want != noNetwork && strings.Contains(w.Body.String(), noNetwork) {
					t.Error("the network is blamed")
				}
			})
		})
	}
	for _, path := range []string{"/", "/documents", "/document?id=" + document} {
		s := &server{}
		check(t, get(handler(newClient(t, s, noDocuments)), path), 500, "The table has no column for document ids", "WithColumns")
		if n := s.count(); n > 0 {
			t.Errorf("%s: %d requests", path, n)
		}
	}
}

// wantNoRow checks that a problem's title and advice contain no text of a row.
func wantNoRow(t *testing.T, page string) {
	t.Helper()
	_, problem, _ := strings.Cut(page, `id="problem"`)
	problem, _, _ = strings.Cut(problem, `<p class="detail">`)
	if strings.Contains(problem, "jane") || strings.Contains(problem, "words of the server") {
		t.Errorf("the advice is %.500s", problem)
	}
}

func TestNoSettings(t *testing.T) {
	for _, client := range []*docevents.Client{nil, new(docevents.Client)} {
		h := handler(client)
		check(t, get(h, "/"), 200, "This process has no Supabase settings")
		check(t, get(h, "/documents?state=failed"), 200, "This process has no Supabase settings")
		check(t, get(h, "/document?id="+document), 404, "This process has no Supabase settings")
		if w := get(h, "/event?id="+document); w.Code != 404 || !strings.Contains(w.Body.String(), "no Supabase settings") {
			t.Errorf("an event: %d %q", w.Code, w.Body)
		}
	}
}

func TestBadRequests(t *testing.T) {
	s := &server{summary: emptySummary, documents: "[]", timeline: "[]"}
	h := handler(newClient(t, s))
	long := strings.Repeat("x", 1025)
	for path, want := range map[string]string{
		"/?since=yesterday": "The time range is not valid",
		"/?since=2026-01-02T00:00&until=2026-01-01T00:00":           "The time range is not valid",
		"/documents?until=10000-01-01T00:00":                        "The time range is not valid",
		"/?stage=" + long + "&user=" + long + "&type=" + long:       "The filters are too long",
		"/documents?error=" + long:                                  "The error or the stage is too long",
		"/document":                                                 "This is not a document id",
		"/document?id=42":                                           "This is not a document id",
		"/document?id=" + document + "&before=now":                  "This link to a timeline is not valid",
		"/document?id=" + document + "&from=-1":                     "This link to a timeline is not valid",
		"/document?id=" + document + "&since=yesterday&before=soon": "This link to a timeline is not valid",
	} {
		check(t, get(h, path), 400, want)
	}
	if n := s.count(); n > 0 {
		t.Errorf("%d requests", n)
	}
	check(t, get(h, "/document?since=yesterday&id="+document), 404, "No events about this document")
}

// TestReaderLeaves checks that a canceled view doesn't blame the network.
func TestReaderLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{summary: emptySummary, delay: time.Second}
		h := handler(newClient(t, s))
		go get(h, "/") // reads
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		w := ask(h, httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil), func(*http.Request) {})
		if strings.Contains(w.Body.String(), noNetwork) {
			t.Error("the network is blamed")
		}
		time.Sleep(time.Second)
		if n := s.count(); n != 1 {
			t.Errorf("%d requests", n)
		}
	})
}
