package docevents

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docevents/docevents-go/internal/rest"
)

// failed counts a failed request. It decides whether the purge continues, and whether
// with smaller steps.
func TestPurgeFailed(t *testing.T) {
	timeout := &rest.Error{Status: 500, Code: "57014"}
	refusal := &rest.Error{Status: 403, Code: "42501"}
	gateway := &rest.Error{Status: 524}
	reset := errors.New("connection reset")
	type failure struct {
		err     error
		inRow   int
		rows    int
		took    time.Duration
		refused time.Duration // how long the server has only refused
		bounded bool
	}
	for name, test := range map[string]struct {
		failure
		again, smaller bool
	}{
		"a timeout":                                   {failure{err: timeout, inRow: 1, rows: 10}, true, true},
		"the ninth timeout, one row":                  {failure{err: timeout, inRow: 9, rows: 1}, true, true},
		"the tenth timeout, one row":                  {failure{err: timeout, inRow: 10, rows: 1}, false, true},
		"the tenth timeout, one row, with a deadline": {failure{err: timeout, inRow: 10, rows: 1, bounded: true}, false, true},
		"the tenth timeout, two rows":                 {failure{err: timeout, inRow: 10, rows: 2}, true, true},
		"the twentieth timeout":                       {failure{err: timeout, inRow: 20, rows: 2, bounded: true}, false, true},
		"the tenth 524":                               {failure{err: gateway, inRow: 10}, false, true},
		"no answer":                                   {failure{err: reset, inRow: 1}, true, false},
		"no answer for a minute":                      {failure{err: reset, inRow: 1, took: time.Minute}, true, true},
		"the tenth lost answer":                       {failure{err: reset, inRow: 10}, false, false},
		"the tenth lost answer, with a deadline":      {failure{err: reset, inRow: 10, bounded: true}, true, false},
		"a deadlock":                                  {failure{err: &rest.Error{Status: 409, Code: "40P01"}, inRow: 1}, true, false},
		"the tenth refusal in 4.9 s":                  {failure{err: refusal, inRow: 10, refused: 4900 * time.Millisecond}, true, false},
		"refusals for 5 s":                            {failure{err: refusal, inRow: 2, refused: 5 * time.Second, bounded: true}, false, false},
		"a slow web page":                             {failure{err: &rest.Error{Status: 200}, inRow: 1, took: time.Minute}, true, false},
		"a foreign key to the rows":                   {failure{err: &rest.Error{Status: 409, Code: "23503"}, inRow: 1, bounded: true}, false, false},
		"bad data":                                    {failure{err: &rest.Error{Status: 400, Code: "22007"}, inRow: 1, bounded: true}, false, false},
		"a trigger that raises":                       {failure{err: &rest.Error{Status: 400, Code: "P0001"}, inRow: 1, bounded: true}, false, false},
		"too large":                                   {failure{err: &rest.Error{Status: 413}, inRow: 1, bounded: true}, false, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := &purge{failures: test.inRow - 1, size: stepSize{rows: test.rows}}
			if test.refused > 0 {
				p.refused = time.Now().Add(-test.refused)
			}
			again, smaller := p.failed(fmt.Errorf("outer: %w", test.err), test.took, test.bounded)
			if again != test.again || smaller != test.smaller || p.failures != test.inRow {
				t.Errorf("%s: again %v, smaller %v, want %v, %v", name, again, smaller, test.again, test.smaller)
			}
		})
	}
}

// unsent returns the error of a request whose dialer returns err.
func unsent(err error) error {
	dial := func(context.Context, string, string) (net.Conn, error) { return nil, err }
	c := rest.New(rest.Config{URL: "http://supabase.test", Transport: &http.Transport{DialContext: dial}})
	return c.Get(context.Background(), rest.Reading{}, nil)
}

// tookTooLong recognizes the errors of requests that were too slow for the
// database, a gateway or the transport.
func TestTookTooLong(t *testing.T) {
	const never = time.Duration(math.MaxInt64)
	timedOut := &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}
	for name, test := range map[string]struct {
		err  error
		from time.Duration // the least time after which tookTooLong returns true
	}{
		"a statement timeout":               {&rest.Error{Status: 500, Code: "57014"}, 0},
		"a transaction timeout":             {&rest.Error{Status: 500, Code: "25P04"}, 0},
		"Cloudflare's 524":                  {&rest.Error{Status: 524}, 0},
		"a 408":                             {&rest.Error{Status: 408}, 0},
		"a timeout of the transport":        {timedOut, 0},
		"a context's deadline":              {context.DeadlineExceeded, 0},
		"a gateway's 504":                   {&rest.Error{Status: 504}, purgePatience},
		"a 502":                             {&rest.Error{Status: 502}, purgePatience},
		"a 500 without a code":              {&rest.Error{Status: 500}, purgePatience},
		"a 503 with a gateway's code":       {&rest.Error{Status: 503, Code: "H12"}, purgePatience},
		"a reset":                           {syscall.ECONNRESET, purgePatience},
		"an answer cut short":               {fmt.Errorf("answer cut short: %w", io.ErrUnexpectedEOF), purgePatience},
		"no connection":                     {unsent(timedOut), never},
		"a 429":                             {&rest.Error{Status: 429}, never},
		"a firewall's page":                 {&rest.Error{Status: 403}, never},
		"no connection in PostgREST's pool": {&rest.Error{Status: 504, Code: "PGRST003"}, never},
		"a database that is shutting down":  {&rest.Error{Status: 503, Code: "57P01"}, never},
		"a deadlock":                        {&rest.Error{Status: 409, Code: "40P01"}, never},
		"a lock timeout":                    {&rest.Error{Status: 500, Code: "55P03"}, never},
	} {
		for _, took := range []time.Duration{0, purgePatience - 1, purgePatience, time.Hour} {
			if got := tookTooLong(fmt.Errorf("outer: %w", test.err), took); got != (took >= test.from) {
				t.Errorf("%s, after %s: %v", name, took, got)
			}
		}
	}
}

// TestStepSize checks the size of the steps after each timeout (t) and success (+).
// The first step has 32 rows, which is the maximum.
func TestStepSize(t *testing.T) {
	for _, test := range []struct{ outcomes, want string }{
		{"++", "32 32"},
		{"tttttttt", "16 8 4 2 1 1 1 1"},
		{"t+", "16 32"},
		{"+t++t+", "32 16 32 32 16 32"}, // occasional locks: 32 has succeeded since it was tried again, so it is tried at once
		{"ttt+++", "16 8 4 8 16 32"},
		{"t+t+t+", "16 32 16 16 8 16"},                  // the second time, after two successes
		{"t+t++t++++", "16 32 16 16 32 16 16 16 16 32"}, // the third time, after four
		{"t+t++t++++t+++++++", "16 32 16 16 32 16 16 16 16 32 16 16 16 16 16 16 16 16"},
		{"t+t++++t+", "16 32 16 16 32 32 32 16 32"}, // 32 has succeeded, so it is tried at once again
		{"t+t+ttt+++", "16 32 16 16 8 4 2 4 8 16"},  // smaller sizes double after each success
	} {
		s := stepSize{rows: 32, maxRows: 32}
		var got []string
		for _, outcome := range test.outcomes {
			if outcome == 't' {
				s.timedOut()
			} else {
				s.succeeded()
			}
			got = append(got, fmt.Sprint(s.rows))
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: %v, want %s", test.outcomes, got, test.want)
		}
	}
}
