package main

import (
	"context"
	"log"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/docevents/docevents-go"
)

// watch calls check at once and then at each interval, and sets the metrics to the
// result. It returns when ctx is done. A check reads the table, so scrapes of the
// metrics don't start checks.
//
// Create two alerts. The first means that documents are stuck, fail too often or
// don't complete. The second means that no check has succeeded for five minutes.
//
//	docevents_healthy == 0
//	time() - docevents_health_timestamp_seconds > 300
func watch(ctx context.Context, registry prometheus.Registerer, interval time.Duration, check func(context.Context) (docevents.Health, error)) {
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
		registry.MustRegister(g)
		return g
	}
	var (
		healthy   = gauge("docevents_healthy", "1 if the documents are within the limits, else 0.")
		underWay  = gauge("docevents_documents_under_way", "Documents under way.")
		stuck     = gauge("docevents_documents_stuck", "Documents that have been under way for too long.")
		failures  = gauge("docevents_documents_failure_ratio", "Share of failed documents among the documents that ended in the last hour.")
		completed = gauge("docevents_last_completed_timestamp_seconds", "Time when a document last completed; 0 if none did in the last day.")
		checked   = gauge("docevents_health_timestamp_seconds", "Time of the last check that succeeded.")
	)
	for {
		switch h, err := check(ctx); {
		case err != nil:
			log.Print(err) // the gauges keep their values
		default:
			healthy.Set(0)
			if h.OK {
				healthy.Set(1)
			}
			underWay.Set(float64(h.UnderWay))
			stuck.Set(float64(h.Stuck))
			failures.Set(h.FailureRate)
			completed.Set(0)
			if !h.LastCompleted.IsZero() {
				completed.Set(float64(h.LastCompleted.Unix()))
			}
			checked.Set(float64(h.At.Unix()))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(interval):
		}
	}
}
