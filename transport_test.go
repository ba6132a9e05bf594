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
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docevents/docevents-go"
)

// No redirect is followed, since the key would go to another host.
func TestRedirects(t *testing.T) {
	for _, status := range []int{300, 301, 302, 303, 304, 307, 308} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel() // each call retries for a while
			var stolen atomic.Int64
			thief := newLoopback(t, func(w http.ResponseWriter, r *http.Request) {
				stolen.Add(1)
				w.WriteHeader(http.StatusCreated)
			})
			s := newLoopback(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", thief.URL+r.URL.RequestURI())
				w.WriteHeader(status)
			})
			for name, opts := range map[string][]docevents.Option{
				"":               nil,
				"purge in steps": {docevents.WithPurgeBatch(10)},
			} {
				c, err := docevents.New(s.URL, testKey, append(opts, docevents.WithSlog(discard))...)
				if err != nil {
					t.Fatal(err)
				}
				c.Record(event("a"))
				refused := func(call string, do func(context.Context) error) {
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					var e *docevents.Error
					if err := do(ctx); !errors.As(err, &e) || e.Status != status || !strings.Contains(err.Error(), "no redirect is followed") {
						t.Errorf("%s %s: %v", name, call, err)
					}
				}
				var calls sync.WaitGroup
				calls.Go(func() {
					refused("PurgeOlderThan", func(ctx context.Context) error { _, err := c.PurgeOlderThan(ctx, 1); return err })
				})
				calls.Go(func() { refused("Flush", c.Flush) })
				calls.Go(func() { refused("Check", c.Check) })
				calls.Wait()
				refused("Close", c.Close)
				checkStats(t, c, &docevents.Stats{Recorded: 1, Dropped: docevents.Drops{Abandoned: 1}})
			}
			if got := stolen.Load(); got != 0 || thief.opened() != 0 {
				t.Errorf("the other host got %d requests", got)
			}
		})
	}
}

// Whatever the body of an answer is, the error contains the status, and nothing
// panics.
func TestAnswersOfAllKinds(t *testing.T) {
	const html = "<!DOCTYPE html><html><title>hi</title></html>"
	garbage := strings.Repeat("\xff\x00{[\"", 10<<20/5)
	for name, test := range map[string]struct {
		status      int
		contentType string
		body        string
		message     string
		code        string
	}{
		"PostgREST":             {400, "application/json", `{"code":"42P10","details":"secret","hint":null,"message":"there is no unique or exclusion constraint matching the ON CONFLICT specification"}`, "there is no unique or exclusion constraint matching the ON CONFLICT specification", "42P10"},
		"null":                  {503, "application/json", "null", "Service Unavailable", ""},
		"nothing":               {502, "", "", "Bad Gateway", ""},
		"a list":                {500, "application/json", `[{"code":"23514"}]`, "Internal Server Error", ""},
		"a string":              {500, "application/json", `"23514"`, "Internal Server Error", ""},
		"a number":              {500, "application/json", `7`, "Internal Server Error", ""},
		"other types":           {400, "application/json", `{"code":23514,"message":{"a":1},"hint":[]}`, "Bad Request", ""},
		"a gateway's JSON":      {404, "application/json", `{"message":"no Route matched with those values"}`, "no Route matched with those values", ""},
		"JSON cut off":          {400, "application/json", `{"code":"23514","mess`, "Bad Request", ""},
		"JSON and more":         {400, "application/json", `{"code":"23514"}}`, "Bad Request", ""},
		"plain text":            {429, "text/plain", "slow down", "Too Many Requests", ""},
		"HTML":                  {403, "text/html; charset=utf-8", html, "the answer is an HTML page", ""},
		"HTML, unknown status":  {520, "text/html", html, "the answer is an HTML page", ""},
		"unknown status":        {599, "", "", "", ""},
		"10 MB of garbage":      {500, "application/json", garbage, "Internal Server Error", ""},
		"10 MB of HTML":         {502, "text/html", html + garbage, "the answer is an HTML page", ""},
		"10 MB of message":      {500, "application/json", `{"code":"XX000","message":"` + strings.Repeat("m", 10<<20) + `"}`, "Internal Server Error", ""},
		"a long text quoted":    {400, "application/json", `{"code":"22P02","message":"invalid input syntax for type json: \"` + strings.Repeat(`\u001b`, 64<<10) + `\""}`, `invalid input syntax for type json: "…"`, "22P02"},
		"a long message":        {500, "application/json", `{"message":"` + strings.Repeat("é", 2000) + `"}`, strings.Repeat("é", 512), ""},
		"an HTML page with 200": {200, "text/html", html, "the answer is an HTML page", ""},
		"an HTML page with 201": {201, "text/html", html, "the answer is an HTML page", ""},
		"an empty page, 200":    {200, "text/html", "", "the answer is an HTML page", ""},
		"an empty 200":          {200, "", "", "this is not PostgREST's answer to an insert", ""},
		"another service":       {200, "application/json", `{"status":"up"}`, "this is not PostgREST's answer to an insert", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newLoopback(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header()["Content-Type"] = nil // so that net/http doesn't guess the type
				if test.contentType != "" {
					w.Header().Set("Content-Type", test.contentType)
				}
				w.WriteHeader(test.status)
				_, _ = io.WriteString(w, test.body) // the client may have closed it
			})
			c, err := docevents.New(s.URL, testKey, docevents.WithSlog(discard))
			if err != nil {
				t.Fatal(err)
			}
			if test.code == "22P02" { // Check doesn't retry, but sends many requests
				err = c.Check(t.Context())
			} else {
				err = checkOnce(t, c)
			}
			var e *docevents.Error
			if !errors.As(err, &e) {
				t.Fatalf("Check: %v", err)
			}
			if e.Status != test.status || e.Message != test.message || e.Code != test.code || e.Hint != "" {
				t.Errorf("got %+.200v", e)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("%v: repeats the details", err)
			}
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
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				_ = c.Close(ctx)
			})
		})
	}
}

// An error has the answer's message, the advice about it, and nothing else.
func TestRemedies(t *testing.T) {
	for name, test := range map[string]struct {
		answer    answer
		want, not string
	}{
		"a web site":                    {answer{status: 404, body: "<!DOCTYPE html>"}, "SUPABASE_URL", "013_create"},
		"another path":                  {answer{status: 404, body: `{"error":"requested path is invalid"}`}, "SUPABASE_URL", "the key"},
		"Kong, no route":                {answer{status: 404, body: `{"message":"no Route matched with those values"}`}, "SUPABASE_URL", "013_create"},
		"a URL with the path twice":     {answer{status: 404, code: "PGRST125", text: "Invalid path specified in request URL"}, "SUPABASE_URL", "013_create"},
		"PostgREST 12, no table":        {answer{status: 404, body: "{}"}, "doesn't know public.document_processing_events", "the key"},
		"a read replica":                {answer{status: 405, code: "25006", text: "cannot execute INSERT in a read-only transaction"}, "read-only:", "013_create"},
		"a server clock that is behind": {answer{status: 401, code: "PGRST303", text: "JWT issued at future"}, "JWT issued at future", "check the key"},
		"an outdated cached plan":       {answer{status: 400, code: "0A000", text: "cached plan must not change result type"}, "cached plan", "013_create"},
		"a bigint id":                   {answer{status: 400, code: "22P02", text: `invalid input syntax for type bigint: "11111111-1111-4111-8111-111111111111"`}, "WithColumns", "11111111"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // answers that may pass are retried
				c, _ := newClient(t, roundTripFunc(func(req *http.Request) (*http.Response, error) { return test.answer.response(req), nil }))
				if err := c.Check(t.Context()); err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), test.not) {
					t.Errorf("%v: want %q, not %q", err, test.want, test.not)
				}
			})
		})
	}
}

// If the answer to a stored row was lost and a gateway removes Prefer, the retry is
// refused. Its details show that the row is stored, in any language and for any name
// of the key.
func TestStoredBeforeInAnyWords(t *testing.T) {
	const details = "Key (id)=(aaaaaaaa-0000-4000-8000-000000000001) already exists."
	for _, test := range []struct{ message, details string }{
		{`duplicate key value violates unique constraint "once"`, details},
		{"doppelter Schlüsselwert verletzt Unique-Constraint »einmal«", strings.Replace(details, "Key", "Schlüssel", 1)},
		{"doppelter Schlüsselwert verletzt Unique-Constraint »document_processing_events_pkey«", ""},
		{`duplicate key value violates unique constraint "pk_events"`, ""},
	} {
		t.Run(test.message, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &server{answer: func(r *request) *answer {
					if r.number == 0 {
						return &answer{stored: true, err: errReset}
					}
					return &answer{status: 409, body: fmt.Sprintf(`{"code":"23505","message":%q,"details":%q,"hint":null}`, test.message, test.details)}
				}}
				c, _ := newClient(t, s)
				e := event("a")
				e.ID = "aaaaaaaa-0000-4000-8000-000000000001"
				c.Record(e)
				if err := c.Flush(t.Context()); err != nil {
					t.Error(err)
				}
				checkStats(t, c, &docevents.Stats{Recorded: 1, Delivered: 1})
			})
		})
	}
}

// Neither the log nor an error that reaches the app repeats a row's text, in any
// print format, or has a line break from the server.
func TestTheLogHoldsNoRow(t *testing.T) {
	const secret = "patient Jane Doe"
	for name, body := range map[string]string{
		"a value":                  `{"code":"22P02","message":"invalid input syntax for type json: \"patient Jane Doe, born 1980\""}`,
		"a value of an enum":       `{"code":"22P02","message":"invalid input value for enum kind: \"patient Jane Doe\""}`,
		"a message in German":      `{"code":"22P02","message":"ungültige Eingabesyntax für Typ json: »patient Jane Doe«"}`,
		"a value of several lines": `{"code":"22P02","message":"invalid input syntax for type json: \"\npatient Jane Doe\n\u001b[31m"}`,
		"a hint":                   `{"code":"22P02","message":"odd","hint":"\"patient Jane Doe\" is no number"}`,
		"a trigger":                `{"code":"P0001","message":"patient Jane Doe is unknown","hint":"ask patient Jane Doe"}`,
		"a trigger's code":         `{"code":"PT422","message":"patient Jane Doe is unknown","hint":"ask patient Jane Doe"}`,
		"a function's JSON":        `{"code":"patient Jane Doe","message":"patient Jane Doe"}`,
		"details":                  `{"code":"23514","message":"violates check constraint \"c\"","details":"Failing row contains (patient Jane Doe)."}`,
		"a key's details":          `{"code":"23505","message":"violates unique constraint \"c\"","details":"Key (error_message)=(patient Jane Doe) already exists."}`,
		"a firewall's words":       `{"message":"blocked: \"patient Jane Doe\""}`,
		"escapes":                  `{"code":"XX000\n\u001b[31m","message":"a\nb\u001b[31m\u202e","hint":"c\u2028d"}`,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &server{answer: func(r *request) *answer {
					if r.has("bad") {
						return &answer{status: 400, body: body}
					}
					return nil
				}}
				c, o := newClient(t, s)
				bad := event("bad")
				bad.ErrorMessage = secret
				c.Record(bad)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				errs := []error{c.Flush(ctx), c.Close(ctx)}
				said := []string{}
				for _, l := range o.logged() {
					said = append(said, l.text)
				}
				for _, d := range o.lost() {
					errs = append(errs, d.err)
				}
				for len(errs) > 0 { // unwraps every error
					err := errs[0]
					errs = errs[1:]
					if err == nil {
						continue
					}
					said = append(said, err.Error(), fmt.Sprintf("%v %+v %#v %q", err, err, err, err))
					switch err := err.(type) {
					case interface{ Unwrap() error }:
						errs = append(errs, err.Unwrap())
					case interface{ Unwrap() []error }:
						errs = append(errs, err.Unwrap()...)
					}
				}
				if len(said) < 2 {
					t.Errorf("only %q", said)
				}
				for _, text := range said {
					if strings.Contains(text, "Jane") || strings.ContainsAny(text, "\n\x1b\u202e\u2028") {
						t.Errorf("%q", text)
					}
				}
			})
		})
	}
}

// The client reads a bounded part of every body, except of a purge's ids, and closes
// every body.
func TestBodiesAreReadWithinBounds(t *testing.T) {
	const long = 10 << 20
	for name, test := range map[string]struct {
		method, body string
		status       int
		most         int64           // bytes read
		stats        docevents.Stats // after an insert
		purged       int64           // 0 means an error
	}{
		"an error":           {"POST", strings.Repeat("x", long), 400, 512 << 10, docevents.Stats{Recorded: 1, Pending: 1}, 0},
		"an insert":          {"POST", strings.Repeat("x", long), 201, 516 << 10, docevents.Stats{Recorded: 1, Delivered: 1}, 0},
		"a purge's error":    {"DELETE", strings.Repeat("x", long), 400, 512 << 10, docevents.Stats{}, 0},
		"a page for a purge": {"DELETE", "<html>" + strings.Repeat("x", long), 200, 512 << 10, docevents.Stats{}, 0},
		"a purge":            {"DELETE", idRows(100_000), 200, long, docevents.Stats{}, 100_000},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				body := &countingBody{Reader: strings.NewReader(test.body)}
				c, _ := newClient(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
					if body.read > 0 { // the request was retried
						<-req.Context().Done()
						return nil, req.Context().Err()
					}
					resp := &http.Response{StatusCode: test.status, Header: http.Header{}, Body: body}
					if strings.HasPrefix(test.body, "<html>") {
						resp.Header.Set("Content-Type", "text/html")
					}
					return resp, nil
				}))
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if test.method == "POST" {
					c.Record(event("a"))
					synctest.Wait()
					checkStats(t, c, &test.stats)
				} else if n, err := c.PurgeOlderThan(ctx, 1); n != test.purged || (err == nil) != (n > 0) {
					t.Errorf("%d, %v, want %d", n, err, test.purged)
				}
				if body.read > test.most {
					t.Errorf("%d bytes read, want at most %d", body.read, test.most)
				}
				if !body.closed {
					t.Error("the body was not closed")
				}
				_ = c.Close(ctx)
			})
		})
	}
}

type countingBody struct {
	io.Reader
	read   int64
	closed bool
}

func (b *countingBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	b.read += int64(n)
	return n, err
}

func (b *countingBody) Close() error {
	b.closed = true
	return nil
}

// An answer that is cut short doesn't count, whatever its status. The rows are sent
// again, and stored once.
func TestAnswersCutShort(t *testing.T) {
	for _, first := range []answer{
		{status: 201, stored: true, cut: true},
		{status: 201, stored: true, cut: true, body: "["},
		{status: 400, code: "23514", cut: true},
		{status: 401, code: "PGRST301", cut: true},
		{status: 503, cut: true},
	} {
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
				t.Errorf("status %d: %d requests, %d rows, want 2 and 1", first.status, s.sent(), len(s.rows))
			}
			lines := o.logged()
			if want := "cut short"; len(lines) == 0 || !strings.Contains(lines[0].text, want) {
				t.Errorf("status %d: logged %v, want %q", first.status, lines, want)
			}
		})
	}
	t.Run("on a socket", func(t *testing.T) {
		s := newLoopback(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"code":"42501"`)
		})
		c, err := docevents.New(s.URL, testKey)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Check(t.Context()); !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "403") {
			t.Errorf("Check: %v", err)
		}
	})
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
	secrets := []string{key, "hunter2", "columns=", "created_at", "lt.", "secret row", "\n", "\x1b"}
	for name, respond := range map[string]func(*http.Request) (*http.Response, error){
		"a proxy that echoes": func(req *http.Request) (*http.Response, error) {
			body := fmt.Sprintf(`{"code":"%s","message":"Bearer %[1]s of %[1]s","hint":"apikey %[1]s","details":"secret row"}`, key)
			return &http.Response{StatusCode: 503, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}, nil
		},
		"a proxy that echoes in escapes": func(req *http.Request) (*http.Response, error) {
			body := `{"message":"` + strings.ReplaceAll(key, "-", `\u002d`) + `"}`
			return &http.Response{StatusCode: 401, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}, nil
		},
		"a proxy that echoes in HTML": func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 403, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("<html>" + key))}, nil
		},
		"a redirect": func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 307, Header: http.Header{"Location": {"https://evil.test/?key=" + key}}, Body: http.NoBody}, nil
		},
		"no connection": func(*http.Request) (*http.Response, error) { return nil, errReset },
		"a transport that is an http.Client": func(req *http.Request) (*http.Response, error) {
			return nil, &url.Error{Op: "Post", URL: req.URL.String(), Err: errReset}
		},
		"a transport that wraps such an error": func(req *http.Request) (*http.Response, error) {
			return nil, fmt.Errorf("traced: %w", &url.Error{Op: "Post", URL: req.URL.String(), Err: errReset})
		},
		"a transport whose error contains the URL": func(req *http.Request) (*http.Response, error) {
			return nil, fmt.Errorf("%s %s giving up after 5 attempts\n\x1b[31m", req.Method, req.URL)
		},
		"an error with the key": func(req *http.Request) (*http.Response, error) {
			return nil, fmt.Errorf("%v is no answer", req.Header)
		},
		"an echo of the body": func(req *http.Request) (*http.Response, error) {
			body := []byte("hunter2") // part of an insert's body
			return nil, fmt.Errorf("malformed HTTP response %q", body)
		},
		"a body that fails": func(req *http.Request) (*http.Response, error) {
			body := &errorReader{fmt.Errorf("of %s?%s:\n%w", req.URL.Path, req.URL.RawQuery, errReset)}
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(body)}, nil
		},
		"a transport that panics": func(req *http.Request) (*http.Response, error) { panic("hunter2") },
		"refused data": func(req *http.Request) (*http.Response, error) {
			return (&answer{status: 400, code: "23514", text: "new row violates"}).response(req), nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &observer{}
				c, err := docevents.New(testURL, key, docevents.WithTransport(roundTripFunc(respond)),
					docevents.WithSlog(slog.New(o)), docevents.WithDropHandler(o.dropped))
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
				said := []string{fmt.Sprint(c.Check(ctx)), fmt.Sprint(purge), fmt.Sprint(c.Flush(ctx)), fmt.Sprint(c.Close(ctx))}
				for _, l := range o.logged() {
					said = append(said, l.text)
				}
				for _, d := range o.lost() {
					said = append(said, d.err.Error())
				}
				if len(said) < 7 {
					t.Errorf("only %q", said)
				}
				for _, text := range said {
					for _, secret := range secrets {
						if strings.Contains(text, secret) {
							t.Errorf("%q repeats %q", text, secret)
						}
					}
				}
			})
		})
	}
}

// These transports break the contract of http.RoundTripper. http.Client accepts
// some of their answers.
func TestOddTransports(t *testing.T) {
	for name, test := range map[string]struct {
		respond func(*http.Request) (*http.Response, error)
		good    bool
	}{
		"no body": {func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 201, Header: http.Header{"Content-Range": {"*/0"}}}, nil
		}, true},
		"no header": {func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 201, Body: http.NoBody}, nil
		}, true},
		"no body, an error": {func(*http.Request) (*http.Response, error) { return &http.Response{StatusCode: 503}, nil }, false},
		"no answer":         {func(*http.Request) (*http.Response, error) { return nil, nil }, false},
		"status 0":          {func(*http.Request) (*http.Response, error) { return &http.Response{Body: http.NoBody}, nil }, false},
		"another protocol": {func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusSwitchingProtocols, Body: panicking{}}, nil
		}, false},
		"a body that panics": {func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 400, Body: panicking{}}, nil
		}, false},
		"a success of an insert that panics": {func(req *http.Request) (*http.Response, error) {
			if req.Method == http.MethodPost {
				return &http.Response{StatusCode: 201, Body: panicking{}}, nil
			}
			return nil, errReset
		}, false},
		"an error that panics": {func(*http.Request) (*http.Response, error) { return nil, (*panicking)(nil) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _ := newClient(t, roundTripFunc(test.respond))
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
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				_ = c.Close(ctx)
			})
		})
	}
}

type panicking struct{ text string }

func (panicking) Read([]byte) (int, error) { panic("row content") }
func (panicking) Close() error             { panic("row content") }
func (p *panicking) Error() string         { return p.text }

var discard = slog.New(slog.DiscardHandler)
