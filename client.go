// Package docevents records what happens to the documents that an app on
// Supabase processes, in the table document_processing_events, and purges old
// records. It never makes the app wait, and its failures are logged, not
// returned.
//
//	client, err := docevents.NewFromEnv() // SUPABASE_URL and SUPABASE_SECRET_KEY
//	if err != nil {
//		log.Fatal(err)
//	}
//	client.Record(docevents.Event{DocumentID: doc, UserID: user, Type: docevents.Completed, Duration: took})
//
//	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
//	defer cancel()
//	err = client.Close(ctx) // delivers what is queued
//
// Events wait in a bounded queue in memory and share requests: alone, an event
// is sent at once; under load up to 1,000 of them go together. While the
// network or the server is down they wait, and one row now and then tries
// whether it is back. An event is stored once, however often it is sent. When
// one is lost, Stats says why, the log says so, and the drop handler gets it.
//
// What is not promised: without [WithSpool], events that are queued when the
// process is killed are gone, and so is what Close could not deliver before its
// context ended. Rows don't arrive in the order of Record: created_at and then
// id say it.
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

// A Client records events and purges them. Its methods are safe for concurrent
// use. On a nil Client, and on a zero one, they do nothing and succeed, so that
// an app without Supabase settings needs no if.
type Client struct {
	config   config
	rest     *rest.Client
	advice   advice.Settings
	report   *reporter
	delivery *delivery
	before   before
}

// New returns a Client for the project at supabaseURL, such as
// https://abcdefgh.supabase.co, or a self-hosted one. A trailing slash and the
// API's path /rest/v1 are accepted. The key is the project's service-role key:
// a secret key (sb_secret_...), or a JWT whose role is service_role; keys of
// unknown form pass, as self-hosted projects have them.
//
// New does no I/O (with [WithSpool] it starts a goroutine that does); see
// [Client.Check]. It reports everything that is wrong with
// its arguments at once, and never repeats the key.
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

// isNone says whether c does nothing: New hasn't made it.
func (c *Client) isNone() bool { return c == nil || c.delivery == nil }

// insert is the delivery's way to the server.
func (c *Client) insert(ctx context.Context, records []record) (rows []int, err error) {
	sent := rowsOf(records)
	err = c.insertRows(ctx, sent)
	if e, answered := errors.AsType[*rest.Error](err); answered {
		rows = c.config.columns.rows.Named(sent, e.Details)
	}
	return rows, c.explain(err)
}

// insertRows sends one insert. The transport adds what makes it safe to repeat.
func (c *Client) insertRows(ctx context.Context, rows []*row.Row) error {
	ctx, cancel := context.WithTimeout(ctx, c.config.requestTimeout)
	defer cancel()
	columns := &c.config.columns
	return c.rest.Insert(ctx, rest.Insertion{
		Columns: columns.all, Conflict: columns.conflict(), Rows: columns.rows.Encode(rows),
		Partial: slices.ContainsFunc(rows, func(r *row.Row) bool { return r.Partial }),
	})
}

// Stats is a snapshot, in which always
//
//	Recorded + Replayed = Delivered + Dropped.Total() + Pending + Kept
//
// Replayed and Kept are 0 without WithSpool.
type Stats struct {
	Recorded  int64 `json:"recorded"`  // calls of Record
	Delivered int64 `json:"delivered"` // stored, each once, as the server has acknowledged
	Pending   int64 `json:"pending"`   // queued or under way
	Replayed  int64 `json:"replayed"`  // queued of what earlier processes left in the spool
	Kept      int64 `json:"kept"`      // left in the spool by Close

	Dropped      Drops `json:"dropped"`
	PendingBytes int64 `json:"pending_bytes"` // what Pending counts against WithQueueLimits

	Requests int64 `json:"requests"` // inserts sent
	Retries  int64 `json:"retries"`  // of those, how many carried rows that had been sent before

	// Unreported counts the dropped events whose handler call was skipped,
	// because the handler was too slow.
	Unreported int64 `json:"unreported"`
}

// DropReason says why an event was lost.
type DropReason string

// The reasons, each counted in [Drops].
const (
	Invalid   DropReason = "invalid"    // can't be stored; the error names the field and the remedy
	Filtered  DropReason = "filtered"   // WithBefore's function returned false
	QueueFull DropReason = "queue_full" // the queue had no room; see WithQueueLimits
	Rejected  DropReason = "rejected"   // refused by the server for its data, or given up after ten failures, while others were delivered
	Closed    DropReason = "closed"     // recorded after Close; the error matches ErrClosed
	Abandoned DropReason = "abandoned"  // Close ended before its delivery
)

// Drops counts lost events by reason.
type Drops struct {
	Invalid   int64 `json:"invalid"`
	Filtered  int64 `json:"filtered"`
	QueueFull int64 `json:"queue_full"`
	Rejected  int64 `json:"rejected"`
	Closed    int64 `json:"closed"`
	Abandoned int64 `json:"abandoned"`
}

// Total is the number of lost events.
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

// Flush waits until the events recorded before the call are settled, delivered
// or dropped, and the log lines and drop handler calls about them are done. It
// ends any wait and makes an attempt at once, at most once a second. It returns
// nil then, ctx's error when that ends first, or at once a refusal that has stood
// for 5 s, as of the key or the table: the events stay queued. Under
// context.Background it waits as long as an outage lasts.
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

// Close refuses further events and delivers what is queued: it ends any wait,
// makes an attempt at once, and goes on until ctx ends, until a refusal has stood
// for 5 s, or until all that is left has failed again while the server takes
// others. What is left is abandoned, handed to the drop handler, and counted in the error that Close returns; with [WithSpool]
// it is kept for the next process instead, if the disk allows. Calls of the
// drop handler get a second beyond ctx; what is left of them is Unreported.
//
// To call it again, from whatever goroutine, is harmless and returns the same.
// Of calls at the same time the first whose ctx ends decides. After Close no
// goroutine of the client is left, save one inside a foreign transport, logger
// or handler that doesn't return. Under context.Background it waits as long as
// an outage lasts.
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
