package docevents

import (
	"math/rand/v2"
	"time"

	"github.com/docevents/docevents-go/internal/rest"
)

// The wait before a retry is random, so that many clients don't retry at the same time.
// It is between half of a base time and the full base time. The base time is firstWait
// at step 0, and doubles with each step, up to a limit of at most longWait.
//
// The step depends on what is retried. For a row, it is the number of its strikes (see
// delivery.go), or during Close the number of its failures since Close began. For a
// probe, it is the number of consecutive probes that have failed.
const (
	firstWait = 200 * time.Millisecond
	longWait  = 30 * time.Second
	longStep  = 8 // the first step at which longWait is reached

	// If the server refuses at least five requests in a row (openAfter), for at least
	// 5 s, the refusals count as lasting. Then Flush and Close stop waiting. Shorter
	// refusals are normal: PostgREST may be reloading its schema cache, or its clock
	// may be behind, so that a new key isn't valid yet. For these reasons, reads,
	// purges and Check retry some refused requests for up to 5 s.
	lastingAfter = 5 * time.Second
)

// backoff returns how long to wait before the next attempt: jitter(step, limit), but at
// least the wait that the server asked for (Retry-After).
func backoff(step int, limit time.Duration, err error) time.Duration {
	return max(jitter(step, limit), rest.RetryAfter(err))
}

// jitter returns a random wait for the given step, at most limit.
func jitter(step int, limit time.Duration) time.Duration {
	wait := min(firstWait<<min(step, longStep), limit)
	return wait/2 + rand.N(wait/2+1)
}
