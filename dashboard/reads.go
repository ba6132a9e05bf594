package dashboard

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// readTimeout is the longest time that reading the data of one view may take. Hosted
	// Supabase cancels a statement after 8 s. readTimeout is longer, so that the page
	// receives the server's error and can show it.
	readTimeout = 15 * time.Second

	maxReads  = 4               // reads in flight at a time
	sharedFor = 5 * time.Second // how long the answer to a read is reused for identical reads
	maxShared = 32              // answers to keep; any further answer is only shared until its read ends
)

// errBusy is returned if maxReads reads are in flight already.
var errBusy = errors.New("this page has four reads in flight already")

// reads limits how often a handler reads from the database. Its zero value is ready to
// use. Two reads are identical if they have the same key. When a view needs data, the
// first line whose condition is true decides what the view gets:
//
//	an identical read ended less than sharedFor ago  -> the result of that read
//	an identical read is in flight                   -> the result of that read, after a wait
//	fewer than maxReads reads are in flight          -> the result of a new read
//	otherwise                                        -> errBusy, so the response is a 503
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

// share calls the function read and returns its result. If another caller's read with
// the same key is in flight or ended less than sharedFor ago, share returns the result
// of that read and doesn't call read. All callers with the same key get the same value,
// so they must not change it.
//
// If ctx ends, share stops waiting for another caller's read. But the end of ctx
// doesn't cancel a call to the function read, because other callers may be waiting for
// its result.
func share[T any](ctx context.Context, r *reads, key string, read func(context.Context) (T, error)) (T, error) {
	a, isNew, err := r.find(key)
	if err != nil {
		var none T
		return none, err
	}
	if isNew {
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

// find returns the answer for a key. If isNew is true, the answer is still empty: the
// caller must read the data, set the value and the error in the answer, and call
// finish. If isNew is false, another caller does this or has done it. If there is no
// answer for the key and too many reads are in flight, find returns errBusy.
func (r *reads) find(key string) (a *answer, isNew bool, err error) {
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

// finish ends the read whose result is in the answer a. Callers that wait for a get the
// result now. New callers with the same key get it for the next sharedFor. But if there
// are more than maxShared answers, finish forgets a at once.
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
