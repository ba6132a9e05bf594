// Quickstart shows what docevents does, in one short run: it records the events
// of four documents, waits until they are stored, purges the old ones, and
// prints what is in the table.
//
// Usage:
//
//	go run ./examples/quickstart
//
// With SUPABASE_URL and SUPABASE_SERVICE_ROLE_KEY in the environment it works on
// that project, which must have the table. Without them it starts a local
// PostgreSQL with a REST API in front, for as long as it runs.
//
// The exit code is 0 where the counts of its last line agree with the database,
// 130 after a Ctrl-C, else 1.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/examples/internal/project"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second Ctrl-C kills
	err := run(ctx, os.Stdout)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "quickstart: interrupted")
		os.Exit(130)
	default:
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

// deliveryTimeout is how long the few events may take.
const deliveryTimeout = 30 * time.Second

func run(ctx context.Context, out io.Writer) (err error) {
	p, err := project.Open(ctx, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	client, err := p.Connect(ctx)
	if err != nil {
		return err
	}
	defer client.Close(ctx)

	oldest, err := oldestRow(ctx, p)
	if err != nil {
		return err
	}
	plan := planPurge(oldest, time.Now())
	user := uuid.Must(uuid.NewV7()).String() // tells this run's rows from all others
	documents := newDocuments(plan.longAgo)

	// Recording neither waits nor fails: that is all there is to it in an app.
	for _, d := range documents {
		for _, event := range d.events {
			event.DocumentID, event.UserID = d.id, user
			client.Record(event)
		}
	}

	// A program that ends soon has to wait for the delivery. A server doesn't,
	// until it calls Close.
	flushCtx, cancel := context.WithTimeout(ctx, deliveryTimeout)
	defer cancel()
	if err := client.Flush(flushCtx); err != nil {
		return err
	}
	mine := map[string]string{"user_id": user}
	before, err := p.Count(ctx, mine)
	if err != nil {
		return err
	}

	purged, err := plan.purge(ctx, client, out)
	if err != nil {
		return err
	}
	rows, err := readRows(ctx, p, user)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "In the table after the purge:\n\n")
	if err := printRows(out, rows, documents); err != nil {
		return err
	}
	if !p.Local() {
		fmt.Fprintf(out, "\nThese rows stay there. To delete them: DELETE FROM %s WHERE user_id = '%s';\n", docevents.DefaultTable, user)
	}

	stats := client.Stats()
	fmt.Fprintf(out, "\nrecorded %d, delivered %d, dropped %d, purged %d\n",
		stats.Recorded, stats.Delivered, stats.Dropped.Total(), purged)
	return tally{stats, before, purged, int64(len(rows))}.check()
}

// A tally is what the program was told and what the table holds.
type tally struct {
	stats  docevents.Stats
	before int64 // rows of this run, before the purge
	purged int64
	after  int64 // and after it
}

// check says where the two disagree.
func (t tally) check() error {
	switch {
	case t.stats.Delivered != t.stats.Recorded:
		return fmt.Errorf("of %d events only %d were delivered: see the log above", t.stats.Recorded, t.stats.Delivered)
	case t.before != t.stats.Delivered:
		return fmt.Errorf("%d events were delivered, but the table had %d rows of them", t.stats.Delivered, t.before)
	case t.purged != oldEvents:
		return fmt.Errorf("%d rows were purged, but %d old ones had been recorded", t.purged, oldEvents)
	case t.after != t.before-t.purged:
		return fmt.Errorf("of %d rows %d were purged, but the table has %d left", t.before, t.purged, t.after)
	}
	return nil
}

// retentionDays is how long rows are kept.
const retentionDays = 30

// A purgePlan takes care that the purge deletes this run's old rows and none of
// anybody else's.
type purgePlan struct {
	longAgo time.Time // when the old document was processed
	cutoff  time.Time // zero: retentionDays before now
}

// planPurge looks at the oldest row that was there before the run, if any. Where
// a purge by days would delete it, the old document is dated before it, and the
// purge ends there.
func planPurge(oldest, now time.Time) purgePlan {
	const margin = time.Hour // rows grow old while the program runs
	if oldest.IsZero() || oldest.After(now.AddDate(0, 0, -retentionDays).Add(margin)) {
		return purgePlan{longAgo: now.AddDate(0, 0, -retentionDays-15)}
	}
	return purgePlan{longAgo: oldest.AddDate(0, 0, -1), cutoff: oldest}
}

func (plan purgePlan) purge(ctx context.Context, client *docevents.Client, out io.Writer) (int64, error) {
	if plan.cutoff.IsZero() {
		return client.PurgeOlderThan(ctx, retentionDays)
	}
	fmt.Fprintf(out, "The project has rows older than %d days, which PurgeOlderThan(ctx, %d) would delete.\n"+
		"They are left alone: the purge is PurgeBefore(ctx, %s), the time of the oldest.\n\n",
		retentionDays, retentionDays, plan.cutoff.Format(time.RFC3339Nano))
	return client.PurgeBefore(ctx, plan.cutoff)
}
