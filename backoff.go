package docevents

import (
	"math/rand/v2"
	"time"

	"github.com/docevents/docevents-go/internal/rest"
)

// A wait after a failure begins with firstWait and doubles with each step, up to
// longWait. Between half of it and all of it is waited, at random, so that clients
// don't retry at the same time.
const (
	firstWait = 200 * time.Millisecond
	longWait  = 30 * time.Second
	longStep  = 8 // the first step at which longWait is reached

	// lastingAfter is how long refusals must last before they count as lasting.
	// Shorter ones come from a schema cache that reloads, or from clocks that differ.
	lastingAfter = 5 * time.Second
)

// backoff returns the wait after a number of steps, at most the given one. If the
// server asked for a longer wait in err, backoff returns that.
func backoff(step int, most time.Duration, err error) time.Duration {
	return max(jitter(step, most), rest.RetryAfter(err))
}

func jitter(step int, most time.Duration) time.Duration {
	wait := min(firstWait<<min(step, longStep), most)
	return wait/2 + rand.N(wait/2+1)
}
