//go:build darwin || linux

// Worker takes jobs from a queue, counts the words of a document for each, and
// records an event pair per job: processing_started, and completed or failed.
//
// Usage:
//
//	go run ./examples/worker [-workers n] [-drain] DIR
//
// The queue is a folder: each file in it whose name begins with a document's
// UUID is a job. Several workers, also of several processes, share it; a job
// whose worker has died is taken again. Jobs that are done go to DIR/done, those
// that have failed to DIR/failed. What puts a job there writes it under another
// name and then renames it. What is no job is passed over, with a line that says
// so. To try it:
//
//	mkdir -p /tmp/jobs && cp README.md /tmp/jobs/0198a5e2-0000-7000-8000-000000000001.md
//	go run ./examples/worker -drain /tmp/jobs
//
// With SUPABASE_URL and SUPABASE_SECRET_KEY in the environment the events
// go to that project, which must have the table. Without them it starts a local
// PostgreSQL with a REST API in front, for as long as it runs.
//
// With -drain it ends when the queue is empty. SIGTERM or Ctrl-C ends it after
// the jobs under way, with everything recorded delivered; a second one kills.
//
// The exit code is 0 where every event was delivered, else 1.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/examples/internal/printable"
	"github.com/docevents/docevents-go/examples/internal/project"
)

// closeTimeout is how long the last events may take.
const closeTimeout = 10 * time.Second

func main() {
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: worker [-workers n] [-drain] DIR, a folder of jobs; to try it: "+
			"mkdir -p /tmp/jobs && cp README.md /tmp/jobs/0198a5e2-0000-7000-8000-000000000001.md && go run ./examples/worker -drain /tmp/jobs")
	}
	workers := flag.Int("workers", runtime.NumCPU(), "jobs done at a time")
	drain := flag.Bool("drain", false, "end when the queue is empty")
	flag.Parse()
	if flag.NArg() != 1 || *workers < 1 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal kills
	if err := run(ctx, flag.Arg(0), *workers, *drain, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir string, workers int, drain bool, out io.Writer) (err error) {
	q, err := openQueue(dir, out)
	if err != nil {
		return err
	}
	p, err := project.Open(ctx, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	client, err := p.Connect(ctx, docevents.WithSlog(slog.Default()))
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "taking jobs from %s\n", printable.Quote(dir))
	defer context.AfterFunc(ctx, func() { fmt.Fprintln(out, "finishing the jobs under way") })()
	w := &worker{queue: q, record: client.Record, drain: drain, out: out}
	errs := make([]error, workers)
	var all sync.WaitGroup
	for i := range workers {
		all.Go(func() { errs[i] = w.run(ctx) })
	}
	all.Wait()

	closeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	err = errors.Join(append(errs, client.Close(closeCtx))...)
	stats := client.Stats()
	fmt.Fprintf(out, "recorded %d, delivered %d, dropped %d\n", stats.Recorded, stats.Delivered, stats.Dropped.Total())
	return err
}
