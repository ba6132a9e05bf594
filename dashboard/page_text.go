package dashboard

import (
	"fmt"
	"html/template"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// clean returns s as one line that is safe to show. It replaces white space with single
// spaces, and control characters with U+FFFD. If the line is longer than maxSize bytes
// of escaped HTML, clean cuts it and appends "…".
func clean(s string, maxSize int) string {
	var b strings.Builder
	size, space := 0, true
	for _, r := range s {
		if r = safe(r); r == ' ' && space {
			continue
		}
		space = r == ' '
		if size += escapedLen(string(r)); size > maxSize {
			return strings.TrimRight(b.String(), " ") + "…"
		}
		b.WriteRune(r)
	}
	return strings.TrimRight(b.String(), " ")
}

// cleanLines is like clean, but keeps line breaks and tabs, and doesn't cut the text.
func cleanLines(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return r
		}
		return safe(r)
	}, strings.ReplaceAll(s, "\r\n", "\n"))
}

// safe returns a space for white space, U+FFFD for characters that control or reorder
// the text around them, and any other character unchanged.
func safe(r rune) rune {
	switch {
	case unicode.IsSpace(r):
		return ' '
	case r == '\u200c' || r == '\u200d': // joiners, which some letters and emoji need
		return r
	case unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Cs):
		return '\uFFFD'
	}
	return r
}

func escapedLen(s string) int { return len(template.HTMLEscapeString(s)) }

func (p *page) Stage(name string) string {
	if name = clean(name, 48); name == "" {
		return "whole document"
	}
	return name
}

// Text shortens a string from a row. ID shortens an id.
func (p *page) Text(s string) string { return clean(s, 180) }
func (p *page) ID(s string) string   { return clean(s, 100) }

// Count formats 1234567 as 1,234,567.
func (p *page) Count(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Percent formats n as a percentage of total. The result is 0 % only if n is 0, and
// 100 % only if n is total: 1 of 100,000 is shown as 0.1 %.
func (p *page) Percent(n, total int64) string {
	if total == 0 {
		return "–"
	}
	tenths := math.Round(1000 * float64(n) / float64(total))
	if n > 0 {
		tenths = max(tenths, 1)
	}
	if n < total {
		tenths = min(tenths, 999)
	}
	return strconv.FormatFloat(tenths/10, 'f', -1, 64) + " %"
}

// Took formats a duration in one or two units, such as 1.9 s or 3 min 20 s.
func (p *page) Took(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Second:
		return strconv.FormatFloat(math.Trunc(d.Seconds()*10)/10, 'f', 1, 64) + " s"
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return strings.TrimSuffix(fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60), " 0 s")
	case d < 48*time.Hour:
		return strings.TrimSuffix(fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60), " 0 min")
	}
	return fmt.Sprintf("%d days", int(d.Hours())/24)
}

// Age formats t relative to now: "3 min ago", "just now" or "in 3 min".
func (p *page) Age(t time.Time) string {
	age := p.Now.Sub(t)
	switch ahead := t.Sub(p.Now); {
	case ahead > time.Minute:
		return "in " + p.Rough(ahead)
	case age < time.Second:
		return "just now"
	}
	return p.Rough(age) + " ago"
}

func (p *page) Elapsed(t time.Time) time.Duration { return p.Now.Sub(t) }

// Rough formats a duration. If it is a minute or longer, Rough leaves out seconds. If
// it is ten hours or longer, Rough also leaves out minutes.
func (p *page) Rough(d time.Duration) string {
	switch {
	case d >= 10*time.Hour:
		d = d.Truncate(time.Hour)
	case d >= time.Minute:
		d = d.Truncate(time.Minute)
	}
	return p.Took(d)
}

// Short returns "…" and the last 8 bytes of an id, because ids that are created at
// about the same time often have the same beginning.
func (p *page) Short(id string) string { return "…" + clean(id[max(0, len(id)-8):], 50) }

// UTC, Day and Clock each format a time for people, in UTC. Machine formats it for the
// HTML attribute datetime.
func (p *page) UTC(t time.Time) string     { return p.Day(t) + " " + p.Clock(t) }
func (p *page) Day(t time.Time) string     { return t.UTC().Format(time.DateOnly) }
func (p *page) Clock(t time.Time) string   { return t.UTC().Format(time.TimeOnly) }
func (p *page) Machine(t time.Time) string { return t.UTC().Format(time.RFC3339) }
