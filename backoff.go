package docevents

import (
	"math/rand/v2"
	"time"

	"github.com/docevents/docevents-go/internal/rest"
)

// The wait before a retry is firstWait at step 0, and doubles with each step, up to
// longWait. For inserts, the step is the number of failed probes, of a row's strikes, or of
// a row's failures during Close (closeTries). The actual wait is a random time between half
// of this time and all of it, so that many clients don't retry at the same time.
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

// backoff returns how long to wait before the next attempt: jitter(step, limit), or the
// wait that the answer in err asks for with the header Retry-After, if that is longer.
func backoff(step int, limit time.Duration, err error) time.Duration {
	return max(jitter(step, limit), rest.RetryAfter(err))
}

// jitter returns a random wait for the given step. limit is the longest wait.
func jitter(step int, limit time.Duration) time.Duration {
	wait := min(firstWait<<min(step, longStep), limit)
	return wait/2 + rand.N(wait/2+1)
}
