//go:build darwin || linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/examples/internal/exampletest"
	"github.com/docevents/docevents-go/integration/localstack"
)

// form makes a multipart form with the file in it, as curl -F does.
func form(t *testing.T, field, name string) (body io.Reader, contentType string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	if err := w.WriteField("note", "not the file"); err != nil {
		t.Fatal(err)
	}
	part, err := w.CreateFormFile(field, filepath.Base(name))
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := part.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b, w.FormDataContentType()
}

// upload sends a document and returns its id, "" where it was refused.
func upload(ctx context.Context, url string, body io.Reader, header http.Header) (id string, status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/documents", body)
	if err != nil {
		return "", 0, err
	}
	req.Header = header
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		return "", resp.StatusCode, nil
	}
	var answer struct{ ID string }
	err = json.NewDecoder(resp.Body).Decode(&answer)
	return answer.ID, resp.StatusCode, err
}

// testUploads uploads what users upload, and ends the program with Ctrl-C.
func testUploads(t *testing.T, stack *localstack.Stack) {
	server := start(t, stack)
	const license = "../../LICENSE"
	type expectation struct {
		id     string
		events []string
	}
	var want []expectation
	for _, contentType := range []string{"", "text/plain", "application/x-www-form-urlencoded"} { // curl's is the last
		f, err := os.Open(license)
		if err != nil {
			t.Fatal(err)
		}
		id, status, err := upload(t.Context(), server.URL, f, http.Header{"Content-Type": {contentType}})
		if id == "" || err != nil {
			t.Fatalf("%q: got %d, %v", contentType, status, err)
		}
		want = append(want, expectation{id, processed})
	}
	body, contentType := form(t, "file", license)
	id, status, err := upload(t.Context(), server.URL, body, http.Header{"Content-Type": {contentType}})
	if id == "" || err != nil {
		t.Fatalf("form: got %d, %v", status, err)
	}
	want = append(want, expectation{id, processed})
	id, status, err = upload(t.Context(), server.URL, strings.NewReader("\x7fELF\x00"), nil)
	if id == "" || err != nil {
		t.Fatalf("binary: got %d, %v", status, err)
	}
	want = append(want, expectation{id, []string{
		"upload_started", "processing_started count",
		"failed count the document is not a text in UTF-8", "failed the document is not a text in UTF-8",
	}})

	stats := vars(t, server.URL)
	if stats.Recorded != stats.Delivered+stats.Pending || stats.Recorded < 5 {
		t.Errorf("/debug/vars has %+v", stats)
	}
	server.Signal(os.Interrupt)
	outcome := server.Wait()
	const total = 5 * 4
	line := fmt.Sprintf("recorded %d, delivered %d, dropped 0", total, total)
	if outcome.Code != 0 || outcome.LastLine() != line {
		t.Errorf("got %+v, want %s", outcome, line)
	}
	if !strings.Contains(outcome.Stderr, "not a text in UTF-8") {
		t.Errorf("it doesn't say what failed: %s", outcome.Stderr)
	}
	for _, w := range want {
		checkHistory(t, stack, w.id, w.events)
	}
}

// TestRefusals: who is refused is told why.
func TestRefusals(t *testing.T) {
	s := &service{record: func(docevents.Event) {}, dir: t.TempDir(), queue: &queue{documents: make(chan document)}}
	withoutFile, contentType := form(t, "other", "main.go")
	for _, test := range []struct {
		name, contentType string
		body              io.Reader
		dir               string
		status            int
		want              string
	}{
		{"no field", contentType, withoutFile, s.dir, 400, `the form has no field "file"`},
		{"too large", "", io.LimitReader(endless{}, maxUpload+1), s.dir, 413, "http: request body too large"},
		{"no room", "", strings.NewReader("text"), s.dir, 503, "too many documents are waiting"},
		{"no disk", "", strings.NewReader("text"), filepath.Join(s.dir, "gone"), 500, "the document could not be saved"},
	} {
		s.dir = test.dir
		r := httptest.NewRequest(http.MethodPost, "/documents", test.body)
		r.Header.Set("Content-Type", test.contentType)
		w := httptest.NewRecorder()
		s.handler().ServeHTTP(w, r)
		if got := strings.TrimSpace(w.Body.String()); w.Code != test.status || got != test.want {
			t.Errorf("%s: %d %s, want %d %s", test.name, w.Code, got, test.status, test.want)
		}
	}
}

// endless is text without an end.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	return copy(p, "text without an end, "), nil
}

func vars(t *testing.T, url string) docevents.Stats {
	t.Helper()
	_, text := exampletest.Request(t, http.MethodGet, url+"/debug/vars", "")
	var all struct{ Docevents docevents.Stats }
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		t.Fatal(err)
	}
	return all.Docevents
}
