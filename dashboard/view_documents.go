package dashboard

import (
	"context"
	"fmt"
	"net/url"
	"slices"

	"github.com/docevents/docevents-go"
)

// documents is the view that lists documents, one page at a time. The document with the
// latest event comes first.
type documents struct {
	*page
	Heading   string
	States    []stateTab
	Documents []docevents.Document
	Next      string // the link to older documents; "" if there are none
	IsFirst   bool   // this is the first page
}

// A stateTab is a link to the documents in a state.
type stateTab struct {
	Name, Link string
	Current    bool
}

// A stateList is a list that the page offers: the documents in a state, or all
// documents.
type stateList struct {
	state         docevents.State
	name, heading string
}

// states contains the lists in the order of their tabs.
var states = []stateList{
	{"", "all", "Documents"},
	{docevents.StateFailed, "failed", "Failed documents"},
	{docevents.StateStuck, "stuck", "Stuck documents"},
	{docevents.StateUnderWay, "under way", "Documents under way"},
	{docevents.StateCompleted, "completed", "Completed documents"},
	{docevents.StateSkipped, "skipped", "Skipped documents"},
}

func (h *handler) documents(ctx context.Context, p *page) any {
	v := &documents{page: p}
	state := docevents.State(p.query.Get("state"))
	chosen := max(0, slices.IndexFunc(states, func(s stateList) bool { return s.state == state }))
	p.own["state"] = string(states[chosen].state)
	for _, name := range []string{"error", "failed_in"} {
		if p.own[name] = p.query.Get(name); len(p.own[name]) > longestValue {
			p.own[name] = ""
			p.refuse("The error or the stage is too long", "Each may have at most 1,024 bytes. Use the links on the overview, which shortens them.")
		}
	}
	v.Heading = states[chosen].heading
	p.Title = v.Heading
	for i, s := range states {
		if s.state == docevents.StateSkipped && len(h.types.Skipped) == 0 && i != chosen {
			continue
		}
		v.States = append(v.States, stateTab{s.name, p.Here("state", string(s.state)), i == chosen})
	}
	if p.Problem != nil {
		return v
	}
	query, scope := p.scopeQuery()
	cursor := p.query.Get("cursor")
	v.IsFirst = cursor == ""
	q := docevents.DocumentsQuery{
		Query: query, State: states[chosen].state, Stage: p.own["failed_in"], Error: p.own["error"],
		Cursor: cursor, Limit: p.rows,
	}
	key := url.Values{"state": {string(q.State)}, "stage": {q.Stage}, "error": {q.Error}, "cursor": {cursor}, "limit": {fmt.Sprint(q.Limit)}}
	list, err := share(ctx, &h.reads, "documents?"+scope+"&"+key.Encode(), func(ctx context.Context) (*docevents.DocumentsPage, error) {
		return h.client.Documents(ctx, q)
	})
	if err != nil {
		p.fail(err)
		return v
	}
	v.Documents = list.Documents
	if list.Next != "" {
		v.Next = p.Here("cursor", list.Next)
	}
	return v
}

// StateWord returns a document's state in words.
func (v *documents) StateWord(s docevents.State) string {
	for _, known := range states[1:] {
		if known.state == s {
			return known.name
		}
	}
	return "only notes"
}
