package dashboard

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/docevents/docevents-go"
)

// A timelineView is the view of a document's timeline, one page at a time.
type timelineView struct {
	*page
	DocumentID string
	AppLink    string // from WithDocumentLink
	Events     []eventRow
	Facts      []fact // the facts that all Events share
	About      *timelinePage

	IsOldestFirst bool

	Next       string // a link to the next page in this order; "" on the last page
	Before     string // if IsOldestFirst, a link to the window before this one; otherwise ""
	NewestLink string // a link to the first page; "" if this is the first page
	Other      string // a link to the other order
	OtherOrder string // the name of the other order
}

func (h *handler) document(ctx context.Context, p *page) any {
	v := &timelineView{page: p}
	p.Title = "Document"
	id, ok := h.documentID(p)
	if !ok {
		return v
	}
	v.DocumentID, p.own["id"] = id, id
	p.Title = "Document " + clean(id, 100)
	at, ok := p.position()
	if v.IsOldestFirst = at.oldestFirst; at.oldestFirst {
		p.own["order"] = "oldest"
	}
	if !ok {
		p.refuse("This link to a timeline is not valid", "A part of it is missing or wrong. Search for the document's id.")
		return v
	}
	s, err := h.readTimelinePage(ctx, p, id, at)
	switch {
	case err != nil:
		p.fail(err)
		return v
	case s.size == 0:
		p.status = http.StatusNotFound
		p.Problem = &problem{Title: "No events about this document", Advice: "None were recorded, they have been purged, or they are in a project or table that this process doesn't read."}
		return v
	}
	if h.documentLink != nil {
		v.AppLink = h.documentLink(id)
	}
	v.About = s
	v.Facts, v.Events = h.eventRows(p, id, s)
	v.links(at)
	return v
}

// documentID returns the document id from the URL. It formats a UUID as PostgreSQL
// does. If ok is false, the page shows a problem.
func (h *handler) documentID(p *page) (id string, ok bool) {
	id = p.query.Get("id")
	switch {
	case p.isUnset:
		p.status = http.StatusNotFound // without settings there are no documents
		return "", false
	case p.Problem != nil && p.status != http.StatusBadRequest: // a bad range or filter doesn't matter here
		return "", false
	}
	p.Problem, p.status = nil, http.StatusOK
	if h.textIDs {
		if id == "" || len(id) > longestValue || !utf8.ValidString(id) || strings.ContainsRune(id, 0) {
			p.refuse("This is not a document id", "A document id is 1 to 1,024 bytes of valid text. Check where the id comes from.")
			return "", false
		}
		return id, true
	}
	parsed, err := uuid.Parse(id)
	if err != nil {
		p.refuse("This is not a document id", "A document id is a UUID, such as 018f4e9a-7f32-7cc0-9d5c-0b2f7a5d9c11. Check where the id comes from.")
		return "", false
	}
	return parsed.String(), true
}

// A position is the place in a timeline where a page begins. A timeline is read in
// windows. A window contains the newest 1,000 events before the window's end, and a
// page shows up to 50 of them.
type position struct {
	before      time.Time // the end of the window; zero means the newest window
	from        int       // the number of the window's events to skip, in the order shown
	oldestFirst bool
}

func (p *page) position() (at position, ok bool) {
	at.oldestFirst = p.query.Get("order") == "oldest"
	if text := p.query.Get("before"); text != "" {
		if at.before, ok = parseTime(text, time.Time{}); !ok {
			return at, false
		}
	}
	if text := p.query.Get("from"); text != "" {
		n, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return at, false
		}
		at.from = int(n)
	}
	return at, true
}

// A timelinePage contains the events on one page, the positions of the next page and of
// the earlier window, and a description of the page's window.
type timelinePage struct {
	Events     []docevents.Event // in the order shown
	Gaps       []time.Duration   // for each event, the time since the previous one; -1 for the first of the window
	First      time.Time         // the time of the window's oldest event
	Last       docevents.Event   // the window's newest event
	HasEarlier bool              // there are events before the window

	size    int       // the number of events in the window
	next    *position // the next page in the order shown; nil on the last page
	earlier *position // the window before this one; nil if HasEarlier is false
}

// readTimelinePage reads a window and returns the page at a position in it.
func (h *handler) readTimelinePage(ctx context.Context, p *page, id string, at position) (*timelinePage, error) {
	key := url.Values{"id": {id}, "before": {inputTime(at.before)}, "at": {fmt.Sprint(at.from, at.oldestFirst, p.rows)}}
	return share(ctx, &h.reads, "document?"+key.Encode(), func(ctx context.Context) (*timelinePage, error) {
		events, hasEarlier, err := h.readWindow(ctx, id, at.before)
		if err != nil {
			return nil, err
		}
		return newTimelinePage(events, hasEarlier, at, p.rows), nil
	})
}

// newTimelinePage returns a page of up to n events of a window. start is the page's
// position. In the slice "window", the oldest event comes first. hasEarlier means that
// there are events before the window.
func newTimelinePage(window []docevents.Event, hasEarlier bool, start position, n int) *timelinePage {
	s := &timelinePage{size: len(window), HasEarlier: hasEarlier}
	if s.size == 0 {
		return s
	}
	first, last := window[0], window[s.size-1]
	s.First, s.Last = first.CreatedAt, last
	anchor := start.before
	if anchor.IsZero() {
		anchor = last.CreatedAt.Add(time.Microsecond)
	}
	for i := start.from; i < min(start.from+n, s.size); i++ {
		k := i
		if !start.oldestFirst {
			k = s.size - 1 - i
		}
		gap := time.Duration(-1)
		if k > 0 {
			gap = window[k].CreatedAt.Sub(window[k-1].CreatedAt)
		}
		s.Events, s.Gaps = append(s.Events, window[k]), append(s.Gaps, gap)
	}
	if start.from+n < s.size {
		s.next = &position{anchor, start.from + n, start.oldestFirst}
	}
	if !hasEarlier {
		return s
	}
	// Events outside this window may have the same time as this window's oldest event.
	// So the earlier window ends just after this time, and repeats this window's events
	// of this time. If the page shows the newest events first, the next page skips the
	// repeated ones.
	same := slices.IndexFunc(window, func(e docevents.Event) bool { return !e.CreatedAt.Equal(first.CreatedAt) })
	s.earlier = &position{first.CreatedAt.Add(time.Microsecond), max(same, 0), start.oldestFirst}
	if same < 0 { // all events have this time: leave out further ones
		s.earlier.before = first.CreatedAt
	}
	if start.oldestFirst {
		s.earlier.from = 0
	} else if s.next == nil {
		s.next = s.earlier
	}
	return s
}

func (v *timelineView) links(at position) {
	v.OtherOrder, v.Other = "oldest first", v.Here("order", "oldest")
	if at.oldestFirst {
		v.OtherOrder, v.Other = "newest first", v.Here("order", "")
	}
	link := func(to *position) string {
		return v.Here("before", inputTime(to.before), "from", strconv.Itoa(to.from))
	}
	if v.About.next != nil {
		v.Next = link(v.About.next)
	}
	if v.About.earlier != nil && at.oldestFirst {
		v.Before = link(v.About.earlier)
	}
	if !at.before.IsZero() || at.from > 0 {
		v.NewestLink = v.Here()
	}
}

// Size returns the number of events in the window.
func (s *timelinePage) Size() int64 { return int64(s.size) }

// Span returns the time from the window's oldest event to its newest.
func (s *timelinePage) Span() time.Duration { return s.Last.CreatedAt.Sub(s.First) }

// Gap formats the time since the previous event.
func (v *timelineView) Gap(d time.Duration) string {
	if d < 0 {
		return ""
	}
	return "+" + v.Took(d)
}
