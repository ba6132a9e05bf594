// Serverless is an HTTP function as one writes it for Cloud Run, or for Lambda
// with an adapter: the platform may freeze or end the process as soon as it has
// replied, so it delivers its events before each reply.
//
// Usage:
//
//	go run ./examples/serverless [-addr 127.0.0.1:8081]
//
// It prints the line that calls it, with the document's id.
//
// With SUPABASE_URL and SUPABASE_SECRET_KEY in the environment the events
// go to that project, which must have the table. Without them it starts a local
// PostgreSQL with a REST API in front, for as long as it runs.
//
// SIGTERM or Ctrl-C ends it. The exit code is 0 where every event was delivered,
// else 1.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/examples/internal/project"
)

// grace is how long the end may take. Cloud Run kills 10 s after its SIGTERM.
const grace = 8 * time.Second

func main() {
	addr := flag.String("addr", "127.0.0.1:8081", "address to listen on; port 0 is a free one")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal kills
	if err := run(ctx, *addr, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "serverless:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, addr string, out io.Writer) (err error) {
	p, err := project.Open(ctx, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	// One client for the life of the process: its connections outlast a request.
	client, err := p.Connect(ctx, docevents.WithSlog(slog.Default()))
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler(client), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	fmt.Fprintf(out, `listening on http://%[1]s
to try it:
  curl --data-binary @README.md http://%[1]s/documents/0198a5e2-0000-7000-8000-000000000001
`, listener.Addr())
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	return errors.Join(err, server.Shutdown(ctx), client.Close(ctx))
}
