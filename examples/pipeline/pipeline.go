package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/docevents/docevents-go"
)

// The stages of a document's processing, as they are recorded.
const (
	stageExtract   = "extract"
	stageSummarize = "summarize"
)

// eventTypes is the order of a document's life.
var eventTypes = []docevents.EventType{
	docevents.UploadStarted, docevents.ProcessingStarted, docevents.Completed, docevents.Failed,
}

// counts are of events, by type.
type counts map[docevents.EventType]int64

func (c counts) total() (n int64) {
	for _, count := range c {
		n += count
	}
	return n
}

// errInterrupted is what a document fails with that a Ctrl-C cuts short.
var errInterrupted = errors.New("interrupted")

// A result is what became of a document.
type result struct {
	document
	digest
	stage string // the last one begun
	took  map[string]time.Duration
	err   error // nil: completed
}

// A pipeline processes documents and records what happens to them.
type pipeline struct {
	user   string
	record func(docevents.Event)
	done   func(result) // called by the workers, one at a time

	mu       sync.Mutex // guards recorded, until run returns
	recorded counts
}

func newPipeline(user string, record func(docevents.Event), done func(result)) *pipeline {
	return &pipeline{user: user, record: record, done: done, recorded: make(counts)}
}

// run processes the documents with so many workers, until all are done or ctx
// is: then those under way are still finished. It returns the results of those
// that were begun.
func (p *pipeline) run(ctx context.Context, documents []document, workers int) []result {
	todo := make(chan document)
	go func() {
		defer close(todo)
		for _, d := range documents {
			if ctx.Err() != nil {
				return // select takes either where both are ready
			}
			select {
			case todo <- d:
			case <-ctx.Done():
				return
			}
		}
	}()
	var (
		mu      sync.Mutex // guards results, and keeps calls of done apart
		results []result
		group   sync.WaitGroup
	)
	for range workers {
		group.Go(func() {
			for d := range todo {
				r := p.process(ctx, d)
				mu.Lock()
				results = append(results, r)
				p.done(r)
				mu.Unlock()
			}
		})
	}
	group.Wait()
	return results
}

// process takes one document through the stages. Every document that is begun
// gets an event of its end, also when ctx cuts it short: without a Stage, since it
// is about the whole document, as its duration is.
func (p *pipeline) process(ctx context.Context, d document) result {
	r := result{document: d, took: make(map[string]time.Duration)}
	start := time.Now()
	p.event(docevents.Event{DocumentID: d.id, Type: docevents.UploadStarted})
	var text content
	p.step(&r, stageExtract, func() (err error) {
		text, err = extract(ctx, d.path)
		return err
	})
	p.step(&r, stageSummarize, func() (err error) {
		r.digest, err = summarize(text)
		return err
	})
	p.end(docevents.Event{DocumentID: d.id, Duration: time.Since(start)}, r.err)
	return r
}

// step runs a stage, unless one before it has failed, and records its beginning
// and its end.
func (p *pipeline) step(r *result, stage string, do func() error) {
	if r.err != nil {
		return
	}
	r.stage = stage
	p.event(docevents.Event{DocumentID: r.id, Stage: stage, Type: docevents.ProcessingStarted})
	start := time.Now()
	if r.err = do(); errors.Is(r.err, context.Canceled) {
		r.err = errInterrupted
	}
	r.took[stage] = time.Since(start)
	p.end(docevents.Event{DocumentID: r.id, Stage: stage, Duration: r.took[stage]}, r.err)
}

// end records that it went well, or what it failed with.
func (p *pipeline) end(e docevents.Event, err error) {
	e.Type = docevents.Completed
	if err != nil {
		e.Type, e.ErrorMessage = docevents.Failed, err.Error()
	}
	p.event(e)
}

// event records e and counts it, to be compared with the table.
func (p *pipeline) event(e docevents.Event) {
	e.UserID = p.user
	p.mu.Lock()
	p.recorded[e.Type]++
	p.mu.Unlock()
	p.record(e)
}
