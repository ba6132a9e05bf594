package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/sirupsen/logrus"
	"github.com/supabase-community/postgrest-go"

	"github.com/docevents/docevents-go"
)

func (s *spec) newVariant(ctx context.Context, opened *dials) (variant, error) {
	switch s.Variant {
	case variantDocevents:
		return newDocs(s)
	case variantNaive:
		return newNaive(s), nil
	case variantBulk:
		own := http.DefaultTransport.(*http.Transport).Clone()
		own.MaxIdleConnsPerHost = s.MaxInFlight
		return newBulk(s, own), nil
	case variantCopy:
		return newCopier(ctx, s, opened)
	}
	return nil, fmt.Errorf("there is no variant %q", s.Variant)
}

// docs is the variant "docevents", with the cell's MaxBatch and MaxInFlight.
type docs struct {
	spec   *spec
	client *docevents.Client
	last   atomic.Pointer[error]
}

func newDocs(s *spec) (*docs, error) {
	d := &docs{spec: s}
	var err error
	d.client, err = docevents.New(s.URL, s.Key,
		docevents.WithTable(s.Table), docevents.WithMaxBatch(s.MaxBatch), docevents.WithMaxInFlight(s.MaxInFlight),
		docevents.WithDropHandler(func(_ docevents.Event, reason docevents.DropReason, err error) {
			err = fmt.Errorf("%s: %w", reason, err)
			d.last.Store(&err)
		}))
	return d, err
}

func (d *docs) store(ctx context.Context, l load) ([]time.Duration, error) {
	calls := recordAll(ctx, d.spec.User, l, d.client.Record)
	return calls, d.client.Flush(ctx)
}

func (d *docs) one(ctx context.Context, e docevents.Event) error {
	d.client.Record(e)
	return d.client.Flush(ctx)
}

func (d *docs) tally() (requests, failed int, err error) {
	stats := d.client.Stats()
	if last := d.last.Load(); last != nil {
		err = *last
	}
	return int(stats.Requests), int(stats.Dropped.Total()), err
}

// naive is the variant "naive Go", the original design of docevents. For each event, it
// starts a goroutine with a new client. It logs errors and doesn't retry.
type naive struct {
	spec     *spec
	log      *logrus.Logger
	under    sync.WaitGroup
	requests atomic.Int64
	failed   atomic.Int64
	last     atomic.Pointer[error]
}

func newNaive(s *spec) *naive {
	n := &naive{spec: s, log: logrus.New()}
	n.log.SetOutput(io.Discard) // the lines are still formatted
	return n
}

func (n *naive) record(e docevents.Event) {
	createdAt := time.Now()
	n.under.Go(func() {
		n.requests.Add(1)
		client := postgrest.NewClient(restURL(n.spec.URL), docevents.DefaultSchema, keyHeaders(n.spec.Key))
		_, _, err := client.From(n.spec.Table).Insert(map[string]any{
			"document_id":   e.DocumentID,
			"user_id":       e.UserID,
			"event_type":    e.Type,
			"duration_ms":   orNil(e.Duration.Milliseconds()),
			"error_message": orNil(e.ErrorMessage),
			"stage":         orNil(e.Stage),
			"created_at":    createdAt.UTC().Format(time.RFC3339Nano),
		}, false, "", "minimal", "").Execute()
		if err != nil {
			n.failed.Add(1)
			err = withoutURL(err)
			n.last.Store(&err)
			n.log.WithError(err).WithField("document_id", e.DocumentID).Error("failed to record processing event")
		}
	})
}

func orNil[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

func (n *naive) store(ctx context.Context, l load) ([]time.Duration, error) {
	calls := recordAll(ctx, n.spec.User, l, n.record)
	return calls, n.wait(ctx)
}

func (n *naive) one(ctx context.Context, e docevents.Event) error {
	n.record(e)
	return n.wait(ctx)
}

func (n *naive) wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		n.under.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (n *naive) tally() (requests, failed int, err error) {
	if last := n.last.Load(); last != nil {
		err = *last
	}
	return int(n.requests.Load()), int(n.failed.Load()), err
}

// bulk is the variant "bulk limit". It sends up to MaxInFlight bulk inserts at once,
// like docevents, but has no queue and doesn't retry. It is as fast as the REST API
// allows.
type bulk struct {
	spec     *spec
	client   *http.Client
	requests atomic.Int64
	failed   atomic.Int64
}

func newBulk(s *spec, transport http.RoundTripper) *bulk {
	return &bulk{spec: s, client: &http.Client{Transport: transport}}
}

type bulkRow struct {
	ID           uuid.UUID           `json:"id"`
	DocumentID   string              `json:"document_id"`
	UserID       string              `json:"user_id"`
	EventType    docevents.EventType `json:"event_type"`
	DurationMS   *int64              `json:"duration_ms"`
	ErrorMessage *string             `json:"error_message"`
	Stage        *string             `json:"stage"`
	CreatedAt    time.Time           `json:"created_at"`
}

func newBulkRow(e docevents.Event) bulkRow {
	return bulkRow{
		ID: uuid.Must(uuid.NewV7()), DocumentID: e.DocumentID, UserID: e.UserID, EventType: e.Type,
		DurationMS:   orNil(e.Duration.Milliseconds()),
		ErrorMessage: orNil(e.ErrorMessage), Stage: orNil(e.Stage),
		CreatedAt: time.Now().UTC(),
	}
}

// bulkQuery and bulkPrefer are the query string and the Prefer header of the inserts.
// TestBulkSendsTheSame checks that docevents sends the same.
const (
	bulkQuery  = "columns=id,document_id,user_id,event_type,duration_ms,error_message,stage,created_at"
	bulkPrefer = "return=minimal,resolution=ignore-duplicates"
)

func (b *bulk) insert(ctx context.Context, rows []bulkRow) error {
	b.requests.Add(1)
	body, err := json.Marshal(rows)
	if err != nil {
		return err
	}
	_, _, err = b.spec.api().do(ctx, b.client, http.MethodPost, bulkQuery, bulkPrefer, bytes.NewReader(body))
	if err != nil {
		b.failed.Add(int64(len(rows)))
	}
	return err
}

func (b *bulk) store(ctx context.Context, l load) ([]time.Duration, error) {
	var next atomic.Int64
	var senders sync.WaitGroup
	errs := make([]error, b.spec.MaxInFlight)
	for k := range errs {
		senders.Go(func() {
			for errs[k] == nil {
				end := int(next.Add(int64(b.spec.MaxBatch)))
				begin := end - b.spec.MaxBatch
				if begin >= l.Events {
					return
				}
				rows := make([]bulkRow, 0, b.spec.MaxBatch)
				for i := begin; i < min(end, l.Events); i++ {
					rows = append(rows, newBulkRow(eventAt(b.spec.User, i)))
				}
				errs[k] = b.insert(ctx, rows)
			}
		})
	}
	senders.Wait()
	return nil, errors.Join(errs...)
}

func (b *bulk) one(ctx context.Context, e docevents.Event) error {
	return b.insert(ctx, []bulkRow{newBulkRow(e)})
}

func (b *bulk) tally() (requests, failed int, err error) {
	return int(b.requests.Load()), int(b.failed.Load()), nil
}

// copier is the variant "COPY", PostgreSQL's COPY without the REST API. It is as fast
// as the database allows.
type copier struct {
	spec     *spec
	conn     *pgx.Conn
	requests int
}

func newCopier(ctx context.Context, s *spec, opened *dials) (*copier, error) {
	config, err := pgx.ParseConfig(s.DatabaseURL)
	if err != nil {
		return nil, errors.New("DATABASE_URL can't be read") // pgx's own error may hold the password
	}
	config.DialFunc = opened.count((&net.Dialer{}).DialContext)
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	return &copier{spec: s, conn: conn}, nil
}

var copyColumns = []string{"id", "document_id", "user_id", "event_type", "duration_ms", "error_message", "stage", "created_at"}

func (c *copier) copy(ctx context.Context, n int, event func(i int) docevents.Event) error {
	c.requests++
	i := 0
	_, err := c.conn.CopyFrom(ctx, pgx.Identifier{docevents.DefaultSchema, c.spec.Table}, copyColumns,
		pgx.CopyFromFunc(func() ([]any, error) {
			if i == n {
				return nil, nil
			}
			r := newBulkRow(event(i))
			i++
			return []any{[16]byte(r.ID), r.DocumentID, r.UserID, string(r.EventType), r.DurationMS, r.ErrorMessage, r.Stage, r.CreatedAt}, nil
		}))
	return err
}

func (c *copier) store(ctx context.Context, l load) ([]time.Duration, error) {
	return nil, c.copy(ctx, l.Events, func(i int) docevents.Event { return eventAt(c.spec.User, i) })
}

func (c *copier) one(ctx context.Context, e docevents.Event) error {
	return c.copy(ctx, 1, func(int) docevents.Event { return e })
}

func (c *copier) tally() (requests, failed int, err error) { return c.requests, 0, nil }

// withoutURL returns the error inside a url.Error.
func withoutURL(err error) error {
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}
