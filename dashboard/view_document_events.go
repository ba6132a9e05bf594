package dashboard

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/docevents/docevents-go"
)

// readWindow returns the newest 1,000 events of a document before windowEnd, the oldest
// first. If windowEnd is zero, it returns the newest 1,000 of all the document's
// events. hasEarlier reports whether there are older events.
func (h *handler) readWindow(ctx context.Context, id string, windowEnd time.Time) (events []docevents.Event, hasEarlier bool, err error) {
	if windowEnd.IsZero() {
		events, err = h.client.Timeline(ctx, id)
	} else {
		events, err = h.client.TimelineBefore(ctx, id, windowEnd)
	}
	if errors.Is(err, docevents.ErrTruncated) {
		return events, true, nil
	}
	return events, false, err
}

type eventRow struct {
	docevents.Event
	Kind string        // the meaning of the type: see the function kind
	Gap  time.Duration // the time since the previous event

	Facts   []fact
	Message string // the beginning of the error message, in one line
	Whole   string // the complete message; "" if Message is complete, or if the page has no room
	Text    string // a link to the complete event as plain text; "" if the page shows all of it

	// X and Width place the event's bar, which shows when the step ran. The unit is a
	// thousandth of the time axis, which covers all events on the page.
	X, Width int64
}

// roomForMessages returns the number of bytes that a view with n events has for long
// error messages. Everything else needs about 8,000 bytes, and 600 more for each event.
// If the view is rendered again with fewer rows, the messages also get less room.
func (p *page) roomForMessages(n int) int { return (maxBytes - 8_000 - 600*n) * p.rows / maxRows }

// eventRows returns the rows of a page, and the facts that all rows share.
func (h *handler) eventRows(p *page, id string, s *timelinePage) (common []fact, rows []eventRow) {
	rows = placeBars(s.Events)
	room := p.roomForMessages(len(rows))
	for i := range rows {
		r := &rows[i]
		r.Kind, r.Gap, r.Facts = kind(h.types, r.Type), s.Gaps[i], p.facts(r.Event)
		isCut := slices.ContainsFunc(r.Facts, func(f fact) bool { return f.isCut })
		if r.Message = p.Text(r.ErrorMessage); r.Message != r.ErrorMessage {
			whole := cleanLines(r.ErrorMessage)
			if size := escapedLen(whole); size <= room {
				r.Whole, room = whole, room-size
			} else {
				isCut = true
			}
		}
		if isCut {
			r.Text = p.To("event", "id", id, "before", inputTime(r.CreatedAt.Add(time.Microsecond)), "event", r.ID)
		}
	}
	return splitFacts(rows), rows
}

// A fact is one more value of an event: its user, or the value of an extra column.
type fact struct {
	Name, Value string
	Link        string // to the documents of the user; "" for other facts
	isCut       bool   // Value is shortened
}

// facts returns the event's user, and the values of its extra columns, sorted by name.
// Empty values are left out.
func (p *page) facts(e docevents.Event) (all []fact) {
	add := func(name, value, link string) {
		if value != "" {
			short := p.Text(value)
			all = append(all, fact{name, short, link, short != value})
		}
	}
	add("user", e.UserID, p.To("documents", "user", e.UserID))
	for _, name := range slices.Sorted(maps.Keys(e.Extra)) {
		add(name, extraText(e.Extra[name]), "")
	}
	return all
}

// extraText returns a string unchanged, "" for NULL, and other values as JSON.
func extraText(value any) string {
	switch value := value.(type) {
	case nil:
		return ""
	case string:
		return value
	}
	var text strings.Builder
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false) // the template escapes it
	if encoder.Encode(value) != nil {
		return ""
	}
	return strings.TrimSpace(text.String())
}

// splitFacts removes the facts that all rows share, and returns them. If there is only
// one row, it removes nothing.
func splitFacts(rows []eventRow) (common []fact) {
	if len(rows) < 2 {
		return nil
	}
	for _, f := range rows[0].Facts {
		if !slices.ContainsFunc(rows, func(r eventRow) bool { return !slices.Contains(r.Facts, f) }) {
			common = append(common, f)
		}
	}
	for i := range rows {
		rows[i].Facts = slices.DeleteFunc(rows[i].Facts, func(f fact) bool { return slices.Contains(common, f) })
	}
	return common
}

// kind returns the meaning of a type, such as "failed". The meaning is also the name of
// a class in style.css.
func kind(types docevents.EventTypes, t docevents.EventType) string {
	for _, k := range []struct {
		name  string
		types []docevents.EventType
	}{
		{"arrived", types.Arrived},
		{"started", types.Started},
		{"completed", types.Completed},
		{"failed", types.Failed},
		{"skipped", types.Skipped},
	} {
		if slices.Contains(k.types, t) {
			return k.name
		}
	}
	return "note"
}

// placeBars returns a row for each event, with the place of its bar. A bar ends at the
// event and is as wide as the event's Duration, but at least minWidth. The time axis
// covers all events and their Durations. The template draws no bar for an event without
// a Duration.
func placeBars(events []docevents.Event) []eventRow {
	if len(events) == 0 {
		return nil
	}
	start, end := events[0].CreatedAt, events[0].CreatedAt
	for _, e := range events {
		if begun := e.CreatedAt.Add(-e.Duration); begun.Before(start) {
			start = begun
		}
		if e.CreatedAt.After(end) {
			end = e.CreatedAt
		}
	}
	thousandths := func(d time.Duration) int64 {
		return int64(1000 * d.Seconds() / max(end.Sub(start), time.Millisecond).Seconds())
	}
	const minWidth = 8 // the narrowest bar that can be seen
	rows := make([]eventRow, len(events))
	for i, e := range events {
		r := eventRow{Event: e, Width: max(thousandths(e.Duration), minWidth)}
		r.X = min(thousandths(e.CreatedAt.Add(-e.Duration).Sub(start)), 1000-minWidth)
		r.Width = min(r.Width, 1000-r.X)
		rows[i] = r
	}
	return rows
}

// serveEvent writes one event as plain text.
func (h *handler) serveEvent(w http.ResponseWriter, r *http.Request) {
	p := h.newPage(r, maxRows)
	text := h.eventText(r.Context(), p)
	if p.Problem != nil {
		p.setRetryAfter(w.Header())
		http.Error(w, p.Problem.Title+"\n"+p.Problem.Advice, p.status)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(text))
}

func (h *handler) eventText(ctx context.Context, p *page) string {
	id, ok := h.documentID(p)
	if !ok {
		return ""
	}
	at, ok := p.position()
	if !ok {
		p.refuse("This link to an event is not valid", "A part of it is missing or wrong.")
		return ""
	}
	row := p.query.Get("event")
	e, err := share(ctx, &h.reads, "event?"+p.query.Encode(), func(ctx context.Context) (*docevents.Event, error) {
		events, _, err := h.readWindow(ctx, id, at.before)
		if i := slices.IndexFunc(events, func(e docevents.Event) bool { return e.ID == row }); i >= 0 {
			e := events[i] // a copy, so that the other events can be freed
			return &e, nil
		}
		return nil, err
	})
	switch {
	case err != nil:
		p.fail(err)
		return ""
	case e == nil:
		p.status = http.StatusNotFound
		p.Problem = &problem{Title: "No such event", Advice: "It may have been purged since."}
		return ""
	}
	var b strings.Builder
	line := func(name, value string) {
		if value != "" {
			b.WriteString(name + ": " + value + "\n")
		}
	}
	line("document", e.DocumentID)
	line("event", e.ID)
	line("time", e.CreatedAt.UTC().Format(time.RFC3339Nano))
	line("type", string(e.Type))
	line("stage", e.Stage)
	if e.Duration > 0 {
		line("took", e.Duration.String())
	}
	line("user", e.UserID)
	for _, name := range slices.Sorted(maps.Keys(e.Extra)) {
		line(name, extraText(e.Extra[name]))
	}
	if e.ErrorMessage != "" {
		b.WriteString("\n" + e.ErrorMessage + "\n")
	}
	return b.String()
}
