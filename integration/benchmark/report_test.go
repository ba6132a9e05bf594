package main

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	ten := []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	for _, test := range []struct {
		values []int
		q      float64
		want   int
	}{
		{ten, 0.5, 5},
		{ten, 0.51, 6},
		{ten, 0.99, 10},
		{ten, 1, 10},
		{ten, 0, 1},
		{[]int{7}, 0.5, 7},
		{nil, 0.5, 0},
	} {
		if got := quantile(test.values, test.q); got != test.want {
			t.Errorf("quantile(%v, %v) = %d, want %d", test.values, test.q, got, test.want)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{3, 1, 2}, 2},
		{[]float64{4, 1, 3, 2}, 2.5},
		{[]float64{5}, 5},
		{nil, 0},
	} {
		before := slices.Clone(test.values)
		if got := median(test.values); got != test.want {
			t.Errorf("median(%v) = %v, want %v", test.values, got, test.want)
		}
		if !slices.Equal(test.values, before) {
			t.Errorf("%v came out as %v", before, test.values)
		}
	}
}

func TestBrief(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                         "",
		7:                         "7ns",
		156:                       "156ns",
		1457:                      "1.46µs",
		52_449:                    "52.4µs",
		18_512_345:                "18.5ms",
		1_234_567_890:             "1.23s",
		70_200_000_000:            "1m10.2s",
		999_999 * time.Nanosecond: "1ms",
	} {
		if got := brief(d); got != want {
			t.Errorf("brief(%d ns) = %q, want %q", d, got, want)
		}
	}
}

// TestTurn checks that every round measures each cell once and starts with another
// variant.
func TestTurn(t *testing.T) {
	p := &plan{}
	p.add(burstOf(1), "a", "b", "c")
	p.add(burstOf(2), "a")
	p.add(idleWith(3), "b", "c")
	for round, want := range []string{"a1 b1 c1 a2 b3 c3", "b1 c1 a1 a2 c3 b3", "c1 a1 b1 a2 b3 c3", "a1 b1 c1 a2 c3 b3"} {
		var got []string
		for _, c := range turn(p.cells, round) {
			got = append(got, fmt.Sprint(c.Variant, c.Load.Events))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("round %d: %v, want %s", round, got, want)
		}
	}
}

func TestPlans(t *testing.T) {
	for _, o := range []options{{}, {quick: true}, {guard: true}, {sweep: true}} {
		o.variants = strings.Join(variantNames, ",")
		p, err := o.plan()
		if err != nil || len(p.cells) == 0 || p.rounds < 1 {
			t.Fatalf("%+v: %+v, %v", o, p, err)
		}
		if p.bars == nil {
			continue
		}
		r := &report{Cells: p.cells}
		for _, c := range p.cells {
			c.Samples = []sample{{Stored: c.Load.Events, Elapsed: time.Second, ToRow: spread{P50: 1}, Bare: spread{P50: 1}}}
		}
		for _, b := range p.bars(r) {
			if !b.Measured {
				t.Errorf("%s: the plan has no cell for %q", p.mode, b.Name)
			}
		}
	}
	o := options{variants: variantDocevents + "," + variantBulk, rounds: 2}
	p, err := o.plan()
	if err != nil || p.rounds != 2 {
		t.Fatalf("got %+v, %v", p, err)
	}
	for _, c := range p.cells {
		if c.Variant != variantDocevents && c.Variant != variantBulk {
			t.Errorf("-variants %s leaves %s", o.variants, c.Variant)
		}
	}
	if _, err := (options{variants: "docevents,typo"}).plan(); err == nil || !strings.Contains(err.Error(), "typo") {
		t.Errorf("an unknown variant: %v", err)
	}
}

// figures returns a report of three rounds in which every bar holds. edit may change
// the samples so that a bar breaks.
func figures(edit func(variant, kind string, round int, s *sample)) *report {
	p := fullPlan()
	r := &report{Mode: p.mode, Rounds: 3, Machine: machine{Server: "a <server> & more", CPUs: 2}, Cells: p.cells}
	for _, c := range r.Cells {
		for round := range r.Rounds {
			s := sample{
				Stored: c.Load.Events, Elapsed: time.Second, Connections: 4, Requests: 100, PeakBytes: 50 << 20, CPUSeconds: 1,
				ToRow: spread{P50: 1100}, Bare: spread{P50: 1000},
			}
			if c.Variant == variantNaive {
				s.Elapsed = time.Duration(c.Load.Events) * time.Millisecond
			}
			if edit != nil {
				edit(c.Variant, c.Load.Kind, round, &s)
			}
			c.Samples = append(c.Samples, s)
		}
	}
	r.Bars = p.bars(r)
	return r
}

func TestBars(t *testing.T) {
	slow := func(burstTook time.Duration) func(string, string, int, *sample) {
		return func(variant, kind string, _ int, s *sample) {
			switch {
			case variant == variantDocevents && kind == burst:
				s.Elapsed = burstTook
			case variant == variantDocevents && kind == idle:
				s.ToRow.P50 = 1300
			}
		}
	}
	for name, test := range map[string]struct {
		bars   func(*report) []bar
		broken string // a part of the name of each broken bar
		edit   func(variant, kind string, round int, s *sample)
	}{
		"nothing": {fullBars, "", nil},
		"docevents loses an event in one round": {fullBars, "lost", func(variant, _ string, round int, s *sample) {
			if variant == variantDocevents && round == 1 {
				s.Stored--
			}
		}},
		"others lose events": {fullBars, "", func(variant, _ string, _ int, s *sample) {
			if variant != variantDocevents {
				s.Stored--
			}
		}},
		"six connections in one round": {fullBars, "connections", func(variant, kind string, round int, s *sample) {
			if variant == variantDocevents && kind == steady && round == 1 {
				s.Connections = 6
			}
		}},
		"97 MiB in one round": {fullBars, "MiB", func(variant, kind string, round int, s *sample) {
			if variant == variantDocevents && kind == burst && round == 1 {
				s.PeakBytes = 97 << 20
			}
		}},
		"one slow round": {fullBars, "", func(_, kind string, round int, s *sample) {
			if round == 1 {
				s.ToRow.P50 *= 9
				s.Elapsed *= 10
			}
		}},
		"0.67 of bulk and 1.3 of bare":          {fullBars, "bulk idle", slow(1500 * time.Millisecond)},
		"0.67 of bulk and 1.3 of bare, guarded": {guardBars, "", slow(1500 * time.Millisecond)},
		"0.08 of bulk and 8 of naive, guarded":  {guardBars, "bulk naive", slow(12 * time.Second)},
	} {
		r := figures(test.edit)
		r.Bars = test.bars(r)
		var broken []string
		for _, b := range r.Bars {
			if !b.Holds {
				broken = append(broken, b.Name)
			}
		}
		want := strings.Fields(test.broken)
		if !slices.EqualFunc(broken, want, strings.Contains) || r.holds() != (len(want) == 0) {
			t.Errorf("%s: %q are broken, want %q", name, broken, want)
		}
	}
	none := &report{}
	if none.Bars = guardBars(none); none.holds() || len(none.Bars) != 5 {
		t.Errorf("the guard's bars hold although nothing was measured: %+v", none.Bars)
	}
}

func TestReportFromFile(t *testing.T) {
	write := func(r *report) string {
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(t.TempDir(), "report.json")
		if err := os.WriteFile(name, text, 0o644); err != nil {
			t.Fatal(err)
		}
		return name
	}
	good := figures(nil)
	var first, second strings.Builder
	if err := good.print(&first); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "copy.json")
	if err := run(t.Context(), options{from: write(good), guard: true, jsonFile: copied}, &second, io.Discard); err != nil {
		t.Fatal(err)
	}
	if first.String() != second.String() {
		t.Errorf("the report from the file prints\n%swant\n%s", second.String(), first.String())
	}
	if err := run(t.Context(), options{from: copied}, io.Discard, io.Discard); err != nil {
		t.Errorf("its own file: %v", err)
	}
	good.Bars[0].Holds = false
	if err := run(t.Context(), options{from: write(good), guard: true}, io.Discard, io.Discard); !errors.Is(err, errBroken) {
		t.Errorf("a broken bar under -guard: %v", err)
	}
	if err := run(t.Context(), options{from: write(good)}, io.Discard, io.Discard); err != nil {
		t.Errorf("a broken bar without -guard: %v", err)
	}
}

func TestTable(t *testing.T) {
	r := figures(func(variant, kind string, round int, s *sample) {
		if variant == variantJS && kind == steady && round == 1 {
			*s = sample{Ended: timeLimit, Elapsed: time.Minute}
		}
	})
	r.Missing = map[string]string{variantCopy: "DATABASE_URL is not set"}
	r.Machine.Server = localStandIn
	var b strings.Builder
	if err := r.print(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| burst of 100,000                  | docevents   |  100,000 |    0 |",
		"| idle                              | bulk limit  |          |      |            |     |     |      1.1µs |",
		"- 1,000/s for 20 s, supabase-js: ended by the time limit (1 of 3)\n",
		"- COPY is left out: DATABASE_URL is not set\n",
		"- The local stack's stand-in answers single requests 2.5 times as fast as PostgREST does:",
		"| at least 0.9 |   1 |   holds |",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	sweep := &report{Mode: "sweep", Rounds: 1, Cells: sweepPlan().cells}
	sweep.Cells[0].Samples = []sample{{Stored: 100_000, Elapsed: 2 * time.Second, Requests: 400, PeakBytes: 1 << 20, CPUSeconds: 1}}
	if got, want := sweep.sweepTable(), "|           1 |      250 |   50,000 |  50,000 |  50,000 |               5ms |        1 |          1.00 |"; !strings.Contains(got, want) {
		t.Errorf("no %q in\n%s", want, got)
	}
}

// TestPlot checks that the charts are well-formed and to scale.
func TestPlot(t *testing.T) {
	r := figures(func(variant, kind string, _ int, s *sample) {
		if variant == variantJS && kind == burst {
			s.Stored = 0
		}
	})
	for _, c := range r.Cells {
		if c.Variant == variantNaive {
			for i := range c.Samples {
				c.Samples[i].PeakBytes = 25 << 20 // half of the other variants'
				c.Samples[i].Stored = 0
			}
		}
	}
	dir := t.TempDir()
	if err := r.plot(dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"throughput.svg", "lost.svg", "memory.svg"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		decoder := xml.NewDecoder(strings.NewReader(string(text)))
		for {
			if _, err := decoder.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		for _, want := range []string{"prefers-color-scheme: dark", "a &lt;server&gt; &amp; more", "burst of 20,000", variantBulk} {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s: no %q", name, want)
			}
		}
	}
	ch := newChart(r, "", "", 0, func(c *cell) (float64, string) { return float64(c.peak()), "12,345,678" })
	if len(ch.Panels) != 3 || len(ch.Rows) != len(variantNames) {
		t.Fatalf("%d panels of %d variants", len(ch.Panels), len(ch.Rows))
	}
	for _, panel := range ch.Panels {
		own, naive := panel.Bars[0], panel.Bars[1]
		if !own.Own || naive.Own || naive.Width != own.Width/2 {
			t.Errorf("%s: bars of %d and %d, want one half of the other", panel.Title, own.Width, naive.Width)
		}
	}
	if lost := newChart(r, "", "", 1, func(c *cell) (float64, string) { return float64(c.lost()) / float64(c.Load.Events), "" }); lost.Panels[0].Bars[1].Width != chartPanelWidth-chartLabel || lost.Panels[0].Bars[0].Width != 1 {
		t.Errorf("all lost and none: %+v", lost.Panels[0].Bars)
	}
	if empty := newChart(&report{}, "", "", 0, nil); len(empty.Panels) != 0 {
		t.Errorf("a chart of nothing: %+v", empty)
	}
}

func TestCrashReason(t *testing.T) {
	if got := crash("FATAL ERROR: JavaScript heap out of memory\n stack"); got != "out of memory" {
		t.Error(got)
	}
	if got := crash("signal: killed"); got != "a crash" {
		t.Error(got)
	}
	if got := string(end([]byte("abcdefgh\n"), 5)); got != "defgh" {
		t.Error(got)
	}
}
