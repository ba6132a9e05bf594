// Package docevents records the steps of document processing in a table on
// Supabase, document_processing_events by default, and deletes old rows.
// Recording an event never blocks and returns no error: failures are logged and
// counted.
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
// Events wait in a bounded queue in memory. If no request is in flight, an event
// is sent at once. Under load, one insert request carries up to 1,000 events.
// While the network or the server is down, the events stay queued, and the
// client sends single rows at growing intervals to find out whether the server
// is back. An event is stored once, even if it is sent several times. A lost
// event is counted in [Stats], logged, and passed to the drop handler.
//
// Without [WithSpool], queued events are lost if the process is killed. The
// events that Close can't send before its context ends are lost as well. Rows
// may be stored in another order than they were recorded. To read them in order,
// sort by created_at, then id.
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

// A Client records events, reads them, and purges old ones. Its methods are safe
// for concurrent use. On a nil or zero Client they do nothing and succeed, so an
// app without Supabase settings can use a nil Client.
type Client struct {
	config   config
	rest     *rest.Client
	advice   advice.Settings
	report   *reporter
	delivery *delivery
	before   before
}

// New returns a Client for the project at supabaseURL, hosted (such as
// https://abcdefgh.supabase.co) or self-hosted. The URL may end in a slash or in
// the API's path, /rest/v1. The key is the project's service-role key: a secret
// key (sb_secret_...) or a JWT with the role service_role. Keys of an unknown
// form are accepted, because self-hosted projects may use them.
//
// New does no I/O, so it can't detect a wrong key or a missing table:
// [Client.Check] does. With [WithSpool], New starts a goroutine that reads and
// writes the spool. The error lists every invalid argument and never contains
// the key.
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

// insert sends one insert for the delivery, which may repeat it. If the answer is
// an error that names some of the records, rows are their indexes.
func (c *Client) insert(ctx context.Context, records []record) (rows []int, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.config.requestTimeout)
	defer cancel()
	columns, sent := &c.config.columns, rowsOf(records)
	err = c.rest.Insert(ctx, rest.Insertion{
		Columns: columns.all, Conflict: columns.conflict(), Rows: columns.rows.Encode(sent),
		Partial: slices.ContainsFunc(sent, func(r *row.Row) bool { return r.Partial }),
	})
	if e, answered := errors.AsType[*rest.Error](err); answered {
		rows = columns.rows.Named(sent, e.Details)
	}
	return rows, c.explain(err)
}

// Stats is a snapshot of a client's counters, which start at 0 with the client.
// In every snapshot
//
//	Recorded + Replayed = Delivered + Dropped.Total() + Pending + Kept
//
// Replayed and Kept are 0 without [WithSpool].
type Stats struct {
	Recorded  int64 `json:"recorded"`  // calls of Record
	Delivered int64 `json:"delivered"` // events that the server has acknowledged as stored
	Pending   int64 `json:"pending"`   // events that are queued or in flight
	Replayed  int64 `json:"replayed"`  // events of dead processes that were queued from the spool
	Kept      int64 `json:"kept"`      // events that Close left in the spool for another process

	Dropped      Drops `json:"dropped"`
	PendingBytes int64 `json:"pending_bytes"` // size of the pending events, as WithQueueLimits counts it

	Requests int64 `json:"requests"` // insert requests
	Retries  int64 `json:"retries"`  // insert requests for rows that an earlier request failed to store

	// Unreported counts the dropped events that were not passed to the drop
	// handler, because it was too slow.
	Unreported int64 `json:"unreported"`
}

// A DropReason is the reason why an event was lost.
type DropReason string

// The drop reasons. [Drops] counts the events of each.
const (
	Invalid   DropReason = "invalid"    // the event can't be stored; the error names the field and says what to do
	Filtered  DropReason = "filtered"   // WithBefore's function returned false
	QueueFull DropReason = "queue_full" // the queue had no room; see WithQueueLimits
	Rejected  DropReason = "rejected"   // the server rejected the row's data, or the row failed ten times, while other rows were stored
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

// Flush blocks until every event that was recorded before the call is stored or
// dropped, and until these events are logged and passed to the drop handler. It
// ends all backoffs and sends a request at once, but at most once a second.
//
// Flush returns nil when all of that is done. If ctx ends first, it returns an
// error that matches ctx.Err(). If the server has answered nothing but refusals
// for 5 s, for example because the key or the table is wrong, it returns the
// last refusal at once. After an error the events stay queued. If ctx has no
// deadline, Flush waits as long as an outage lasts.
func (c *Client) Flush(ctx context.Context) error {
	if c.isNone() {
		return nil
	}
	if err := c.delivery.flush(ctx); err != nil {
		return err
	}
	return c.report.flush(ctx, quietFor)
}

// closeGrace is how much longer than its context Close may take.
const closeGrace = time.Second

// Close stops accepting events, sends the queued events, and blocks until all are
// stored or dropped. It ends all backoffs and sends a request at once. Close
// stops waiting in three cases: ctx ends, the server has answered nothing but
// refusals for 5 s, or all events that are left have failed repeatedly while
// other events were stored. If ctx has no deadline, Close waits as long as an
// outage lasts.
//
// The events that are left are dropped with reason Abandoned and passed to the
// drop handler, and Close returns an error with their number. With [WithSpool],
// events that are on disk are not dropped, but stay there for another process.
// After ctx has ended, the drop handler has one more second. The drops that
// could not be passed to it are counted in [Stats].Unreported.
//
// Close may be called several times, also concurrently. All calls return the
// same error, and the first ctx to end counts for all of them. When Close
// returns, the client has no goroutine, except if it is blocked in the app's
// transport, logger or drop handler, or on the spool's disk.
func (c *Client) Close(ctx context.Context) error {
	if c.isNone() {
		return nil
	}
	grace, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		select {
		case <-time.After(closeGrace):
			cancel()
		case <-grace.Done():
		}
	})()
	err := c.delivery.close(ctx)
	c.report.close(grace)
	c.rest.Close()
	return err
}
