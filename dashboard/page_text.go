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

// clean makes a text from a row fit for a page: on one line, without characters
// that control or reorder the text around them, and so short that escaped it
// takes at most limit bytes.
func clean(s string, limit int) string {
	var b strings.Builder
	size, space := 0, true
	for _, r := range s {
		switch {
		case unicode.IsSpace(r):
			if space {
				continue
			}
			r = ' '
		case r == '\u200c' || r == '\u200d': // joiners: letters and emoji need them
		case unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Cs):
			r = '\uFFFD'
		}
		space = r == ' '
		if size += len(template.HTMLEscapeString(string(r))); size > limit {
			return strings.TrimRight(b.String(), " ") + "…"
		}
		b.WriteRune(r)
	}
	return strings.TrimRight(b.String(), " ")
}

// cleanLines is clean for a text that keeps its lines. size is how many bytes it
// takes escaped. A text that takes more than limit is not returned.
func cleanLines(s string, limit int) (text string, size int, fits bool) {
	var b strings.Builder
	for _, r := range strings.ReplaceAll(s, "\r\n", "\n") {
		switch {
		case r == '\n' || r == '\t' || r == '\u200c' || r == '\u200d':
		case unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Cs):
			r = '\uFFFD'
		}
		if size += len(template.HTMLEscapeString(string(r))); size > limit {
			return "", 0, false
		}
		b.WriteRune(r)
	}
	return b.String(), size, true
}

// Stage names a stage, or what an event without one is about.
func (p *page) Stage(name string) string {
	if name = clean(name, 48); name == "" {
		return "whole document"
	}
	return name
}

// Text is a row's text, ID a row's id.
func (p *page) Text(s string) string { return clean(s, 180) }
func (p *page) ID(s string) string   { return clean(s, 100) }

// Count writes 1234567 as 1,234,567.
func (p *page) Count(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Percent is how much of all n is. It is 0 or 100 only if that is exact.
func (p *page) Percent(n, all int64) string {
	if all == 0 {
		return "–"
	}
	tenths := math.Round(1000 * float64(n) / float64(all))
	if n > 0 {
		tenths = max(tenths, 1)
	}
	if n < all {
		tenths = min(tenths, 999)
	}
	return strconv.FormatFloat(tenths/10, 'f', -1, 64) + " %"
}

// Took writes a duration in two digits or more.
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

// Age is how long ago t was, in words.
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

// Elapsed is the time since t.
func (p *page) Elapsed(t time.Time) time.Duration { return p.Now.Sub(t) }

// Rough is Took with fewer digits.
func (p *page) Rough(d time.Duration) string {
	switch {
	case d >= 10*time.Hour:
		d = d.Truncate(time.Hour)
	case d >= time.Minute:
		d = d.Truncate(time.Minute)
	}
	return p.Took(d)
}

// Short is the end of an id: the beginnings of those made at about the same time
// are alike.
func (p *page) Short(id string) string { return "…" + clean(id[max(0, len(id)-8):], 50) }

// UTC writes a time for people, Day and Clock its parts, Machine the same for
// machines.
func (p *page) UTC(t time.Time) string     { return p.Day(t) + " " + p.Clock(t) }
func (p *page) Day(t time.Time) string     { return t.UTC().Format(time.DateOnly) }
func (p *page) Clock(t time.Time) string   { return t.UTC().Format(time.TimeOnly) }
func (p *page) Machine(t time.Time) string { return t.UTC().Format(time.RFC3339) }
