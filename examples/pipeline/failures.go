package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"

	"github.com/docevents/docevents-go/examples/internal/printable"
)

// A failure is what some documents failed with.
type failure struct {
	stage, message string
	count          int
	example        string
}

// commonFailures returns the failures, the most common first.
func commonFailures(results []result) []failure {
	byText := make(map[[2]string]*failure)
	for _, r := range results {
		if r.err == nil {
			continue
		}
		key := [2]string{r.stage, r.err.Error()}
		f := byText[key]
		if f == nil {
			f = &failure{stage: r.stage, message: r.err.Error(), example: r.name}
			byText[key] = f
		}
		f.count++
		f.example = min(f.example, r.name) // the same in every run
	}
	var list []failure
	for _, f := range byText {
		list = append(list, *f)
	}
	slices.SortFunc(list, func(a, b failure) int {
		return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.stage, b.stage), cmp.Compare(a.message, b.message))
	})
	return list
}

func (s *summary) printFailures(out io.Writer) {
	list := commonFailures(s.results)
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(out, "\nMost common failures\n")
	table := newTable(out)
	for _, f := range list[:min(top, len(list))] {
		fmt.Fprintf(table, "%s\t%s: %s\t%s\n", column(f.count), f.stage, shorten(printable.Quote(oneLine(f.message)), 46), shortPath(f.example))
	}
	others := 0
	for _, f := range list[min(top, len(list)):] {
		others += f.count
	}
	if others > 0 {
		fmt.Fprintf(table, "%s\tothers\n", column(others))
	}
	table.Flush()
}
