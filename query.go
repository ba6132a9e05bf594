package docevents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/docevents/docevents-go/internal/rest"
	"github.com/docevents/docevents-go/internal/row"
)

// readingSchema is the schema of the functions that
// sql/014_create_docevents_reading.sql creates. The project's API settings must expose
// it. The functions can read tables in any schema.
const readingSchema = "public"

const (
	defaultStuckAfter = 30 * time.Minute
	maxAnswerBytes    = 4 << 20 // answers are smaller, because the functions limit their lists and cut long texts

	// maxQueryBytes is the maximum length of a URL's query. Supabase's gateway accepts
	// a request line of 8 KiB, so 1 KiB remains for the method and the rest of the URL.
	maxQueryBytes = 7 << 10
)

// A Query selects the events that [Client.Summary] and [Client.Documents] read.
type Query struct {
	// Since and Until are the start and the end of a range of time. An event at Since
	// is in the range, and an event at Until is not. Both times are cut to
	// microseconds. Until must be after Since, and both must be in the years 1 to 9999.
	Since, Until time.Time

	// StuckAfter is how long a document may be under way before it counts as stuck. 0
	// means 30 minutes. StuckAfter must not be negative.
	StuckAfter time.Duration

	// Where selects only the events that have the given values. Each key is the name of
	// a column in the table, such as "tenant_id". Each value is the column's value as
	// text, which PostgreSQL casts to the type of the column.
	Where map[string]string
}

func (q *Query) normalize() error {
	q.Since, q.Until = q.Since.UTC().Truncate(time.Microsecond), q.Until.UTC().Truncate(time.Microsecond)
	switch {
	case !q.Since.Before(q.Until) || q.Since.Year() < 1 || q.Until.Year() > 9999:
		return errors.New("since must be before until, both in the years 1 to 9999")
	case q.StuckAfter < 0:
		return errors.New("StuckAfter is negative: set it to 0 for 30 minutes")
	case q.StuckAfter == 0:
		q.StuckAfter = defaultStuckAfter
	}
	for column, value := range q.Where {
		if !row.IsText(column) || !row.IsText(value) {
			return fmt.Errorf("in Where %.70q or its value is not valid text: PostgreSQL takes UTF-8 without NUL bytes", column)
		}
	}
	return nil
}

// A source is the argument "source" of the SQL functions. It describes the table.
type source struct {
	Schema  string                 `json:"schema"`
	Table   string                 `json:"table"`
	Columns map[string]string      `json:"columns"`
	Events  map[string][]EventType `json:"events"`
	Filters map[string]string      `json:"filters,omitempty"`
}

// arguments returns the arguments that docevents_summary and docevents_documents share.
func (c *Client) arguments(q *Query) url.Values {
	columns, types := &c.config.columns, &c.config.types
	text, _ := json.Marshal(source{ // can't fail: a source contains only strings
		Schema: c.config.schema, Table: c.config.table, Filters: q.Where,
		Columns: map[string]string{
			"id": columns.ID, "document": columns.DocumentID, "user": columns.UserID, "event": columns.Type,
			"duration": columns.Duration, "error": columns.ErrorMessage, "stage": columns.Stage, "created": columns.CreatedAt,
		},
		Events: map[string][]EventType{
			"arrived": append([]EventType{}, types.Arrived...), // for null, the functions would use their default
			"started": types.Started, "completed": types.Completed, "failed": types.Failed, "skipped": types.Skipped,
		},
	})
	return url.Values{
		"source": {string(text)}, "since": {q.Since.Format(timeFormat)}, "until": {q.Until.Format(timeFormat)},
		"stuck_after": {fmt.Sprintf("%d microseconds", q.StuckAfter.Microseconds())},
	}
}

// call calls an SQL function of sql/014_create_docevents_reading.sql, and decodes its
// JSON answer.
func call[T any](ctx context.Context, c *Client, function string, arguments url.Values) (*T, error) {
	if c.config.columns.DocumentID == noColumn {
		return nil, errNoDocumentID
	}
	if n := len(arguments.Encode()); n > maxQueryBytes {
		return nil, fmt.Errorf("the event types and filters make a query of %d bytes, and servers accept %d: pass fewer or shorter ones", n, maxQueryBytes)
	}
	r := rest.Reading{Path: "rpc/" + function, Schema: readingSchema, Query: arguments}
	var answer *T
	err := c.read(ctx, r, func(resp *http.Response) error {
		answer = new(T) // a retry begins with an empty one
		return unreadable(json.NewDecoder(io.LimitReader(resp.Body, maxAnswerBytes)).Decode(answer))
	})
	return answer, c.explainCall(err)
}

// read sends a GET request and passes the response to the function decode. If the
// request or the decoding fails for a reason that may be temporary, the request is
// retried once, unless the response asks for a wait (Retry-After). ctx and
// WithRequestTimeout limit the time of all attempts together.
//
// Hosted Supabase may refuse a valid key for some seconds, with status 401 and code
// PGRST303. After such a response, the request is retried for up to 5 s (lastingAfter).
func (c *Client) read(ctx context.Context, r rest.Reading, decode func(*http.Response) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.config.requestTimeout)
	defer cancel()
	began, retried := time.Now(), false
	for step := 0; ; step++ {
		err := c.rest.Get(ctx, r, decode)
		wait := backoff(step, longWait, err)
		e, answered := errors.AsType[*rest.Error](err)
		switch {
		case err == nil:
			return nil
		case answered && e.Status == http.StatusUnauthorized && e.Code == "PGRST303" && time.Since(began)+wait < lastingAfter:
		case retried, rest.Classify(err) != rest.Transient, rest.RetryAfter(err) > 0, errors.Is(err, ErrOtherAnswer):
			return err
		default:
			retried = true
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return err
		}
	}
}

// ErrOtherAnswer means that the response reports success, but contains unexpected JSON.
// Either another server or another table has answered, or the database has another
// version of the functions of sql/014_create_docevents_reading.sql. Use [errors.Is] to
// find ErrOtherAnswer in the errors of Summary, Documents, Timeline and Health.
var ErrOtherAnswer = errors.New("unexpected answer: either the server is not PostgREST with this table, or another version of sql/014_create_docevents_reading.sql is installed")

// otherAnswer returns an error that wraps ErrOtherAnswer. field is a JSON field that is
// missing from the answer or has an unexpected type.
func otherAnswer(field string) error {
	return fmt.Errorf("%w: see the field %s", ErrOtherAnswer, field)
}

// unreadable converts the error of decoding an answer. If the answer is complete but
// unexpected, the result matches ErrOtherAnswer. This result doesn't contain the text
// of the JSON error, which may contain a value from the table. If the answer is
// incomplete, the result counts as a temporary failure.
func unreadable(err error) error {
	e, wrongType := errors.AsType[*json.UnmarshalTypeError](err)
	switch {
	case err == nil, errors.Is(err, ErrOtherAnswer):
		return err
	case wrongType && e.Field != "":
		return otherAnswer(e.Field[strings.LastIndexByte(e.Field, '.')+1:])
	case wrongType, errors.As(err, new(*json.SyntaxError)), errors.As(err, new(*time.ParseError)):
		return ErrOtherAnswer
	}
	return fmt.Errorf("answer cut short: %w", err)
}
