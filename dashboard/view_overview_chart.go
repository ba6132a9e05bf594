package dashboard

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/docevents/docevents-go"
)

// A chart is the overview's two diagrams of bars.
type chart struct {
	Bars      int        // the number of bars in each diagram
	Documents barDiagram // failed, completed, skipped and under way, in this order
	Failures  barDiagram
	Points    []chartPoint // the points that aren't empty, the newest first
}

// A chartPoint is a point with the number of its bar, counted from 0 at the left.
type chartPoint struct {
	docevents.Point
	X int
}

// A barDiagram is a diagram of stacked bars, drawn as SVG paths. A bar with its gaps is
// 1 wide, and the diagram is chartHeight high.
type barDiagram struct {
	Top     int64    // the value at the upper edge
	Highest int64    // the value of the highest bar, which is cut off if this is more than Top
	Paths   []string // one path for each kind of part, such as all the failed parts
	Cuts    string   // a path that marks the bars that are cut off
}

const chartHeight = 120

func newChart(series []docevents.Point) chart {
	c := chart{Bars: len(series)}
	documents, failures := make([][]int64, len(series)), make([][]int64, len(series))
	for x, p := range slices.Backward(series) {
		documents[x] = []int64{p.Failed, p.Completed, p.Skipped, p.UnderWay}
		failures[x] = []int64{p.Failures}
		if p != (docevents.Point{At: p.At}) {
			c.Points = append(c.Points, chartPoint{p, x})
		}
	}
	c.Documents, c.Failures = newBars(documents, 4), newBars(failures, 1)
	return c
}

// newBars draws a bar for each element of stacks. An element contains the n values of
// the bar's parts, the lowest part first.
func newBars(stacks [][]int64, n int) barDiagram {
	sums := make([]int64, len(stacks))
	for x, values := range stacks {
		for _, v := range values {
			sums[x] += v
		}
	}
	b := barDiagram{Top: max(fit(sums), 1), Highest: slices.Max(append(sums, 0))}
	paths := make([]strings.Builder, n)
	var cuts strings.Builder
	for x, values := range stacks {
		scale := float64(chartHeight) / float64(max(b.Top, 1))
		if sums[x] > b.Top { // cut off: the values keep their proportions
			scale = float64(chartHeight) / float64(sums[x])
			fmt.Fprintf(&cuts, "M%d 12l1-6v4l-1 6z", x)
		}
		foot := chartHeight
		for i, v := range values {
			if v > 0 {
				height := max(int(math.Round(float64(v)*scale)), 2) // the least height that can be seen
				fmt.Fprintf(&paths[i], "M%d.1 %dh.8v-%dh-.8z", x, max(foot, height), height)
				foot -= height
			}
		}
	}
	for i := range paths {
		b.Paths = append(b.Paths, paths[i].String())
	}
	b.Cuts = cuts.String()
	return b
}

// fit returns the value at the upper edge of a diagram, which is usually the largest
// value. But a few huge values would make the other bars too low to read. So if a few
// values are more than about eight times as large as the others, fit returns 1.25 times
// the largest of the others, and higher bars are cut off.
func fit(values []int64) int64 {
	sorted := slices.DeleteFunc(slices.Clone(values), func(v int64) bool { return v <= 0 })
	if len(sorted) == 0 {
		return 0
	}
	slices.SortFunc(sorted, func(a, b int64) int { return cmp.Compare(b, a) })
	largest := sorted[0]
	for cut := 1; cut <= max(1, len(sorted)/20) && cut+1 < len(sorted); cut++ {
		if v := sorted[cut]; v < largest/8 {
			return v + v/4
		}
	}
	return largest
}
