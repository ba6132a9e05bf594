package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"github.com/docevents/docevents-go"
)

// A summary is what there is to say at the end.
type summary struct {
	folder   folder
	results  []result
	took     time.Duration
	recorded counts // by the pipeline
	stored   counts // in the table; nil: it couldn't be read
	stats    docevents.Stats
}

// check says where the pipeline, the client and the table disagree, and what
// was lost.
func (s *summary) check() error {
	if s.stored == nil {
		return nil // there is an error of its own
	}
	switch lost := s.stats.Dropped; {
	case lost.Total() > 0:
		return fmt.Errorf("%d events were lost: %+v", lost.Total(), lost)
	case s.stats.Recorded != s.recorded.total():
		return fmt.Errorf("%d events were recorded, but the client counts %d", s.recorded.total(), s.stats.Recorded)
	case s.stats.Delivered != s.stats.Recorded:
		return fmt.Errorf("%d events were recorded, but %d delivered", s.stats.Recorded, s.stats.Delivered)
	}
	for _, t := range eventTypes {
		if s.stored[t] != s.recorded[t] {
			return fmt.Errorf("%d events %s were recorded, but the table has %d", s.recorded[t], t, s.stored[t])
		}
	}
	return nil
}

// top is how many entries a list of the summary has.
const top = 5

// print writes the summary.
func (s *summary) print(w io.Writer) error {
	out := bufio.NewWriter(w)
	s.printOutcome(out)
	s.printFailures(out)
	s.printStages(out)
	s.printLongest(out)
	s.printEvents(out)
	return out.Flush()
}

func (s *summary) printOutcome(out io.Writer) {
	words, failed := 0, 0
	for _, r := range s.results {
		words += r.words
		if r.err != nil {
			failed++
		}
	}
	fmt.Fprintf(out, "\nDocuments: %s of %s in %s, %s words\n", grouped(len(s.results)), grouped(len(s.folder.documents)),
		round(s.took), grouped(words))
	table := newTable(out)
	fmt.Fprintf(table, "%s\tcompleted\n", column(len(s.results)-failed))
	fmt.Fprintf(table, "%s\tfailed\n", column(failed))
	for _, line := range []struct {
		n    int
		what string
	}{
		{len(s.folder.documents) - len(s.results), "not begun: interrupted"},
		{s.folder.links, "symbolic links left out"},
		{s.folder.others, "pipes, sockets and devices left out"},
		{len(s.folder.unreadable), "folders that can't be read"},
	} {
		if line.n > 0 {
			fmt.Fprintf(table, "%s\t%s\n", column(line.n), line.what)
		}
	}
	table.Flush()
}

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
		fmt.Fprintf(table, "%s\t%s: %s\t%s\n", column(f.count), f.stage, shorten(oneLine(f.message), 46), shortPath(f.example))
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

func (s *summary) printStages(out io.Writer) {
	fmt.Fprintf(out, "\nStages\n")
	table := newTable(out)
	fmt.Fprintf(table, "%*s\tstage\tmean\tslowest\n", columnWidth, "documents")
	for _, stage := range []string{stageExtract, stageSummarize} {
		var (
			n       int
			total   time.Duration
			slowest result
		)
		for _, r := range s.results {
			took, begun := r.took[stage]
			if !begun {
				continue
			}
			n++
			total += took
			if took >= slowest.took[stage] {
				slowest = r
			}
		}
		if n > 0 {
			fmt.Fprintf(table, "%s\t%s\t%s\t%s: %s\n", column(n), stage, round(total/time.Duration(n)),
				round(slowest.took[stage]), shortPath(slowest.name))
		}
	}
	table.Flush()
}

func (s *summary) printLongest(out io.Writer) {
	longest := slices.DeleteFunc(slices.Clone(s.results), func(r result) bool { return r.err != nil })
	slices.SortFunc(longest, func(a, b result) int {
		return cmp.Or(cmp.Compare(b.words, a.words), cmp.Compare(a.name, b.name))
	})
	if len(longest) == 0 {
		return
	}
	fmt.Fprintf(out, "\nLongest documents\n")
	table := newTable(out)
	fmt.Fprintf(table, "%*s\ttitle\tfile\n", columnWidth, "words")
	for _, r := range longest[:min(top, len(longest))] {
		fmt.Fprintf(table, "%s\t%s\t%s\n", column(r.words), shorten(r.title, 44), shortPath(r.name))
	}
	table.Flush()
}

func (s *summary) printEvents(out io.Writer) {
	fmt.Fprintf(out, "\nEvents\n")
	table := newTable(out)
	fmt.Fprintf(table, "%*s\t%*s\n", columnWidth, "recorded", columnWidth, "stored")
	for _, t := range eventTypes {
		stored := "?"
		if s.stored != nil {
			stored = grouped(s.stored[t])
		}
		fmt.Fprintf(table, "%s\t%*s\t%s\n", column(s.recorded[t]), columnWidth, stored, t)
	}
	table.Flush()
	fmt.Fprintf(out, "\nrecorded %d, delivered %d, dropped %d, in %d requests\n",
		s.stats.Recorded, s.stats.Delivered, s.stats.Dropped.Total(), s.stats.Requests)
}

func newTable(out io.Writer) *tabwriter.Writer {
	return tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
}

var english = message.NewPrinter(language.English)

// grouped writes a number as 12,345.
func grouped[N int | int64](n N) string { return english.Sprintf("%d", n) }

// column is grouped for the beginning of a line.
func column[N int | int64](n N) string { return fmt.Sprintf("%*s", columnWidth, grouped(n)) }

const columnWidth = len("1,234,567") + 2

// round leaves three digits or so.
func round(d time.Duration) time.Duration {
	unit := time.Duration(1)
	for d/unit >= 1000 {
		unit *= 10
	}
	return d.Round(unit)
}

// shortPath keeps the end of a path, which says more than its beginning.
func shortPath(path string) string {
	const limit = 30
	r := []rune(path)
	if len(r) <= limit {
		return path
	}
	tail := string(r[len(r)-limit+1:])
	if i := strings.IndexByte(tail, '/'); i >= 0 {
		tail = tail[i:]
	}
	return "…" + tail
}
