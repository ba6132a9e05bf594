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

// readingSchema is the schema in which sql/014_create_docevents_reading.sql creates
// its functions. They read tables in any schema. The project's API must expose
// readingSchema.
const readingSchema = "public"

const (
	defaultStuckAfter = 30 * time.Minute
	maxAnswerBytes    = 4 << 20 // the functions limit their answers to less than 1 MiB

	// maxQueryBytes is the longest query of a URL that is sent. Supabase's gateway
	// accepts 8 KiB for the line with the method and the URL, so 1 KiB remains for
	// the path.
	maxQueryBytes = 7 << 10
)

// A Query selects the events that [Client.Summary] and [Client.Documents] read.
type Query struct {
	// Since and Until are the range of time. It includes Since but not Until. Both
	// are cut to microseconds. Until must be after Since, and both must be in the
	// years 1 to 9999.
	Since, Until time.Time

	// StuckAfter is how long a document may be under way before it counts as
	// stuck. 0 means 30 minutes. It must not be negative.
	StuckAfter time.Duration

	// Where selects only events with certain values. A key is the name of a column
	// in the table, such as "tenant_id". PostgreSQL casts the value to the type of
	// the column.
	Where map[string]string
}

// normalize sets defaults and validates q.
func (q *Query) normalize() error {
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

// A source is the argument source of the functions. It describes the table.
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
			"arrived": types.Arrived, "started": types.Started, "completed": types.Completed, "failed": types.Failed, "skipped": types.Skipped,
		},
	})
	return url.Values{
		"source": {string(text)}, "since": {q.Since.UTC().Format(timeFormat)}, "until": {q.Until.UTC().Format(timeFormat)},
		"stuck_after": {fmt.Sprintf("%d microseconds", q.StuckAfter.Microseconds())},
	}
}

// call calls a function of sql/014_create_docevents_reading.sql and returns its
// decoded answer.
func call[T any](ctx context.Context, c *Client, function string, arguments url.Values) (*T, error) {
	if c.config.columns.DocumentID == noColumn {
		return nil, errNoDocumentID
	}
	if n := len(arguments.Encode()); n > maxQueryBytes {
		return nil, fmt.Errorf("the event types and filters make a request line of %d bytes, and servers take %d: pass fewer or shorter ones", n, maxQueryBytes)
	}
	r := rest.Reading{Path: "rpc/" + function, Schema: readingSchema, Query: arguments}
	var answer *T
	err := c.read(ctx, r, func(resp *http.Response) error {
		answer = new(T) // a retry begins with an empty one
		return unreadable(json.NewDecoder(io.LimitReader(resp.Body, maxAnswerBytes)).Decode(answer))
	})
	return answer, c.explainCall(err)
}

// read sends a GET and passes the answer to use. It retries once if the failure may be
// temporary. Hosted Supabase may refuse a valid key with 401 and PGRST303 for some
// seconds, so read retries after these for up to lastingAfter. ctx and
// WithRequestTimeout limit the time of all attempts together.
func (c *Client) read(ctx context.Context, r rest.Reading, use func(*http.Response) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.config.requestTimeout)
	defer cancel()
	began, retried := time.Now(), false
	for step := 0; ; step++ {
		err := c.rest.Get(ctx, r, use)
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

// ErrOtherAnswer means that a server answered with success, but with other JSON than
// PostgREST returns for the table and the functions of this version. Either another
// server answered, or another version of the functions is installed. It is matched by
// errors of Summary, Documents, Timeline and Health.
var ErrOtherAnswer = errors.New("unexpected answer: either the server is not PostgREST with this table, or another version of sql/014_create_docevents_reading.sql is installed")

// otherAnswer wraps ErrOtherAnswer. field is a JSON field that is missing or has
// another type.
func otherAnswer(field string) error {
	return fmt.Errorf("%w: see the field %s", ErrOtherAnswer, field)
}

// unreadable turns an error of decoding an answer into ErrOtherAnswer or, if the answer
// was incomplete, into an error that may be temporary. It never wraps an error of
// encoding/json, because its text may contain a value from the table. nil stays nil.
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
