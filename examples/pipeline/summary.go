package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/examples/internal/printable"
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
		fmt.Fprintf(table, "%s\t%s\t%s\n", column(r.words), shorten(printable.Quote(r.title), 44), shortPath(r.name))
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
