package main

import (
	"errors"
	"flag"
	"math"
	"strconv"
	"time"
)

// parseAge parses an age: an integer above zero and a unit, such as 30d. The units are
// h for hours, d for days of 24 hours, and w for weeks. parseAge rejects the unit m,
// which could mean minutes or months.
func parseAge(s string) (time.Duration, error) {
	units := map[byte]time.Duration{'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour}
	if s == "" {
		return 0, errors.New("the age is empty")
	}
	last := len(s) - 1
	unit, ok := units[s[last]]
	if !ok {
		return 0, errors.New("an age ends in h, d or w, for hours, days or weeks")
	}
	n, err := strconv.ParseUint(s[:last], 10, 63)
	switch {
	case errors.Is(err, strconv.ErrRange), err == nil && n > math.MaxInt64/uint64(unit):
		return 0, errors.New("an age is at most 292 years")
	case err != nil:
		return 0, errors.New("an age is an integer and a unit, such as 30d")
	case n == 0:
		return 0, errors.New("an age is at least 1")
	}
	return time.Duration(n) * unit, nil
}

// parseDuration parses an age, or a duration in Go's syntax, such as 90s.
func parseDuration(s string) (time.Duration, error) {
	if d, err := parseAge(s); err == nil {
		return d, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, errors.New("want a duration such as 90s, 30m, 24h or 7d")
	}
	return d, nil
}

func durationVar(flags *flag.FlagSet, d *time.Duration, name, usage string) {
	flags.Func(name, usage, func(s string) (err error) {
		*d, err = parseDuration(s)
		return err
	})
}

// A timeFlag is the value of a flag for a time. The user writes the time in the format
// of RFC 3339, or as a duration: 24h means 24 hours ago.
type timeFlag struct{ time.Time }

func (t *timeFlag) String() string { return "" }

func (t *timeFlag) Set(s string) error {
	if at, err := time.Parse(time.RFC3339, s); err == nil {
		t.Time = at
		return nil
	}
	d, err := parseDuration(s)
	if err != nil {
		return errors.New("want a duration such as 24h or 7d, or a time such as 2026-01-31T12:00:00Z")
	}
	t.Time = time.Now().Add(-d)
	return nil
}
