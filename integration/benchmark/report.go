package main

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// A report is the result of a run.
type report struct {
	Mode    string            `json:"mode"`
	Rounds  int               `json:"rounds"`
	Machine machine           `json:"machine"`
	Missing map[string]string `json:"missing,omitempty"` // the reasons why variants were left out, by variant
	Cells   []*cell           `json:"cells"`
	Bars    []bar             `json:"bars"`
}

// cell returns the cell of a variant under a load, or nil if it wasn't measured.
func (r *report) cell(variant string, l load) *cell {
	for _, c := range r.Cells {
		if c.Variant == variant && c.Load.Name == l.Name && len(c.Samples) > 0 {
			return c
		}
	}
	return nil
}

// holds reports whether every bar was measured and holds.
func (r *report) holds() bool {
	return !slices.ContainsFunc(r.Bars, func(b bar) bool { return !b.Holds })
}

func (r *report) print(w io.Writer) error {
	parts := []string{r.Machine.String(), fmt.Sprintf("medians of %d", r.Rounds)}
	if r.Mode == "sweep" {
		parts = append(parts, r.sweepTable())
	} else {
		parts = append(parts, r.table())
	}
	parts = append(parts, r.remarks(), r.barTable())
	parts = slices.DeleteFunc(parts, func(s string) bool { return s == "" })
	_, err := fmt.Fprintln(w, strings.TrimRight(strings.Join(parts, "\n"), "\n"))
	return err
}

func (m machine) String() string {
	parts := []string{m.Server}
	if m.PostgreSQL != "" {
		parts = append(parts, "PostgreSQL "+m.PostgreSQL)
	}
	parts = append(parts, fmt.Sprintf("%d x %s", m.CPUs, m.CPU), m.Platform, m.Go)
	if m.Node != "" {
		parts = append(parts, "Node "+m.Node)
	}
	if m.RTT != "" {
		parts = append(parts, m.RTT+" added to each round trip")
	}
	return strings.Join(parts, ", ")
}

func (r *report) table() string {
	lines := [][]string{{
		"load", "variant", "events/s", "lost", "Record p50", "p99", "max", "to the row",
		"connections", "requests", "peak MiB", "CPU s/100,000",
	}}
	for _, c := range r.Cells {
		if len(c.Samples) == 0 {
			continue
		}
		line := []string{c.Load.Name, c.Variant, "", "", "", "", "", "", "", "", mib(c.peak()), ""}
		if c.Load.Kind == idle {
			line[7] = brief(medianOf(c.Samples, func(s *sample) time.Duration { return s.ToRow.P50 }))
		} else {
			line[2] = english.Sprintf("%.0f", c.rate())
			line[3] = english.Sprintf("%d", c.lost())
			line[4] = brief(medianOf(c.Samples, func(s *sample) time.Duration { return s.Call.P50 }))
			line[5] = brief(medianOf(c.Samples, func(s *sample) time.Duration { return s.Call.P99 }))
			line[6] = brief(medianOf(c.Samples, func(s *sample) time.Duration { return s.Call.Max }))
			line[8] = count(medianOf(c.Samples, func(s *sample) int { return s.Connections }))
			line[9] = count(medianOf(c.Samples, func(s *sample) int { return s.Requests }))
			line[11] = seconds(medianOf(c.Samples, (*sample).cpuPer100k))
		}
		lines = append(lines, line)
	}
	return markdown(lines, 2)
}

// sweepTable returns a table with a line for each measured pair of MaxBatch and
// MaxInFlight. The column "time of a request" is exact only if MaxInFlight requests
// were in flight all the time.
func (r *report) sweepTable() string {
	lines := [][]string{{"MaxInFlight", "MaxBatch", "events/s", "slowest", "fastest", "time of a request", "peak MiB", "CPU s/100,000"}}
	for _, c := range r.Cells {
		if len(c.Samples) == 0 {
			continue
		}
		rates := make([]float64, len(c.Samples))
		for i := range c.Samples {
			rates[i] = c.Samples[i].rate()
		}
		lines = append(lines, []string{
			fmt.Sprint(c.MaxInFlight), fmt.Sprint(c.MaxBatch), english.Sprintf("%.0f", c.rate()),
			english.Sprintf("%.0f", slices.Min(rates)), english.Sprintf("%.0f", slices.Max(rates)),
			brief(medianOf(c.Samples, func(s *sample) time.Duration {
				return s.Elapsed * time.Duration(c.MaxInFlight) / time.Duration(max(1, s.Requests))
			})),
			mib(c.peak()), seconds(medianOf(c.Samples, (*sample).cpuPer100k)),
		})
	}
	return markdown(lines, 0)
}

// remarks returns notes about failures, missing variants and the stand-in.
func (r *report) remarks() string {
	var b strings.Builder
	for _, c := range r.Cells {
		seen := map[string]int{}
		for _, s := range c.Samples {
			if s.Ended != "" {
				seen["ended by "+s.Ended]++
			}
			if s.Error != "" {
				seen[s.Error]++
			}
		}
		for _, what := range slices.Sorted(maps.Keys(seen)) {
			fmt.Fprintf(&b, "- %s, %s: %s (%d of %d)\n", c.Load.Name, c.Variant, what, seen[what], len(c.Samples))
		}
	}
	for _, variant := range slices.Sorted(maps.Keys(r.Missing)) {
		fmt.Fprintf(&b, "- %s is left out: %s\n", variant, r.Missing[variant])
	}
	if r.Machine.Server == localStandIn && r.Mode != "sweep" {
		b.WriteString("- The local stack's stand-in answers single requests 2.5 times as fast as PostgREST does: " +
			"ratios to a client that sends a request per event (naive Go, supabase-js) come out at about half.\n")
	}
	return b.String()
}

func (r *report) barTable() string {
	if len(r.Bars) == 0 {
		return ""
	}
	lines := [][]string{{"bar", "wanted", "got", "verdict"}}
	for _, b := range r.Bars {
		relation := "at most"
		if b.AtLeast {
			relation = "at least"
		}
		got, verdict := fmt.Sprintf("%.3g", b.Got), "holds"
		switch {
		case !b.Measured:
			got, verdict = "-", "not measured"
		case !b.Holds:
			verdict = "BROKEN"
		}
		lines = append(lines, []string{b.Name, fmt.Sprintf("%s %.3g", relation, b.Limit), got, verdict})
	}
	return markdown(lines, 1)
}

// markdown formats lines as a Markdown table, which is also readable as plain text. The
// first line is the header. The first leftAligned columns are aligned to the left.
func markdown(lines [][]string, leftAligned int) string {
	widths := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, text := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(text), 2)
		}
	}
	var b strings.Builder
	for k, line := range lines {
		for i, text := range line {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text))
			if i < leftAligned {
				b.WriteString("| " + text + pad + " ")
			} else {
				b.WriteString("| " + pad + text + " ")
			}
		}
		b.WriteString("|\n")
		if k > 0 {
			continue
		}
		for i, width := range widths {
			if i < leftAligned {
				b.WriteString("|" + strings.Repeat("-", width+2))
			} else {
				b.WriteString("|" + strings.Repeat("-", width+1) + ":")
			}
		}
		b.WriteString("|\n")
	}
	return b.String()
}

// brief formats a duration with three significant digits, and zero as "".
func brief(d time.Duration) string {
	if d == 0 {
		return ""
	}
	digits := math.Floor(math.Log10(float64(d.Abs())))
	return d.Round(time.Duration(math.Pow(10, max(0, digits-2)))).String()
}

// The functions below format figures for the tables. Zero means "not measured", and
// becomes "".

func mib(bytes int64) string {
	return unlessZero(bytes, fmt.Sprintf("%.0f", float64(bytes)/(1<<20)))
}

func count(n int) string { return unlessZero(n, english.Sprintf("%d", n)) }

func seconds(s float64) string { return unlessZero(s, fmt.Sprintf("%.2f", s)) }

func unlessZero[T int | int64 | float64](v T, text string) string {
	if v == 0 {
		return ""
	}
	return text
}

// A bar is a performance goal: a limit for a measured figure.
type bar struct {
	Name     string  `json:"name"`
	Limit    float64 `json:"limit"`
	AtLeast  bool    `json:"at_least"` // Limit is a minimum; otherwise it is a maximum
	Got      float64 `json:"got"`
	Measured bool    `json:"measured"`
	Holds    bool    `json:"holds"`
}

func atLeast(limit float64, name string, got float64, measured bool) bar {
	return bar{name, limit, true, got, measured, measured && got >= limit}
}

func atMost(limit float64, name string, got float64, measured bool) bar {
	return bar{name, limit, false, got, measured, measured && got <= limit}
}

func fullBars(r *report) []bar {
	big, small := burstOf(bigBurst), burstOf(smallBurst)
	toBulk, ok := r.ratio(r.cell(variantDocevents, big), r.cell(variantBulk, big))
	bars := []bar{atLeast(0.9, "events/s at "+big.Name+": docevents to bulk", toBulk, ok)}
	toNaive, ok := r.ratio(r.cell(variantDocevents, big), r.cell(variantNaive, small))
	bars = append(bars, atLeast(40, "events/s: docevents at "+big.Name+" to naive at "+small.Name, toNaive, ok))
	lost, ok := r.docevents(func(c *cell, s *sample) float64 { return float64(c.Load.Events - s.Stored) })
	bars = append(bars, atMost(0, "events that docevents lost, under any load", lost, ok))
	quiet := r.cell(variantDocevents, load{Name: idle})
	latency := 0.0
	if quiet != nil {
		latency = medianOf(quiet.Samples, func(s *sample) float64 { return float64(s.ToRow.P50) / float64(max(1, s.Bare.P50)) })
	}
	bars = append(bars, atMost(1.25, "time to the row on an idle system: docevents to a bare insert", latency, quiet != nil))
	opened, ok := r.docevents(func(c *cell, s *sample) float64 { return float64(s.Connections) / float64(c.MaxInFlight) })
	bars = append(bars, atMost(1.25, "connections that docevents opened, to MaxInFlight", opened, ok)) // 5 connections for a MaxInFlight of 4: the fifth is for a request of Flush or Close
	at := r.cell(variantDocevents, big)
	peak := 0.0
	if at != nil {
		peak = maxOf(at.Samples, func(s *sample) float64 { return float64(s.PeakBytes) / (1 << 20) })
	}
	return append(bars, atMost(96, "MiB of docevents' process at "+big.Name+", the worst round", peak, at != nil))
}

// guardBars returns the bars for -guard: those of fullBars, except the bar for an idle
// system, and with lower minimums for speed. docevents exceeds them even on a busy
// machine, unless it sends one request per event or opens a connection for each
// request.
func guardBars(r *report) []bar {
	bars := fullBars(r)
	bars[0].Limit, bars[1].Limit = 0.5, 10
	for i := range bars {
		b := &bars[i]
		if b.AtLeast {
			*b = atLeast(b.Limit, b.Name, b.Got, b.Measured)
		}
	}
	return slices.DeleteFunc(bars, func(b bar) bool { return strings.Contains(b.Name, "idle") })
}

// For each round, ratio divides the rate of cell a by the rate of cell b. It returns
// the median of the results.
func (r *report) ratio(a, b *cell) (float64, bool) {
	if a == nil || b == nil {
		return 0, false
	}
	var ratios []float64
	for i := range min(len(a.Samples), len(b.Samples)) {
		if base := b.Samples[i].rate(); base > 0 {
			ratios = append(ratios, a.Samples[i].rate()/base)
		}
	}
	return median(ratios), len(ratios) > 0
}

// The method docevents returns the greatest value of f over the samples of the variant
// "docevents".
func (r *report) docevents(f func(*cell, *sample) float64) (most float64, measured bool) {
	for _, c := range r.Cells {
		if c.Variant != variantDocevents || len(c.Samples) == 0 {
			continue
		}
		most, measured = max(most, maxOf(c.Samples, func(s *sample) float64 { return f(c, s) })), true
	}
	return most, measured
}
