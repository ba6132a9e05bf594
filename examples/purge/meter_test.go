package main

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// slowServer answers a DELETE after a while.
type slowServer struct{ takes time.Duration }

func (s slowServer) RoundTrip(req *http.Request) (*http.Response, error) {
	select {
	case <-time.After(s.takes):
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
	return &http.Response{StatusCode: 204, Header: http.Header{"Content-Range": {"*/1000"}}, Body: http.NoBody, Request: req}, nil
}

func TestMeterFinishesAStep(t *testing.T) {
	for _, tt := range []struct {
		method       string
		takes, after time.Duration
		rows         int64
	}{
		{"DELETE", 8 * time.Second, 8 * time.Second, 1000},
		{"DELETE", time.Hour, time.Second + stepGrace, 0},
		{"GET", 8 * time.Second, time.Second, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			m := &meter{base: slowServer{tt.takes}}
			req, err := http.NewRequestWithContext(ctx, tt.method, "http://localhost", nil)
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			resp, err := m.RoundTrip(req)
			if err == nil {
				resp.Body.Close()
			}
			if (err == nil) != (tt.rows > 0) || m.rows.Load() != tt.rows || time.Since(start) != tt.after {
				t.Errorf("%+v: %v, %d rows, after %s", tt, err, m.rows.Load(), time.Since(start))
			}
			if m.failure() != "" {
				t.Errorf("a request that was stopped is no failure: %q", m.failure())
			}
		})
	}
}

func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		m := &meter{base: slowServer{100 * time.Millisecond}}
		stop := m.report(&out, 5*time.Second)
		for range 99 { // 9.9 s
			req, _ := http.NewRequestWithContext(t.Context(), "DELETE", "http://localhost", nil)
			if resp, err := m.RoundTrip(req); err != nil {
				t.Fatal(err)
			} else {
				resp.Body.Close()
			}
		}
		m.base = broken{}
		req, _ := http.NewRequestWithContext(t.Context(), "DELETE", "http://localhost", nil)
		if _, err := m.RoundTrip(req); err == nil {
			t.Fatal("no error")
		}
		time.Sleep(time.Second)
		stop()
		time.Sleep(time.Minute)
		want := "purge: 49000 rows so far, 9800/s\npurge: 99000 rows so far, 9900/s, trying again: connection refused\n"
		if got := out.String(); got != want && got != strings.Replace(want, "49000 rows so far, 9800/s", "50000 rows so far, 10000/s", 1) {
			t.Errorf("%swant\n%s", got, want)
		}
		m.report(&out, 0)()
	})
}

type broken struct{}

func (broken) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("connection refused")
}
