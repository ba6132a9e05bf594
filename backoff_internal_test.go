package docevents

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/docevents/docevents-go/internal/rest"
)

func TestBackoff(t *testing.T) {
	for step, most := range map[int]time.Duration{
		0: 200 * time.Millisecond, 1: 400 * time.Millisecond, 7: 25600 * time.Millisecond, 8: 30 * time.Second, 9: 30 * time.Second, 1 << 30: 30 * time.Second,
	} {
		seen := map[time.Duration]bool{}
		for range 200 {
			wait := backoff(step, longWait, errors.New("x"))
			seen[wait] = true
			if wait < most/2 || wait > most {
				t.Errorf("step %d: %s, want %s to %s", step, wait, most/2, most)
			}
		}
		if len(seen) < 100 {
			t.Errorf("step %d: %d different waits of 200: clients come back in step", step, len(seen))
		}
	}
	for asked, least := range map[time.Duration]time.Duration{0: firstWait / 2, time.Millisecond: firstWait / 2, time.Minute: time.Minute} {
		err := fmt.Errorf("wrapped: %w", &rest.Error{Status: 503, RetryAfter: asked})
		if wait := backoff(0, longWait, err); wait < least || wait > max(least, firstWait) {
			t.Errorf("Retry-After %s: waits %s, want %s", asked, wait, least)
		}
	}
	if wait := backoff(longStep, longWait, &rest.Error{RetryAfter: time.Second}); wait < 15*time.Second {
		t.Errorf("a short Retry-After makes a long wait shorter: %s", wait)
	}
}
