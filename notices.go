package docevents

import (
	"context"
	"fmt"
	"time"
)

func (r *reporter) queueLocked(n notice) {
	r.queued++
	r.queue = append(r.queue, n)
	if !r.running {
		r.running = true
		go r.run()
	}
}

func (r *reporter) run() {
	ended := false
	r.mu.Lock()
	defer func() {
		r.mu.Unlock()
		if !ended { // the app's code called runtime.Goexit, as testing's FailNow does
			go r.run()
		}
	}()
	for len(r.queue) > 0 {
		n := r.queue[0]
		r.queue[0] = notice{} // releases it for garbage collection
		r.queue = r.queue[1:]
		if n.isDrop {
			r.drops--
			r.text -= n.text
		}
		r.callUnlocked(n)
	}
	r.queue = nil
	r.running = false
	ended = true
}

// callUnlocked calls the app's logger or drop handler without the lock. It takes the
// lock again even if that call panics. If the handler panics, only the type of the
// panic's value is logged, because the value may contain any data.
func (r *reporter) callUnlocked(n notice) {
	defer func() {
		p := recover()
		r.mu.Lock()
		r.finished++
		r.changed.Broadcast()
		if p != nil && n.isDrop {
			r.tallyLocked(logPanic, fmt.Errorf("panic with a %T", p))
			r.lineIfDueLocked(logPanic, time.Now())
		}
	}()
	r.mu.Unlock()
	n.call()
}

// flush calls sumUpLocked to report suppressed log lines. Then it waits until all
// notices that are now in the queue are done. If ctx ends first, it returns an error.
func (r *reporter) flush(ctx context.Context, minAge time.Duration) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sumUpLocked(minAge, time.Now())
	if ctx.Err() == nil { // flush doesn't wait if ctx has ended
		defer context.AfterFunc(ctx, func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.changed.Broadcast()
		})()
	}
	for last := r.queued; r.finished < last && !r.closed; r.changed.Wait() {
		if ctx.Err() != nil {
			return fmt.Errorf("docevents: Flush: log lines or drop handler calls are still pending: %w", ctx.Err())
		}
	}
	return nil
}

// close reports all suppressed log lines, and waits until all notices are done. If ctx
// ends first, the method discards the queued notices, and counts the dropped events
// among them as unreported.
func (r *reporter) close(ctx context.Context) {
	if r.flush(ctx, 0) == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.unreported.Add(int64(r.drops))
	r.queue, r.drops, r.text = nil, 0, 0
	r.changed.Broadcast()
}
