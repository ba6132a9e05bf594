package main

import (
	"errors"
	"math"
	"strconv"
	"time"
)

// parseAge reads an age: a whole number, above zero, of hours (h), days of 24
// hours (d) or weeks (w).
func parseAge(s string) (time.Duration, error) {
	units := map[byte]time.Duration{'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour}
	if s == "" {
		return 0, errors.New("it is empty")
	}
	last := len(s) - 1
	unit, ok := units[s[last]]
	if !ok {
		return 0, errors.New("it has to end in h, d or w, for hours, days or weeks")
	}
	n, err := strconv.ParseUint(s[:last], 10, 63)
	switch {
	case errors.Is(err, strconv.ErrRange), err == nil && n > math.MaxInt64/uint64(unit):
		return 0, errors.New("it is longer than 292 years")
	case err != nil:
		return 0, errors.New("it has to be a whole number and a unit, as 30d")
	case n == 0:
		return 0, errors.New("that would delete every row")
	}
	return time.Duration(n) * unit, nil
}
