package dashboard

import (
	"html/template"
	"math"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func TestClean(t *testing.T) {
	for s, want := range map[string]string{
		"":                          "",
		"page 3":                    "page 3",
		" a\r\n\t b ":               "a b",
		"a\x00b\x1b[1m\u0085c":      "a�b�[1…",
		"\u202egnp.exe\u2066\ue000": "�gnp.exe…",
		"12345678901":               "1234567890…",
		"&&&":                       "&&…", // as &amp;
		"123456789é":                "123456789…",
		"\xff":                      "\uFFFD",
		"zażółć 字":                  "zażółć…",
	} {
		if got := clean(s, 10); got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("a\u202e\x00 <b>&", 7)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		got := clean(s, limit)
		if escaped := template.HTMLEscapeString(strings.TrimSuffix(got, "…")); len(escaped) > max(limit, 0) {
			t.Errorf("%d bytes, want %d at most: %q", len(escaped), limit, got)
		}
		if strings.ContainsFunc(got, unicode.IsControl) || strings.ContainsAny(got, "\u202a\u202b\u202d\u202e\u2066\u2067\u2068") || !utf8.ValidString(got) {
			t.Errorf("%q", got)
		}
	})
}

func TestNumbers(t *testing.T) {
	p := &page{Now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	for n, want := range map[int64]string{
		0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000", -123: "-123", math.MaxInt64: "9,223,372,036,854,775,807",
	} {
		if got := p.Count(n); got != want {
			t.Errorf("Count(%d): %s, want %s", n, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 %", 1: "0.1 %", 5_000: "50 %", 9_999: "99.9 %", 10_000: "100 %", 3_333: "33.3 %"} {
		if got := p.Percent(n, 10_000); got != want {
			t.Errorf("Percent(%d): %s, want %s", n, got, want)
		}
	}
	if got := p.Percent(0, 0); got != "–" {
		t.Errorf("Percent of nothing: %s", got)
	}
	for d, want := range map[time.Duration]string{
		0: "0 ms", 999 * time.Millisecond: "999 ms", 1999 * time.Millisecond: "1.9 s", 9999 * time.Millisecond: "9.9 s", 59999 * time.Millisecond: "59 s",
		200 * time.Second: "3 min 20 s", 10 * time.Minute: "10 min", 20 * time.Hour: "20 h", 125 * time.Minute: "2 h 5 min", 49 * time.Hour: "2 days",
	} {
		if got := p.Took(d); got != want {
			t.Errorf("Took(%v): %s, want %s", d, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "just now", -time.Second: "just now", 1500 * time.Millisecond: "1.5 s ago", -3 * time.Minute: "in 3 min", 59 * time.Second: "59 s ago", 59 * time.Minute: "59 min ago",
		time.Hour: "1 h ago", 90 * time.Minute: "1 h 30 min ago", 47 * time.Hour: "47 h ago", 48 * time.Hour: "2 days ago",
	} {
		if got := p.Age(p.Now.Add(-d)); got != want {
			t.Errorf("Age of %v: %s, want %s", d, got, want)
		}
	}
	if got := p.Age(time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)); got != "in 106751 days" { // the longest Duration
		t.Errorf("Age of the year 9999: %s", got)
	}
}
