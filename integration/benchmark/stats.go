package main

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// A spread contains the median, the 99th percentile and the maximum of durations.
type spread struct {
	P50 time.Duration `json:"p50_ns"`
	P99 time.Duration `json:"p99_ns"`
	Max time.Duration `json:"max_ns"`
}

// spreadOf returns the spread of the durations, which it sorts.
func spreadOf(d []time.Duration) spread {
	slices.Sort(d)
	return spread{P50: quantile(d, 0.5), P99: quantile(d, 0.99), Max: quantile(d, 1)}
}

// quantile returns the q-quantile of the sorted values. If q is 0.99, this is the 99th
// percentile. quantile uses the nearest-rank method. Without values, it returns zero.
func quantile[T any](values []T, q float64) T {
	if len(values) == 0 {
		var zero T
		return zero
	}
	rank := int(math.Ceil(q * float64(len(values))))
	return values[min(max(rank, 1), len(values))-1]
}

type number interface{ ~int | ~int64 | ~float64 }

// median returns the middle value, or the mean of the two middle values. Without
// values, it returns zero.
func median[T number](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	switch {
	case n == 0:
		var zero T
		return zero
	case n%2 == 1:
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}

// medianOf returns the median of f over the samples.
func medianOf[T number](samples []sample, f func(*sample) T) T {
	values := make([]T, len(samples))
	for i := range samples {
		values[i] = f(&samples[i])
	}
	return median(values)
}

func maxOf[T cmp.Ordered](samples []sample, f func(*sample) T) T {
	var most T
	for i := range samples {
		most = max(most, f(&samples[i]))
	}
	return most
}

// A sample is the result of one measurement of a cell.
type sample struct {
	Stored  int           `json:"stored"`     // rows in the table afterwards
	Elapsed time.Duration `json:"elapsed_ns"` // from the first Record until the last row can be read
	Call    spread        `json:"call"`       // the time of a call to Record
	ToRow   spread        `json:"to_row"`     // from Record until the row is stored, one event at a time
	Bare    spread        `json:"bare"`       // the same for an insert over net/http, alternating with ToRow

	Connections int     `json:"connections"` // opened connections
	Requests    int     `json:"requests"`
	PeakBytes   int64   `json:"peak_bytes"` // the process's peak resident memory
	CPUSeconds  float64 `json:"cpu_seconds"`

	Errors int    `json:"errors"`          // the number of events whose insert failed
	Error  string `json:"error,omitempty"` // one of their errors
	Ended  string `json:"ended,omitempty"` // the reason if the measurement ended early
}

// rate returns the stored events per second.
func (s *sample) rate() float64 {
	if s.Elapsed <= 0 {
		return 0
	}
	return float64(s.Stored) / s.Elapsed.Seconds()
}

func (s *sample) cpuPer100k() float64 {
	if s.Stored == 0 {
		return 0
	}
	return s.CPUSeconds / float64(s.Stored) * 100_000
}

func (c *cell) rate() float64 { return medianOf(c.Samples, (*sample).rate) }

func (c *cell) lost() int {
	return medianOf(c.Samples, func(s *sample) int { return c.Load.Events - s.Stored })
}

func (c *cell) peak() int64 { return medianOf(c.Samples, func(s *sample) int64 { return s.PeakBytes }) }
