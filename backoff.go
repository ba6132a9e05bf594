package docevents

import (
	"math/rand/v2"
	"time"

	"github.com/docevents/docevents-go/internal/rest"
)

// The wait of step 0 is firstWait. Each step doubles the wait, up to longWait. A step is
// a failed probe, a strike of a row, or a failure of a suspect during Close. The actual
// wait is a random time between half of this time and all of it, so that many clients
// don't retry at the same time.
const (
	firstWait = 200 * time.Millisecond
	longWait  = 30 * time.Second
	longStep  = 8 // the first step at which longWait is reached

	// lastingAfter is how long the server must refuse every request, and at least
	// openAfter of them, before the refusals count as lasting. Then Flush and Close stop
	// waiting. Shorter refusals are normal: PostgREST may be reloading its schema cache,
	// or its clock may be behind, so that a new key isn't valid yet.
	lastingAfter = 5 * time.Second
)

// backoff returns how long to wait before the next attempt. The parameter step says how
// often the wait has doubled, and limit is the longest wait. If the answer in err asks
// for a longer wait with the header Retry-After, backoff returns that longer wait.
func backoff(step int, limit time.Duration, err error) time.Duration {
	return max(jitter(step, limit), rest.RetryAfter(err))
}

func jitter(step int, limit time.Duration) time.Duration {
	wait := min(firstWait<<min(step, longStep), limit)
	return wait/2 + rand.N(wait/2+1)
}
