// Dashboard shows the page of docevents' package dashboard, with something to
// see on it: a local stack, two hours of a document pipeline with an outage, a
// slow step and stuck documents in it, and more events as time goes on.
//
// Usage:
//
//	go run ./examples/dashboard [-addr 127.0.0.1:0]
//
// It prints the page's address and goes on until a Ctrl-C. With SUPABASE_URL and
// SUPABASE_SECRET_KEY in the environment it shows that project instead,
// and records nothing there.
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
	"github.com/docevents/docevents-go/examples/internal/project"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:0", "address of the page; port 0 is a free one")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second Ctrl-C kills
	if err := run(ctx, *addr, os.Stdout); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "dashboard:", err)
		os.Exit(1)
	}
}

const (
	past         = 2 * time.Hour          // that is played at the start
	tick         = 250 * time.Millisecond // between looks at what is due
	closeTimeout = 5 * time.Second
)

func run(ctx context.Context, addr string, out io.Writer) (err error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	defer listener.Close()
	p, err := project.Open(ctx, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	var options []docevents.Option
	pageOptions := []dashboard.Option{dashboard.WithLoopback()} // not for a server: see dashboard.WithAuthorize
	if p.Local() {
		if err := p.AlterTable(ctx, "ADD tenant_id text, ALTER document_id DROP NOT NULL, ALTER user_id DROP NOT NULL"); err != nil {
			return err
		}
		options = append(options, docevents.WithColumns(docevents.Columns{Extra: []string{"tenant_id"}}))
		pageOptions = append(pageOptions, dashboard.WithFilters("tenant_id"))
	}
	client, err := p.Connect(ctx, options...)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		err = errors.Join(err, client.Close(ctx))
	}()
	if p.Local() {
		f := newFeed(time.Now().Add(-past))
		f.play(client, time.Now())
		if err := client.Flush(ctx); err != nil {
			return err
		}
		fmt.Fprintf(out, "Played %v of a pipeline, %d events; more come as time goes on.\n", past, client.Stats().Delivered)
		go f.run(ctx, client)
	}

	mux := http.NewServeMux()
	mux.Handle("/documents/", dashboard.Handler(client, pageOptions...))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	fmt.Fprintf(out, "The last hour: http://%s/documents/?range=1h\n", listener.Addr())
	fmt.Fprintf(out, "listening on http://%s/documents/\n", listener.Addr())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// run plays what becomes due until ctx ends.
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
