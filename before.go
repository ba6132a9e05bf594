package docevents

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
)

// maxBefore limits the concurrent calls of WithBefore's function. A function that
// records an event for each event calls itself endlessly, and the stack overflow
// would end the process. 10,000 nested calls take about 20 MB of stack.
const maxBefore = 10_000

var (
	errFiltered = errors.New("WithBefore's function returned false")
	errTooMany  = fmt.Errorf("%d calls of WithBefore's function are running: it must not block or record an event for each event", maxBefore)
)

// A before calls WithBefore's function and limits its concurrent calls.
type before struct{ running atomic.Int64 }

// call calls f with a copy of e and returns the copy, or the reason why the event
// is dropped. The copy has two purposes: without WithBefore, Record's e doesn't
// escape to the heap, and an f that keeps its pointer can't change a queued
// event.
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
		if p := recover(); p != nil { // p may contain anything, so only its type is logged
			changed, reason, err = e, Invalid, fmt.Errorf("WithBefore's function panicked with a %T: fix it, or recover in it", p)
		}
	}()
	if !f(ctx, &e) {
		return e, Filtered, errFiltered
	}
	return e, "", nil
}
