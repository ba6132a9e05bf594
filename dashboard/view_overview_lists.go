package dashboard

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/docevents/docevents-go"
)

// A stage is a row of the overview's table of stages.
type stage struct {
	docevents.Stage

	// The row's bar is filled up to P50Width, the median, and outlined from there to
	// P95Width, the 95th percentile. Both are in thousandths of the column's width. If
	// IsCut is true, the bar is too long and ends at the column's edge.
	P50Width, P95Width int64
	HasBar, IsCut      bool
}

// newStages returns the rows of the table of stages. summaryStages contains the stages
// of a Summary, the slowest first. If byFailures is true, the rows are sorted by
// failures instead.
//
// The row for entire documents, which has no Name, has a bar only if there are no other
// rows. A document takes about as long as all its stages together, so its bar would
// make the other bars too short to read.
func newStages(summaryStages []docevents.Stage, byFailures bool) []stage {
	stages := make([]stage, len(summaryStages))
	var times []int64
	for i, s := range summaryStages {
		stages[i] = stage{Stage: s, HasBar: s.Measured > 0 && (s.Name != "" || len(summaryStages) == 1)}
		if stages[i].HasBar {
			times = append(times, int64(s.P95))
		}
	}
	edge := max(fit(times), int64(time.Millisecond))
	for i := range stages {
		s := &stages[i]
		s.IsCut = int64(s.P95) > edge
		s.P50Width = int64(1000 * min(float64(s.P50)/float64(edge), 1))
		s.P95Width = int64(1000 * min(float64(s.P95)/float64(edge), 1))
	}
	if byFailures {
		slices.SortStableFunc(stages, func(a, b stage) int { return cmp.Compare(b.Failed, a.Failed) })
	}
	return stages
}

// A failure is an error message, and the stages that failed with this message.
type failure struct {
	Message     string
	Count       int64
	First, Last time.Time
	Example     string // the document that last failed with this message
	Stages      []docevents.ErrorGroup
}

// newFailures adds up the groups that have the same message and different stages. The
// most frequent message comes first.
func newFailures(groups []docevents.ErrorGroup) []failure {
	var failures []failure
	for _, g := range groups {
		i := slices.IndexFunc(failures, func(f failure) bool { return f.Message == g.Message })
		if i < 0 {
			i = len(failures)
			failures = append(failures, failure{Message: g.Message, First: g.First})
		}
		f := &failures[i]
		f.Count += g.Count
		f.Stages = append(f.Stages, g)
		if g.First.Before(f.First) {
			f.First = g.First
		}
		if g.Last.After(f.Last) {
			f.Last, f.Example = g.Last, g.Example
		}
	}
	slices.SortStableFunc(failures, func(a, b failure) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), b.Last.Compare(a.Last), strings.Compare(a.Message, b.Message))
	})
	return failures
}
