package main

import (
	"context"
	"log"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/docevents/docevents-go"
)

// A verdict exports the health of the documents: the result of the last call to
// client.Health that succeeded. Before the first call succeeds,
// docevents_health_timestamp_seconds is 0, and the other metrics are missing.
//
// Create two alerts. The first means that documents are stuck, fail too often or don't
// complete. The second means that no check has succeeded for five minutes.
//
//	docevents_healthy == 0
//	time() - docevents_health_timestamp_seconds > 300
type verdict struct {
	last atomic.Pointer[docevents.Health]
}

var (
	healthy   = prometheus.NewDesc("docevents_healthy", "1 if the documents are within the limits, else 0.", nil, nil)
	underWay  = prometheus.NewDesc("docevents_documents_under_way", "Documents under way.", nil, nil)
	stuck     = prometheus.NewDesc("docevents_documents_stuck", "Documents that have been under way for too long.", nil, nil)
	failures  = prometheus.NewDesc("docevents_documents_failure_ratio", "Share of failed documents among the documents that ended in the last hour.", nil, nil)
	completed = prometheus.NewDesc("docevents_last_completed_timestamp_seconds", "Time when a document last completed; 0 if none did in the last day.", nil, nil)
	checked   = prometheus.NewDesc("docevents_health_timestamp_seconds", "Time of the last check that succeeded.", nil, nil)
)

// Describe implements prometheus.Collector.
func (v *verdict) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{healthy, underWay, stuck, failures, completed, checked} {
		descs <- d
	}
}

// Collect implements prometheus.Collector.
func (v *verdict) Collect(metrics chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, value float64) {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value)
	}
	h := v.last.Load()
	if h == nil {
		send(checked, 0)
		return
	}
	ok := 0.0
	if h.OK {
		ok = 1
	}
	send(healthy, ok)
	send(underWay, float64(h.UnderWay))
	send(stuck, float64(h.Stuck))
	send(failures, h.FailureRate)
	send(completed, seconds(h.LastCompleted))
	send(checked, seconds(h.At))
}

func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.Unix())
}

// watch calls the function check at once and after each interval, until ctx ends. A
// check reads many rows, so a scrape exports the last result instead of running a
// check.
func (v *verdict) watch(ctx context.Context, interval time.Duration, check func(context.Context) (docevents.Health, error)) {
	for {
		if h, err := check(ctx); err != nil {
			log.Print(err) // the metrics keep their values
		} else {
			v.last.Store(&h)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(interval):
		}
	}
}
