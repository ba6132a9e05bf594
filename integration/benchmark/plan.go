package main

import (
	"fmt"
	"slices"

	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"github.com/docevents/docevents-go"
)

// The variants that the benchmark compares. Each is a way to store events.
const (
	variantDocevents = "docevents"
	variantNaive     = "naive Go"
	variantJS        = "supabase-js"
	variantBulk      = "bulk limit"
	variantCopy      = "COPY"
)

var variantNames = []string{variantDocevents, variantNaive, variantJS, variantBulk, variantCopy}

// A load is a number of events and the way in which they are recorded.
type load struct {
	Name       string `json:"name"`
	Kind       string `json:"kind"` // burst, steady or idle
	Events     int    `json:"events"`
	Goroutines int    `json:"goroutines"` // the number of goroutines that record
	Rate       int    `json:"rate"`       // events per second, for a steady load
}

const (
	burst  = "burst"  // all events at once
	steady = "steady" // Rate events per second
	idle   = "idle"   // one event at a time: each is stored before the next is recorded
)

var english = message.NewPrinter(language.English)

func burstOf(events int) load {
	return load{Name: english.Sprintf("burst of %d", events), Kind: burst, Events: events, Goroutines: 1}
}

func crowdOf(goroutines, events int) load {
	return load{Name: english.Sprintf("burst of %d by %d goroutines", events, goroutines), Kind: burst, Events: events, Goroutines: goroutines}
}

func steadyFor(seconds, rate int) load {
	return load{Name: english.Sprintf("%d/s for %d s", rate, seconds), Kind: steady, Events: rate * seconds, Goroutines: 1, Rate: rate}
}

func idleWith(events int) load {
	return load{Name: "idle", Kind: idle, Events: events, Goroutines: 1}
}

// A cell is a combination to measure: a variant and a load. MaxBatch limits the rows of
// a request. MaxInFlight limits the requests in flight. Both limits apply only to the
// variants "docevents" and "bulk limit".
type cell struct {
	Variant     string   `json:"variant"`
	Load        load     `json:"load"`
	MaxBatch    int      `json:"max_batch"`
	MaxInFlight int      `json:"max_in_flight"`
	Samples     []sample `json:"samples"` // one per round
}

// A plan lists the cells to measure, the number of rounds, and the bars to check.
type plan struct {
	mode   string
	rounds int
	cells  []*cell
	bars   func(*report) []bar // nil if there are no bars
}

func (p *plan) add(l load, variants ...string) {
	for _, variant := range variants {
		p.cells = append(p.cells, &cell{
			Variant: variant, Load: l,
			MaxBatch: docevents.DefaultMaxBatch, MaxInFlight: docevents.DefaultMaxInFlight,
		})
	}
}

func (p *plan) keepVariants(variants []string) {
	p.cells = slices.DeleteFunc(p.cells, func(c *cell) bool { return !slices.Contains(variants, c.Variant) })
}

const (
	fullRounds  = 5
	guardRounds = 3

	smallBurst  = 1_000
	middleBurst = 20_000
	bigBurst    = docevents.DefaultQueueEvents
	crowd       = 64
)

func fullPlan() *plan {
	p := &plan{mode: "full", rounds: fullRounds, bars: fullBars}
	for _, n := range []int{smallBurst, middleBurst, bigBurst} {
		p.add(burstOf(n), variantNames...)
	}
	p.add(crowdOf(crowd, bigBurst), variantDocevents)
	p.add(steadyFor(20, 1000), variantDocevents, variantNaive, variantJS)
	p.add(idleWith(200), variantNames...)
	return p
}

// quickPlan leaves out large loads for the slow variants.
func quickPlan() *plan {
	p := &plan{mode: "quick", rounds: 1, bars: fullBars}
	p.add(burstOf(smallBurst), variantNames...)
	p.add(burstOf(bigBurst), variantDocevents, variantBulk, variantCopy)
	p.add(crowdOf(crowd, bigBurst), variantDocevents)
	p.add(steadyFor(3, 1000), variantDocevents, variantNaive, variantJS)
	p.add(idleWith(100), variantNames...)
	return p
}

func guardPlan() *plan {
	p := &plan{mode: "guard", rounds: guardRounds, bars: guardBars}
	p.add(burstOf(smallBurst), variantNaive)
	p.add(burstOf(bigBurst), variantDocevents, variantBulk)
	return p
}

func sweepPlan() *plan {
	p := &plan{mode: "sweep", rounds: fullRounds}
	for _, inFlight := range []int{1, 2, 4, 8} {
		for _, batch := range []int{250, 500, 1000, 2000, 4000} {
			l := burstOf(bigBurst)
			l.Name = fmt.Sprintf("%d x %d", inFlight, batch)
			p.cells = append(p.cells, &cell{Variant: variantDocevents, Load: l, MaxBatch: batch, MaxInFlight: inFlight})
		}
	}
	return p
}
