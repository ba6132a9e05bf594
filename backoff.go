package docevents

import (
	"math/rand/v2"
	"time"

	"github.com/docevents/docevents-go/internal/rest"
)

// The first wait is firstWait. The wait doubles with each step, up to longWait. A step
// is a strike of a row, a failed attempt during Close, or a failed probe. The actual
// wait is a random time between half of that and all of it, so that many clients
// don't retry at the same time.
const (
	firstWait = 200 * time.Millisecond
	longWait  = 30 * time.Second
	longStep  = 8 // the first step at which longWait is reached

	// lastingAfter is how long the server must refuse every request before the
	// refusals count as lasting. Refusals for a shorter time are normal while
	// PostgREST reloads its schema cache, or if its clock is behind and a new key
	// isn't valid yet.
	lastingAfter = 5 * time.Second
)

// backoff returns the wait after the given number of steps. It is at most the given
// time, but at least the Retry-After in err.
func backoff(step int, most time.Duration, err error) time.Duration {
	return max(jitter(step, most), rest.RetryAfter(err))
}

func jitter(step int, most time.Duration) time.Duration {
	wait := min(firstWait<<min(step, longStep), most)
	return wait/2 + rand.N(wait/2+1)
}
