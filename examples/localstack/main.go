// Localstack imitates a Supabase project: it runs PostgreSQL and a REST API on this
// machine until you interrupt it. The database contains the table of docevents.
//
// Usage:
//
//	go run ./examples/localstack [-addr 127.0.0.1:54321] [-v]
//
// It prints the project's URL and keys as export commands, which you can paste into
// another terminal. The line "# ready" means that the API accepts requests. A script
// can use localstack like this:
//
//	go build -o localstack ./examples/localstack
//	./localstack >stack.env &
//	until grep -qs ready stack.env; do sleep 0.1; done
//	. ./stack.env
//	...
//	kill $!
//
// Don't use "go run" in a script, because it wouldn't pass the signal of "kill" on to
// localstack.
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
