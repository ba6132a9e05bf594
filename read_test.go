package docevents_test

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docevents/docevents-go"
)

// A script is a transport that returns its answers in order, and repeats the last one.
type script struct {
	answers  []answer
	requests []*http.Request
}

func (s *script) RoundTrip(req *http.Request) (*http.Response, error) {
	a := s.answers[min(len(s.requests), len(s.answers)-1)]
	s.requests = append(s.requests, req)
	if err := cmp.Or(a.wait(req), a.err); err != nil {
		return nil, err
	}
	a.status = cmp.Or(a.status, http.StatusOK)
	return a.response(req), nil
}

// reads are the calls that read from the table.
var reads = map[string]func(context.Context, *docevents.Client) error{
	"Timeline": func(ctx context.Context, c *docevents.Client) error {
		_, err := c.Timeline(ctx, testDocument)
		return err
	},
	"Summary": func(ctx context.Context, c *docevents.Client) error {
		_, err := c.Summary(ctx, lastHour())
		return err
	},
	"Documents": func(ctx context.Context, c *docevents.Client) error {
		_, err := c.Documents(ctx, docevents.DocumentsQuery{Query: lastHour()})
		return err
	},
}

// A read is retried once if the failure may be temporary, and not after other
// failures. The error says what to do. It contains no key, no query and no text of a
// row. ErrOtherAnswer distinguishes another service or version from a network error.
func TestReadFailures(t *testing.T) {
	const (
		sql014 = "sql/014_create_docevents_reading.sql"
		secret = `"secret"`
	)
	for _, tt := range []struct {
		name     string
		answer   answer
		requests int
		other    bool   // the error matches ErrOtherAnswer
		timeline string // part of the error that Timeline returns
		summary  string
	}{
		{"no answer", answer{err: errReset}, 2, false, "connection reset", "connection reset"},
		{"cut short", answer{body: `[{"stage":` + secret, cut: true}, 2, false, "cut short", "cut short"},
		{"half of the JSON", answer{body: `[{"stage":` + secret}, 2, false, "cut short", "cut short"},
		{"an empty body", answer{}, 2, false, "cut short", "cut short"},
		{"a gateway's timeout", answer{status: 504}, 2, false, "HTTP 504", "ask for a shorter range"},
		{"a Retry-After", answer{status: 503, header: map[string]string{"Retry-After": "20"}}, 1, false, "HTTP 503", "HTTP 503"},
		{"another service", answer{body: secret}, 1, true, "unexpected answer", "unexpected answer"},
		{"another service's error", answer{body: `{"code":"PGRST202","message":"secret"}`}, 1, true, "unexpected answer", "unexpected answer"},
		{"other columns", answer{body: `[{"stage":7}]`}, 1, true, sql014 + ` is installed: see the field id`, "unexpected answer"},
		{"a field of another type", answer{body: `{"documents":"secret"}`}, 1, true, "unexpected answer", `see the field documents`},
		{"an empty object", answer{body: `{}`}, 1, true, "unexpected answer", sql014 + " is installed: run that file again"},
		{"null", answer{body: `null`}, 1, true, "unexpected answer", "unexpected answer"},
		{"no JSON", answer{body: `no secret`}, 1, true, "unexpected answer", "unexpected answer"},
		{"a web page", answer{body: `<!doctype html><p>secret`}, 1, false, "check SUPABASE_URL", "check SUPABASE_URL"},
		{"no function", answer{status: 404, code: "PGRST202", text: "Could not find the function"}, 1, false, "PGRST202", "create the function: run " + sql014 + " in the"},
		{"two versions of the function", answer{status: 300, code: "PGRST203", text: "Could not choose the best candidate function"}, 1, false, "PGRST203", "run " + sql014 + " in the"},
		{"renamed columns", answer{status: 400, code: "42703", text: "column stage does not exist"}, 1, false, "add the column", "name the columns of public.document_processing_events with WithColumns"},
		{"a bad value of a filter", answer{status: 400, code: "22P02", text: `invalid input syntax for type uuid: "secret"`}, 1, false, "22P02", "a value of Where doesn't fit"},
		{"a statement timeout", answer{status: 500, code: "57014", text: "canceling statement"}, 1, false, "HTTP 500 57014", "ask for a shorter range"},
	} {
		for method, read := range reads {
			t.Run(tt.name+", "+method, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := &script{answers: []answer{tt.answer}}
					c, _ := newClient(t, s)
					err := read(t.Context(), c)
					if err == nil {
						t.Fatal("no error")
					}
					text := err.Error()
					want := map[string]string{"Timeline": tt.timeline, "Summary": tt.summary}[method]
					if !strings.HasPrefix(text, "docevents: "+method+": ") || !strings.Contains(text, want) {
						t.Errorf("error %v, want %q", err, want)
					}
					if errors.Is(err, docevents.ErrOtherAnswer) != tt.other {
						t.Errorf("%v matches ErrOtherAnswer: %v", err, !tt.other)
					}
					for _, leak := range []string{testKey, "secret", "document_id", "supabase.test"} {
						if strings.Contains(text, leak) {
							t.Errorf("it repeats %q: %v", leak, err)
						}
					}
					if len(s.requests) != tt.requests {
						t.Errorf("%d requests, want %d", len(s.requests), tt.requests)
					}
				})
			})
		}
	}
}

// A read succeeds if its retry succeeds.
func TestReadRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: []answer{{status: 502}, rowsOf(3), {body: emptySummary, cut: true}, {body: emptySummary}}}
		c, _ := newClient(t, s)
		if got, err := c.Timeline(t.Context(), testDocument); err != nil || len(got) != 3 {
			t.Errorf("%d events, %v", len(got), err)
		}
		if got, err := c.Summary(t.Context(), lastHour()); err != nil || got.Interval != time.Minute {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

// Hosted Supabase sometimes refuses a valid key with 401 and PGRST303 for some seconds.
// Reads are retried for up to 5 s after it.
func TestReadRetriesAfter401(t *testing.T) {
	passing := answer{status: 401, code: "PGRST303", text: "JWT issued at future"}
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: []answer{passing, {status: 502}, passing, passing, rowsOf(1)}}
		c, _ := newClient(t, s)
		start := time.Now()
		if err := reads["Timeline"](t.Context(), c); err != nil || len(s.requests) != 5 || time.Since(start) > 5*time.Second {
			t.Errorf("after %d requests and %v: %v", len(s.requests), time.Since(start), err)
		}
	})
	for limit, least := range map[time.Duration]time.Duration{time.Hour: time.Second, 500 * time.Millisecond: 500 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			c, _ := newClient(t, &script{answers: []answer{passing}})
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			start := time.Now()
			err := reads["Timeline"](ctx, c)
			if took := time.Since(start); err == nil || !strings.Contains(err.Error(), "PGRST303") || took < least || took > min(limit, 5*time.Second) {
				t.Errorf("a 401 that lasts, with a limit of %v: after %v: %v", limit, took, err)
			}
		})
	}
}

// If the server hangs, a read ends after the request timeout or when ctx ends. It is not
// retried.
func TestReadTimeouts(t *testing.T) {
	for limit, want := range map[time.Duration]time.Duration{time.Second: time.Second, time.Hour: 5 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			s := &script{answers: []answer{{delay: time.Hour}}}
			c, _ := newClient(t, s, docevents.WithRequestTimeout(5*time.Second))
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			start := time.Now()
			err := reads["Summary"](ctx, c)
			if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took != want || len(s.requests) != 1 {
				t.Errorf("after %v and %d requests, want %v: %v", took, len(s.requests), want, err)
			}
		})
	}
}

// The bounds of a range are compared in UTC and in microseconds, as the database gets
// them.
func TestQueryRange(t *testing.T) {
	west, east := time.FixedZone("west", -5*3600), time.FixedZone("east", 9*3600)
	now := time.Now().Truncate(time.Microsecond)
	for name, test := range map[string]struct {
		since, until time.Time
		good         bool
	}{
		"the widest range":           {time.Time{}.In(west), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), true},
		"a microsecond":              {now, now.Add(time.Microsecond), true},
		"within a microsecond":       {now, now.Add(999), false},
		"backwards":                  {now, now.Add(-time.Second), false},
		"year 10,000":                {now, time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC), false},
		"year 0":                     {time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC), now, false},
		"year 1 only in the east":    {time.Date(1, 1, 1, 0, 0, 0, 0, east), now, false},
		"year 9999 only in the west": {now, time.Date(9999, 12, 31, 23, 0, 0, 0, west), false},
	} {
		s := &script{answers: []answer{{body: emptySummary}}}
		c, _ := newClient(t, s)
		_, err := c.Summary(t.Context(), docevents.Query{Since: test.since, Until: test.until})
		if test.good && err != nil || !test.good && (err == nil || !strings.Contains(err.Error(), "docevents: Summary: since must be before until") || len(s.requests) > 0) {
			t.Errorf("%s: %v after %d requests", name, err, len(s.requests))
		}
	}
}

// A read returns a result or an error for any answer. The error doesn't contain the
// answer.
func FuzzRead(f *testing.F) {
	for _, body := range []string{"[" + timelineRow + "]", emptySummary, "[]", "{}", "null", `[{"created_at":1}]`, `[null]`, "["} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		synctest.Test(t, func(t *testing.T) {
			c, _ := newClient(t, &script{answers: []answer{{body: body}}})
			if events, err := c.Timeline(t.Context(), testDocument); len(events) > 1000 || err != nil && len(body) > 20 && strings.Contains(err.Error(), body) {
				t.Errorf("%d events, %v", len(events), err)
			}
			s, err := c.Summary(t.Context(), lastHour())
			if (s == nil) == (err == nil) || err != nil && len(body) > 20 && strings.Contains(err.Error(), body) {
				t.Errorf("%v, %v", s, err)
			}
		})
	})
}
