package docevents_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docevents/docevents-go"
)

// No redirect is followed, since the key would go to another host.
func TestRedirects(t *testing.T) {
	for _, status := range []int{300, 301, 302, 303, 304, 307, 308} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				redirects := roundTripFunc(func(req *http.Request) (*http.Response, error) {
					if req.URL.Host != "supabase.test" {
						t.Errorf("sent %s to %s", req.Method, req.URL.Host)
					}
					a := &answer{status: status, header: map[string]string{"Location": "http://elsewhere.test" + req.URL.RequestURI()}}
					return a.response(req), nil
				})
				c, _ := newClient(t, redirects)
				c.Record(event("a"))
				stepwise, _ := newClient(t, redirects, docevents.WithPurgeBatch(10))
				purge := func(c *docevents.Client) func(context.Context) error {
					return func(ctx context.Context) error {
						_, err := c.PurgeOlderThan(ctx, 1)
						return err
					}
				}
				for i, call := range []func(context.Context) error{purge(c), purge(stepwise), c.Check, c.Flush, c.Close} {
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					err := call(ctx)
					if e, ok := errors.AsType[*docevents.Error](err); !ok || e.Status != status || !strings.Contains(err.Error(), "no redirect is followed") {
						t.Errorf("call %d: got %v", i, err)
					}
				}
				checkStats(t, c, &docevents.Stats{Recorded: 1, Dropped: docevents.Drops{Abandoned: 1}})
			})
		})
	}
}

// PostgREST answers 201 to an insert. A server that answers another success to every
// request, such as a webhook sink or a health port, stores nothing.
func TestOnly201IsASuccess(t *testing.T) {
	for _, status := range []int{200, 202, 204, 207} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &server{answer: func(*request) *answer { return &answer{status: status} }}
				c, o := newClient(t, s)
				c.Record(event("a"))
				time.Sleep(6 * time.Second) // long enough for the refusal to be lasting
				checkStats(t, c, &docevents.Stats{Recorded: 1, Pending: 1})
				if lines := o.logged(); len(lines) != 1 || !strings.Contains(lines[0].text, "check SUPABASE_URL") {
					t.Errorf("logged %v", lines)
				}
				if err := c.Check(t.Context()); err == nil {
					t.Error("Check finds nothing wrong")
				}
				closeNow(t, c)
			})
		})
	}
}

// said returns the log lines, and the errors of dropped events.
func said(o *observer) (texts []string) {
	for _, l := range o.logged() {
		texts = append(texts, l.text)
	}
	for _, d := range o.lost() {
		texts = append(texts, d.err.Error())
	}
	return texts
}

func checkNoneContains(t *testing.T, texts, secrets []string) {
	t.Helper()
	for _, text := range texts {
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("%q repeats %q", text, secret)
			}
		}
	}
}

// Neither the log nor an error that reaches the app repeats a row's text, in any
// print format, or has a line break from the server.
func TestTheLogHoldsNoRow(t *testing.T) {
	for name, body := range map[string]string{
		"a value":                  `{"code":"22P02","message":"invalid input syntax for type json: \"patient Jane Doe, born 1980\""}`,
		"a value of several lines": `{"code":"22P02","message":"invalid input syntax for type json: \"\npatient Jane Doe\n\u001b[31m"}`,
		"a hint":                   `{"code":"22P02","message":"odd","hint":"\"patient Jane Doe\" is no number"}`,
		"a trigger":                `{"code":"P0001","message":"patient Jane Doe is unknown","hint":"ask patient Jane Doe"}`,
		"a trigger's code":         `{"code":"PT422","message":"patient Jane Doe is unknown","hint":"ask patient Jane Doe"}`,
		"a function's JSON":        `{"code":"patient Jane Doe","message":"patient Jane Doe"}`,
		"details":                  `{"code":"23514","message":"violates check constraint \"c\"","details":"Failing row contains (patient Jane Doe)."}`,
		"a firewall's words":       `{"message":"blocked: \"patient Jane Doe\""}`,
		"escapes":                  `{"code":"XX000\n\u001b[31m","message":"a\nb\u001b[31m\u202e","hint":"c\u2028d"}`,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, o := newClient(t, &server{answer: answerBad(answer{status: 400, body: body}, 0)})
				bad := event("bad")
				bad.ErrorMessage = "patient Jane Doe"
				c.Record(bad)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				errs := []error{c.Flush(ctx), c.Close(ctx)}
				for _, d := range o.lost() {
					errs = append(errs, d.err)
				}
				texts := said(o)
				if len(texts) == 0 {
					t.Error("nothing is logged")
				}
				for i := 0; i < len(errs); i++ { // unwraps every error
					err := errs[i]
					texts = append(texts, fmt.Sprintf("%v %+v %#v %q", err, err, err, err))
					switch err := err.(type) {
					case interface{ Unwrap() error }:
						errs = append(errs, err.Unwrap())
					case interface{ Unwrap() []error }:
						errs = append(errs, err.Unwrap()...)
					}
				}
				checkNoneContains(t, texts, []string{"Jane", "\n", "\x1b", "\u202e", "\u2028"})
			})
		})
	}
}

// An answer that is cut short doesn't count, whatever its status. The rows are sent
// again, and stored once.
func TestAnswersCutShort(t *testing.T) {
	for _, first := range []answer{
		{status: 201, stored: true, cut: true},
		{status: 400, code: "23514", cut: true},
		{status: 401, code: "PGRST301", cut: true},
	} {
		t.Run(fmt.Sprint(first.status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &server{answer: func(r *request) *answer {
					if r.number == 0 {
						return &first
					}
					return nil
				}}
				c, o := newClient(t, s)
				c.Record(event("a"))
				if err := c.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
				checkStats(t, c, &docevents.Stats{Recorded: 1, Delivered: 1})
				if s.sent() != 2 || len(s.rows) != 1 {
					t.Errorf("%d requests, %d rows, want 2 and 1", s.sent(), len(s.rows))
				}
				if lines := o.logged(); len(lines) == 0 || !strings.Contains(lines[0].text, "cut short: "+io.ErrUnexpectedEOF.Error()) {
					t.Errorf("logged %v", lines)
				}
			})
		})
	}
}

// errors.As finds the server's answer in every error of the package.
func TestErrorsAs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(r *request) *answer {
			switch {
			case r.has("fine"):
				return nil
			case r.has("bad"):
				return refused("23514", "check")
			}
			return &answer{status: 401, code: "PGRST301", text: "bad key", header: map[string]string{"Retry-After": "9"}}
		}}
		c, o := newClient(t, s)
		for _, stage := range []string{"fine", "bad", "fine", "refused"} {
			c.Record(event(stage))
			synctest.Wait()
		}
		errs := map[string]error{
			"Flush": c.Flush(t.Context()), "Check": c.Check(t.Context()), "Close": c.Close(t.Context()),
		}
		lost := o.lost()
		if len(lost) != 2 {
			t.Fatalf("%d lost", len(lost))
		}
		errs["Abandoned"] = lost[1].err
		for name, err := range errs {
			var e *docevents.Error
			if !errors.As(err, &e) || *e != (docevents.Error{Status: 401, Code: "PGRST301", Message: "bad key", RetryAfter: 9 * time.Second}) {
				t.Errorf("%s: %v", name, err)
			}
		}
		var e *docevents.Error
		if !errors.As(lost[0].err, &e) || e.Status != 400 || e.Code != "23514" {
			t.Errorf("Rejected: %v", lost[0].err)
		}
		if errors.Is(lost[1].err, docevents.ErrOutcomeUnknown) || errors.Is(lost[0].err, docevents.ErrOutcomeUnknown) {
			t.Errorf("outcomes: %v, %v", lost[0].err, lost[1].err)
		}
	})
}

// No log line and no error repeats the key, the row, the details or the query, even if
// a proxy or the app's transport does.
func TestSecretsStaySecret(t *testing.T) {
	const key = "self-hosted-key-0123456789"
	answers := func(a answer) roundTripFunc {
		return func(req *http.Request) (*http.Response, error) { return a.response(req), nil }
	}
	fails := func(with func(*http.Request) error) roundTripFunc {
		return func(req *http.Request) (*http.Response, error) { return nil, with(req) }
	}
	for name, transport := range map[string]roundTripFunc{
		"a proxy that echoes":            answers(answer{status: 503, body: fmt.Sprintf(`{"code":"%s","message":"Bearer %[1]s of %[1]s","hint":"apikey %[1]s","details":"secret row"}`, key)}),
		"a proxy that echoes in escapes": answers(answer{status: 401, body: `{"message":"` + strings.ReplaceAll(key, "-", `\u002d`) + `"}`}),
		"a proxy that echoes in HTML":    answers(answer{status: 403, body: "<html>" + key}),
		"a redirect":                     answers(answer{status: 307, header: map[string]string{"Location": "https://evil.test/?key=" + key}}),
		"refused data":                   answers(answer{status: 400, code: "23514", text: "new row violates"}),
		"a transport that wraps an http.Client": fails(func(req *http.Request) error {
			return fmt.Errorf("traced: %w", &url.Error{Op: "Post", URL: req.URL.String(), Err: errReset})
		}),
		"a transport whose error contains the URL": fails(func(req *http.Request) error {
			return fmt.Errorf("%s %s giving up after 5 attempts\n\x1b[31m", req.Method, req.URL)
		}),
		"an error with the key": fails(func(req *http.Request) error { return fmt.Errorf("%v is no answer", req.Header) }),
		"an echo of the body":   fails(func(*http.Request) error { return fmt.Errorf("malformed HTTP response %q", "hunter2") }),
		"a body that fails": func(req *http.Request) (*http.Response, error) {
			body := &errorReader{fmt.Errorf("of %s?%s:\n%w", req.URL.Path, req.URL.RawQuery, errReset)}
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(body)}, nil
		},
		"a transport that panics": func(*http.Request) (*http.Response, error) { panic("hunter2") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &observer{}
				c, err := docevents.New(testURL, key, docevents.WithTransport(transport), docevents.WithSlog(slog.New(o)), docevents.WithDropHandler(o.dropped))
				if err != nil {
					t.Fatal(err)
				}
				e := event("hunter2")
				e.ErrorMessage = "hunter2"
				c.Record(e)
				c.Record(docevents.Event{DocumentID: "hunter2", ErrorMessage: "hunter2"})
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, purge := c.PurgeOlderThan(ctx, 1)
				texts := []string{fmt.Sprint(c.Check(ctx), purge, c.Flush(ctx), c.Close(ctx))}
				if texts = append(texts, said(o)...); len(texts) < 4 {
					t.Errorf("only %q", texts)
				}
				checkNoneContains(t, texts, []string{key, "hunter2", "columns=", "created_at", "lt.", "secret row", "\n", "\x1b"})
			})
		})
	}
}

// These transports break the contract of http.RoundTripper. http.Client accepts
// some of their answers.
func TestOddTransports(t *testing.T) {
	for name, test := range map[string]struct {
		answer *http.Response
		err    error
		good   bool
	}{
		"no body":              {&http.Response{StatusCode: 201, Header: http.Header{"Content-Range": {"*/0"}}}, nil, true},
		"no header":            {&http.Response{StatusCode: 201, Body: http.NoBody}, nil, true},
		"no body, an error":    {&http.Response{StatusCode: 503}, nil, false},
		"no answer":            {nil, nil, false},
		"status 0":             {&http.Response{Body: http.NoBody}, nil, false},
		"another protocol":     {&http.Response{StatusCode: http.StatusSwitchingProtocols, Body: panicking{}}, nil, false},
		"a body that panics":   {&http.Response{StatusCode: 400, Body: panicking{}}, nil, false},
		"an error that panics": {nil, (*panicking)(nil), false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _ := newClient(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
					if test.answer == nil {
						return nil, test.err
					}
					a := *test.answer
					return &a, nil
				}))
				c.Record(event("a"))
				synctest.Wait()
				want := docevents.Stats{Recorded: 1, Pending: 1}
				if test.good {
					want = docevents.Stats{Recorded: 1, Delivered: 1}
				}
				checkStats(t, c, &want)
				if err := c.Check(t.Context()); err == nil { // the server can't store an insert without an id
					t.Error("Check finds nothing wrong")
				}
				closeNow(t, c)
			})
		})
	}
}

type panicking struct{ text string }

func (panicking) Read([]byte) (int, error) { panic("row content") }
func (panicking) Close() error             { panic("row content") }
func (p *panicking) Error() string         { return p.text }

var discard = slog.New(slog.DiscardHandler)
