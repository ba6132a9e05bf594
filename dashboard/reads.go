package dashboard

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// readTimeout limits the time for the reads of one view. Hosted Supabase cancels
	// a statement after 8 s. readTimeout is longer, so that the page can show the
	// error of the server.
	readTimeout = 15 * time.Second

	maxReads  = 4               // reads in flight at a time
	sharedFor = 5 * time.Second // how long identical reads share an answer
	maxShared = 32              // answers to keep; the answer to a further read is shared only while it is in flight
)

// errBusy is returned if maxReads reads are in flight already.
var errBusy = errors.New("this page has four reads in flight already")

// reads limits the load of a handler on the database. The zero value is ready to use.
// The first line that applies decides what a read returns:
//
//	an identical read ended less than sharedFor ago  -> the answer of that read
//	an identical read is in flight                   -> the answer of that read, after a wait
//	fewer than maxReads reads are in flight          -> the answer of a new read
//	otherwise                                        -> errBusy
type reads struct {
	mu       sync.Mutex // guards the fields below; no read runs under it
	inFlight int
	answers  map[string]*answer
}

// An answer is the result of a read, which may still be in flight.
type answer struct {
	done  chan struct{} // closed when value and err are final
	value any
	err   error
}

// share calls read, or returns the result of another caller's read with the same key. All
// callers with this key get the same value, so they must not change it. If ctx ends while
// read runs, read continues, because other callers may be waiting for its result.
func share[T any](ctx context.Context, r *reads, key string, read func(context.Context) (T, error)) (T, error) {
	a, first, err := r.find(key)
	if err != nil {
		var none T
		return none, err
	}
	if first {
		defer r.finish(key, a) // even if read panics
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTimeout)
		defer cancel()
		value, err := read(ctx)
		a.value, a.err = value, err
		return value, err
	}
	select {
	case <-a.done:
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
	value, _ := a.value.(T)
	return value, a.err
}

// find returns the answer for a key. If first is true, no read has this key yet. Then the
// caller must read, fill in the answer and call finish.
func (r *reads) find(key string) (a *answer, first bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.answers[key]; a != nil {
		return a, false, nil
	}
	if r.inFlight == maxReads {
		return nil, false, errBusy
	}
	r.inFlight++
	a = &answer{done: make(chan struct{}), err: errors.New("the read ended in a panic: see the app's log")}
	if r.answers == nil {
		r.answers = map[string]*answer{}
	}
	r.answers[key] = a
	return a, true, nil
}

// finish wakes the callers that wait for the answer. Later callers get the same answer
// until sharedFor has passed.
func (r *reads) finish(key string, a *answer) {
	close(a.done)
	forget := func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.answers, key)
	}
	r.mu.Lock()
	r.inFlight--
	full := len(r.answers) > maxShared
	r.mu.Unlock()
	if full {
		forget()
		return
	}
	time.AfterFunc(sharedFor, forget)
}
