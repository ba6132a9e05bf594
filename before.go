package docevents

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
)

// maxBefore bounds how many calls of WithBefore's function run at once. A
// function that records an event for each event calls itself without end, and
// the overflow of the stack would end the process. 10,000 calls within each
// other take about 20 MB of stack.
const maxBefore = 10_000

var (
	errFiltered = errors.New("WithBefore's function returned false")
	errTooMany  = fmt.Errorf("%d calls of WithBefore's function are running: it must not block, nor record an event for each event", maxBefore)
)

// A before calls WithBefore's function.
type before struct{ running atomic.Int64 }

// call returns e as f leaves it, or why it is dropped. f gets a copy of e, so
// that the e of Record doesn't escape to the heap without WithBefore, and so that
// an f that keeps its pointer can't change a queued event.
func (b *before) call(ctx context.Context, f func(context.Context, *Event) bool, e Event) (changed Event, reason DropReason, err error) {
	defer b.running.Add(-1)
	if b.running.Add(1) > maxBefore {
		return e, Invalid, errTooMany
	}
	e.Extra = maps.Clone(e.Extra)
	if e.Extra == nil {
		e.Extra = map[string]any{}
	}
	defer func() {
		if p := recover(); p != nil { // its value may be anything, so it isn't logged
			changed, reason, err = e, Invalid, fmt.Errorf("WithBefore's function panicked with a %T: fix it, or recover in it", p)
		}
	}()
	if !f(ctx, &e) {
		return e, Filtered, errFiltered
	}
	return e, "", nil
}
