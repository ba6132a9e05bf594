package main

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"time"

	"github.com/docevents/docevents-go"
)

func health(ctx context.Context, c *call) (int, error) {
	flags := c.newFlags()
	var l docevents.Limits
	durationVar(flags, &l.Window, "window", "`DURATION`|check the rate over the last DURATION; default 1h")
	flags.Float64Var(&l.MaxFailureRate, "max-failure-rate", 0.5, "`RATE`|allowed share of failed documents, 0 to 1; default 0.5")
	flags.IntVar(&l.MinEnded, "min-ended", 20, "`NUMBER`|check the rate only if this many ended; default 20")
	durationVar(flags, &l.StuckAfter, "stuck-after", "`DURATION`|a document under way for longer is stuck; default 30m")
	flags.IntVar(&l.MaxStuck, "max-stuck", 0, "`NUMBER`|allowed number of stuck documents; default 0")
	durationVar(flags, &l.Silence, "silence", "`DURATION`|allowed time without a completion; default no limit")
	asJSON := flags.Bool("json", false, "print a JSON object")
	source := addTable(flags, whereFilters)
	if _, err := c.parse(flags, 0); err != nil {
		return 0, err
	}
	// In Limits, 0 means the default. On the command line, 0 means the strictest limit,
	// so 0 becomes the smallest value above 0.
	l.MaxFailureRate, l.MinEnded = cmp.Or(l.MaxFailureRate, math.SmallestNonzeroFloat64), cmp.Or(l.MinEnded, 1)
	client, s, err := c.connect(source)
	if err != nil {
		return 0, err
	}
	defer client.Close(ctx) // nothing is queued
	ctx, seen := watch(ctx)
	l.Where = s.Where
	h, err := client.Health(ctx, l)
	if err != nil {
		return 0, readError(seen, err)
	}
	code := exitDone
	if !h.OK {
		code = exitFailed
	}
	if *asJSON {
		return code, printJSON(c.stdout, struct {
			docevents.Health
			Stats any `json:"stats,omitempty"` // leaves out the Stats of this process
		}{Health: h})
	}
	verdict := "ok"
	if !h.OK {
		verdict = "not ok"
	}
	fmt.Fprintln(c.stdout, verdict)
	for _, problem := range h.Problems {
		fmt.Fprintln(c.stdout, printable(problem))
	}
	fmt.Fprintf(c.stdout, "in the last %s: %d documents ended, %d of them failed\nnow: %d under way, %d of them stuck; last completed: %s\n",
		plainDuration(cmp.Or(l.Window, time.Hour)), h.Ended, h.Failed, h.UnderWay, h.Stuck, inUTC(h.LastCompleted))
	return code, nil
}
