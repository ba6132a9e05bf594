// Package docevents records the steps of document processing in a table on Supabase,
// and deletes old rows. The default table is document_processing_events. Recording an
// event never blocks and returns no error: failures are logged and counted.
//
//	client, err := docevents.NewFromEnv() // SUPABASE_URL and SUPABASE_SECRET_KEY
//	if err != nil {
//		log.Fatal(err)
//	}
//	client.Record(docevents.Event{DocumentID: doc, UserID: user, Type: docevents.Completed, Duration: took})
//
//	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
//	defer cancel()
//	err = client.Close(ctx) // sends the queued events
//
// Events wait in a bounded queue in memory. If no request is in flight, an event is
// sent at once. Under load, one insert request carries up to 1,000 events. While the
// network or the server is down, the events stay queued, and the client tests at
// growing intervals whether the server is back. An event is stored once, even if it is
// sent several times.
//
// If the client drops an event, the event is counted in [Stats], logged, and passed to
// the drop handler, a function that the app sets with [WithDropHandler]. Queued events
// are lost if the process is killed, or if Close can't send them before its context
// ends. To keep these events, use [WithSpool], which copies queued events to disk.
//
// Rows aren't necessarily stored in the order in which Record was called. To read them
// in order, sort by created_at, then id.
package docevents

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/docevents/docevents-go/internal/advice"
	"github.com/docevents/docevents-go/internal/rest"
	"github.com/docevents/docevents-go/internal/row"
)

// A Client records events, reads them, and purges old ones. Its methods are safe for
// concurrent use. The methods of a nil or zero Client do nothing and return no error,
// so an app without Supabase settings can use a nil Client. Step still calls the
// function passed to it.
type Client struct {
	config   config
	rest     *rest.Client
	advice   advice.Settings
	report   *reporter
	delivery *delivery
	before   beforeCaller
}

// New returns a Client for a Supabase project. supabaseURL is the URL of a hosted
// project, such as https://abcdefgh.supabase.co, or of a self-hosted project. It may
// end in a slash or in the API's path, /rest/v1.
//
// serviceRoleKey is a secret key of the project (sb_secret_...) or a JWT with the role
// service_role. New also accepts keys of an unknown form, because self-hosted projects
// may use them.
//
// New sends no request, so it can't detect a wrong key or a missing table: call
// [Client.Check]. With [WithSpool], New starts a goroutine that queues the events that
// earlier processes left on disk. The error that New returns lists every invalid
// argument and never contains the key.
func New(supabaseURL, serviceRoleKey string, opts ...Option) (*Client, error) {
	cfg, optErr := newConfig(opts)
	restURL, urlErr := parseURL(supabaseURL)
	headers, keyErr := parseKey(serviceRoleKey)
	if err := errors.Join(urlErr, keyErr, optErr); err != nil {
		return nil, fmt.Errorf("docevents: %w", err)
	}
	c := &Client{config: cfg}
	c.rest = rest.New(rest.Config{
		URL: restURL, Header: headers, Schema: cfg.schema, Table: cfg.table, IDColumn: cfg.columns.ID,
		Transport: cfg.transport, MaxInFlight: cfg.maxInFlight,
	})
	c.advice = advice.Settings{Schema: cfg.schema, Table: cfg.table, HasToken: headers["Authorization"] != ""}
	c.report = newReporter(&c.config)
	c.delivery = newDelivery(c.insert, c.report, &c.config)
	c.delivery.openMirror(restURL)
	return c, nil
}

// isNone reports whether c does nothing, because New didn't make it.
func (c *Client) isNone() bool { return c == nil || c.delivery == nil }

// insert sends one request that inserts the records. The server ignores a record that
// is already stored. If the server's error refers to some of the records, places
// contains their indices.
func (c *Client) insert(ctx context.Context, records []record) (places []int, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.config.requestTimeout)
	defer cancel()
	columns, sent := &c.config.columns, rowsOf(records)
	err = c.rest.Insert(ctx, rest.Insertion{
		Columns: columns.all, Conflict: columns.conflict(), Rows: columns.rows.Encode(sent),
		Partial: slices.ContainsFunc(sent, func(r *row.Row) bool { return r.Partial }),
	})
	if e, answered := errors.AsType[*rest.Error](err); answered {
		places = columns.rows.Named(sent, e.Details)
	}
	return places, c.explain(err)
}

// Stats is a snapshot of a client's counters, which start at 0. Each recorded or
// replayed event is delivered, dropped, pending or kept. So this is true for every
// snapshot:
//
//	Recorded + Replayed = Delivered + Dropped.Total() + Pending + Kept
//
// Without [WithSpool], Replayed and Kept are 0.
type Stats struct {
	Recorded  int64 `json:"recorded"`  // events that the app recorded, even if they were dropped
	Delivered int64 `json:"delivered"` // events that the server has acknowledged as stored
	Pending   int64 `json:"pending"`   // events that are queued or in flight
	Replayed  int64 `json:"replayed"`  // events of dead processes, queued from the spool
	Kept      int64 `json:"kept"`      // events that Close left in the spool for another process

	Dropped      Drops `json:"dropped"`
	PendingBytes int64 `json:"pending_bytes"` // size of the pending events, as WithQueueLimits counts it

	Requests int64 `json:"requests"` // insert requests
	Retries  int64 `json:"retries"`  // insert requests for rows that an earlier request failed to store

	// Unreported counts the dropped events that were not passed to the drop handler,
	// because it was too slow (see [WithDropHandler]).
	Unreported int64 `json:"unreported"`
}

// A DropReason is the reason why an event was lost.
type DropReason string

// The drop reasons. [Drops] counts the events for each reason.
const (
	Invalid   DropReason = "invalid"    // the event can't be stored; the error names the field and says what to do
	Filtered  DropReason = "filtered"   // WithBefore's function returned false
	QueueFull DropReason = "queue_full" // the queue had no room; see WithQueueLimits
	Rejected  DropReason = "rejected"   // the server rejected the row's data twice, or ten retries failed for other causes, while other rows were stored
	Closed    DropReason = "closed"     // the event was recorded after Close; the error matches ErrClosed
	Abandoned DropReason = "abandoned"  // Close stopped waiting before the event was stored
)

// Drops counts the lost events by [DropReason].
type Drops struct {
	Invalid   int64 `json:"invalid"`
	Filtered  int64 `json:"filtered"`
	QueueFull int64 `json:"queue_full"`
	Rejected  int64 `json:"rejected"`
	Closed    int64 `json:"closed"`
	Abandoned int64 `json:"abandoned"`
}

// Total returns the number of lost events.
func (d Drops) Total() int64 {
	return d.Invalid + d.Filtered + d.QueueFull + d.Rejected + d.Closed + d.Abandoned
}

func (d *Drops) add(reason DropReason) {
	switch reason {
	case Invalid:
		d.Invalid++
	case Filtered:
		d.Filtered++
	case QueueFull:
		d.QueueFull++
	case Rejected:
		d.Rejected++
	case Closed:
		d.Closed++
	case Abandoned:
		d.Abandoned++
	}
}

// Stats returns the current counts. It doesn't block.
func (c *Client) Stats() Stats {
	if c.isNone() {
		return Stats{}
	}
	c.delivery.mu.Lock()
	s := c.delivery.stats
	c.delivery.mu.Unlock()
	s.Unreported = c.report.unreported.Load()
	return s
}

// Flush sends the queued events. It blocks until all events that were recorded before
// the call are stored or dropped, until pending log lines are written, and until
// pending calls to the drop handler have returned. Then it returns nil.
//
// If a failed request is waiting for its retry, Flush makes the client retry at once.
// At most one call to Flush per second does this.
//
// If ctx ends first, Flush returns an error that matches ctx.Err(). If the server has
// refused at least five requests in a row, for at least 5 s, Flush returns the last
// refusal. The usual reason is a wrong key or table. After an error, the events that
// are not stored stay queued.
//
// If the server is down and ctx has no deadline, Flush waits until the server is back.
func (c *Client) Flush(ctx context.Context) error {
	if c.isNone() {
		return nil
	}
	if err := c.delivery.flush(ctx); err != nil {
		return err
	}
	return c.report.flush(ctx, quietFor)
}

// closeGrace is how long Close may continue after its context has ended.
const closeGrace = time.Second

// Close stops accepting events, sends the queued events, and blocks until all are
// stored or dropped. If a failed request is waiting for its retry, Close makes the
// client retry at once. If the server is down and ctx has no deadline, Close waits
// until the server is back. Close stops waiting early in these cases:
//
//   - ctx ends.
//   - The server has refused at least five requests in a row, for at least 5 s.
//   - Each remaining event has failed five times during Close, although the server
//     stored other events.
//
// Then Close drops the remaining events with reason Abandoned, passes them to the drop
// handler, and returns an error with their number. With [WithSpool], Close doesn't drop
// events that are on disk, because a later process sends them.
//
// After ctx has ended, Close takes up to one more second, in which it waits for late
// answers, log lines and the drop handler. Dropped events that haven't been passed to
// the handler by then are counted in [Stats].Unreported.
//
// Close may be called several times, even concurrently. All calls return the same
// error. If the ctx of any call ends, all calls stop waiting. After Close, all
// goroutines of the client have ended, except those that still wait for the app's
// transport, logger or drop handler, or for the disk.
func (c *Client) Close(ctx context.Context) error {
	if c.isNone() {
		return nil
	}
	grace, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(closeGrace, cancel)
		<-grace.Done()
		timer.Stop()
	})()
	err := c.delivery.close(ctx)
	c.report.close(grace)
	c.rest.Close()
	return err
}
