package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"
)

// TestHelpFitsAScreen checks that the help of each command fits a screen of 24
// lines with 80 characters.
func TestHelpFitsAScreen(t *testing.T) {
	screens := [][]string{{"-h"}}
	for _, c := range commands {
		screens = append(screens, []string{c.name, "-h"})
	}
	for _, args := range screens {
		var out, errs bytes.Buffer
		if code := run(t.Context(), args, &out, &errs); code != exitDone || errs.Len() > 0 {
			t.Errorf("%q: exit code %d, %s", args, code, errs.String())
		}
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if len(lines) < 5 || len(lines) > 24 {
			t.Errorf("%q prints %d lines", args, len(lines))
		}
		for _, line := range lines {
			if utf8.RuneCountInString(line) > 80 {
				t.Errorf("%q prints a line that is too long: %s", args, line)
			}
		}
	}
}

func TestParseAge(t *testing.T) {
	const day = 24 * time.Hour
	for s, want := range map[string]time.Duration{
		"1h": time.Hour, "12h": 12 * time.Hour, "30d": 30 * day, "030d": 30 * day, "2w": 14 * day, "36500d": 36500 * day,
		"": 0, "30": 0, "d": 0, "0d": 0, "-1d": 0, "+1d": 0, "1.5d": 0, " 1d": 0, "1d ": 0, "1 d": 0, "1m": 0, "1y": 0,
		"30D": 0, "1d12h": 0, "1_0d": 0, "0x1d": 0, "106752d": 0, "9223372036854775807w": 0, "99999999999999999999d": 0,
	} {
		got, err := parseAge(s)
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %s, %v; want %s", s, got, err, want)
		}
	}
	for s, want := range map[string]time.Duration{"7d": 7 * day, "1h30m": 90 * time.Minute, "0s": 0} {
		if got, err := parseDuration(s); got != want || err != nil {
			t.Errorf("%q: %s, %v; want %s", s, got, err, want)
		}
	}
}

func TestTexts(t *testing.T) {
	for got, want := range map[string]string{
		printable(" a\n\x1b[31mb\u202ec\t"): "a  [31mb c",
		short(0):                            "-",
		short(40 * time.Millisecond):        "40ms",
		short(1843 * time.Millisecond):      "1.84s",
		short(61 * time.Second):             "1m1s",
		short(44 * time.Minute):             "44m",
		short(20 * time.Hour):               "20h",
		cut("größer", 4):                    "grö…",
		cut("größer", 6):                    "größer",
		cut("größer", 0):                    "größer",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestPurgePage checks that the program accepts the commands in docs/purge.md, and
// that the page lists the exit codes of the program.
func TestPurgePage(t *testing.T) {
	text, err := os.ReadFile("../../docs/purge.md")
	if err != nil {
		t.Fatal(err)
	}
	commands := regexp.MustCompile(`docevents purge( -[a-z][^\n"'|;&#>]*)`).FindAllStringSubmatch(string(text), -1)
	lists := regexp.MustCompile(`args: \["purge", (".*")\]`).FindAllStringSubmatch(string(text), -1)
	for _, list := range lists {
		commands = append(commands, []string{"", strings.NewReplacer(`"`, "", ",", "").Replace(list[1])})
	}
	if len(commands) < 6 || len(lists) != 1 {
		t.Fatalf("%d commands, %d of them lists", len(commands), len(lists))
	}
	for _, command := range commands {
		c := &call{stdout: io.Discard, stderr: io.Discard, args: strings.Fields(strings.ReplaceAll(command[1], "`", " "))}
		if _, err := c.purgeFlags(); err != nil && !errors.Is(err, errHelp) {
			t.Errorf("%q: %v", c.args, err)
		}
	}
	for code := exitDone; code <= exitIncomplete; code++ {
		meaning := regexp.MustCompile(fmt.Sprintf(`\b%d (\w+)`, code)).FindStringSubmatch(purgeHelp)
		if meaning == nil || !regexp.MustCompile(fmt.Sprintf(`(?m)^\| %d \| %s`, code, meaning[1])).Match(text) {
			t.Errorf("exit code %d is not described the same in docs/purge.md and in -h: %q", code, meaning)
		}
	}
}

// A slowServer answers a request after some time.
type slowServer struct{ takes time.Duration }

func (s slowServer) RoundTrip(req *http.Request) (*http.Response, error) {
	select {
	case <-time.After(s.takes):
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
	return &http.Response{StatusCode: 204, Header: http.Header{"Content-Range": {"*/1000"}}, Body: http.NoBody, Request: req}, nil
}

// TestMeterFinishesAStep checks that a DELETE in flight may continue for stepGrace
// after a stop, and that other requests end at once.
func TestMeterFinishesAStep(t *testing.T) {
	for _, test := range []struct {
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
			m := &meter{base: slowServer{test.takes}}
			req, err := http.NewRequestWithContext(ctx, test.method, "http://localhost", nil)
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			resp, err := m.RoundTrip(req)
			if err == nil {
				resp.Body.Close()
			}
			if (err == nil) != (test.rows > 0) || m.deleted != test.rows || time.Since(start) != test.after || m.failure() != "" {
				t.Errorf("%+v: %v, %d rows, after %s, %q", test, err, m.deleted, time.Since(start), m.failure())
			}
		})
	}
}

// TestDryRunDeletesNothing checks that a dry run replaces a DELETE with a GET, and
// sends no other request.
func TestDryRunDeletesNothing(t *testing.T) {
	var sent []*http.Request
	m := &meter{dryRun: true, base: roundTripper(func(r *http.Request) (*http.Response, error) {
		sent = append(sent, r)
		return &http.Response{StatusCode: 206, Header: http.Header{"Content-Range": {"0-0/42"}}, Body: http.NoBody, Request: r}, nil
	})}
	for _, method := range []string{"GET", "DELETE", "POST"} {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://localhost/rest/v1/t?at=lt.2026-01-01", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Profile", "app")
		resp, err := m.RoundTrip(req)
		if err != nil || resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Range") != "*/0" {
			t.Errorf("%s: %v, %v", method, resp, err)
		}
	}
	if len(sent) != 1 || sent[0].Method != http.MethodGet || sent[0].URL.RawQuery != "at=lt.2026-01-01&limit=1" || sent[0].Header.Get("Accept-Profile") != "app" || m.due != 42 {
		t.Errorf("%+v, %d due", sent, m.due)
	}
}

// TestFailureIsPrintable checks that a server can't send control characters to the
// terminal, where the reason for a failure is printed.
func TestFailureIsPrintable(t *testing.T) {
	m := &meter{base: roundTripper(func(r *http.Request) (*http.Response, error) {
		return &http.Response{Status: "500 \x1b[2Jall is well", StatusCode: 500, Body: http.NoBody, Request: r}, nil
	})}
	if _, err := m.RoundTrip(httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)); err != nil {
		t.Fatal(err)
	}
	if got := m.failure(); got != "HTTP 500  [2Jall is well" {
		t.Errorf("%q", got)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestProgress checks that the progress line on a terminal stays below the printed text
// and is removed at the end.
func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var screen bytes.Buffer
		p := newProgress(&screen)
		p.width = func() int { return 12 }
		rows := 0
		stop := p.show(func() string { rows += 1000; return fmt.Sprintf("%d rows deleted", rows) })
		time.Sleep(progressInterval + 1)
		fmt.Fprintln(p, "a note")
		time.Sleep(progressInterval)
		stop()
		time.Sleep(time.Minute)
		want := eraseLine + "1000 rows …" + eraseLine + "a note\n1000 rows …" + eraseLine + "2000 rows …" + eraseLine
		if screen.String() != want {
			t.Errorf("%q\nwant %q", screen.String(), want)
		}

		screen.Reset()
		p = newProgress(&screen) // not a terminal
		p.show(func() string { return "never" })()
		fmt.Fprintln(p, "a note")
		if screen.String() != "a note\n" {
			t.Errorf("%q", screen.String())
		}
	})
}
