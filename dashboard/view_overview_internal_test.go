package dashboard

import (
	"slices"
	"testing"
	"time"

	"github.com/docevents/docevents-go"
)

func TestChart(t *testing.T) {
	c := newChart([]docevents.Point{{}, {Failed: 5, Completed: 20, Failures: 1}, {Completed: 100_000}, {Failed: 1, Completed: 199_999}})
	// A small value has a height of 2, which can still be seen. The highest bar has
	// the full height.
	want := []string{"M1.1 120h.8v-2h-.8zM3.1 120h.8v-2h-.8z", "M1.1 118h.8v-2h-.8zM2.1 120h.8v-60h-.8zM3.1 120h.8v-120h-.8z", "", ""}
	if d := c.Documents; d.Top != 200_000 || d.Highest != 200_000 || d.Cuts != "" || !slices.Equal(d.Paths, want) {
		t.Errorf("got %+v, want the paths %q", d, want)
	}
	if c.Bars != 4 || len(c.Points) != 3 || c.Failures.Top != 1 {
		t.Errorf("%d bars, %d of them not empty, failures up to %d", c.Bars, len(c.Points), c.Failures.Top)
	}
}

// TestChartWithOutlier checks that a bar that is far higher than all others is
// cut off, and that its values keep their proportions.
func TestChartWithOutlier(t *testing.T) {
	series := make([]docevents.Point, 40)
	for i := range series {
		series[i].Completed = int64(80 + i%3)
	}
	series[7] = docevents.Point{Completed: 30_000, Failed: 30_000}
	c := newChart(series).Documents
	if c.Top != 82+82/4 || c.Highest != 60_000 || c.Cuts != "M7 12l1-6v4l-1 6z" {
		t.Errorf("up to %d of %d, cut at %q", c.Top, c.Highest, c.Cuts)
	}
	if want := "M7.1 120h.8v-60h-.8z"; c.Paths[0] != want {
		t.Errorf("the failed are %s, want %s", c.Paths[0], want)
	}
}

func TestFit(t *testing.T) {
	repeat := func(v int64, n int) []int64 { return slices.Repeat([]int64{v}, n) }
	for name, tt := range map[string]struct {
		values []int64
		want   int64
	}{
		"none":                       {nil, 0},
		"zeros":                      {[]int64{0, 0}, 0},
		"one":                        {[]int64{7}, 7},
		"one of two":                 {[]int64{1, 100}, 100},
		"the largest, not rounded":   {[]int64{1, 1001, 900}, 1001},
		"an outlier":                 {[]int64{10, 12, 8, 1000}, 15},
		"at eight times it fits":     {[]int64{10, 10, 10, 80}, 80},
		"two of sixty":               {append(repeat(100, 58), 1000, 2000), 125},
		"as few as possible are cut": {append(repeat(100, 58), 110, 1000), 137},
		"many are no outliers":       {append(repeat(100, 50), repeat(1000, 10)...), 1000},
		"zeros don't count":          {append(repeat(0, 97), 1, 1, 100), 1},
	} {
		if got := fit(tt.values); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
}

func TestStages(t *testing.T) {
	all := []docevents.Stage{
		{Name: "", Count: 9, Failed: 1, Measured: 9, P50: time.Hour, P95: time.Hour},
		{Name: "ocr", Count: 9, Failed: 2, Measured: 9, P50: time.Minute, P95: 40 * time.Minute},
		{Name: "index", Count: 9, Failed: 3, Measured: 9, P50: time.Second, P95: 4 * time.Second},
		{Name: "embed", Count: 9, Measured: 9, P50: time.Second, P95: 2 * time.Second},
		{Name: "store", Count: 9},
	}
	names := func(stages []stage) (names []string) {
		for _, s := range stages {
			names = append(names, s.Name)
		}
		return names
	}
	byTime := newStages(all, false)
	if got, want := names(byTime), []string{"", "ocr", "index", "embed", "store"}; !slices.Equal(got, want) {
		t.Errorf("by time %q, want %q", got, want)
	}
	if got, want := names(newStages(all, true)), []string{"index", "ocr", "", "embed", "store"}; !slices.Equal(got, want) {
		t.Errorf("by failures %q, want %q", got, want)
	}
	for i, want := range []stage{
		{Stage: all[0]},
		{Stage: all[1], HasBar: true, IsCut: true, P50Width: 1000, P95Width: 1000},
		{Stage: all[2], HasBar: true, P50Width: 200, P95Width: 800},
		{Stage: all[3], HasBar: true, P50Width: 200, P95Width: 400},
		{Stage: all[4]},
	} {
		if got := byTime[i]; got.HasBar != want.HasBar || got.HasBar && got != want {
			t.Errorf("%q: got %+v, want %+v", want.Name, got, want)
		}
	}
}

func TestFailures(t *testing.T) {
	at := func(minute int) time.Time { return time.Date(2026, 1, 1, 0, minute, 0, 0, time.UTC) }
	got := newFailures([]docevents.ErrorGroup{
		{Stage: "ocr", Message: "# dpi", Count: 5, First: at(1), Last: at(2), Example: "a"},
		{Stage: "ocr", Message: "timeout", Count: 4, First: at(3), Last: at(4), Example: "b"},
		{Stage: "index", Message: "timeout", Count: 3, First: at(2), Last: at(9), Example: "c"},
	})
	if len(got) != 2 || got[0].Message != "timeout" || got[0].Count != 7 || len(got[0].Stages) != 2 || got[1].Count != 5 {
		t.Fatalf("got %+v", got)
	}
	if f := got[0]; !f.First.Equal(at(2)) || !f.Last.Equal(at(9)) || f.Example != "c" {
		t.Errorf("got %+v", f)
	}
}
