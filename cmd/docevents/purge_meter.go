package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// stepGrace is how long the DELETE in flight may continue after the purge is stopped.
// It is longer than the 8 s after which hosted Supabase ends a statement, and shorter
// than the 30 s after which Kubernetes kills a process.
const stepGrace = 20 * time.Second

// A meter is the http.RoundTripper of a purge. It counts the deleted rows for the
// progress line, because PurgeBefore returns their number only at the end. If the purge
// is stopped, the meter still waits for the DELETE in flight, so that its rows are
// counted.
//
// In a dry run, the meter sends no DELETE. It requests the number of rows that the
// DELETE would delete, and answers the library as if the DELETE had deleted no row.
type meter struct {
	base        http.RoundTripper
	dryRun      bool
	unreachable context.CancelCauseFunc // ends the purge; called if the first request gets no answer

	mu        sync.Mutex // guards the fields below
	answered  bool       // the server has answered a request
	last      string     // the reason why the newest request failed, or ""
	deleted   int64      // rows deleted so far
	due       int64      // rows counted by a dry run
	estimated bool       // due is the planner's estimate
}

// An unreachableError ends a purge that never got an answer.
type unreachableError struct{ error }

func (m *meter) RoundTrip(req *http.Request) (*http.Response, error) {
	if m.dryRun && req.Method != http.MethodDelete {
		return answer(req, "[]"), nil // the purge then sends its last DELETE, for all rows before the cutoff
	}
	resp, err := m.send(req)
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case err != nil && req.Context().Err() != nil: // the purge was stopped
	case err != nil:
		m.last = printable(err.Error()) // http.Client adds the URL later
		if !m.answered {
			m.unreachable(unreachableError{fmt.Errorf("no answer from SUPABASE_URL: check it and the network: %w", err)})
		}
	case resp.StatusCode >= 400:
		m.answered, m.last = true, printable("HTTP "+resp.Status) // a server may send any text
	default:
		m.answered, m.last = true, ""
	}
	return resp, err
}

func (m *meter) send(req *http.Request) (*http.Response, error) {
	switch {
	case m.dryRun:
		return m.count(req)
	case req.Method == http.MethodDelete:
		return m.finish(req)
	}
	return m.base.RoundTrip(req)
}

// finish sends req, a DELETE. If the purge is stopped, finish still waits up to
// stepGrace for the answer.
func (m *meter) finish(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(req.Context()))
	defer cancel()
	defer context.AfterFunc(req.Context(), func() {
		timer := time.AfterFunc(stepGrace, cancel)
		context.AfterFunc(ctx, func() { timer.Stop() })
	})()
	resp, err := readAll(m.base.RoundTrip(req.WithContext(ctx))) // reads the body before cancel
	if err != nil {
		return nil, err
	}
	if n, ok := total(resp); ok && resp.StatusCode < 300 {
		m.mu.Lock()
		m.deleted += n
		m.mu.Unlock()
	}
	return resp, nil
}

// count handles req, a DELETE, in a dry run. It sends a GET with the same filters
// instead, and stores the number of matching rows in m.due. If counting takes too long,
// the meter requests an estimate. An error of the server becomes the answer to req.
func (m *meter) count(req *http.Request) (*http.Response, error) {
	get := req.Clone(req.Context())
	get.Method = http.MethodGet
	query := get.URL.Query()
	query.Set("limit", "1")
	get.URL.RawQuery = query.Encode()
	get.Header.Set("Accept-Profile", req.Header.Get("Content-Profile"))
	for _, how := range []string{"exact", "planned"} {
		get.Header.Set("Prefer", "count="+how)
		resp, err := readAll(m.base.RoundTrip(get))
		switch {
		case err != nil:
			return nil, err
		case resp.StatusCode >= 300 && how == "exact" && tookTooLong(resp):
			continue
		case resp.StatusCode >= 300:
			return resp, nil
		}
		n, ok := total(resp)
		if !ok {
			return nil, fmt.Errorf("the answer has no count: a proxy may have removed the header Content-Range")
		}
		m.mu.Lock()
		m.due, m.estimated = n, how == "planned"
		m.mu.Unlock()
		break
	}
	return answer(req, ""), nil
}

// answer returns a made-up answer to req, with the count 0.
func answer(req *http.Request, body string) *http.Response {
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:  http.Header{"Content-Type": {"application/json"}, "Content-Range": {"*/0"}},
		Body:    io.NopCloser(strings.NewReader(body)),
		Request: req,
	}
}

// readAll reads the body of resp into memory, so that the caller can still read it
// after the request's context is cancelled. The body contains at most one row.
func readAll(resp *http.Response, err error) (*http.Response, error) {
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// tookTooLong reports whether the request took too long: PostgreSQL answered with 57014
// (statement timeout), or a gateway answered with 504.
func tookTooLong(resp *http.Response) bool {
	body, _ := io.ReadAll(resp.Body)
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return bytes.Contains(body, []byte(`"57014"`)) || resp.StatusCode == http.StatusGatewayTimeout
}

// total returns the count in the header Content-Range.
func total(resp *http.Response) (n int64, ok bool) {
	_, text, _ := strings.Cut(resp.Header.Get("Content-Range"), "/")
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil
}

// failure returns the reason why the newest request failed, or "".
func (m *meter) failure() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last
}

func (m *meter) progress(took time.Duration) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	line := fmt.Sprintf("%d rows deleted, %.0f rows/s", m.deleted, float64(m.deleted)/took.Seconds())
	if m.last != "" {
		line += ", retrying: " + m.last
	}
	return line
}
