package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/docevents/docevents-go"
)

// workerArg is the argument that makes this program a worker: a child process that
// measures one cell. It reads a spec from standard input, and writes the sample to
// standard output. The spec isn't an argument, because other users can see the
// arguments of a process, and the spec contains the API key.
const workerArg = "worker"

func isWorker() bool { return len(os.Args) == 2 && os.Args[1] == workerArg }

func workerMain() {
	if err := work(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// A spec describes one measurement. The script that measures supabase-js also reads it.
type spec struct {
	Variant     string        `json:"variant"`
	Load        load          `json:"load"`
	MaxBatch    int           `json:"max_batch"`
	MaxInFlight int           `json:"max_in_flight"`
	URL         string        `json:"url"`
	Key         string        `json:"key"`
	Table       string        `json:"table"`
	DatabaseURL string        `json:"database_url"`
	User        uuid.UUID     `json:"user"`
	Limit       time.Duration `json:"limit_ns"`
}

// A variant is a way to store events.
type variant interface {
	// store stores all events of the load. It returns when every event is stored or
	// lost, or when ctx ends. The returned durations are those of the calls that record
	// an event. They are nil if the variant has no such call.
	store(ctx context.Context, l load) ([]time.Duration, error)

	one(ctx context.Context, e docevents.Event) error

	// tally returns the number of requests, the number of events whose insert failed,
	// and one of the errors.
	tally() (requests, failed int, err error)
}

func work(in io.Reader, out io.Writer) error {
	var s spec
	if err := json.NewDecoder(in).Decode(&s); err != nil {
		return fmt.Errorf("worker: reading the spec: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.Limit)
	defer cancel()
	got, err := s.measure(ctx)
	if err != nil {
		return fmt.Errorf("worker: %w", err)
	}
	return json.NewEncoder(out).Encode(got)
}

func (s *spec) measure(ctx context.Context) (*sample, error) {
	opened := &dials{}
	plain := http.DefaultTransport.(*http.Transport).Clone() // its connections aren't counted
	standard := http.DefaultTransport.(*http.Transport)
	standard.DialContext = opened.count(standard.DialContext) // docevents clones it, postgrest-go uses it
	variant, err := s.newVariant(ctx, opened)
	if err != nil {
		return nil, err
	}
	got := &sample{}
	cpu := cpuTime()
	if s.Load.Kind == idle {
		bare := newBulk(s, plain)
		err = s.measureIdle(ctx, variant, bare, got)
	} else {
		err = s.measureLoad(ctx, variant, &http.Client{Transport: plain}, got)
	}
	got.CPUSeconds = (cpuTime() - cpu).Seconds()
	if ctx.Err() != nil {
		got.Ended = timeLimit
	}
	got.Connections = int(opened.n.Load())
	var failure error
	got.Requests, got.Errors, failure = variant.tally()
	if failure = errors.Join(failure, err); failure != nil {
		got.Error = failure.Error()
	}
	got.PeakBytes = peakMemory()
	return got, nil
}

// measureLoad measures the time until the last event's row can be read. If any insert
// failed, it measures the time until variant.store returns, because the last event's
// row may never appear.
func (s *spec) measureLoad(ctx context.Context, variant variant, reader *http.Client, got *sample) error {
	start := time.Now()
	calls, err := variant.store(ctx, s.Load)
	_, failed, _ := variant.tally()
	for found := false; err == nil && failed == 0 && !found; {
		found, err = s.find(ctx, reader, documentAt(s.User, s.Load.Events-1))
	}
	got.Elapsed = time.Since(start)
	got.Call = spreadOf(calls)
	return err
}

const (
	warmups   = 5
	idlePause = 10 * time.Millisecond
)

// measureIdle measures how long it takes to store one event if nothing else is
// recorded. For comparison, the parameter "bare" stores the events with odd numbers, by
// a plain insert over net/http.
func (s *spec) measureIdle(ctx context.Context, variant variant, bare variant, got *sample) error {
	var toRow, toRowBare []time.Duration
	start := time.Now()
	for i := range s.Load.Events {
		variant, times := variant, &toRow
		if i%2 == 1 {
			variant, times = bare, &toRowBare
		}
		e := eventAt(s.User, i)
		time.Sleep(idlePause)
		begun := time.Now()
		if err := variant.one(ctx, e); err != nil {
			return err
		}
		if took := time.Since(begun); i >= 2*warmups {
			*times = append(*times, took)
		}
	}
	got.Elapsed = time.Since(start)
	got.ToRow, got.Bare = spreadOf(toRow), spreadOf(toRowBare)
	return nil
}

// find reports whether a document has a row.
func (s *spec) find(ctx context.Context, reader *http.Client, document uuid.UUID) (bool, error) {
	body, _, err := s.api().get(ctx, reader, "select=id&limit=1&document_id=eq."+document.String(), "")
	return string(body) != "[]", err
}

func (s *spec) api() *api { return newAPI(s.URL, s.Key, s.Table) }

// recordAll calls the function record for each event of the load, in l.Goroutines
// goroutines, and returns the duration of each call. If ctx ends, the remaining
// durations are 0.
func recordAll(ctx context.Context, user uuid.UUID, l load, record func(docevents.Event)) []time.Duration {
	calls := make([]time.Duration, l.Events)
	var begin, done sync.WaitGroup
	begin.Add(1)
	start := time.Now()
	for g := range l.Goroutines {
		done.Go(func() {
			begin.Wait()
			for i := g; i < l.Events && ctx.Err() == nil; i += l.Goroutines {
				if l.Kind == steady {
					time.Sleep(time.Until(start.Add(time.Duration(i) * time.Second / time.Duration(l.Rate))))
				}
				e := eventAt(user, i)
				before := time.Now()
				record(e)
				calls[i] = time.Since(before)
			}
		})
	}
	begin.Done()
	done.Wait()
	return calls
}

// dials counts opened connections.
type dials struct{ n atomic.Int64 }

type dialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

func (d *dials) count(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err == nil {
			d.n.Add(1)
		}
		return conn, err
	}
}
