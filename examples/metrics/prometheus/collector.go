package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/docevents/docevents-go"
)

// A collector gives a client's Stats to Prometheus. It asks for them at each
// scrape: there is nothing to keep in step, and all counts are of one moment.
//
// To be alerted: increase(docevents_dropped_total{reason!="filtered"}[5m]) > 0,
// and docevents_pending that stays high.
type collector struct{ stats func() docevents.Stats }

var (
	recorded     = prometheus.NewDesc("docevents_recorded_total", "Events recorded.", nil, nil)
	delivered    = prometheus.NewDesc("docevents_delivered_total", "Events stored, as the server has acknowledged.", nil, nil)
	dropped      = prometheus.NewDesc("docevents_dropped_total", "Events lost, by reason.", []string{"reason"}, nil)
	replayed     = prometheus.NewDesc("docevents_replayed_total", "Events queued of what earlier processes left in the spool.", nil, nil)
	kept         = prometheus.NewDesc("docevents_kept_total", "Events left in the spool by Close.", nil, nil)
	pending      = prometheus.NewDesc("docevents_pending", "Events queued or under way.", nil, nil)
	pendingBytes = prometheus.NewDesc("docevents_pending_bytes", "What the pending events count against the queue's limit.", nil, nil)
	requests     = prometheus.NewDesc("docevents_requests_total", "Inserts sent.", nil, nil)
	retries      = prometheus.NewDesc("docevents_retries_total", "Inserts sent that carried events sent before.", nil, nil)
	unreported   = prometheus.NewDesc("docevents_unreported_total", "Lost events whose handler call was skipped.", nil, nil)
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
