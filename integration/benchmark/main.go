// Benchmark compares docevents with other ways to store events, on the same server and
// in the same run. It also checks the project's performance goals, called bars.
//
// Usage, from the repository's root:
//
//	go run ./integration/benchmark                 # 5 rounds of everything; about half an hour
//	go run ./integration/benchmark -quick          # one round with smaller loads, under a minute
//	go run ./integration/benchmark -guard          # checks a few bars; exits with 1 if one doesn't hold
//	go run ./integration/benchmark -sweep          # docevents with other values of MaxBatch and MaxInFlight
//	go run ./integration/benchmark -json FILE -plot DIR   # writes the report to FILE and charts to DIR
//	go run ./integration/benchmark -from FILE -plot DIR   # table and charts of FILE, without measuring
//
// The ways to store events are called variants:
//
//   - docevents with its defaults
//   - naive Go: a goroutine and a postgrest-go client per event
//   - supabase-js, if node and npm are installed
//   - bulk limit: hand-written bulk inserts over net/http, as fast as the REST API allows
//   - COPY: PostgreSQL's COPY, as fast as the database allows
//
// If SUPABASE_URL is not set, the benchmark starts PostgreSQL and PostgREST on this
// machine. If PostgREST isn't installed, an imitation takes its place.
//
// If SUPABASE_URL and SUPABASE_SECRET_KEY are set, the benchmark stores events in the
// table document_processing_events of the project at SUPABASE_URL, and deletes the
// events afterwards. The variant COPY also needs DATABASE_URL.
//
// A load is a number of events and the way in which they are recorded, such as all at
// once. A cell is a variant under a load. It runs in a separate process, so that its
// memory and CPU time can be measured. A round measures every cell once. The order of
// the variants changes from round to round. The figures in the table are medians over
// the rounds.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

type options struct {
	quick, guard, sweep bool
	rounds              int
	variants            string
	limit               time.Duration
	rtt                 time.Duration
	jsonFile            string
	plotDir             string
	from                string
}

// errBroken is returned for -guard if a bar doesn't hold.
var errBroken = errors.New("a bar doesn't hold: see above")

func main() {
	if isWorker() {
		workerMain()
	}
	var o options
	flag.BoolVar(&o.quick, "quick", false, "one round with smaller loads")
	flag.BoolVar(&o.guard, "guard", false, "check a few bars, and exit with 1 if one doesn't hold")
	flag.BoolVar(&o.sweep, "sweep", false, "measure docevents with other values of MaxBatch and MaxInFlight")
	flag.IntVar(&o.rounds, "rounds", 0, "number of measurements of each cell (default 5; -quick 1, -guard 3)")
	flag.StringVar(&o.variants, "variants", strings.Join(variantNames, ","), "variants to measure")
	flag.DurationVar(&o.limit, "limit", 4*time.Minute, "time limit of a cell")
	flag.DurationVar(&o.rtt, "rtt", 0, "round-trip time to add to the server, as a network would")
	flag.StringVar(&o.jsonFile, "json", "", "write the report to a file")
	flag.StringVar(&o.plotDir, "plot", "", "write the charts into a folder")
	flag.StringVar(&o.from, "from", "", "read a report instead of measuring")
	flag.Parse()
	log.SetOutput(io.Discard) // the local stack's HTTP server logs every failed accept
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "benchmark:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, out, notes io.Writer) error {
	r, err := o.report(ctx, notes)
	if err != nil {
		return err
	}
	if err := r.print(out); err != nil {
		return err
	}
	if o.jsonFile != "" {
		text, err := json.MarshalIndent(r, "", "\t")
		if err != nil {
			return err
		}
		if err := os.WriteFile(o.jsonFile, append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	if o.plotDir != "" {
		if err := r.plot(o.plotDir); err != nil {
			return err
		}
	}
	if o.guard && !r.holds() {
		return errBroken
	}
	return nil
}

// report measures the cells of the plan, or reads an earlier report.
func (o options) report(ctx context.Context, notes io.Writer) (*report, error) {
	if o.from != "" {
		text, err := os.ReadFile(o.from)
		if err != nil {
			return nil, err
		}
		r := &report{}
		if err := json.Unmarshal(text, r); err != nil {
			return nil, fmt.Errorf("%s: %w", o.from, err)
		}
		return r, nil
	}
	p, err := o.plan()
	if err != nil {
		return nil, err
	}
	return p.run(ctx, o, notes)
}

func (o options) plan() (*plan, error) {
	variants := strings.Split(o.variants, ",")
	for _, variant := range variants {
		if !slices.Contains(variantNames, variant) {
			return nil, fmt.Errorf("-variants: there is no variant %q; the variants are %s", variant, strings.Join(variantNames, ","))
		}
	}
	var p *plan
	switch {
	case o.guard:
		p = guardPlan()
	case o.sweep:
		p = sweepPlan()
	case o.quick:
		p = quickPlan()
	default:
		p = fullPlan()
	}
	p.keepVariants(variants)
	if o.rounds > 0 {
		p.rounds = o.rounds
	}
	return p, nil
}
