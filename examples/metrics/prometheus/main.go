// Prometheus exports metrics of the documents, and of the events that docevents
// recorded, stored and dropped.
//
// Usage:
//
//	go run ./examples/metrics/prometheus [-addr 127.0.0.1:9464]
//
// It prints two curl commands to try it: one records an event, the other prints the
// metrics.
//
// It uses the project of SUPABASE_URL and SUPABASE_SECRET_KEY. The project needs the
// files 013 and 014 of sql/. For a project on this machine, use examples/localstack.
//
// To end the program, press Ctrl-C or send SIGTERM. The exit code is 0 if every event
// was stored, else 1.
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

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/docevents/docevents-go"
)

// grace limits how long the shutdown may take.
const grace = 10 * time.Second

func main() {
	addr := flag.String("addr", "127.0.0.1:9464", "address to listen on; port 0 selects a free port")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	if err := run(ctx, *addr, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "prometheus:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, addr string, out io.Writer) error {
	client, err := docevents.NewFromEnv()
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	var health verdict
	registry.MustRegister(collector{client.Stats}, &health)
	go health.watch(ctx, time.Minute, func(ctx context.Context) (docevents.Health, error) {
		return client.Health(ctx, docevents.Limits{Silence: 15 * time.Minute}) // your limits
	})
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler(client, registry), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	fmt.Fprintf(out, `listening on http://%[1]s
to try it:
  curl -X POST http://%[1]s/documents
  curl http://%[1]s/metrics
`, listener.Addr())
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	return errors.Join(err, server.Shutdown(ctx), client.Close(ctx))
}

func handler(client *docevents.Client, registry *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("POST /documents", func(w http.ResponseWriter, _ *http.Request) {
		client.Record(docevents.Event{DocumentID: uuid.NewString(), UserID: docevents.SystemUser, Type: docevents.UploadStarted})
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}
