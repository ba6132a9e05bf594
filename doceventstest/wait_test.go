package doceventstest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A failure is a testing.TB that records the message of Fatalf.
type failure struct {
	testing.TB
	message string
}

func (f *failure) Helper() {}

func (f *failure) Fatalf(format string, args ...any) {
	f.message = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// fatal calls the function do, which should call Fatalf, and returns the message of
// Fatalf.
func (f *failure) fatal(do func()) string {
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	<-done
	return f.message
}

// post sends an insert to s without a socket.
func post(s *Server, key, rows string) {
	req := httptest.NewRequest(http.MethodPost, "/rest/v1/"+s.Table+"?columns=id,document_id,user_id,event_type,created_at", strings.NewReader(rows))
	req.Header.Set("Apikey", key)
	req.Header.Set("Content-Profile", s.Schema)
	s.serve(httptest.NewRecorder(), req)
}

func TestWaitForFailsTheTest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outcome := &failure{TB: t}
		s := newServer(outcome)
		start := time.Now()
		message := outcome.fatal(func() { s.WaitFor(2) })
		if took := time.Since(start); took != patience {
			t.Errorf("it waited %s, want %s", took, patience)
		}
		if want := "after 5s 0 events are stored, want 2; no request was refused"; !strings.Contains(message, want) {
			t.Errorf("got %q, want %q", message, want)
		}
		if events := s.WaitFor(0); len(events) != 0 || time.Since(start) != patience {
			t.Errorf("WaitFor(0) waited until %s and returned %v", time.Since(start), events)
		}

		post(s, "wrong", "[]")
		message = outcome.fatal(func() { s.WaitFor(1) })
		if want := "the last refusal was HTTP 401: Invalid API key"; !strings.Contains(message, want) {
			t.Errorf("got %q, want %q", message, want)
		}
	})
}

// TestWaitForWaits checks that WaitFor returns as soon as an event arrives, before the
// time is up.
func TestWaitForWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		start := time.Now()
		time.AfterFunc(patience-time.Second, func() {
			post(s, s.Key, `[{"id":"aaaaaaaa-0000-4000-8000-000000000001","document_id":"11111111-1111-4111-8111-111111111111",`+
				`"user_id":"22222222-2222-4222-8222-222222222222","event_type":"completed","created_at":"2026-01-02T03:04:05Z"}]`)
		})
		if events := s.WaitFor(1); len(events) != 1 || time.Since(start) != patience-time.Second {
			t.Errorf("got %v after %s", events, time.Since(start))
		}
	})
}

func TestFailNextRefusesOtherStatuses(t *testing.T) {
	outcome := &failure{TB: t}
	s := newServer(outcome)
	for _, status := range []int{0, 201, 600} {
		outcome.message = ""
		if message := outcome.fatal(func() { s.FailNext(status, "") }); !strings.Contains(message, "300 to 599") {
			t.Errorf("FailNext(%d): %q", status, message)
		}
	}
	if len(s.failures) != 0 {
		t.Errorf("%v are still to come", s.failures)
	}
}
