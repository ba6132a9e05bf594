package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/supabase-community/postgrest-go"

	"github.com/docevents/docevents-go/examples/internal/project"
)

// A row as the REST API returns it.
type row struct {
	DocumentID   string    `json:"document_id"`
	EventType    string    `json:"event_type"`
	DurationMS   *int64    `json:"duration_ms"`
	ErrorMessage *string   `json:"error_message"`
	Stage        *string   `json:"stage"`
	CreatedAt    time.Time `json:"created_at"`
}

// readRows returns the rows of a user in the order in which they were recorded:
// their ids, UUIDs of version 7, tell apart those of the same microsecond.
func readRows(ctx context.Context, p *project.Project, user string) ([]row, error) {
	table, err := p.Table()
	if err != nil {
		return nil, err
	}
	ascending := &postgrest.OrderOpts{Ascending: true}
	var rows []row
	_, err = table.Select("document_id,event_type,duration_ms,error_message,stage,created_at", "", false).
		Eq("user_id", user).Order("created_at", ascending).Order("id", ascending).
		ExecuteToWithContext(ctx, &rows)
	if err != nil {
		return nil, fmt.Errorf("reading the table: %w", err)
	}
	return rows, nil
}

// oldestRow returns the created_at of the table's oldest row, whosever it is;
// the zero time where there is none.
func oldestRow(ctx context.Context, p *project.Project) (time.Time, error) {
	table, err := p.Table()
	if err != nil {
		return time.Time{}, err
	}
	var rows []row
	_, err = table.Select("created_at", "", false).
		Order("created_at", &postgrest.OrderOpts{Ascending: true}).Limit(1, "").
		ExecuteToWithContext(ctx, &rows)
	if err != nil || len(rows) == 0 {
		if err != nil {
			err = fmt.Errorf("reading the oldest row: %w", err)
		}
		return time.Time{}, err
	}
	return rows[0].CreatedAt, nil
}

func printRows(out io.Writer, rows []row, documents []document) error {
	names := make(map[string]string, len(documents))
	for _, d := range documents {
		names[d.id] = d.name
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "  created_at (UTC)\tdocument\tevent_type\tstage\tduration\terror_message")
	for _, r := range rows {
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%s\t%s\n",
			r.CreatedAt.UTC().Format("2006-01-02 15:04:05.000"), names[r.DocumentID], r.EventType,
			orDash(r.Stage), duration(r.DurationMS), orDash(r.ErrorMessage))
	}
	return w.Flush()
}

func orDash(s *string) string {
	if s == nil {
		return "-"
	}
	return *s
}

func duration(ms *int64) string {
	if ms == nil {
		return "-"
	}
	return (time.Duration(*ms) * time.Millisecond).String()
}
