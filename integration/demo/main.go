// Demo shows the dashboard of docevents with example data: two hours of an imaginary
// document pipeline, with an outage, a slow step and stuck documents. It starts
// PostgreSQL and a REST API on this machine, and records new events while it runs. To
// see the dashboard of a real project, use the command "docevents serve".
//
// Usage:
//
//	go run ./integration/demo [-addr 127.0.0.1:0]
//
// The program prints the dashboard's address and runs until Ctrl-C.
//
// docs/dashboard.png is a picture of the dashboard. To take it again, start the
// program. It prints an address after "The last hour". Append this address to the
// following command:
//
//	chromium --headless --hide-scrollbars --window-size=1000,1040 --force-device-scale-factor=1.5 --screenshot=docs/dashboard.png
//
// Then reduce the picture to 128 colors.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/dashboard"
	"github.com/docevents/docevents-go/integration/localstack"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:0", "address of the page; port 0 selects a free port")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C kills the program
	if err := run(ctx, *addr, os.Stdout); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

const (
	past         = 2 * time.Hour          // the age of the oldest event that is recorded at the start
	tick         = 250 * time.Millisecond // the interval at which due events are recorded
	closeTimeout = 5 * time.Second
)

func run(ctx context.Context, addr string, out io.Writer) (err error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	defer listener.Close()
	fmt.Fprintln(out, "Starting PostgreSQL and a REST API on this machine; they are removed at the end.")
	stack, err := localstack.Start(ctx, localstack.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stack.Close()) }()
	client, err := connect(ctx, stack)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		err = errors.Join(err, client.Close(ctx))
	}()
	f := newFeed(time.Now().Add(-past))
	f.play(client, time.Now())
	if err := client.Flush(ctx); err != nil {
		return err
	}
	fmt.Fprintf(out, "Recorded %v of a pipeline, %d events; more follow as time goes on.\n", past, client.Stats().Delivered)
	go f.run(ctx, client)

	mux := http.NewServeMux()
	mux.Handle("/documents/", dashboard.Handler(client, dashboard.WithLoopback(), dashboard.WithFilters("tenant_id")))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	fmt.Fprintf(out, "The last hour: http://%s/documents/?range=1h\n", listener.Addr())
	fmt.Fprintf(out, "listening on http://%s/documents/\n", listener.Addr())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// connect creates the table, with a column for the tenant, and returns a client.
func connect(ctx context.Context, stack *localstack.Stack) (*docevents.Client, error) {
	if err := stack.Migrate(ctx); err != nil {
		return nil, err
	}
	if _, err := stack.Pool().Exec(ctx, "ALTER TABLE document_processing_events ADD tenant_id text, ALTER document_id DROP NOT NULL, ALTER user_id DROP NOT NULL"); err != nil {
		return nil, err
	}
	if err := stack.Reload(ctx); err != nil {
		return nil, err
	}
	client, err := docevents.New(stack.URL, stack.ServiceRoleKey, docevents.WithColumns(docevents.Columns{Extra: []string{"tenant_id"}}))
	if err != nil {
		return nil, err
	}
	return client, client.Check(ctx)
}

// run records the events that become due, until ctx ends.
func (f *feed) run(ctx context.Context, client *docevents.Client) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case now := <-ticker.C:
			f.play(client, now)
		case <-ctx.Done():
			return
		}
	}
}
