// Purge deletes the old rows of document_processing_events, for a scheduler to
// run: cron, Kubernetes, a GitHub Action. See README.md for each.
//
// Usage:
//
//	purge -older-than 30d [-batch 10000] [-timeout 10m] [-dry-run] [-json]
//
// The project is that of SUPABASE_URL and SUPABASE_SECRET_KEY, or the
// other names that docevents.NewFromEnv reads. The last line of the standard
// output says what was done, as text or with -json as an object; how far it is
// goes to the standard error.
//
// The exit code is
//
//	0  done; with -dry-run, counted
//	1  failed: the error says what to do; rows may have been deleted, see the count
//	2  not begun: a flag or a setting is missing or wrong
//	3  stopped by -timeout, SIGTERM or SIGINT: the next run goes on from there
//	4  done, but an answer was lost: more rows may have been deleted than counted
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/docevents/docevents-go"
)

const (
	exitDone = iota
	exitFailed
	exitUsage
	exitStopped
	exitIncomplete
)

func main() {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		cancel(fmt.Errorf("stopped by %s", <-signals))
		signal.Reset() // the second one kills
	}()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

type options struct {
	olderThan     time.Duration
	batch         int
	timeout       time.Duration
	progress      time.Duration
	dryRun        bool
	json          bool
	schema, table string
}

// parse reads the arguments. Its errors have been printed, with the usage.
func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("purge", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Func("older-than", "`age` of the rows to delete: so many hours, days or weeks, as 12h, 30d, 2w; required", func(s string) (err error) {
		o.olderThan, err = parseAge(s)
		return err
	})
	flags.IntVar(&o.batch, "batch", docevents.DefaultPurgeBatch, "`rows` of a step")
	flags.DurationVar(&o.timeout, "timeout", 10*time.Minute, "stop after so long, between two steps; 0: no limit")
	flags.DurationVar(&o.progress, "progress", 5*time.Second, "say so often how far it is; 0: never")
	flags.BoolVar(&o.dryRun, "dry-run", false, "count the rows and delete none")
	flags.BoolVar(&o.json, "json", false, "print the result as a JSON object")
	flags.StringVar(&o.schema, "schema", docevents.DefaultSchema, "the table's `schema`")
	flags.StringVar(&o.table, "table", docevents.DefaultTable, "the table's `name`")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	problem := ""
	switch {
	case flags.NArg() > 0:
		problem = fmt.Sprintf("no argument is expected beside the flags: %q", flags.Arg(0))
	case o.olderThan == 0:
		problem = "-older-than is missing: say how old the rows must be, as purge -older-than 30d -dry-run"
	case o.timeout < 0 || o.progress < 0:
		problem = "-timeout and -progress can't be negative"
	}
	if problem != "" {
		fmt.Fprintln(stderr, "purge: "+problem)
		flags.Usage()
		return o, errors.New(problem)
	}
	return o, nil
}

// run is the program. It returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitDone
	case err != nil:
		return exitUsage
	}
	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("stopped by -timeout %s", o.timeout))
		defer cancel()
	}
	m := &meter{base: http.DefaultTransport}
	client, err := docevents.NewFromEnv(docevents.WithPurgeBatch(o.batch), docevents.WithTransport(m),
		docevents.WithSchema(o.schema), docevents.WithTable(o.table))
	if err != nil {
		fmt.Fprintln(stderr, "purge:", err)
		return exitUsage
	}
	defer client.Close(ctx) // nothing is queued

	r := result{Cutoff: time.Now().Add(-o.olderThan).UTC().Truncate(time.Microsecond), DryRun: o.dryRun}
	start := time.Now()
	switch err = check(ctx, client); {
	case err != nil:
	case o.dryRun:
		r.Due, r.estimated, err = countDue(ctx, m, &o, r.Cutoff)
	default:
		stop := m.report(stderr, o.progress)
		r.Deleted, err = client.PurgeBefore(ctx, r.Cutoff)
		stop()
	}
	r.Seconds = time.Since(start).Seconds()
	code := r.judge(ctx, err, m.failure())
	if r.Error != "" {
		fmt.Fprintln(stderr, "purge:", r.Error)
	}
	if err := r.print(stdout, o.json); err != nil {
		fmt.Fprintln(stderr, "purge:", err)
		return cmp.Or(code, exitFailed)
	}
	return code
}

// check makes sure of the project: from one that can't be reached, a purge would
// go on trying until -timeout.
func check(ctx context.Context, client *docevents.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return client.Check(ctx)
}
