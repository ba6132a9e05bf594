package main

import (
	_ "embed"
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"
)

// A chart is an SVG picture that compares the variants. Its panels are side by side, one
// for each burst. A panel has a horizontal bar for each variant.
type chart struct {
	Title, Subtitle, Caption string
	Width, Height            int
	Rows                     []chartText
	Panels                   []chartPanel
}

// Foot returns the y coordinate of the caption.
func (c *chart) Foot() int { return c.Height - 14 }

// InnerWidth and InnerHeight leave room for the border.
func (c *chart) InnerWidth() int  { return c.Width - 1 }
func (c *chart) InnerHeight() int { return c.Height - 1 }

type chartText struct {
	Text string
	Y    int
	Own  bool // true for docevents
}

type chartPanel struct {
	Title string
	X     int
	Bars  []chartBar
}

type chartBar struct {
	Y, Width, LabelX, LabelY int
	Label                    string
	Own                      bool
}

const (
	chartLeft       = 116 // the x coordinate of the first panel, after the names
	chartPanelGap   = 12
	chartPanelWidth = 204 // the width of a panel
	chartLabel      = 78  // the room for the label next to the longest bar
	chartTop        = 96
	chartLine       = 30
	chartBarTall    = 18
	chartFoot       = 36
	chartMargin     = 20
)

//go:embed chart.svg.tmpl
var chartSource string

var chartTemplate = template.Must(template.New("chart").Funcs(template.FuncMap{"xml": escapeXML}).Parse(chartSource))

func escapeXML(s string) (string, error) {
	var b strings.Builder
	err := xml.EscapeText(&b, []byte(s))
	return b.String(), err
}

// A measure returns the value that a chart shows for a cell, and the label of the
// value.
type measure func(c *cell) (value float64, label string)

// newChart returns a chart of the report's bursts. The function figure returns the
// value and the label of each bar. A bar with the value fullLength fills the panel. If
// fullLength is 0, the longest bar of each panel fills it.
func newChart(r *report, title, subtitle string, fullLength float64, figure measure) *chart {
	variants := []string{}
	for _, variant := range variantNames {
		if r.cell(variant, burstOf(bigBurst)) != nil || r.cell(variant, burstOf(smallBurst)) != nil {
			variants = append(variants, variant)
		}
	}
	ch := &chart{Title: title, Subtitle: subtitle, Caption: r.caption()}
	x := chartLeft
	for _, n := range []int{smallBurst, middleBurst, bigBurst} {
		panel := chartPanel{Title: burstOf(n).Name, X: x}
		scale := fullLength
		for _, variant := range variants {
			if c := r.cell(variant, burstOf(n)); c != nil && fullLength == 0 {
				value, _ := figure(c)
				scale = max(scale, value)
			}
		}
		for i, variant := range variants {
			c := r.cell(variant, burstOf(n))
			if c == nil {
				continue
			}
			value, label := figure(c)
			width := 1 // so that a zero is visible
			if scale > 0 {
				width = max(width, int(value/scale*(chartPanelWidth-chartLabel)))
			}
			y := chartTop + i*chartLine
			panel.Bars = append(panel.Bars, chartBar{
				Y: y, Width: width, LabelX: width + 6, LabelY: y + chartBarTall - 5, Label: label, Own: variant == variantDocevents,
			})
		}
		if len(panel.Bars) > 0 {
			ch.Panels = append(ch.Panels, panel)
			x += chartPanelWidth + chartPanelGap
		}
	}
	for i, variant := range variants {
		ch.Rows = append(ch.Rows, chartText{Text: variant, Y: chartTop + i*chartLine + chartBarTall - 5, Own: variant == variantDocevents})
	}
	ch.Width = x - chartPanelGap + chartMargin
	ch.Height = chartTop + len(variants)*chartLine + chartFoot
	return ch
}

func (r *report) caption() string {
	server := r.Machine.Server
	if r.Machine.PostgreSQL != "" {
		server += ", PostgreSQL " + r.Machine.PostgreSQL
	}
	return fmt.Sprintf("%s, %d CPUs; medians of %d; %s", server, r.Machine.CPUs, r.Rounds, r.Machine.Taken.Format(time.DateOnly))
}

func (r *report) plot(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	charts := map[string]*chart{
		"throughput.svg": newChart(r, "Events stored per second", "from the first Record to the last row readable; longer is better", 0,
			func(c *cell) (float64, string) { return c.rate(), english.Sprintf("%.0f", c.rate()) }),
		"lost.svg": newChart(r, "Events lost", "of those recorded at once; a full bar is all of them", 1,
			func(c *cell) (float64, string) {
				share := float64(c.lost()) / float64(c.Load.Events)
				if share == 0 {
					return 0, "none"
				}
				return share, english.Sprintf("%d", c.lost())
			}),
		"memory.svg": newChart(r, "Memory at its peak, MiB", "of the process that records, resident; shorter is better", 0,
			func(c *cell) (float64, string) {
				return float64(c.peak()), english.Sprintf("%.0f", float64(c.peak())/(1<<20))
			}),
	}
	for name, ch := range charts {
		if len(ch.Panels) == 0 {
			continue
		}
		var b strings.Builder
		if err := chartTemplate.Execute(&b, ch); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(b.String()), 0o644); err != nil {
			return err
		}
	}
	return nil
}
