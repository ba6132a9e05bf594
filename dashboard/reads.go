package dashboard

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// readTimeout bounds the reads of one view. Hosted Supabase cancels a
	// statement after 8 s.
	readTimeout = 15 * time.Second

	maxReads  = 4               // in flight at a time
	sharedFor = 5 * time.Second // how long an answer serves identical reads
	maxShared = 32              // answers kept; an answer beyond that is not shared
)

// errBusy is the error of a read that would be one too many.
var errBusy = errors.New("this page has four reads in flight already")

// reads bounds a handler's load on the database. The zero value can be used.
//
//	no identical read              -> a new read, if fewer than maxReads are in flight; else errBusy
//	an identical read in flight    -> its answer, after a wait
//	answered less than sharedFor ago -> that answer
type reads struct {
	mu       sync.Mutex // guards what is below; no read runs under it
	inFlight int
	answers  map[string]*answer
}

// An answer is the result of a read, which may still be in flight.
type answer struct {
	done  chan struct{} // closed when value and err are final
	value any
	err   error
}

// share calls read, or returns the result of another caller's read with the same
// key. Callers with the same key must read the same. The value is shared, so
// nobody may change it. read runs on the goroutine of the first caller, and goes
// on if that caller's ctx ends, since others may be waiting.
func share[T any](ctx context.Context, r *reads, key string, read func(context.Context) (T, error)) (T, error) {
	a, first, err := r.find(key)
	if err != nil {
		var none T
		return none, err
	}
	if first {
		defer r.finish(key, a) // also if read panics
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

// find returns the answer for a key, and whether the caller is to read it.
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

// finish shares an answer for a while.
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
