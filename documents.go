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

// A State is the state of a document. It depends on the document's events in a range of
// time.
type State string

// The states of a document. A document is under way from its start to its end. It is
// stuck if it has been under way for longer than [Query].StuckAfter. A query for
// StateUnderWay also lists stuck documents.
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

// A DocumentsQuery selects the documents that [Client.Documents] lists. To get only
// the number of documents in each state, pass the same Query to [Client.Summary].
type DocumentsQuery struct {
	Query

	// State selects the documents in this state. "" selects all documents, including
	// those without a state, whose events are all notes. A note is an event that
	// doesn't change the state.
	State State

	// Stage selects the documents whose latest event has this stage. If Error is set,
	// Stage selects the documents that failed with this Error in this stage. If Stage
	// is "", the stage doesn't matter.
	Stage string

	// Error selects the documents that failed with this error between Since and Until,
	// including documents that completed later. Set it to the Message of an
	// [ErrorGroup] in a [Summary]. "" selects all documents.
	Error string

	// Cursor selects a page of the list. "" selects the first page. For each further
	// page, set Cursor to [DocumentsPage].Next of the page before it. Then Since and
	// Until are ignored, because the Cursor contains those of the first page.
	Cursor string

	// Limit is the maximum number of documents on a page, up to 500. 0 means 50.
	Limit int
}

// A DocumentsPage is one page of a list of documents.
type DocumentsPage struct {
	Documents []Document // sorted by LastAt, the newest first
	Next      string     // the Cursor of the next page; "" on the last page
}

// A Document is an element of a list of documents. It describes the document's state
// and its latest event in the range of the query. Notes don't count as the latest
// event, except if the document has only notes. Stage and Error are cut to 200
// characters.
type Document struct {
	ID     string    `json:"document_id"`
	UserID string    `json:"user_id"` // user of the latest event; "" if the event has none
	State  State     `json:"state"`   // "" if the document only has notes
	Type   EventType `json:"type"`    // type of the latest event
	Stage  string    `json:"stage"`   // stage of the latest event
	Error  string    `json:"error"`   // ErrorMessage of the latest event

	// If the document is under way or stuck, Started is the time at which that began. In
	// every other state, Started is the time of the document's first event in the range.
	Started time.Time `json:"started"`
	LastAt  time.Time `json:"last_at"` // time of the latest event
}

// Documents returns a page of the documents that q selects, sorted by the time of their
// latest event, the newest first. [Client.Summary] uses the same rules for the state of
// a document.
//
// No document is on two pages of a list. But a document may be missing from the list:
// if it gets a new event while you read the pages, it may move to a page that you have
// already read.
//
// Documents calls a function of sql/014_create_docevents_reading.sql. If the function
// is missing from the database, the error refers to that file. For retries and
// timeouts, see [Client.Timeline]. Documents is safe for concurrent use. On a nil
// Client it returns nil.
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
	arguments.Set("max", strconv.Itoa(q.Limit+1)) // one more, to know whether there is a next page
	documents, err := call[[]Document](ctx, c, "docevents_documents", arguments)
	if err != nil {
		return nil, err
	}
	if *documents == nil { // the answer is null
		return nil, ErrOtherAnswer
	}
	page := &DocumentsPage{Documents: *documents}
	if len(page.Documents) > q.Limit {
		page.Documents = page.Documents[:q.Limit]
		last := page.Documents[q.Limit-1]
		page.Next = cursor{q.Since.UnixMicro(), q.Until.UnixMicro(), last.LastAt.UnixMicro(), last.ID}.String()
	}
	return page, nil
}

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
		return errors.New("the Stage or Error is not valid text: pass it as Summary returns it")
	}
	return q.Query.normalize()
}

// A cursor is the decoded form of [DocumentsQuery].Cursor. ID identifies the last
// document of the previous page, and At is the time of its latest event. Since and
// Until are the range of the list. Times are in Unix microseconds.
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
		return errors.New("the Cursor is not valid: pass the Next of a page, or \"\" for the first page")
	}
	return nil
}
