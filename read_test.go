package docevents_test

import (
	"context"
	"errors"
	"io"
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
	if a.delay > 0 {
		select {
		case <-time.After(a.delay):
		case <-req.Context().Done():
			return nil, req.Context().Err()
		}
	}
	if a.err != nil {
		return nil, a.err
	}
	if a.status == 0 {
		a.status = http.StatusOK
	}
	return a.response(req), nil
}

// A read is retried once if the failure may be temporary, and not after other
// failures. The error says what to do. It contains no key, no query and no text of a
// row.
func TestReadFailures(t *testing.T) {
	const (
		sql014 = "sql/014_create_docevents_reading.sql"
		secret = `"secret"`
	)
	bodyless := func(status int, code, text string) answer { return answer{status: status, code: code, text: text} }
	for _, tt := range []struct {
		name     string
		answer   answer
		requests int
		timeline string // part of the error that Timeline returns
		summary  string
	}{
		{"no answer", answer{err: errReset}, 2, "connection reset", "connection reset"},
		{"cut short", answer{body: `[{"stage":` + secret, cut: true}, 2, "cut short", "cut short"},
		{"half of the JSON", answer{body: `[{"stage":` + secret}, 2, "cut short", "cut short"},
		{"a gateway's 502", answer{status: 502}, 2, "HTTP 502", "HTTP 502"},
		{"a Retry-After", answer{status: 503, header: map[string]string{"Retry-After": "20"}}, 1, "HTTP 503", "HTTP 503"},
		{"another service", answer{body: `"secret"`}, 1, "unexpected answer", "unexpected answer"},
		{"other columns", answer{body: `[{"stage":7}]`}, 1, sql014 + ` is installed: see the field id`, "unexpected answer"},
		{"a field of another type", answer{body: `{"documents":"secret"}`}, 1, "unexpected answer", `see the field documents`},
		{"an empty object", answer{body: `{}`}, 1, "unexpected answer", sql014 + " is installed: run that file again"},
		{"a web page", answer{body: `<!doctype html><p>secret`}, 1, "check SUPABASE_URL", "check SUPABASE_URL"},
		{"a refused key", bodyless(401, "", ""), 1, "check the key", "check the key"},
		{"no table", bodyless(404, "42P01", "relation does not exist"), 1, "run sql/013", "run sql/013"},
		{"no function", bodyless(404, "PGRST202", "Could not find the function"), 1, "PGRST202", "create the function: run " + sql014 + " in the"},
		{"two versions of the function", bodyless(300, "PGRST203", "Could not choose the best candidate function"), 1, "PGRST203", "run " + sql014 + " in the"},
		{"a missing inner function", bodyless(404, "42883", "function public.docevents_source(jsonb, text) does not exist"), 1, "42883", "create the function: run " + sql014},
		{"no grant for the function", bodyless(403, "42501", "permission denied for function docevents_summary"), 1, "42501", "run " + sql014 + " again: it grants"},
		{"a schema that isn't exposed", bodyless(406, "PGRST106", "Invalid schema: public"), 1, "PGRST106", "expose the schema public"},
		{"renamed columns", bodyless(400, "42703", "column stage does not exist"), 1, "add the column", "name the columns of public.document_processing_events with WithColumns"},
		{"a bad value of a filter", bodyless(400, "22P02", `invalid input syntax for type uuid: "secret"`), 1, "22P02", "a value of Where doesn't fit"},
		{"a statement timeout", bodyless(500, "57014", "canceling statement"), 1, "HTTP 500 57014", "ask for a shorter range"},
		{"a gateway's timeout", bodyless(504, "", ""), 2, "HTTP 504", "ask for a shorter range"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				check := func(method, want string, read func(*docevents.Client) error) {
					s := &script{answers: []answer{tt.answer}}
					c, _ := newClient(t, s)
					err := read(c)
					if err == nil || !strings.HasPrefix(err.Error(), "docevents: "+method+": ") || !strings.Contains(err.Error(), want) {
						t.Errorf("error %v, want %q", err, want)
					}
					for _, leak := range []string{testKey, "secret", "document_id", "supabase.test"} {
						if err != nil && strings.Contains(strings.ReplaceAll(err.Error(), "the service-role (secret) key", ""), leak) {
							t.Errorf("it repeats %q: %v", leak, err)
						}
					}
					if len(s.requests) != tt.requests {
						t.Errorf("%s: %d requests, want %d", method, len(s.requests), tt.requests)
					}
				}
				check("Timeline", tt.timeline, func(c *docevents.Client) error {
					_, err := c.Timeline(t.Context(), testDocument)
					return err
				})
				check("Summary", tt.summary, func(c *docevents.Client) error {
					_, err := c.Summary(t.Context(), lastHour())
					return err
				})
			})
		})
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
		if got, err := c.Summary(t.Context(), docevents.Query{Until: time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)} /* the widest range */); err != nil || got.Interval != time.Minute {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

// Hosted Supabase sometimes refuses a valid key with 401 and PGRST303 for some seconds.
// Reads are retried for up to 5 s after it.
func TestReadRetriesAfter401(t *testing.T) {
	passing := answer{status: 401, code: "PGRST303", text: "JWT issued at future"}
	for name, read := range map[string]func(*docevents.Client, context.Context) error{
		"Timeline": func(c *docevents.Client, ctx context.Context) error {
			_, err := c.Timeline(ctx, testDocument)
			return err
		},
		"Summary": func(c *docevents.Client, ctx context.Context) error {
			_, err := c.Summary(ctx, lastHour())
			return err
		},
		"Documents": func(c *docevents.Client, ctx context.Context) error {
			_, err := c.Documents(ctx, docevents.DocumentsQuery{Query: lastHour()})
			return err
		},
	} {
		body := "[]"
		if name == "Summary" {
			body = emptySummary
		}
		synctest.Test(t, func(t *testing.T) {
			s := &script{answers: []answer{passing, {status: 502}, passing, passing, {body: body}}}
			c, _ := newClient(t, s)
			start := time.Now()
			if err := read(c, t.Context()); err != nil || len(s.requests) != 5 || time.Since(start) > 5*time.Second {
				t.Errorf("%s: after %d requests and %v: %v", name, len(s.requests), time.Since(start), err)
			}
		})
		synctest.Test(t, func(t *testing.T) {
			c, _ := newClient(t, &script{answers: []answer{passing}})
			start := time.Now()
			err := read(c, t.Context())
			if took := time.Since(start); err == nil || !strings.Contains(err.Error(), "PGRST303") || took < time.Second || took > 5*time.Second {
				t.Errorf("%s: a 401 that lasts, after %v: %v", name, took, err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			start = time.Now()
			if err := read(c, ctx); err == nil || !strings.Contains(err.Error(), "PGRST303") || time.Since(start) > time.Second {
				t.Errorf("%s: the same, bounded by ctx, after %v: %v", name, time.Since(start), err)
			}
		})
	}
}

// If the server hangs, a read ends after the request timeout or when ctx ends. It is not
// retried.
func TestReadTimeouts(t *testing.T) {
	for name, limit := range map[string]time.Duration{"the request timeout": 5 * time.Second, "ctx": time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{answers: []answer{{delay: time.Hour}}}
				c, _ := newClient(t, s, docevents.WithRequestTimeout(5*time.Second))
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				if name != "ctx" {
					ctx = t.Context()
				}
				defer cancel()
				start := time.Now()
				_, err := c.Summary(ctx, lastHour())
				if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != limit || len(s.requests) != 1 {
					t.Errorf("after %v and %d requests: %v", time.Since(start), len(s.requests), err)
				}
			})
		})
	}
}

func TestQueryRange(t *testing.T) {
	s := &script{}
	c, _ := newClient(t, s)
	now := time.Now()
	for name, r := range map[string][2]time.Time{
		"nothing":     {now, now},
		"backwards":   {now, now.Add(-time.Second)},
		"year 10,000": {now, time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)},
		"year 0":      {time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC), now},
	} {
		if _, err := c.Summary(t.Context(), docevents.Query{Since: r[0], Until: r[1]}); err == nil || !strings.Contains(err.Error(), "docevents: Summary: since must be before until") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(s.requests) > 0 {
		t.Errorf("%d requests", len(s.requests))
	}
}

// The bounds of a range are compared in UTC and in microseconds, as the database gets
// them.
func TestQueryRangeInOtherZones(t *testing.T) {
	west, east := time.FixedZone("west", -5*3600), time.FixedZone("east", 9*3600)
	now := time.Now()
	for name, test := range map[string]struct {
		since, until time.Time
		good         bool
	}{
		"the zero time, in the west": {time.Time{}.In(west), now, true},
		"the zero time, in the east": {time.Time{}.In(east), now, true},
		"year 1 only in the east":    {time.Date(1, 1, 1, 0, 0, 0, 0, east), now, false},
		"year 9999 only in the west": {now, time.Date(9999, 12, 31, 23, 0, 0, 0, west), false},
		"within a microsecond":       {now.Truncate(time.Microsecond), now.Truncate(time.Microsecond).Add(999), false},
	} {
		c, _ := newClient(t, &script{answers: []answer{{body: emptySummary}}})
		if _, err := c.Summary(t.Context(), docevents.Query{Since: test.since, Until: test.until}); (err == nil) != test.good {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := &script{}
	c, _ := newClient(t, s)
	if _, err := c.TimelineBefore(t.Context(), testDocument, time.Date(1, 1, 1, 0, 0, 0, 0, east)); err == nil || len(s.requests) > 0 {
		t.Errorf("TimelineBefore year 1 only in the east: %v, %d requests", err, len(s.requests))
	}
}

func TestReadsOfNilClient(t *testing.T) {
	for name, c := range map[string]*docevents.Client{"nil": nil, "zero": {}} {
		timeline, err1 := c.Timeline(t.Context(), "42")
		before, err2 := c.TimelineBefore(t.Context(), "", time.Time{})
		summary, err3 := c.Summary(t.Context(), docevents.Query{})
		page, err4 := c.Documents(t.Context(), docevents.DocumentsQuery{})
		if err := errors.Join(err1, err2, err3, err4); err != nil || timeline != nil || before != nil || summary != nil || page != nil {
			t.Errorf("%s: %v, %v, %v, %v, %v", name, timeline, before, summary, page, err)
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

// ErrOtherAnswer distinguishes the answer of another service or another version
// from a network error.
func TestErrOtherAnswer(t *testing.T) {
	for body, want := range map[string]bool{
		`{"hello":"world"}`: true, `"text"`: true, "null": true, "no JSON": true,
		`{"code":"PGRST202","message":"x"}`: true, "": false, `[{"document_id":`: false,
	} {
		client, _ := newClient(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: req}, nil
		}))
		now := time.Now()
		q := docevents.Query{Since: now.Add(-time.Hour), Until: now}
		_, err := client.Summary(t.Context(), q)
		_, alsoErr := client.Documents(t.Context(), docevents.DocumentsQuery{Query: q})
		_, lastErr := client.Timeline(t.Context(), docevents.SystemUser)
		for method, err := range map[string]error{"Summary": err, "Documents": alsoErr, "Timeline": lastErr} {
			if err == nil || errors.Is(err, docevents.ErrOtherAnswer) != want {
				t.Errorf("%s of %q: %v", method, body, err)
			}
		}
	}
}
