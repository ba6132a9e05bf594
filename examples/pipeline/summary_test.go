package main

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/docevents/docevents-go"
)

// good is a run of three documents in which all agrees.
func good() summary {
	stages := func(extract, summarize time.Duration) map[string]time.Duration {
		m := map[string]time.Duration{stageExtract: extract}
		if summarize > 0 {
			m[stageSummarize] = summarize
		}
		return m
	}
	recorded := counts{docevents.UploadStarted: 3, docevents.ProcessingStarted: 3, docevents.Completed: 1, docevents.Failed: 2}
	return summary{
		folder: folder{root: "/docs", documents: make([]document, 4), links: 7},
		results: []result{
			{document: document{name: "b.png"}, stage: stageExtract, took: stages(time.Millisecond, 0), err: errors.New("not text")},
			{document: document{name: "long.md"}, digest: digest{1234567, "The title"}, stage: stageSummarize, took: stages(3*time.Millisecond, time.Second)},
			{document: document{name: "a.png"}, stage: stageExtract, took: stages(2*time.Millisecond, 0), err: errors.New("not text")},
		},
		took:     1234567 * time.Microsecond,
		recorded: recorded,
		stored:   maps.Clone(recorded),
		stats:    docevents.Stats{Recorded: 9, Delivered: 9, Requests: 2},
	}
}

func TestSummaryPrint(t *testing.T) {
	s := good()
	var b strings.Builder
	if err := s.print(&b); err != nil {
		t.Fatal(err)
	}
	const want = `
Documents: 3 of 4 in 1.23s, 1,234,567 words
          1  completed
          2  failed
          1  not begun: interrupted
          7  symbolic links left out

Most common failures
          2  extract: not text  a.png

Stages
  documents  stage      mean  slowest
          3  extract    2ms   3ms: long.md
          1  summarize  1s    1s: long.md

Longest documents
      words  title      file
  1,234,567  The title  long.md

Events
   recorded       stored
          3            3  upload_started
          3            3  processing_started
          1            1  completed
          2            2  failed

recorded 9, delivered 9, dropped 0, in 2 requests
`
	if got := b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	s.stored = nil
	b.Reset()
	if err := s.print(&b); err != nil || !strings.Contains(b.String(), " ?  completed") {
		t.Errorf("a table that couldn't be read: %v\n%s", err, b.String())
	}
	s = good()
	for i := range 7 {
		s.results = append(s.results, result{stage: stageExtract, err: fmt.Errorf("of kind %d", i)})
	}
	b.Reset()
	if err := s.print(&b); err != nil || !strings.Contains(b.String(), "          3  others\n") {
		t.Errorf("many kinds of failures: %v\n%s", err, b.String())
	}
	empty := summary{}
	if err := empty.print(&b); err != nil {
		t.Error(err)
	}
}

func TestSummaryCheck(t *testing.T) {
	if s := good(); s.check() != nil {
		t.Errorf("good counts: %v", s.check())
	}
	for name, change := range map[string]func(*summary){
		"lost":                 func(s *summary) { s.stats.Delivered, s.stats.Dropped.Rejected = 8, 1 },
		"pending":              func(s *summary) { s.stats.Delivered, s.stats.Pending = 8, 1 },
		"client counts less":   func(s *summary) { s.stats.Recorded, s.stats.Delivered = 8, 8 },
		"table has less":       func(s *summary) { s.stored[docevents.Completed]-- },
		"table has more":       func(s *summary) { s.stored[docevents.Failed]++ },
		"the total alone fits": func(s *summary) { s.stored[docevents.Failed]++; s.stored[docevents.Completed]-- },
	} {
		s := good()
		if change(&s); s.check() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestCommonFailures(t *testing.T) {
	var results []result
	fail := func(n int, stage, message string) {
		for i := range n {
			results = append(results, result{document: document{name: fmt.Sprint(9 - i)}, stage: stage, err: errors.New(message)})
		}
	}
	fail(1, stageExtract, "rare")
	fail(2, stageSummarize, "same")
	fail(3, stageExtract, "frequent")
	fail(2, stageExtract, "same")
	results = append(results, result{stage: stageSummarize})
	want := []failure{
		{stageExtract, "frequent", 3, "7"}, {stageExtract, "same", 2, "8"}, {stageSummarize, "same", 2, "8"}, {stageExtract, "rare", 1, "9"},
	}
	if got := commonFailures(results); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestRound(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:          "0s",
		999:        "999ns",
		1234:       "1.23µs",
		5678901:    "5.68ms",
		1234567890: "1.23s",
	} {
		if got := round(d).String(); got != want {
			t.Errorf("%d: got %s, want %s", d, got, want)
		}
	}
}

func TestShortPath(t *testing.T) {
	for _, test := range []struct{ path, want string }{
		{"short/path.txt", "short/path.txt"},
		{"a-rather-long-folder/and-another/file.txt", "…/and-another/file.txt"},
		{strings.Repeat("x", 40), "…" + strings.Repeat("x", 29)},
	} {
		if got := shortPath(test.path); got != test.want {
			t.Errorf("%s: got %s, want %s", test.path, got, test.want)
		}
	}
}
