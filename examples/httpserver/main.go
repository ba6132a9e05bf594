// Httpserver takes documents over HTTP, counts their words in the background,
// and records what happens to each.
//
// Usage:
//
//	go run ./examples/httpserver [-addr 127.0.0.1:8080] [-workers n] [-grace 25s]
//
// It prints the lines that try it. A document is the request's body, too:
//
//	curl --data-binary @README.md http://127.0.0.1:8080/documents
//
// With SUPABASE_URL and SUPABASE_SECRET_KEY in the environment the events
// go to that project, which must have the table. Without them it starts a local
// PostgreSQL with a REST API in front, for as long as it runs.
//
// SIGTERM or Ctrl-C ends it in the order in which documents flow: it finishes
// the uploads under way and takes no new ones, processes what is queued, and
// delivers what has been recorded. All this takes no longer than -grace; what is
// too slow is broken off, and recorded as failed. A second signal kills.
//
// The exit code is 0 where every upload was finished, every document processed
// and every event delivered, else 1.
package main

import (
	"context"
	"errors"
	"expvar"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/examples/internal/project"
)

type config struct {
	addr    string
	workers int
	grace   time.Duration
}

func main() {
	var c config
	flag.StringVar(&c.addr, "addr", "127.0.0.1:8080", "address to listen on; port 0 is a free one")
	flag.IntVar(&c.workers, "workers", runtime.NumCPU(), "documents processed at a time")
	// Kubernetes kills 30 s after its SIGTERM.
	flag.DurationVar(&c.grace, "grace", 25*time.Second, "how long the end may take")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal kills
	if err := run(ctx, c, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "httpserver:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends, and then shuts down.
func run(ctx context.Context, c config, out io.Writer) (err error) {
	p, err := project.Open(ctx, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	client, err := p.Connect(ctx, docevents.WithSlog(slog.Default()))
	if err != nil {
		return err
	}
	// Served with the rest, on a loopback address. On the internet metrics need a
	// listener of their own.
	expvar.Publish("docevents", expvar.Func(func() any { return client.Stats() }))

	dir, err := os.MkdirTemp("", "httpserver-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.addr)
	if err != nil {
		return err
	}
	s := &service{record: client.Record, dir: dir, queue: newQueue()}
	server := &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       5 * time.Minute, // of a whole upload
	}
	processing, abort := context.WithCancelCause(context.Background())
	defer abort(nil)
	var workers sync.WaitGroup
	for range c.workers {
		workers.Go(func() { s.work(processing) })
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	fmt.Fprintf(out, `listening on http://%[1]s
to try it:
  curl -F file=@README.md http://%[1]s/documents
  curl http://%[1]s/debug/vars
`, listener.Addr())
	select {
	case <-ctx.Done():
	case err = <-failed:
	}

	fmt.Fprintln(out, "shutting down")
	end := stages{start: time.Now(), grace: c.grace}
	err = errors.Join(err,
		end.stage(0.4, func(ctx context.Context) error { return finishUploads(ctx, server) }),
		end.stage(0.8, func(ctx context.Context) error { return drain(ctx, s.queue, &workers, abort) }),
		end.stage(1.0, client.Close),
	)
	stats := client.Stats()
	fmt.Fprintf(out, "recorded %d, delivered %d, dropped %d\n", stats.Recorded, stats.Delivered, stats.Dropped.Total())
	return err
}

// stages share the time that the end may take. What a stage leaves over is for
// those after it.
type stages struct {
	start time.Time
	grace time.Duration
}

// stage runs what has to end when so much of the grace has gone by.
func (s stages) stage(share float64, do func(context.Context) error) error {
	ctx, cancel := context.WithDeadline(context.Background(), s.start.Add(time.Duration(share*float64(s.grace))))
	defer cancel()
	return do(ctx)
}

// finishUploads lets the uploads under way be finished, and breaks off what is
// left when ctx ends: their handlers record that.
func finishUploads(ctx context.Context, server *http.Server) error {
	if err := server.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("uploads were broken off: %w", err), server.Close())
	}
	return nil
}

var errShutdown = errors.New("the server is shutting down")

// drain waits until what is queued is processed. When ctx ends the workers get
// through the rest by recording it as failed.
func drain(ctx context.Context, q *queue, workers *sync.WaitGroup, abort context.CancelCauseFunc) error {
	inTime := context.AfterFunc(ctx, func() { abort(errShutdown) })
	q.close()
	workers.Wait()
	if !inTime() {
		return fmt.Errorf("documents were left unprocessed: %w", ctx.Err())
	}
	return nil
}
