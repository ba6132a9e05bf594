package docevents_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docevents/docevents-go"
)

var steps = []docevents.Option{docevents.WithPurgeBatch(10_000)}

// While a table is locked, every statement times out, even for a single row. So the
// steps get small. After the lock they double, so the purge soon has full steps again.
func TestPurgeAfterALock(t *testing.T) {
	timedOut := &answer{delay: 8 * time.Second, status: 500, code: "57014", text: "canceling statement due to statement timeout"}
	between := func(from, to time.Duration) func(*purgeRequest, time.Duration) bool {
		return func(_ *purgeRequest, since time.Duration) bool { return since >= from && since < to }
	}
	for name, test := range map[string]struct {
		opts   []docevents.Option
		locked func(r *purgeRequest, since time.Duration) bool
		within time.Duration
		most   int // maximum number of requests
	}{
		"no lock":                {steps, between(0, 0), 0, 10},
		"the first ten requests": {steps, func(r *purgeRequest, _ time.Duration) bool { return r.number < 10 }, 200 * time.Second, 60},
		"8 s, the one DELETE":    {nil, between(0, 8*time.Second), 9 * time.Second, 11},
		"8 s, in steps":          {steps, between(0, 8*time.Second), 9 * time.Second, 13},
		"8 s, in the middle":     {steps, func(r *purgeRequest, _ time.Duration) bool { return r.number == 5 }, 9 * time.Second, 13},
		"8 s, in the last step":  {steps, func(r *purgeRequest, _ time.Duration) bool { return r.number == 7 }, 9 * time.Second, 13},
		"100 s":                  {steps, between(0, 100*time.Second), 140 * time.Second, 50},
		"100 s, only DELETEs": {steps, func(r *purgeRequest, since time.Duration) bool {
			return r.method == http.MethodDelete && since < 100*time.Second
		}, 140 * time.Second, 60},
		"100 s, from the second step": {steps, func(r *purgeRequest, since time.Duration) bool { return r.number > 2 && since < 100*time.Second }, 140 * time.Second, 50},
		"some DELETEs":                {steps, func(r *purgeRequest, _ time.Duration) bool { return r.method == http.MethodDelete && r.number%7 == 1 }, 60 * time.Second, 50},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tb := newTable(t, 40_000)
				begin := time.Now()
				tb.answer = func(r *purgeRequest, _ int) *answer {
					if test.locked(r, time.Since(begin)) {
						return timedOut
					}
					return nil
				}
				c, _ := newClient(t, tb, test.opts...)
				n, err := c.PurgeOlderThan(t.Context(), 1)
				if n != 39_998 || err != nil || tb.left() != 2 {
					t.Errorf("%d, %v, %d left", n, err, tb.left())
				}
				if took := time.Since(begin); took > test.within || len(tb.requests) > test.most {
					t.Errorf("%s and %d requests, want at most %s and %d", took, len(tb.requests), test.within, test.most)
				}
			})
		})
	}
}

// If full steps always time out, a purge tries them only rarely, because each try
// costs a statement timeout.
func TestPurgeOfASlowTable(t *testing.T) {
	for _, most := range []int{999, 500, 130, 7} {
		synctest.Test(t, func(t *testing.T) {
			tb := newTable(t, 4_000)
			timeouts := 0
			tb.answer = func(r *purgeRequest, rows int) *answer {
				a := timeout(most)(r, rows)
				if a != nil {
					timeouts++
				}
				return a
			}
			c, _ := newClient(t, tb, docevents.WithPurgeBatch(1000))
			n, err := c.PurgeOlderThan(t.Context(), 1)
			if n != 3_998 || err != nil || tb.left() != 2 {
				t.Errorf("%d, %v, %d left", n, err, tb.left())
			}
			if timeouts > 20 {
				t.Errorf("at most %d rows a time: %d of %d requests timed out", most, timeouts, len(tb.requests))
			}
		})
	}
}

// headerTimeout is net/http's error when ResponseHeaderTimeout has passed.
type headerTimeout struct{}

func (headerTimeout) Error() string   { return "net/http: timeout awaiting response headers" }
func (headerTimeout) Timeout() bool   { return true }
func (headerTimeout) Temporary() bool { return true }

// tooLong are answers to a request that takes too long for the database, a gateway or
// the transport.
var tooLong = map[string]answer{
	"a statement timeout":              {delay: 8 * time.Second, status: 500, code: "57014"},
	"a gateway's 504":                  {delay: time.Minute, status: 504, body: "<html>A timeout occurred</html>"},
	"Cloudflare's 524":                 {delay: 100 * time.Second, status: 524, body: "<html>A timeout occurred</html>"},
	"a timeout of the app's transport": {delay: time.Second, err: headerTimeout{}},
	"a reset":                          {delay: time.Minute, err: errReset},
	"an answer cut short":              {delay: 15 * time.Second, status: 200, header: map[string]string{"Content-Range": "*/40"}, body: "[", cut: true},
}

// If steps take too long, they shrink until they are fast enough.
func TestPurgeAfterTimeouts(t *testing.T) {
	for name, failure := range tooLong {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tb := newTable(t, 65)
				tb.answer = func(r *purgeRequest, rows int) *answer {
					if r.method == http.MethodDelete && rows > 10 {
						return &failure
					}
					return nil
				}
				c, _ := newClient(t, tb, docevents.WithPurgeBatch(40))
				_, err := c.PurgeOlderThan(t.Context(), 1)
				if tb.left() != 2 || err != nil && !errors.Is(err, docevents.ErrCountIncomplete) || len(tb.requests) > 30 {
					t.Errorf("%v, %d left after %d requests", err, tb.left(), len(tb.requests))
				}
			})
		})
	}
}

// The DELETE for all rows is sent only once, however it fails. The purge then
// deletes in steps, the first with up to DefaultPurgeBatch rows.
func TestPurgeSendsTheOneDeleteOnce(t *testing.T) {
	failures := maps.Clone(tooLong)
	maps.Copy(failures, map[string]answer{
		"a reset at once":               {err: errReset},
		"a 502 at once":                 {status: 502},
		"a database that shuts down":    {status: 503, code: "57P01"},
		"a deadlock":                    {status: 409, code: "40P01"},
		"a server clock that is behind": {status: 401, code: "PGRST303"},
	})
	for name, failure := range failures {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tb := newTable(t, 65)
				tb.answer = func(r *purgeRequest, _ int) *answer {
					if r.prefer == "return=representation" {
						return &failure
					}
					return nil
				}
				c, _ := newClient(t, tb)
				_, err := c.PurgeOlderThan(t.Context(), 1)
				if tb.left() != 2 || err != nil && !errors.Is(err, docevents.ErrCountIncomplete) || len(tb.requests) != 3 || tb.requests[1].offset != docevents.DefaultPurgeBatch-1 {
					t.Errorf("%v, %d left after %v", err, tb.left(), tb.requests)
				}
			})
		})
	}
}

// After a failure that has nothing to do with the size of the step, the purge waits
// and keeps the size.
func TestPurgeKeepsStepSize(t *testing.T) {
	for name, test := range map[string]struct {
		answer answer
		lost   bool // after a DELETE, the outcome is unknown
	}{
		"504 of the pool":        {answer{status: 504, code: "PGRST003", text: "Timed out acquiring connection from connection pool."}, false},
		"503 of the pool":        {answer{status: 503, code: "PGRST003"}, false},
		"503 of the database":    {answer{status: 503, code: "PGRST002"}, true},
		"504 of a gateway":       {answer{status: 504, body: "<html>"}, true},
		"503 of a gateway":       {answer{status: 503}, true},
		"no answer":              {answer{err: errReset}, true},
		"no connection":          {answer{err: &net.OpError{Op: "dial", Net: "tcp", Err: errReset}}, false},
		"a DNS failure":          {answer{err: &net.DNSError{Err: "no such host", Name: "x.supabase.co"}}, false},
		"a database that starts": {answer{status: 503, code: "57P03", text: "the database system is starting up"}, true},
		"too many connections":   {answer{status: 503, code: "53300", text: "too many connections"}, false},
	} {
		for in, opts := range map[string][]docevents.Option{"at once": nil, "in steps": {docevents.WithPurgeBatch(10)}} {
			for _, until := range []time.Duration{time.Millisecond, time.Second, 30 * time.Second} {
				t.Run(fmt.Sprint(name, " ", in, " ", until), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						tb := newTable(t, 65)
						begin := time.Now()
						tb.answer = func(*purgeRequest, int) *answer {
							if time.Since(begin) < until {
								return &test.answer
							}
							return nil
						}
						c, _ := newClient(t, tb, opts...)
						n, err := c.PurgeOlderThan(t.Context(), 1)
						lost := test.lost && opts == nil // in steps, the failed requests are reads
						if n != 63 || tb.left() != 2 || (err != nil) != lost || errors.Is(err, docevents.ErrCountIncomplete) != lost {
							t.Errorf("%d, %v, %d left after %s", n, err, tb.left(), time.Since(begin))
						}
						if took := time.Since(begin); took > 2*until+time.Second || len(tb.requests) > 26 {
							t.Errorf("took %s and %d requests", took, len(tb.requests))
						}
						for _, r := range tb.requests {
							if r.method == http.MethodGet && r.offset != 9 && r.offset != docevents.DefaultPurgeBatch-1 {
								t.Errorf("%s: the step has shrunk", r)
							}
						}
					})
				})
			}
		}
	}
}

// Without a deadline, a purge ends after ten failures in a row, and returns the last
// error. The log counts all failures in a few lines.
func TestPurgeEndsAfterTenFailures(t *testing.T) {
	for name, test := range map[string]struct {
		answer answer
		opts   []docevents.Option
	}{
		"DELETE is blocked":           {answer{status: 403, body: `{"message":"DELETE is blocked"}`}, nil},
		"DELETE is blocked, in steps": {answer{status: 403, body: `{"message":"DELETE is blocked"}`}, steps},
		"an unknown code":             {answer{status: 400, code: "2BP01", text: "dependent objects"}, nil},
		"no database":                 {answer{status: 503, code: "PGRST001"}, steps},
		"no answer":                   {answer{err: errReset}, nil},
		"a lock, one row":             {answer{status: 500, code: "57014"}, []docevents.Option{docevents.WithPurgeBatch(1)}},
		"a lock, ten rows":            {answer{status: 500, code: "57014"}, []docevents.Option{docevents.WithPurgeBatch(10)}},
		"a 409 of a firewall":         {answer{status: 409, body: "no"}, steps},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tb := newTable(t, 65)
				tb.answer = func(*purgeRequest, int) *answer { return &test.answer }
				c, o := newClient(t, tb, test.opts...)
				begin := time.Now()
				n, err := c.PurgeOlderThan(context.Background(), 1)
				took := time.Since(begin)
				if n != 0 || err == nil || len(tb.requests) != 10 || took < 40*time.Second || took > 82*time.Second {
					t.Errorf("%d, %v after %d requests and %s", n, err, len(tb.requests), took)
				}
				wantQuiet(t, o, took)
				_ = c.Close(t.Context())
				total := 0
				for _, l := range o.logged() {
					var count int
					_, _ = fmt.Sscanf(l.text, "docevents: purge failed, trying again count=%d ", &count)
					total += count
				}
				if total != 9 {
					t.Errorf("the log counts %d failures, want 9: %v", total, o.logged())
				}
			})
		})
	}
	t.Run("nine failures", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tb := newTable(t, 65)
			failures := 0
			tb.answer = func(r *purgeRequest, _ int) *answer {
				if r.method == http.MethodDelete {
					if failures++; failures%10 != 0 {
						return &answer{status: 503, code: "PGRST003"}
					}
				}
				return nil
			}
			c, o := newClient(t, tb, docevents.WithPurgeBatch(10))
			begin := time.Now()
			n, err := c.PurgeOlderThan(t.Context(), 1)
			if n != 63 || err != nil && !errors.Is(err, docevents.ErrCountIncomplete) {
				t.Errorf("%d, %v", n, err)
			}
			wantQuiet(t, o, time.Since(begin))
		})
	})
	t.Run("with a deadline", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tb := newTable(t, 65)
			tb.answer = func(*purgeRequest, int) *answer { return &answer{status: 403, body: `{"message":"DELETE is blocked"}`} }
			c, o := newClient(t, tb)
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			begin := time.Now()
			_, err := c.PurgeOlderThan(ctx, 1)
			if e := (*docevents.Error)(nil); !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &e) || e.Status != 403 || time.Since(begin) != time.Hour {
				t.Errorf("%v after %s", err, time.Since(begin))
			}
			wantQuiet(t, o, time.Hour)
		})
	})
}

// wantQuiet checks that there is at least one line, and at most one in 30 s.
func wantQuiet(t *testing.T, o *observer, took time.Duration) {
	t.Helper()
	synctest.Wait()
	lines := o.logged()
	if len(lines) == 0 || len(lines) > 1+int(took/(30*time.Second)) {
		t.Fatalf("%d lines in %s: %v", len(lines), took, lines)
	}
	for i, l := range lines {
		if !strings.HasPrefix(l.text, "docevents: purge failed, trying again ") || i > 0 && l.at.Sub(lines[i-1].at) < 30*time.Second {
			t.Errorf("line %d: %v", i, l)
		}
	}
}

// If a trigger keeps all rows, every step succeeds without deleting a row. The last step
// covers all rows. If it times out again and again, the purge ends with an error.
func TestPurgeOfRowsThatATriggerKeeps(t *testing.T) {
	for name, most := range map[string]int{"the last step succeeds": 100, "the last step times out": 40} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tb := newTable(t, 65)
				tb.answer = func(r *purgeRequest, rows int) *answer {
					if a := timeout(most)(r, rows); a != nil || r.method == http.MethodGet {
						return a
					}
					return &answer{status: 204, header: map[string]string{"Content-Range": "*/0"}}
				}
				c, _ := newClient(t, tb, docevents.WithPurgeBatch(10))
				n, err := c.PurgeOlderThan(t.Context(), 1)
				if n != 0 || tb.left() != 65 || (err == nil) != (most == 100) || len(tb.requests) > 1000 {
					t.Errorf("%d, %v, %d left after %d requests", n, err, tb.left(), len(tb.requests))
				}
			})
		})
	}
}

// Refusals end a purge only after 5 s: hosted projects sometimes refuse a valid key
// for a second or two, and PostgREST doesn't find a table or column while it reloads
// its schema cache.
func TestPurgeEndsAfterFiveSecondsOfRefusals(t *testing.T) {
	for name, refusal := range map[string]answer{
		"a key issued in the future": {status: 401, code: "PGRST303", text: "JWT issued at future"},
		"no table":                   {status: 404, code: "PGRST205", text: "Could not find the table"},
		"no column":                  {status: 400, code: "PGRST204", text: "Could not find the column"},
		"an outdated cached plan":    {status: 400, code: "0A000", text: "cached plan must not change result type"},
		"an HTML page":               {status: 200, body: "<html>"},
	} {
		for when, test := range map[string]struct {
			refused func(r *purgeRequest, since time.Duration) bool
			delay   time.Duration
			passes  bool
		}{
			"once":                  {func(r *purgeRequest, _ time.Duration) bool { return r.number == 3 }, 0, true},
			"once, after a minute":  {func(r *purgeRequest, _ time.Duration) bool { return r.number == 3 }, time.Minute, true},
			"the first two seconds": {func(_ *purgeRequest, since time.Duration) bool { return since < 2*time.Second }, 0, true},
			"the first 4.9 seconds": {func(_ *purgeRequest, since time.Duration) bool { return since < 4900*time.Millisecond }, 0, true},
			"every third request":   {func(r *purgeRequest, _ time.Duration) bool { return r.number%3 == 0 }, 4 * time.Second, true},
			"from the second step":  {func(r *purgeRequest, _ time.Duration) bool { return r.number >= 3 }, 0, false},
		} {
			t.Run(name+" "+when, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					tb := newTable(t, 65)
					begin := time.Now()
					tb.answer = func(r *purgeRequest, _ int) *answer {
						if test.refused(r, time.Since(begin)) {
							a := refusal
							a.delay = test.delay
							return &a
						}
						return nil
					}
					c, _ := newClient(t, tb, docevents.WithPurgeBatch(10))
					n, err := c.PurgeOlderThan(t.Context(), 1)
					if test.passes && (n != 63 || err != nil && !errors.Is(err, docevents.ErrCountIncomplete)) {
						t.Errorf("%d of 63, %v", n, err)
					}
					e := (*docevents.Error)(nil)
					if took := time.Since(begin); !test.passes && (n != 10 || !errors.As(err, &e) || took < 5*time.Second || took > 12*time.Second) {
						t.Errorf("%d, %v after %s, want 10 and the refusal", n, err, took)
					}
				})
			})
		}
	}
	t.Run("alternating with other failures", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tb := newTable(t, 65)
			tb.answer = func(r *purgeRequest, _ int) *answer {
				if r.number%2 == 0 {
					return &answer{status: 401, code: "PGRST303"}
				}
				return &answer{status: 503, code: "PGRST002"}
			}
			c, _ := newClient(t, tb, docevents.WithPurgeBatch(10))
			if n, err := c.PurgeOlderThan(t.Context(), 1); n != 0 || err == nil || len(tb.requests) != 10 {
				t.Errorf("%d, %v after %d requests", n, err, len(tb.requests))
			}
		})
	})
}

// After a lost answer, the error matches ErrCountIncomplete, whatever ends the purge
// later. An answer isn't lost if the failure shows that nothing was deleted.
func TestPurgeEndsInErrorAfterALostAnswer(t *testing.T) {
	lost := &answer{stored: true, err: errReset}
	refusal := &answer{status: 403, code: "42501", text: "permission denied for table t"}
	for name, test := range map[string]struct {
		first, then *answer
		purged      int64
		status      int
		lost        bool
		unknown     bool // the error matches ErrOutcomeUnknown, because the last answer was lost
	}{
		"then a revoked grant":                    {lost, refusal, 10, 403, true, false},
		"then an outage":                          {lost, &answer{status: 503, code: "53300"}, 10, 503, true, false},
		"then timeouts":                           {lost, &answer{status: 500, code: "57014"}, 10, 500, true, false},
		"then a foreign key to the rows":          {lost, &answer{status: 409, code: "23503"}, 10, 409, true, false},
		"then bad data":                           {lost, &answer{status: 400, code: "22007"}, 10, 400, true, false},
		"then no free connection":                 {lost, &answer{status: 504, code: "PGRST003"}, 10, 504, true, false},
		"then more lost answers":                  {lost, &answer{status: 502}, 10, 502, true, true},
		"nothing lost, an outage":                 {nil, &answer{status: 504, code: "PGRST003"}, 20, 504, false, false},
		"nothing lost, a refusal":                 {nil, refusal, 20, 403, false, false},
		"nothing lost, timeouts":                  {nil, &answer{status: 500, code: "57014"}, 20, 500, false, false},
		"nothing lost, a foreign key to the rows": {nil, &answer{status: 409, code: "23503"}, 20, 409, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tb := newTable(t, 65)
				tb.answer = func(r *purgeRequest, _ int) *answer {
					switch {
					case r.number == 3:
						return test.first
					case r.number > 3 && r.method == http.MethodDelete:
						return test.then
					}
					return nil
				}
				c, _ := newClient(t, tb, docevents.WithPurgeBatch(10))
				n, err := c.PurgeOlderThan(t.Context(), 1)
				var e *docevents.Error
				if n != test.purged || !errors.As(err, &e) || e.Status != test.status {
					t.Errorf("%d, %v, want %d and status %d", n, err, test.purged, test.status)
				}
				if errors.Is(err, docevents.ErrCountIncomplete) != test.lost || errors.Is(err, docevents.ErrOutcomeUnknown) != test.unknown {
					t.Errorf("%v: count incomplete %v, outcome unknown %v", err, !test.lost, !test.unknown)
				}
				if strings.ContainsAny(err.Error(), "\n") || strings.Contains(err.Error(), "?") && test.status != 500 {
					t.Errorf("%q", err)
				}
			})
		})
	}
}

// If more rows have the same time than a statement can delete, they are deleted by
// their ids. The rows before and after them are deleted by their times.
func TestPurgeOfOneTime(t *testing.T) {
	for name, test := range map[string]struct{ before, ties, behind int }{
		"no other rows":             {0, 1000, 0},
		"the oldest rows":           {0, 1000, 100},
		"in the middle":             {100, 1000, 100},
		"from the middle of a step": {7, 1000, 100},
		"the newest rows":           {100, 1000, 0},
		"just few enough":           {100, 20, 100},
		"one too many":              {100, 21, 100},
		"as many as a step":         {100, 10, 100},
		"no equal times":            {100, 0, 100},
	} {
		for in, opts := range map[string][]docevents.Option{"at once": nil, "in steps": {docevents.WithPurgeBatch(10)}, "in steps that are too large": {docevents.WithPurgeBatch(500)}} {
			for fault, answers := range map[string]func(*purgeRequest, int) *answer{
				"": func(*purgeRequest, int) *answer { return nil },
				"with locks": func(r *purgeRequest, _ int) *answer {
					if r.number%11 == 10 {
						return &answer{status: 500, code: "57014"}
					}
					return nil
				},
				"with lost answers": func(r *purgeRequest, _ int) *answer {
					if r.number%11 == 10 {
						return &answer{stored: true, status: 502}
					}
					return nil
				},
			} {
				t.Run(strings.TrimSpace(fmt.Sprint(name, " ", in, " ", fault)), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						tb := newTable(t, 2) // these rows stay
						total := test.before + test.ties + test.behind
						for i := range total {
							at := i
							if i >= test.before && i < test.before+test.ties {
								at = test.before
							}
							tb.insert(10*day - time.Duration(at)*time.Second)
						}
						tb.answer = func(r *purgeRequest, rows int) *answer {
							if a := answers(r, rows); a != nil {
								return a
							}
							if opts == nil {
								rows /= 10 // the first step has 10,000 rows
							}
							return timeout(20)(r, rows)
						}
						c, _ := newClient(t, tb, opts...)
						n, err := c.PurgeOlderThan(t.Context(), 2)
						lost := errors.Is(err, docevents.ErrCountIncomplete)
						if tb.left() != 2 || !lost && (n != int64(total) || err != nil) || lost && fault != "with lost answers" {
							t.Errorf("%d of %d, %v, %d left", n, total, err, tb.left())
						}
						if len(tb.requests) > 600 {
							t.Errorf("%d requests", len(tb.requests))
						}
					})
				})
			}
		}
	}
	t.Run("numbers as ids", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tb := newTable(t, 2)
			tb.numbers, tb.answer = true, timeout(3)
			for range 70 {
				tb.insert(10 * day)
			}
			c, _ := newClient(t, tb, docevents.WithPurgeBatch(4))
			if n, err := c.PurgeOlderThan(t.Context(), 2); n != 70 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
		})
	})
	t.Run("all requests", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tb := newTable(t, 2)
			for range 7 {
				tb.insert(10 * day)
			}
			tb.answer = timeout(3)
			c, _ := newClient(t, tb, docevents.WithPurgeBatch(4))
			if n, err := c.PurgeOlderThan(t.Context(), 2); n != 7 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
			const boundary, one, counted = "1999-12-22T00:00:00+00:00", "eq.1999-12-22T00:00:00+00:00", " return=minimal,count=exact"
			want := []string{
				"GET lt.1999-12-30T00:00:00.000000Z row 4",
				"DELETE lte." + boundary + counted, // times out
				"GET lt.1999-12-30T00:00:00.000000Z row 2",
				"GET " + one + " row 2",
				"DELETE " + one + " id lte.A" + counted,
				"GET " + one + " id gt.A row 4",
				"DELETE " + one + " id gt.A id lte.B" + counted, // times out
				"GET " + one + " id gt.A row 2",
				"DELETE " + one + " id gt.A id lte.C" + counted,
				"GET " + one + " id gt.C row 2",
				"DELETE " + one + " id gt.C id lte.B" + counted,
				"GET " + one + " id gt.B row 4", // fewer than 4 are left
				"GET lt.1999-12-30T00:00:00.000000Z row 4",
				"DELETE lt.1999-12-30T00:00:00.000000Z" + counted,
			}
			names := map[string]string{}
			var got []string
			for _, r := range tb.requests {
				for i, f := range r.ids {
					operator, id, _ := strings.Cut(f, ".")
					if names[id] == "" {
						names[id] = string(rune('A' + len(names)))
					}
					r.ids[i] = operator + "." + names[id]
				}
				got = append(got, r.String())
			}
			if strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("sent\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	})
	t.Run("late rows", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tb := newTable(t, 2)
			for range 200 {
				tb.insert(10 * day)
			}
			begin := time.Now()
			tb.answer = func(r *purgeRequest, rows int) *answer {
				if r.number%5 == 0 && r.number <= 50 {
					tb.insert(time.Since(begin)+10*day, time.Since(begin)+11*day)
				}
				return timeout(3)(r, rows)
			}
			c, _ := newClient(t, tb, docevents.WithPurgeBatch(4))
			if n, err := c.PurgeOlderThan(t.Context(), 2); n != 222 || err != nil || tb.left() != 2 {
				t.Errorf("%d, %v, %d left", n, err, tb.left())
			}
		})
	})
}
