// Localstack runs PostgreSQL and a stand-in for a Supabase project's REST API on
// this machine, with the table of docevents, until it is interrupted.
//
// Usage:
//
//	go run ./examples/localstack [-addr 127.0.0.1:54321] [-v]
//
// It prints its settings as export commands, which you can paste into another
// terminal. Then it prints the line "# ready", which is a comment for the shell. To
// use the settings in a script:
//
//	go build -o localstack ./examples/localstack
//	./localstack >stack.env &
//	until grep -qs ready stack.env; do sleep 0.1; done
//	. ./stack.env
//	...
//	kill $!
//
// The script builds the program, because go run doesn't forward the signal of kill
// to it. At a terminal, use go run and end it with Ctrl-C.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/docevents/docevents-go/integration/localstack"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:0", "address of the REST API; port 0 selects a free port")
	verbose := flag.Bool("v", false, "print the logs of PostgreSQL and the REST server on standard error")
	flag.Parse()
	opts := localstack.Options{Addr: *addr}
	if *verbose {
		opts.Log = os.Stderr
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, opts, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run runs a stack until ctx ends.
func run(ctx context.Context, opts localstack.Options, out io.Writer) (err error) {
	stack, err := localstack.Start(ctx, opts)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := stack.Close(); err == nil {
			err = closeErr
		}
	}()
	if err := stack.Migrate(ctx); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(out, "%s# ready\n", stack.Settings); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}
