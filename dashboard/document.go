package dashboard

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/docevents/docevents-go"
)

// maxRows keeps the page under 60 KB.
const maxRows = 50

type document struct {
	*page
	ID       string
	Rows     []timelineRow // the newest maxRows
	Hidden   int64         // so many older ones
	More     bool          // there are older ones, which Timeline doesn't return
	First    time.Time
	Last     docevents.Event
	Overview string
}

var kinds = map[docevents.EventType]string{
	docevents.UploadStarted: "started", docevents.ProcessingStarted: "started",
	docevents.Completed: "completed", docevents.Failed: "failed",
}

type timelineRow struct {
	docevents.Event
	Kind string // one of kinds, or other

	// The step's time as a bar, in thousandths of the time shown.
	X, Width int64
}

func (h *handler) document(ctx context.Context, p *page) any {
	v := &document{page: p, Overview: "./" + p.Link("id", "")}
	id, err := uuid.Parse(p.query.Get("id"))
	if err != nil {
		p.Title, p.status = "Which document?", http.StatusBadRequest
		p.Problem = &problem{Title: "That is no document's id", Advice: "A document's id is a UUID, such as 018f4e9a-7f32-7cc0-9d5c-0b2f7a5d9c11. Look again at where it comes from."}
		return v
	}
	v.ID = id.String()
	p.Title = "Document " + v.ID
	events, err := h.client.Timeline(ctx, v.ID)
	v.More = errors.Is(err, docevents.ErrTruncated)
	switch {
	case err != nil && !v.More:
		p.fail(err)
		return v
	case len(events) == 0:
		p.status = http.StatusNotFound
		p.Problem = &problem{Title: "No events about this document", Advice: "None was recorded, or all of them have been purged, or they are of another project or table than this process reads."}
		return v
	}
	v.First, v.Last = events[0].CreatedAt, events[len(events)-1]
	hidden := max(0, len(events)-maxRows)
	v.Hidden, v.Rows = int64(hidden), timeline(events[hidden:])
	return v
}

// Span is from the first event to the last.
func (v *document) Span() time.Duration { return v.Last.CreatedAt.Sub(v.First) }

// timeline places each event on the time that they take together. An event with
// a Duration is a bar that ends at its time, any other one a mark.
func timeline(events []docevents.Event) []timelineRow {
	start, end := events[0].CreatedAt, events[len(events)-1].CreatedAt
	for _, e := range events {
		if begun := e.CreatedAt.Add(-e.Duration); begun.Before(start) {
			start = begun
		}
	}
	thousandths := func(d time.Duration) int64 {
		return int64(1000 * d.Seconds() / max(end.Sub(start), time.Millisecond).Seconds())
	}
	const least = 8
	rows := make([]timelineRow, len(events))
	for i, e := range events {
		r := timelineRow{Event: e, Kind: cmp.Or(kinds[e.Type], "other"), Width: max(thousandths(e.Duration), least)}
		r.X = min(thousandths(e.CreatedAt.Add(-e.Duration).Sub(start)), 1000-least)
		r.Width = min(r.Width, 1000-r.X)
		rows[i] = r
	}
	return rows
}
