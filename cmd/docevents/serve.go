package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/docevents/docevents-go/dashboard"
)

const shutdownTimeout = 2 * time.Second // for the requests in flight

func serve(ctx context.Context, c *call) (int, error) {
	flags := c.newFlags()
	addr := flags.String("addr", "localhost:8080", "`HOST:PORT`|address on this machine; default localhost:8080")
	source := addTable(flags, whereRefused)
	if _, err := c.parse(flags, 0); err != nil {
		return 0, err
	}
	if err := checkLoopback(*addr); err != nil {
		return 0, err
	}
	client, _, err := c.connect(source)
	if err != nil {
		return 0, err
	}
	defer client.Close(ctx) // nothing is queued
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		return 0, err
	}
	server := &http.Server{Handler: dashboard.Handler(client, dashboard.WithLoopback()), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	fmt.Fprintf(c.stdout, "The dashboard is at http://%s/ until Ctrl-C.\n", listener.Addr())
	select {
	case err := <-failed:
		return 0, err
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		err = server.Close()
		<-failed
		return 0, err
	}
	<-failed
	return exitDone, nil
}

// checkLoopback returns an error if addr isn't on this machine, because the dashboard
// shows users' data without a password.
func checkLoopback(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return usagef("-addr: %w: want HOST:PORT, such as localhost:8080", err)
	}
	ip, err := netip.ParseAddr(host)
	if host != "localhost" && (err != nil || !ip.Unmap().IsLoopback()) {
		return usagef("-addr: %w", errors.New("the page is for this machine only: use localhost, 127.0.0.1 or [::1]; for others mount package dashboard in your app"))
	}
	return nil
}
