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
	"sync/atomic"
	"time"
)

// stepGrace is how long a step that is under way when the program is stopped
// may take to its end: longer than hosted Supabase's statement timeout (8 s),
// shorter than the 30 s until Kubernetes kills.
const stepGrace = 20 * time.Second

// A meter is a transport that watches a purge: docevents tells only at its end
// how many rows it deleted, but each step's answer says so in Content-Range.
//
// It also lets a step that is under way finish when the purge is stopped, so
// that its rows are counted.
type meter struct {
	base http.RoundTripper
	rows atomic.Int64

	mu   sync.Mutex
	last string // why the newest request failed, "" if it didn't
}

func (m *meter) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := m.send(req)
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case err != nil && req.Context().Err() != nil: // stopped
	case err != nil:
		m.last = err.Error() // no URL in it: http.Client adds that
	case resp.StatusCode >= 400:
		m.last = "HTTP " + resp.Status
	default:
		m.last = ""
	}
	return resp, err
}

func (m *meter) send(req *http.Request) (*http.Response, error) {
	if req.Method != http.MethodDelete {
		return m.base.RoundTrip(req)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(req.Context()))
	defer cancel()
	defer context.AfterFunc(req.Context(), func() {
		timer := time.AfterFunc(stepGrace, cancel)
		context.AfterFunc(ctx, func() { timer.Stop() })
	})()
	resp, err := m.base.RoundTrip(req.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	// Read here, before the cancel: the answer to a step is empty, or an error.
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	if _, total, ok := strings.Cut(resp.Header.Get("Content-Range"), "/"); ok {
		n, _ := strconv.ParseInt(total, 10, 64)
		m.rows.Add(n)
	}
	return resp, nil
}

func (m *meter) failure() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last
}

// report writes how far the purge is, every so often, until stop is called. 0:
// never.
func (m *meter) report(w io.Writer, every time.Duration) (stop func()) {
	if every == 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	start := time.Now()
	wg.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			n := m.rows.Load()
			line := fmt.Sprintf("purge: %d rows so far, %.0f/s", n, float64(n)/time.Since(start).Seconds())
			if failure := m.failure(); failure != "" {
				line += ", trying again: " + failure
			}
			fmt.Fprintln(w, line)
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}
