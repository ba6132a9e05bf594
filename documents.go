package docevents

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/docevents/docevents-go/internal/row"
)

// A State is where a document stands, by its events in a range of time.
type State string

// The states. A stuck document is also under way: StateUnderWay lists both.
const (
	StateCompleted State = "completed"
	StateFailed    State = "failed"
	StateUnderWay  State = "under_way"
	StateStuck     State = "stuck"
	StateSkipped   State = "skipped"
)

const (
	defaultDocuments = 50
	maxDocuments     = 500
)

// A DocumentsQuery says which documents [Client.Documents] lists. The number of
// documents that match is in the [Summary] of the same Query.
type DocumentsQuery struct {
	Query

	// State limits the list to the documents in that state. "" means all, those
	// with notes alone included.
	State State

	// Stage limits the list to the documents whose latest event has that Stage;
	// with Error, to those that have failed in it. "" means all.
	Stage string

	// Error is the Message of an [ErrorGroup]: the list is limited to the
	// documents with a failure of that group in the range, also if a later try
	// made it good. "" means all.
	Error string

	// Cursor is the Next of the page before. "" is the first page. The range is
	// that of the first page, whatever Since and Until are.
	Cursor string

	// Limit is how many documents a page has, at most 500. 0 means 50.
	Limit int
}

// A DocumentsPage is a part of a list of documents.
type DocumentsPage struct {
	Documents []Document // the one with the newest latest event first
	Next      string     // the Cursor of the next page; "" if this is the last one
}

// A Document is a document and where it stands. Its latest event is the newest
// one in the range that isn't a note. Stage and Error are cut to 200
// characters.
type Document struct {
	ID     string    `json:"document_id"`
	UserID string    `json:"user_id"` // of the latest event; "" if it has none
	State  State     `json:"state"`   // "" if the document has notes alone
	Type   EventType `json:"type"`    // of the latest event, as are Stage and Error
	Stage  string    `json:"stage"`
	Error  string    `json:"error"`

	// Started is the first start since the latest end of a document that is
	// under way, and the first event in the range of any other.
	Started time.Time `json:"started"`
	LastAt  time.Time `json:"last_at"` // of the latest event
}

// Documents returns the documents of a range of time by their latest event, the
// newest first, a page at a time. A document counts as in [Client.Summary].
// Events that are recorded between two pages may leave out a document, which
// has moved to the front, but no document comes twice.
//
// It takes one call of a function of sql/014_create_docevents_reading.sql; if
// that is missing, the error says so. Requests and retries are those of
// Timeline. It is safe for concurrent use.
func (c *Client) Documents(ctx context.Context, q DocumentsQuery) (*DocumentsPage, error) {
	if c.isNone() {
		return nil, nil
	}
	page, err := c.documents(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("docevents: Documents: %w", err)
	}
	return page, nil
}

func (c *Client) documents(ctx context.Context, q DocumentsQuery) (*DocumentsPage, error) {
	var after cursor
	if q.Cursor != "" {
		if err := after.parse(q.Cursor); err != nil {
			return nil, err
		}
		q.Since, q.Until = time.UnixMicro(after.Since), time.UnixMicro(after.Until)
	}
	if err := q.normalize(); err != nil {
		return nil, err
	}
	arguments := c.arguments(&q.Query)
	for name, value := range map[string]string{"state": string(q.State), "stage": q.Stage, "error": q.Error} {
		if value != "" {
			arguments.Set(name, value)
		}
	}
	if q.Cursor != "" {
		arguments.Set("before_at", time.UnixMicro(after.At).UTC().Format(timeFormat))
		arguments.Set("before_id", after.ID)
	}
	arguments.Set("max", strconv.Itoa(q.Limit+1)) // one more tells whether there is a next page
	documents, err := call[documentsAnswer](ctx, c, "docevents_documents", arguments)
	if err != nil {
		return nil, err
	}
	page := &DocumentsPage{Documents: documents}
	if len(documents) > q.Limit {
		page.Documents = documents[:q.Limit]
		last := page.Documents[q.Limit-1]
		page.Next = cursor{q.Since.UnixMicro(), q.Until.UnixMicro(), last.LastAt.UnixMicro(), last.ID}.String()
	}
	return page, nil
}

// normalize fills in defaults, and returns an error for a query that can't be
// answered.
func (q *DocumentsQuery) normalize() error {
	switch q.State {
	case "", StateCompleted, StateFailed, StateUnderWay, StateStuck, StateSkipped:
	default:
		return fmt.Errorf("%.40q is not a State: use the constants, or \"\" for all", q.State)
	}
	switch {
	case q.Limit < 0 || q.Limit > maxDocuments:
		return fmt.Errorf("the Limit must be from 1 to %d, or 0 for %d, not %d", maxDocuments, defaultDocuments, q.Limit)
	case q.Limit == 0:
		q.Limit = defaultDocuments
	}
	if !row.IsText(q.Stage) || !row.IsText(q.Error) {
		return errors.New("the Stage or Error is not valid text: pass them as Summary returns them")
	}
	return q.Query.normalize()
}

// documentsAnswer is the function's JSON.
type documentsAnswer []Document

func (a documentsAnswer) valid() bool { return a != nil }

// A cursor is the place of a page's last document, and the range of the list.
// Times are in Unix microseconds.
type cursor struct {
	Since, Until, At int64
	ID               string
}

func (c cursor) String() string {
	text, _ := json.Marshal(c)
	return base64.RawURLEncoding.EncodeToString(text)
}

func (c *cursor) parse(text string) error {
	decoded, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || json.Unmarshal(decoded, c) != nil || c.At < c.Since || c.At >= c.Until || !row.IsText(c.ID) {
		return errors.New("the Cursor is not one: pass the Next of a page, or \"\" for the first")
	}
	return nil
}
