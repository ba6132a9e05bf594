package docevents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

// readingFile creates functions that serve every table of a project. The
// functions are in readingSchema, whatever the table's schema is. The project
// must expose readingSchema.
const (
	readingFile   = "sql/014_create_docevents_reading.sql"
	readingSchema = "public"
)

const (
	defaultStuckAfter = 30 * time.Minute
	maxAnswerBytes    = 4 << 20 // the limits in the functions keep answers under 1 MiB

	// maxQueryBytes is the longest query that gateways accept with some room for
	// the path: nginx, and therefore Kong, limits the request line to 8 KiB.
	maxQueryBytes = 7 << 10
)

// A Query selects the events that [Client.Summary] and [Client.Documents] read.
type Query struct {
	// Since and Until are the range of time. It includes Since but not Until.
	// Until must be after Since, and both must be in the years 1 to 9999.
	Since, Until time.Time

	// StuckAfter is how long a document may be under way before it counts as
	// stuck. 0 means 30 minutes. It must not be negative.
	StuckAfter time.Duration

	// Where selects only events whose columns have these values. The keys are
	// names of columns in the table, such as "tenant_id". PostgreSQL casts the
	// values to the types of the columns.
	Where map[string]string
}

// normalize sets defaults and validates q. Times in the table are whole
// microseconds, so rounding both times up selects the same rows.
func (q *Query) normalize() error {
	q.Since, q.Until = wholeMicroseconds(q.Since), wholeMicroseconds(q.Until)
	switch {
	case !q.Since.Before(q.Until) || q.Since.Year() < 1 || q.Until.Year() > 9999:
		return errors.New("since must be before until, both in the years 1 to 9999")
	case q.StuckAfter < 0:
		return errors.New("StuckAfter is negative: set it to 0 for 30 minutes")
	case q.StuckAfter == 0:
		q.StuckAfter = defaultStuckAfter
	}
	for column, value := range q.Where {
		switch {
		case column == "" || len(column) > 63 || !isText(column):
			return fmt.Errorf("in Where %.70q is not the name of a column: it must be 1 to 63 bytes of valid text", column)
		case !isText(value):
			return fmt.Errorf("in Where the value of %q is not valid text: PostgreSQL takes UTF-8 without NUL bytes", column)
		}
	}
	return nil
}

// wholeMicroseconds rounds t up to whole microseconds, as the table stores times.
func wholeMicroseconds(t time.Time) time.Time {
	return t.Add(time.Microsecond - 1).UTC().Truncate(time.Microsecond)
}

// isText reports whether PostgreSQL can store s as text.
func isText(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// A source is the functions' argument of that name. It describes the table.
type source struct {
	Schema  string                 `json:"schema"`
	Table   string                 `json:"table"`
	Columns map[string]string      `json:"columns"`
	Events  map[string][]EventType `json:"events"`
	Filters map[string]string      `json:"filters,omitempty"`
}

// arguments returns the arguments that both functions have.
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
		"source": {string(text)}, "since": {q.Since.Format(timeFormat)}, "until": {q.Until.Format(timeFormat)},
		"stuck_after": {fmt.Sprintf("%d microseconds", q.StuckAfter.Microseconds())},
	}
}

// call calls a function of readingFile and returns its decoded answer.
func call[T interface{ valid() bool }](ctx context.Context, c *Client, function string, arguments url.Values) (answer T, err error) {
	if c.config.columns.DocumentID == noColumn {
		return answer, errNoDocumentID
	}
	if n := len(arguments.Encode()); n > maxQueryBytes {
		return answer, fmt.Errorf("the event types and filters make a request line of %d bytes, and servers take %d: pass fewer or shorter ones", n, maxQueryBytes)
	}
	r := reading{path: "rpc/" + function, schema: readingSchema, query: arguments}
	err = c.read(ctx, r, func(resp *http.Response) error {
		var decoded T
		if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswerBytes)).Decode(&decoded); err != nil {
			return unreadable(err)
		}
		if !decoded.valid() {
			return fmt.Errorf("%w: run that file again", ErrOtherAnswer)
		}
		answer = decoded
		return nil
	})
	return answer, c.explainCall(err)
}

// callRemedies has the advice for errors of the functions. The first match counts.
// For other errors, explainCall uses remedies, which has the advice for errors of
// the table.
var callRemedies = []struct {
	answer *regexp.Regexp
	do     string
}{
	{regexp.MustCompile(` PGRST20[23] | 42883 .*function (public\.)?docevents_`), "create the function: run " + readingFile + " in the project's database, again if an older version of it has run; it serves every table, including {table}" + reload},
	{regexp.MustCompile(` 42501 .*for function`), "run " + readingFile + " again: it grants EXECUTE to service_role"},
	{regexp.MustCompile(` PGRST106 `), "expose the schema " + readingSchema + " in the project's API settings: the functions of " + readingFile + " are in it"},
	{regexp.MustCompile(` 3F000 `), "name the table's schema with WithSchema"},
	{regexp.MustCompile(` 42703 `), "name the columns of {table} with WithColumns, \"-\" for each column that it lacks, and use only its columns in Where"},
	{regexp.MustCompile(` 42804 `), "the column for CreatedAt must be a timestamptz or a timestamp: name it with WithColumns"},
	{regexp.MustCompile(` 42883 .*operator`), "in Where name only columns that can be compared: json can't"},
	{regexp.MustCompile(` 22(P02|003|007|008) `), "a value of Where doesn't fit its column's type"},
	{regexp.MustCompile(`^5[02]4 | 57014 `), "ask for a shorter range, or raise service_role's statement_timeout"},
}

// explainCall is like explain, for errors of the functions.
func (c *Client) explainCall(err error) error {
	if e, answered := errors.AsType[*Error](err); answered {
		for _, r := range callRemedies {
			if r.answer.MatchString(e.line()) {
				e.details = ""
				return fmt.Errorf("%w; %s", e, strings.ReplaceAll(r.do, "{table}", c.tableName()))
			}
		}
	}
	return c.explain(err)
}

// line returns the line that remedies and callRemedies match.
func (e *Error) line() string { return fmt.Sprintf("%03d %s %s", e.Status, e.Code, e.Message) }
