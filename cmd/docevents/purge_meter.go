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

// stepGrace is how long a step in flight may take to its end after a stop. It is
// longer than hosted Supabase's statement timeout of 8 s, and shorter than the
// 30 s after which Kubernetes kills.
const stepGrace = 20 * time.Second

// A meter is the transport of a purge. It counts the rows of each step, which
// PurgeBefore returns only at its end, and lets the step in flight finish after
// a stop, so that its rows are counted.
//
// In a dry run it sends no DELETE. It counts the rows that the DELETE would
// delete, and answers that there were none.
type meter struct {
	base        http.RoundTripper
	dryRun      bool
	unreachable context.CancelCauseFunc // ends a purge whose first request gets no answer

	mu        sync.Mutex // guards the fields below
	answered  bool       // a request was
	last      string     // why the newest request failed, or ""
	deleted   int64
	due       int64 // of a dry run
	estimated bool  // due is the planner's estimate
}

// An unreachableError is the error of a purge that never had an answer.
type unreachableError struct{ error }

func (m *meter) RoundTrip(req *http.Request) (*http.Response, error) {
	if m.dryRun && req.Method != http.MethodDelete {
		return answer(req, "[]"), nil // so the purge sends one DELETE for all that is due
	}
	resp, err := m.send(req)
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case err != nil && req.Context().Err() != nil: // stopped
	case err != nil:
		m.last = err.Error() // http.Client adds the URL later
		if !m.answered {
			m.unreachable(unreachableError{fmt.Errorf("no answer from SUPABASE_URL: check it and the network: %w", err)})
		}
	case resp.StatusCode >= 400:
		m.answered, m.last = true, "HTTP "+resp.Status
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

// finish sends a step, and gives it stepGrace to end if the purge is stopped.
func (m *meter) finish(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(req.Context()))
	defer cancel()
	defer context.AfterFunc(req.Context(), func() {
		timer := time.AfterFunc(stepGrace, cancel)
		context.AfterFunc(ctx, func() { timer.Stop() })
	})()
	resp, err := readAll(m.base.RoundTrip(req.WithContext(ctx))) // before cancel
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

// count asks for the number of rows that a DELETE selects. If counting takes too
// long for the database, it asks for the planner's estimate.
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
			return nil, fmt.Errorf("the answer has no count: a proxy may have removed its header Content-Range")
		}
		m.mu.Lock()
		m.due, m.estimated = n, how == "planned"
		m.mu.Unlock()
		break
	}
	return answer(req, ""), nil
}

// answer is that of a DELETE that deleted nothing, or of a GET that found
// nothing.
func answer(req *http.Request, body string) *http.Response {
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:  http.Header{"Content-Type": {"application/json"}, "Content-Range": {"*/0"}},
		Body:    io.NopCloser(strings.NewReader(body)),
		Request: req,
	}
}

// readAll reads the body of an answer, which is short: it has no rows, or one.
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

// tookTooLong reports whether an answer is a statement timeout, or a gateway's.
func tookTooLong(resp *http.Response) bool {
	body, _ := io.ReadAll(resp.Body)
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return bytes.Contains(body, []byte(`"57014"`)) || resp.StatusCode == http.StatusGatewayTimeout
}

// total returns the count in an answer's Content-Range.
func total(resp *http.Response) (n int64, ok bool) {
	_, text, _ := strings.Cut(resp.Header.Get("Content-Range"), "/")
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil
}

func (m *meter) failure() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last
}

// progress is the line that a terminal shows.
func (m *meter) progress(took time.Duration) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	line := fmt.Sprintf("%d rows deleted, %.0f rows/s", m.deleted, float64(m.deleted)/took.Seconds())
	if m.last != "" {
		line += ", trying again: " + printable(m.last)
	}
	return line
}
