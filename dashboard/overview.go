package dashboard

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/docevents/docevents-go"
)

// A span is a range of time that the page offers.
type span struct {
	Name, Words string // the latter behind "in the last"
	length      time.Duration
}

var spans = []span{
	{"1h", "hour", time.Hour},
	{"24h", "24 hours", 24 * time.Hour}, // the default
	{"7d", "7 days", 7 * 24 * time.Hour},
	{"30d", "30 days", 30 * 24 * time.Hour},
}

type overview struct {
	*page
	Ranges    []span
	Range     span
	Summary   *docevents.Summary
	Rows      []docevents.Point // of the table of the series: those with anything in them, the newest first
	Documents chart
	Failures  chart
	Ticks     []time.Time
	Stats     docevents.Stats
}

func (h *handler) overview(ctx context.Context, p *page) any {
	p.Title = "Documents"
	v := &overview{page: p, Stats: h.client.Stats(), Ranges: spans, Range: spans[1]}
	for _, r := range spans {
		if r.Name == p.query.Get("range") {
			v.Range = r
		}
	}
	s, err := h.client.Summary(ctx, docevents.Query{Since: p.Now.Add(-v.Range.length), Until: p.Now})
	switch {
	case err != nil:
		p.fail(err)
		return v
	case s == nil:
		p.Problem = &problem{
			Title:  "This process has no Supabase settings",
			Advice: "Its docevents client is nil, so nothing is recorded and nothing can be read. Set SUPABASE_URL and the service-role key, and start it again.",
		}
		return v
	}
	v.Summary = s
	v.Documents = newChart(s.Series, func(p docevents.Point) []int64 { return []int64{p.Failed, p.Completed, p.UnderWay} })
	v.Failures = newChart(s.Series, func(p docevents.Point) []int64 { return []int64{p.Failures} })
	for i := len(s.Series) - 1; i >= 0; i-- {
		if p := s.Series[i]; p.Completed+p.Failed+p.UnderWay+p.Failures > 0 {
			v.Rows = append(v.Rows, p)
		}
	}
	for i := range min(len(s.Series), 4) {
		v.Ticks = append(v.Ticks, s.Series[i*len(s.Series)/4].At)
	}
	return v
}

// Tick is a time as the axis has room for, Row one of the table.
func (v *overview) Tick(t time.Time) string { return v.short(t, "2 Jan") }
func (v *overview) Row(t time.Time) string  { return v.short(t, "2 Jan 15:04") }

func (v *overview) short(t time.Time, format string) string {
	if v.Summary.Until.Sub(v.Summary.Since) <= 24*time.Hour {
		format = "15:04"
	}
	return t.UTC().Format(format)
}

// Each is the interval in words.
func (v *overview) Each() string { return v.rough(v.Summary.Interval) }

// Ended is how many documents came to an end.
func (v *overview) Ended() int64 { return v.Summary.Completed + v.Summary.Failed }

// Bar says whether a stage has a bar, and Part is d in thousandths of the longest
// one. Beside its steps a whole document has none: it would dwarf them.
func (v *overview) Bar(s docevents.Stage) bool {
	return s.Measured > 0 && (s.Name != "" || len(v.Summary.Stages) == 1)
}

func (v *overview) Part(d time.Duration) int64 {
	longest := time.Millisecond
	for _, s := range v.Summary.Stages {
		if v.Bar(s) {
			longest = max(longest, s.P95)
		}
	}
	return int64(1000 * d / longest)
}

// A chart is bars of stacked values: a path for each value, in units of a bar's
// distance across and of chartHeight up. What it is stretched to is the
// stylesheet's.
type chart struct {
	Bars  int
	Top   int64 // the value of the upper edge
	Paths []string
	Hover []hover
}

type hover struct {
	X     int
	Point docevents.Point
}

const chartHeight = 120

func newChart(series []docevents.Point, values func(docevents.Point) []int64) chart {
	c := chart{Bars: len(series), Top: 1}
	for _, p := range series {
		var sum int64
		for _, v := range values(p) {
			sum += v
		}
		c.Top = max(c.Top, roundUp(sum))
	}
	paths := make([]strings.Builder, len(values(docevents.Point{})))
	for x, p := range series {
		foot := chartHeight
		for i, v := range values(p) {
			if v > 0 {
				height := max(int(math.Round(float64(v)/float64(c.Top)*chartHeight)), 2) // what is there shows
				fmt.Fprintf(&paths[i], "M%d.1 %dh.8v-%dh-.8z", x, max(foot, height), height)
				foot -= height
			}
		}
		if p.Completed+p.Failed+p.UnderWay+p.Failures > 0 {
			c.Hover = append(c.Hover, hover{x, p})
		}
	}
	for i := range paths {
		c.Paths = append(c.Paths, paths[i].String())
	}
	return c
}

// roundUp returns the next of 1, 2, 4, 6, 8, 10, 20, 40 ...
func roundUp(n int64) int64 {
	unit := int64(1)
	for n > 10*unit && unit < 1e17 {
		unit *= 10
	}
	for _, step := range []int64{1, 2, 4, 6, 8} {
		if n <= step*unit {
			return step * unit
		}
	}
	return max(10*unit, n)
}
