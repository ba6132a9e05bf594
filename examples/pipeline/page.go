package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/dashboard"
)

// servePage serves the page about the table's documents on an address of this
// machine until stop is called. With no address it does nothing.
func servePage(addr string, client *docevents.Client, out io.Writer) (stop func(), err error) {
	if addr == "" {
		return func() {}, nil
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: dashboard.Handler(client, dashboard.WithLoopback()), ReadHeaderTimeout: 10 * time.Second}
	go server.Serve(listener) // until Close
	fmt.Fprintf(out, "listening on http://%s/\n", listener.Addr())
	return func() { server.Close() }, nil
}
