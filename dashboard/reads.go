package dashboard

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// readTimeout is the longest time for the reads of one view. Hosted Supabase
	// cancels a statement after 8 s. readTimeout is longer, so that the page can show
	// the server's error.
	readTimeout = 15 * time.Second

	maxReads  = 4               // reads in flight at a time
	sharedFor = 5 * time.Second // how long a result is reused
	maxShared = 32              // results to keep after their read has ended
)

// errBusy is returned if maxReads reads are in flight already.
var errBusy = errors.New("this page has four reads in flight already")

// A readLimiter limits how often a handler reads from the database. Reads with the same
// key are identical. The first line whose condition is true decides what a view gets:
//
//	an identical read ended less than sharedFor ago  -> the result of that read
//	an identical read is in flight                   -> the result of that read, after a wait
//	fewer than maxReads reads are in flight          -> the result of a new read
//	otherwise                                        -> errBusy, so the response is a 503
type readLimiter struct {
	mu       sync.Mutex // guards the fields below; not held during a read
	inFlight int
	answers  map[string]*answer
}

// An answer is the result of a read, which may still be in flight.
type answer struct {
	done  chan struct{} // closed when value and err are final
	value any
	err   error
}

// share returns the result of doRead, the result of an identical read, or errBusy: see
// readLimiter. The callers share the value, so they must not change it.
//
// If ctx ends, share stops waiting for another caller's read. It doesn't cancel its own
// call of doRead, because other callers may be waiting for the result.
func share[T any](ctx context.Context, r *readLimiter, key string, doRead func(context.Context) (T, error)) (T, error) {
	a, isNew, err := r.find(key)
	if err != nil {
		var none T
		return none, err
	}
	if isNew {
		defer r.finish(key, a) // even if doRead panics
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTimeout)
		defer cancel()
		value, err := doRead(ctx)
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

// find returns the answer for a key, or errBusy. If isNew is true, the caller must read
// the data, set the answer's value and err, and call finish. If find returns an answer
// that isn't new, another caller does that.
func (r *readLimiter) find(key string) (a *answer, isNew bool, err error) {
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

// finish ends the read for a key. If there are at most maxShared answers, other callers
// with the same key also get the answer of this read, until sharedFor has passed.
func (r *readLimiter) finish(key string, a *answer) {
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
