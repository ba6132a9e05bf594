package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/docevents/docevents-go"
)

// A collector exports the Stats of a docevents client to Prometheus. All metrics of a
// scrape are from the same moment.
//
// Create an alert for increase(docevents_dropped_total{reason!="filtered"}[5m]) > 0,
// which means that events were lost. Create another for a high docevents_pending, which
// means that events aren't being stored.
type collector struct{ stats func() docevents.Stats }

var (
	recorded     = prometheus.NewDesc("docevents_recorded_total", "Events recorded.", nil, nil)
	delivered    = prometheus.NewDesc("docevents_delivered_total", "Events stored, confirmed by the server.", nil, nil)
	dropped      = prometheus.NewDesc("docevents_dropped_total", "Events dropped, by reason.", []string{"reason"}, nil)
	replayed     = prometheus.NewDesc("docevents_replayed_total", "Events from the spools of earlier processes that were queued.", nil, nil)
	kept         = prometheus.NewDesc("docevents_kept_total", "Events that Close left in the spool.", nil, nil)
	pending      = prometheus.NewDesc("docevents_pending", "Events queued or in flight.", nil, nil)
	pendingBytes = prometheus.NewDesc("docevents_pending_bytes", "Bytes of the pending events, as counted for the queue's limit.", nil, nil)
	requests     = prometheus.NewDesc("docevents_requests_total", "Inserts sent.", nil, nil)
	retries      = prometheus.NewDesc("docevents_retries_total", "Inserts sent with events that had been sent before.", nil, nil)
	unreported   = prometheus.NewDesc("docevents_unreported_total", "Dropped events for which the drop handler was not called.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c collector) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{recorded, delivered, dropped, replayed, kept, pending, pendingBytes, requests, retries, unreported} {
		descs <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(metrics chan<- prometheus.Metric) {
	s := c.stats()
	send := func(d *prometheus.Desc, kind prometheus.ValueType, n int64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(d, kind, float64(n), labels...)
	}
	send(recorded, prometheus.CounterValue, s.Recorded)
	send(delivered, prometheus.CounterValue, s.Delivered)
	for reason, n := range map[docevents.DropReason]int64{
		docevents.Invalid: s.Dropped.Invalid, docevents.Filtered: s.Dropped.Filtered, docevents.QueueFull: s.Dropped.QueueFull,
		docevents.Rejected: s.Dropped.Rejected, docevents.Closed: s.Dropped.Closed, docevents.Abandoned: s.Dropped.Abandoned,
	} {
		send(dropped, prometheus.CounterValue, n, string(reason))
	}
	send(replayed, prometheus.CounterValue, s.Replayed)
	send(kept, prometheus.CounterValue, s.Kept)
	send(pending, prometheus.GaugeValue, s.Pending)
	send(pendingBytes, prometheus.GaugeValue, s.PendingBytes)
	send(requests, prometheus.CounterValue, s.Requests)
	send(retries, prometheus.CounterValue, s.Retries)
	send(unreported, prometheus.CounterValue, s.Unreported)
}
