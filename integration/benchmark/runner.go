package main

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

func (p *plan) run(ctx context.Context, o options, notes io.Writer) (_ *report, err error) {
	t, err := openTarget(ctx, o, notes)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	return p.measure(ctx, t, o, notes)
}

func (p *plan) measure(ctx context.Context, t *target, o options, notes io.Writer) (*report, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	run := &runner{options: o, target: t, notes: notes, program: program}
	r := &report{Mode: p.mode, Rounds: p.rounds, Machine: t.describe(ctx), Missing: run.prepare(ctx, p)}
	for round := range p.rounds {
		if err := run.round(ctx, p, round); err != nil {
			return nil, err
		}
	}
	r.Cells = p.cells
	if p.bars != nil {
		r.Bars = p.bars(r)
	}
	return r, nil
}

// turn returns the order in which a round measures the cells. Cells with the same load
// stay together. For each load, each round starts with a different variant.
func turn(cells []*cell, round int) []*cell {
	var order []*cell
	for len(cells) > 0 {
		end := 1
		for end < len(cells) && cells[end].Load == cells[0].Load {
			end++
		}
		group := cells[:end]
		first := round % end
		order = slices.Concat(order, group[first:], group[:first])
		cells = cells[end:]
	}
	return order
}

// A runner measures cells, each in a separate process.
type runner struct {
	options options
	target  *target
	notes   io.Writer
	program string // the path of this program
	jsDir   string // the folder of the script that measures supabase-js
}

// prepare removes from the plan the variants that can't be measured, and returns the
// reasons. It installs supabase-js if the plan contains it.
func (r *runner) prepare(ctx context.Context, p *plan) map[string]string {
	missing := map[string]string{}
	has := func(variant string) bool {
		return slices.ContainsFunc(p.cells, func(c *cell) bool { return c.Variant == variant })
	}
	switch {
	case !has(variantCopy):
	case r.target.DatabaseURL == "":
		missing[variantCopy] = "DATABASE_URL is not set"
	case r.target.delay != nil:
		missing[variantCopy] = "-rtt doesn't delay connections to the database"
	}
	if has(variantJS) {
		var err error
		if r.jsDir, err = installJS(ctx); err != nil {
			missing[variantJS] = err.Error()
		}
	}
	for variant, why := range missing {
		fmt.Fprintf(r.notes, "%s is left out: %s\n", variant, why)
		p.cells = slices.DeleteFunc(p.cells, func(c *cell) bool { return c.Variant == variant })
	}
	return missing
}

const (
	startGrace = 10 * time.Second // beyond a cell's limit, for the process to start and end
	keepOutput = 16 << 10         // bytes of a worker's errors; node writes a long stack trace
)

func (r *runner) round(ctx context.Context, p *plan, round int) error {
	for _, c := range turn(p.cells, round) {
		s, err := r.measure(ctx, c)
		if err != nil {
			return fmt.Errorf("%s, %s: %w", c.Variant, c.Load.Name, err)
		}
		c.Samples = append(c.Samples, *s)
		fmt.Fprintf(r.notes, "%d/%d  %s, %s: %s\n", round+1, p.rounds, c.Load.Name, c.Variant, s)
	}
	return nil
}

func (r *runner) measure(ctx context.Context, c *cell) (*sample, error) {
	user, err := uuid.NewRandom()
	if err != nil {
		return nil, err
	}
	input, err := json.Marshal(spec{
		Variant: c.Variant, Load: c.Load, MaxBatch: c.MaxBatch, MaxInFlight: c.MaxInFlight,
		URL: r.target.URL, Key: r.target.Key, Table: r.target.Table, DatabaseURL: r.target.DatabaseURL,
		User: user, Limit: r.options.limit,
	})
	if err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, r.options.limit+startGrace)
	defer cancel()
	cmd := exec.CommandContext(limited, r.program, workerArg)
	if c.Variant == variantJS {
		cmd = exec.CommandContext(limited, "node", "bench.mjs")
		cmd.Dir = r.jsDir
	}
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &out, &errs
	start := time.Now()
	runErr := cmd.Run()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	s := &sample{}
	if runErr == nil {
		runErr = json.Unmarshal(out.Bytes(), s)
	}
	if runErr != nil {
		if c.Variant != variantNaive && c.Variant != variantJS {
			return nil, fmt.Errorf("%w: %s", runErr, end(errs.Bytes(), keepOutput))
		}
		s.Ended = crash(errs.String()) // a crash of these variants is a result
		if limited.Err() != nil {
			s.Ended = timeLimit
		}
		s.Elapsed = time.Since(start)
		s.PeakBytes = childPeak(cmd.ProcessState)
		s.CPUSeconds = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	}
	if s.Stored, err = r.target.countStable(ctx, user, c.Load.Events); err != nil {
		return nil, err
	}
	return s, r.target.clean(ctx, user)
}

// timeLimit is the value of sample.Ended if a measurement exceeded -limit.
const timeLimit = "the time limit"

// crash returns the reason for a crash, from the process's output.
func crash(output string) string {
	for _, reason := range []string{"out of memory", "too many open files"} {
		if strings.Contains(output, reason) {
			return reason
		}
	}
	return "a crash"
}

// end returns the last n bytes of a program's output.
func end(output []byte, n int) []byte {
	output = bytes.TrimSpace(output)
	return output[max(0, len(output)-n):]
}

//go:embed supabase-js/bench.mjs supabase-js/package.json supabase-js/package-lock.json
var jsFiles embed.FS

// installJS installs the Node script that measures supabase-js into a folder in the
// user's cache, and returns the folder. It also installs the script's packages, unless
// an earlier run has installed the same packages.
func installJS(ctx context.Context) (string, error) {
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			return "", fmt.Errorf("there is no %s", program)
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "docevents-benchmark", "supabase-js")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	lock, _ := os.ReadFile(filepath.Join(dir, "installed.json"))
	want, err := jsFiles.ReadFile("supabase-js/package-lock.json")
	if err != nil {
		return "", err
	}
	entries, err := jsFiles.ReadDir("supabase-js")
	if err != nil {
		return "", err
	}
	for _, entry := range entries {
		text, err := jsFiles.ReadFile("supabase-js/" + entry.Name())
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(dir, entry.Name()), text, 0o644); err != nil {
			return "", err
		}
	}
	if bytes.Equal(lock, want) {
		return dir, nil
	}
	cmd := exec.CommandContext(ctx, "npm", "ci", "--no-audit", "--no-fund")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm ci: %w: %s", err, end(out, 300))
	}
	return dir, os.WriteFile(filepath.Join(dir, "installed.json"), want, 0o644)
}

// String returns a progress line.
func (s *sample) String() string {
	parts := []string{english.Sprintf("%d rows in %s", s.Stored, brief(s.Elapsed))}
	if s.ToRow.P50 > 0 {
		parts = append(parts, "to the row "+brief(s.ToRow.P50))
	}
	if s.PeakBytes > 0 {
		parts = append(parts, fmt.Sprintf("%.0f MiB", math.Ceil(float64(s.PeakBytes)/(1<<20))))
	}
	if s.Ended != "" {
		parts = append(parts, "ended by "+s.Ended)
	}
	if s.Error != "" {
		parts = append(parts, s.Error)
	}
	return strings.Join(parts, ", ")
}
