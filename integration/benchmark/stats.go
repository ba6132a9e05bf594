package main

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// A spread is how a set of durations is spread.
type spread struct {
	P50 time.Duration `json:"p50_ns"`
	P99 time.Duration `json:"p99_ns"`
	Max time.Duration `json:"max_ns"`
}

// spreadOf sorts the durations.
func spreadOf(d []time.Duration) spread {
	slices.Sort(d)
	return spread{P50: quantile(d, 0.5), P99: quantile(d, 0.99), Max: quantile(d, 1)}
}

// quantile is the smallest of the sorted values that is not below a share q of
// them (the nearest rank); zero of none.
func quantile[T any](sorted []T, q float64) T {
	if len(sorted) == 0 {
		var zero T
		return zero
	}
	rank := int(math.Ceil(q * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// median is the middle of the values, or the mean of the two in the middle;
// zero of none.
func median[T cmp.Ordered](values []T, mean func(a, b T) T) T {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	switch {
	case n == 0:
		var zero T
		return zero
	case n%2 == 1:
		return sorted[n/2]
	}
	return mean(sorted[n/2-1], sorted[n/2])
}

// medianOf is the median of what f reads from each sample.
func medianOf[T int | int64 | float64 | time.Duration](samples []sample, f func(*sample) T) T {
	values := make([]T, len(samples))
	for i := range samples {
		values[i] = f(&samples[i])
	}
	return median(values, func(a, b T) T { return (a + b) / 2 })
}

func maxOf[T cmp.Ordered](samples []sample, f func(*sample) T) T {
	var most T
	for i := range samples {
		most = max(most, f(&samples[i]))
	}
	return most
}

// A sample is what one measurement of a cell brought.
type sample struct {
	Stored  int           `json:"stored"`     // rows in the table afterwards
	Elapsed time.Duration `json:"elapsed_ns"` // from the first Record to the last row readable
	Call    spread        `json:"call"`       // of Record, as its caller sees it
	ToRow   spread        `json:"to_row"`     // from Record to the row stored, of one event on an idle system
	Bare    spread        `json:"bare"`       // the same for an insert over net/http on a warm connection, in turn with ToRow

	Connections int     `json:"connections"` // opened
	Requests    int     `json:"requests"`
	PeakBytes   int64   `json:"peak_bytes"` // resident, of the process
	CPUSeconds  float64 `json:"cpu_seconds"`

	Errors int    `json:"errors"`          // inserts that failed
	Error  string `json:"error,omitempty"` // one of them
	Ended  string `json:"ended,omitempty"` // why the measurement ended before its time
}

// rate is stored events per second.
func (s *sample) rate() float64 {
	if s.Elapsed <= 0 {
		return 0
	}
	return float64(s.Stored) / s.Elapsed.Seconds()
}

// cpuPer100k is CPU seconds per 100,000 stored events.
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
