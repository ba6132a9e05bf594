package docevents_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docevents/docevents-go"
)

// timedOut is the answer to a statement that reaches the statement timeout.
var timedOut = answer{delay: 8 * time.Second, status: 500, code: "57014", text: "canceling statement due to statement timeout"}

// timeout returns a function that makes a DELETE of more than most rows time out.
func timeout(most int) func(*purgeRequest, int) *answer {
	return func(r *purgeRequest, rows int) *answer {
		if r.method == http.MethodDelete && rows > most {
			return &timedOut
		}
		return nil
	}
}

// If not even a single row can be deleted, by its time or by its id, the purge ends.
func TestPurgeEndsIfASingleRowTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(t, 65)
		tb.answer = timeout(0)
		c, _ := newClient(t, tb, docevents.WithPurgeBatch(32))
		n, err := c.PurgeOlderThan(t.Context(), 1)
		e, _ := errors.AsType[*docevents.Error](err)
		if n != 0 || e == nil || e.Code != "57014" || !strings.Contains(err.Error(), "index on created_at") || errors.Is(err, docevents.ErrCountIncomplete) || tb.left() != 65 {
			t.Errorf("%d, %v, %d left, want 57014 and nothing gone", n, err, tb.left())
		}
		var steps []int
		deletes := 0
		for _, r := range tb.requests {
			if r.method == http.MethodGet {
				steps = append(steps, r.offset+1)
			} else {
				deletes++
			}
		}
		if fmt.Sprint(steps) != "[32 16 8 4 2 1 1 1 1 1 1]" || deletes != 10 {
			t.Errorf("steps of %v rows, %d DELETEs", steps, deletes)
		}
	})
}

// If a read or a DELETE takes too long for the database, a gateway or the transport, the
// next step is smaller.
func TestPurgeHalvesItsSteps(t *testing.T) {
	for name, test := range map[string]struct {
		method  string
		failure answer
	}{
		"a read":                           {http.MethodGet, timedOut},
		"a DELETE":                         {http.MethodDelete, timedOut},
		"a gateway's 504":                  {http.MethodDelete, answer{delay: time.Minute, status: 504, body: "<html>A timeout occurred</html>"}},
		"Cloudflare's 524":                 {http.MethodDelete, answer{delay: 100 * time.Second, status: 524, body: "<html>A timeout occurred</html>"}},
		"a timeout of the app's transport": {http.MethodDelete, answer{delay: time.Second, err: os.ErrDeadlineExceeded}},
		"an answer cut short":              {http.MethodDelete, answer{delay: 15 * time.Second, status: 200, header: map[string]string{"Content-Range": "*/40"}, body: "[", cut: true}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tb := newTable(t, 65)
				tb.answer = func(r *purgeRequest, rows int) *answer {
					if r.method == test.method && (rows > 10 && r.method == http.MethodDelete || r.offset >= 10) {
						return &test.failure
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

// While a table is locked, every statement times out, even for a single row. So the
// steps get small. After the lock they double, so the purge soon has full steps again.
// But if full steps always time out, the purge tries them only rarely, because each try
// costs a statement timeout.
func TestPurgeOfALockedOrSlowTable(t *testing.T) {
	type failing = func(r *purgeRequest, rows int, since time.Duration) bool
	slow := func(most int) failing {
		return func(r *purgeRequest, rows int, _ time.Duration) bool {
			return r.method == http.MethodDelete && rows > most
		}
	}
	for name, test := range map[string]struct {
		fails  failing
		within time.Duration
		most   int // maximum number of requests
	}{
		"no lock":                       {slow(500), 0, 10},
		"locked for the first requests": {func(r *purgeRequest, _ int, _ time.Duration) bool { return r.number < 9 }, 180 * time.Second, 60},
		"locked for 8 s":                {func(_ *purgeRequest, _ int, since time.Duration) bool { return since < 8*time.Second }, 9 * time.Second, 13},
		"locked in the last step":       {func(r *purgeRequest, _ int, _ time.Duration) bool { return r.number == 7 }, 9 * time.Second, 13},
		"DELETEs locked for 60 s": {func(r *purgeRequest, _ int, since time.Duration) bool {
			return r.method == http.MethodDelete && since < 60*time.Second
		}, 100 * time.Second, 60},
		"every seventh request locked": {func(r *purgeRequest, _ int, _ time.Duration) bool { return r.number%7 == 1 }, 60 * time.Second, 50},
		"slow for full steps":          {slow(499), 40 * time.Second, 40},
		"slow for 65 rows":             {slow(64), 80 * time.Second, 110},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tb := newTable(t, 2_000)
				begin := time.Now()
				tb.answer = func(r *purgeRequest, rows int) *answer {
					if test.fails(r, rows, time.Since(begin)) {
						return &timedOut
					}
					return nil
				}
				c, _ := newClient(t, tb, docevents.WithPurgeBatch(500))
				n, err := c.PurgeOlderThan(t.Context(), 1)
				if n != 1_998 || err != nil || tb.left() != 2 {
					t.Errorf("%d, %v, %d left", n, err, tb.left())
				}
				if took := time.Since(begin); took > test.within || len(tb.requests) > test.most {
					t.Errorf("%s and %d requests, want at most %s and %d", took, len(tb.requests), test.within, test.most)
				}
			})
		})
	}
}

// The DELETE for all rows is sent only once, however it fails. The purge then
// deletes in steps, the first with up to DefaultPurgeBatch rows.
func TestPurgeSendsTheOneDeleteOnce(t *testing.T) {
	for name, failure := range map[string]answer{
		"a statement timeout":              timedOut,
		"Cloudflare's 524":                 {delay: 100 * time.Second, status: 524, body: "<html>A timeout occurred</html>"},
		"a timeout of the app's transport": {delay: time.Second, err: os.ErrDeadlineExceeded},
		"a reset at once":                  {err: errReset},
		"a deadlock":                       {status: 409, code: "40P01"},
		"a server clock that is behind":    {status: 401, code: "PGRST303"},
	} {
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

// Without a deadline, a purge ends after ten failures in a row, and returns the last
// error.
func TestPurgeEndsAfterTenFailures(t *testing.T) {
	blocked := answer{status: 403, body: `{"message":"DELETE is blocked"}`}
	for name, test := range map[string]struct {
		answers []answer // in turn
		opts    []docevents.Option
	}{
		"DELETE is blocked":           {[]answer{blocked}, nil},
		"DELETE is blocked, in steps": {[]answer{blocked}, inSteps},
		"no answer":                   {[]answer{{err: errReset}}, nil},
		"a lock, one row":             {[]answer{{status: 500, code: "57014"}}, []docevents.Option{docevents.WithPurgeBatch(1)}},
		"a lock, ten rows":            {[]answer{{status: 500, code: "57014"}}, inSteps},
		"refusals and an outage":      {[]answer{{status: 401, code: "PGRST303"}, {status: 503, code: "PGRST002"}}, inSteps},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tb := newTable(t, 65)
				tb.answer = func(r *purgeRequest, _ int) *answer { return &test.answers[r.number%len(test.answers)] }
				c, _ := newClient(t, tb, test.opts...)
				begin := time.Now()
				n, err := c.PurgeOlderThan(context.Background(), 1)
				took := time.Since(begin)
				if n != 0 || err == nil || len(tb.requests) != 10 || took < 40*time.Second || took > 82*time.Second {
					t.Errorf("%d, %v after %d requests and %s", n, err, len(tb.requests), took)
				}
			})
		})
	}
}

// A failure that has nothing to do with the size of a step doesn't make the next step
// smaller. If the tenth request succeeds, the purge continues.
func TestPurgeKeepsStepSizeInAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(t, 65)
		failures := 0
		tb.answer = func(r *purgeRequest, _ int) *answer {
			if r.method == http.MethodGet && r.offset != 9 {
				t.Errorf("%s: the step has shrunk", r)
			}
			if r.method == http.MethodDelete {
				if failures++; failures%10 != 0 {
					return &answer{status: 503, code: "PGRST003"}
				}
			}
			return nil
		}
		c, _ := newClient(t, tb, inSteps...)
		if n, err := c.PurgeOlderThan(t.Context(), 1); n != 63 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	})
}

// With a deadline, a purge continues until then. The error names the last failure,
// and the log is quiet.
func TestPurgeEndsAtItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(t, 65)
		tb.answer = func(*purgeRequest, int) *answer { return &answer{status: 403, body: `{"message":"DELETE is blocked"}`} }
		c, o := newClient(t, tb)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		begin := time.Now()
		_, err := c.PurgeOlderThan(ctx, 1)
		if e, _ := errors.AsType[*docevents.Error](err); !errors.Is(err, context.DeadlineExceeded) || e == nil || e.Status != 403 || time.Since(begin) != time.Hour {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
		checkQuiet(t, o)
	})
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
				c, _ := newClient(t, tb, inSteps...)
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
// its schema cache. The error says once what to do.
func TestPurgeEndsAfterFiveSecondsOfRefusals(t *testing.T) {
	for advice, refusal := range map[string]answer{
		"wait: this ends":              {status: 401, code: "PGRST303", text: "JWT issued at future"},
		"check SUPABASE_URL":           {status: 200, body: "<html>"},
		"GRANT SELECT, INSERT, DELETE": {status: 403, code: "42501", text: "permission denied for table t"},
	} {
		for when, test := range map[string]struct {
			opts    []docevents.Option
			refused func(r *purgeRequest, since time.Duration) bool
			delay   time.Duration
			purged  int64
		}{
			"once, after a minute":  {inSteps, func(r *purgeRequest, _ time.Duration) bool { return r.number == 3 }, time.Minute, 63},
			"the first 4.9 seconds": {inSteps, func(_ *purgeRequest, since time.Duration) bool { return since < 4900*time.Millisecond }, 0, 63},
			"every third request":   {inSteps, func(r *purgeRequest, _ time.Duration) bool { return r.number%3 == 0 }, 4 * time.Second, 63},
			"from the second step":  {inSteps, func(r *purgeRequest, _ time.Duration) bool { return r.number >= 3 }, 0, 10},
			"from the start":        {nil, func(*purgeRequest, time.Duration) bool { return true }, 0, 0},
		} {
			t.Run(advice+" "+when, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					refusal := refusal
					refusal.delay = test.delay
					tb := newTable(t, 65)
					begin := time.Now()
					tb.answer = func(r *purgeRequest, _ int) *answer {
						if test.refused(r, time.Since(begin)) {
							return &refusal
						}
						return nil
					}
					c, _ := newClient(t, tb, test.opts...)
					n, err := c.PurgeOlderThan(t.Context(), 1)
					took := time.Since(begin)
					if n != test.purged || test.purged == 63 && err != nil && !errors.Is(err, docevents.ErrCountIncomplete) {
						t.Errorf("%d, %v, want %d", n, err, test.purged)
					}
					if e, _ := errors.AsType[*docevents.Error](err); test.purged < 63 && (e == nil || strings.Count(err.Error(), advice) != 1 || took < 5*time.Second || took > 12*time.Second) {
						t.Errorf("%v after %s, want the advice %q once", err, took, advice)
					}
				})
			})
		}
	}
}

// After a lost answer, the error matches ErrCountIncomplete, whatever ends the purge
// later. An answer isn't lost if the failure shows that nothing was deleted.
func TestPurgeEndsInErrorAfterALostAnswer(t *testing.T) {
	lost := &answer{stored: true, err: errReset}
	refusal := answer{status: 403, code: "42501", text: "permission denied for table t"}
	for name, test := range map[string]struct {
		first   *answer
		then    answer
		purged  int64
		lost    bool
		unknown bool // the error matches ErrOutcomeUnknown, because the last answer was lost
	}{
		"then a revoked grant":           {lost, refusal, 10, true, false},
		"then timeouts":                  {lost, answer{status: 500, code: "57014"}, 10, true, false},
		"then a foreign key to the rows": {lost, answer{status: 409, code: "23503"}, 10, true, false},
		"then no free connection":        {lost, answer{status: 504, code: "PGRST003"}, 10, true, false},
		"then more lost answers":         {lost, answer{status: 502}, 10, true, true},
		"nothing lost, an outage":        {nil, answer{status: 504, code: "PGRST003"}, 20, false, false},
		"nothing lost, a refusal":        {nil, refusal, 20, false, false},
		"nothing lost, a trigger":        {nil, answer{status: 400, code: "P0001", text: "events are for ever"}, 20, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tb := newTable(t, 65)
				tb.answer = func(r *purgeRequest, _ int) *answer {
					switch {
					case r.number == 3:
						return test.first
					case r.number > 3 && r.method == http.MethodDelete:
						return &test.then
					}
					return nil
				}
				c, _ := newClient(t, tb, inSteps...)
				n, err := c.PurgeOlderThan(t.Context(), 1)
				if e, _ := errors.AsType[*docevents.Error](err); n != test.purged || e == nil || e.Status != test.then.status {
					t.Errorf("%d, %v, want %d and status %d", n, err, test.purged, test.then.status)
				}
				if errors.Is(err, docevents.ErrCountIncomplete) != test.lost || errors.Is(err, docevents.ErrOutcomeUnknown) != test.unknown {
					t.Errorf("%v: count incomplete %v, outcome unknown %v", err, !test.lost, !test.unknown)
				}
				rejected := test.then.code == "P0001" || test.then.code == "23503"
				if rejected && len(tb.requests) != 6 {
					t.Errorf("%d requests: a rejection of the rows was retried", len(tb.requests))
				}
				if strings.Contains(err.Error(), "\n") {
					t.Errorf("more than a line: %q", err)
				}
			})
		})
	}
}

// If more rows have the same time than a statement can delete, they are deleted by
// their ids. The rows before and after them are deleted by their times.
func TestPurgeOfOneTime(t *testing.T) {
	const most = 20 // rows of a statement
	for name, test := range map[string]struct {
		before, ties, behind int
		numbers              bool // as ids
	}{
		"the oldest rows":           {0, 200, 100, false},
		"from the middle of a step": {7, 200, 100, false},
		"the newest rows":           {100, 200, 0, false},
		"one too many":              {100, most + 1, 100, false},
		"as many as a step":         {100, 10, 100, false},
		"numbers as ids":            {0, 200, 0, true},
	} {
		for in, opts := range map[string][]docevents.Option{"at once": nil, "in steps": inSteps} {
			for fault, answers := range map[string]func(tb *table) *answer{
				"no faults":    func(*table) *answer { return nil },
				"locks":        func(*table) *answer { return &answer{status: 500, code: "57014"} },
				"lost answers": func(*table) *answer { return &answer{stored: true, status: 502} },
				"late rows": func(tb *table) *answer {
					tb.insert(10*day, 11*day, 11*day, 11*day)
					return nil
				},
			} {
				t.Run(name+", "+in+", "+fault, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						tb := newTable(t, 2) // these rows stay
						tb.numbers = test.numbers
						for i := range test.before + test.ties + test.behind {
							at := i
							if i >= test.before && i < test.before+test.ties {
								at = test.before
							}
							tb.insert(10*day - time.Duration(at)*time.Second)
						}
						tb.answer = func(r *purgeRequest, rows int) *answer {
							if r.number%11 == 10 && r.number <= 100 {
								if a := answers(tb); a != nil {
									return a
								}
							}
							if opts == nil {
								rows /= 10 // the first step has 10,000 rows
							}
							return timeout(most)(r, rows)
						}
						c, _ := newClient(t, tb, opts...)
						n, err := c.PurgeOlderThan(t.Context(), 2)
						incomplete := fault == "lost answers" && errors.Is(err, docevents.ErrCountIncomplete)
						if tb.left() != 2 || !incomplete && (n != int64(tb.inserted-2) || err != nil) {
							t.Errorf("%d of %d, %v, %d left", n, tb.inserted-2, err, tb.left())
						}
						if len(tb.requests) > 600 {
							t.Errorf("%d requests", len(tb.requests))
						}
					})
				})
			}
		}
	}
}

func TestRequestsOfAPurgeOfOneTime(t *testing.T) {
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
}
