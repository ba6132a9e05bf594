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
		if !ended { // the app's code has ended the goroutine, as testing's FailNow does
			go r.run()
		}
	}()
	for len(r.queue) > 0 {
		n := r.queue[0]
		r.queue[0] = notice{} // lets go of it: the slice moves on
		r.queue = r.queue[1:]
		if n.isCall {
			r.calls--
			r.text -= n.text
		}
		r.sayUnlocked(n)
	}
	r.queue = nil
	r.running = false
	ended = true
}

// sayUnlocked calls the app's code without the lock, and has it again at the
// end, whichever that is. What a handler panics with is not repeated: it may be
// anything. A logger that panics costs its line.
func (r *reporter) sayUnlocked(n notice) {
	defer func() {
		p := recover()
		r.mu.Lock()
		r.said++
		r.changed.Broadcast()
		if p != nil && n.isCall {
			r.tallyLocked(logPanic, fmt.Errorf("panic with a %T", p))
			r.lineIfDueLocked(logPanic, time.Now())
		}
	}()
	r.mu.Unlock()
	n.say()
}

// flush writes the sums that are due and waits, within ctx, until everything
// queued by now has been said.
func (r *reporter) flush(ctx context.Context, age time.Duration) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sumUpLocked(age, time.Now())
	if ctx.Err() == nil { // else there is nothing to wait for
		defer context.AfterFunc(ctx, func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.changed.Broadcast()
		})()
	}
	for last := r.queued; r.said < last && !r.gaveUp; r.changed.Wait() {
		if ctx.Err() != nil {
			return fmt.Errorf("docevents: Flush: log lines or drop handler calls still due: %w", ctx.Err())
		}
	}
	return nil
}

// close is flush with all sums, at the end of ctx skipping what waits behind a
// call that doesn't return.
func (r *reporter) close(ctx context.Context) {
	if r.flush(ctx, 0) == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gaveUp = true
	r.unreported.Add(int64(r.calls))
	r.queue, r.calls, r.text = nil, 0, 0
	r.changed.Broadcast()
}
