package main

import (
	"errors"
	"sync"
)

// A queue holds the documents that wait for a worker. It is bounded: beyond
// that, uploads are refused.
type queue struct {
	documents chan document

	mu      sync.Mutex // guards closed
	closed  bool
	uploads sync.WaitGroup // under way
}

func newQueue() *queue { return &queue{documents: make(chan document, 1000)} }

// enter lets an upload begin, unless the queue is closed. It ends with leave.
func (q *queue) enter() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.uploads.Add(1)
	}
	return !q.closed
}

func (q *queue) leave() { q.uploads.Done() }

func (q *queue) add(d document) error {
	select {
	case q.documents <- d:
		return nil
	default:
		return errors.New("too many documents are waiting")
	}
}

// close ends the queue when the uploads under way have ended: http.Server's
// Shutdown and Close don't wait for every handler.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.uploads.Wait()
	close(q.documents)
}
