package docevents

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

// ErrOutcomeUnknown is matched by the errors of events and purges whose last
// answer was lost: the row may be stored, once, or the rows may be gone.
var ErrOutcomeUnknown = errors.New("outcome unknown: the server may have done it")

// An Error is an answer of the server that is not a success. Errors of this
// package that stem from one are found by errors.As.
//
// It has no field for PostgREST's details: they repeat the row.
type Error struct {
	Status  int    // HTTP status
	Code    string // SQLSTATE or PostgREST's own (PGRST205), "" where the answer was not PostgREST's
	Message string // in the server's words, cut to 1 KiB
	Hint    string // likewise, mostly empty

	// RetryAfter is how long the server asks to be left alone, at most 60 s;
	// 0 where it didn't say, or said what can't be read or has passed.
	RetryAfter time.Duration
}

// Error names the status, the code and the server's message.
func (e *Error) Error() string {
	text := strings.TrimSpace(fmt.Sprintf("HTTP %d %s", e.Status, e.Code))
	if e.Message != "" {
		text += ": " + e.Message
	}
	if e.Hint != "" {
		text += " (hint: " + e.Hint + ")"
	}
	return text
}

// A verdict is what an answer means for the rows that were sent.
type verdict int

const (
	accepted      verdict = iota // stored
	transient                    // may be different next time: wait, then the same rows again
	configuration                // stays until somebody mends it: keep the rows, wait long, say so loudly
	tooMuch                      // fewer rows may do
	storedBefore                 // of these rows, one at least is stored already
	badData                      // of these rows, one at least can't be stored, ever
)

// What PostgreSQL's and PostgREST's codes mean; the first match wins. Rows are
// given up on the one closed list of badData: what is not here is transient.
// https://www.postgresql.org/docs/current/errcodes-appendix.html
// https://docs.postgrest.org/en/v14/references/errors.html
var verdicts = []struct {
	codes *regexp.Regexp
	verdict
}{
	{regexp.MustCompile(`^(57014|PGRST102)$`), tooMuch}, // statement timeout; the body is no JSON: damaged on its way
	{regexp.MustCompile(`^23503$`), transient},          // a foreign key: the row it points to may come yet
	{regexp.MustCompile(`^(21|22|23|27|44|54|P0)[0-9A-Z]{3}$`), badData},
	{regexp.MustCompile(`^((0A|28|3D|3F|42)[0-9A-Z]{3}|55000|PGRST[123][0-9A-Z]{2})$`), configuration},
}

// classify reads the error of a request. The status goes first where it says
// all: a role that doesn't exist is 22023, of a class of bad data, but with 401.
func classify(err error) verdict {
	var e *Error
	switch {
	case err == nil:
		return accepted
	case !errors.As(err, &e): // no answer, or one cut short
		return transient
	case e.Status < 400, // a redirect, or HTML with a success
		slices.Contains([]int{401, 402, 405, 406, 540}, e.Status): // 540: Supabase has paused the project
		return configuration
	case e.Status == http.StatusRequestEntityTooLarge:
		return tooMuch
	case e.Code == "23505" && strings.Contains(e.Message, `_pkey"`): // a gateway dropped Prefer
		return storedBefore
	}
	for _, v := range verdicts {
		if v.codes.MatchString(e.Code) {
			return v.verdict
		}
	}
	return transient
}

var (
	lostConnection = regexp.MustCompile(`^(08...|57P..|PGRST0..)$`)
	fromDatabase   = regexp.MustCompile(`^([0-9A-Z]{5}|PGRST...)$`)
)

// outcomeUnknown says whether the server may have carried out a request that
// err came back for. An answer with PostgreSQL's or PostgREST's own code was
// rolled back, unless it tells of the connection between the two.
func outcomeUnknown(err error) bool {
	var e *Error
	if errors.As(err, &e) {
		return lostConnection.MatchString(e.Code) || !fromDatabase.MatchString(e.Code)
	}
	return err != nil
}

// A refusal is an Error on its way from the transport to insert, with the
// details that name the row. They are user data: takeDetails ends their way.
type refusal struct {
	err     *Error
	details string
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// takeDetails returns what err's details were, and err without them.
func takeDetails(err error) (string, error) {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r.details, r.err
	}
	return "", err
}

var (
	uuidFormat = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)
	keyFormat  = regexp.MustCompile(`\(([^()]+)\)=\(([^()]*)\)`)
)

// named returns the places of the rows that an answer's details name, in
// whatever language: those with the values of a key ("Key (document_id)=(...)
// is not present"), or the one whose id is among the values of a row ("Failing
// row contains (...)"). An id that stands in another row's text is no name.
func named(records []record, details string) (places []int) {
	if key := keyFormat.FindStringSubmatch(details); key != nil {
		columns, values := strings.Split(key[1], ", "), strings.Split(key[2], ", ")
		for i := range records {
			if len(columns) == len(values) && records[i].has(columns, values) {
				places = append(places, i)
			}
		}
		return places
	}
	ids := uuidFormat.FindAllString(details, -1)
	for i := range records {
		if slices.Contains(ids, records[i].id.String()) {
			places = append(places, i)
		}
	}
	if len(places) > 1 {
		return nil
	}
	return places
}

// has says whether r has these values in these columns.
func (r *record) has(columns, values []string) bool {
	for i, column := range columns {
		value := ""
		switch column {
		case "id":
			value = r.id.String()
		case "document_id":
			value = r.documentID.String()
		case "user_id":
			value = r.userID.String()
		case "event_type":
			value = string(r.eventType)
		case "stage":
			value = r.stage
		}
		if value == "" || value != values[i] {
			return false
		}
	}
	return true
}

// remedy says what to do about an answer that is classified as configuration.
func remedy(err error, schema, table string) string {
	var e *Error
	errors.As(err, &e)
	const reload = "; if that is done, run: NOTIFY pgrst, 'reload schema'"
	name := schema + "." + table
	switch {
	case e.Status < 400:
		return "check SUPABASE_URL: what answers there is not Supabase's API (no redirect is followed: it would carry the key to another host)"
	case e.Status == http.StatusPaymentRequired || e.Status == 540:
		return "look at the project in the Supabase dashboard: it is paused or over its quota"
	case e.Code == "42501" && strings.Contains(e.Message, "row-level security"):
		return "use the service-role (secret) key: row-level security keeps this one out"
	case e.Code == "42501":
		return "run: GRANT SELECT, INSERT, DELETE ON " + name + " TO service_role;"
	case e.Code == "PGRST205" || e.Code == "42P01":
		return "create the table: run sql/013_create_processing_events_table.sql, or name yours with WithTable and WithSchema" + reload
	case e.Code == "PGRST204" || e.Code == "42703":
		return "add the column: " + name + " needs those of sql/013_create_processing_events_table.sql" + reload
	case e.Code == "PGRST106" || e.Code == "3F000":
		return "expose the schema " + schema + " in the project's API settings, or name another with WithSchema"
	case e.Status == http.StatusUnauthorized:
		return "check the key: it must be the service-role (secret) key of this very project"
	}
	return "compare the table and the key's role with sql/013_create_processing_events_table.sql"
}

// The waits after failures: 200 ms, twice as long each time, at most 30 s, and
// of that between half and all, so that clients don't come back in step.
const (
	firstWait = 200 * time.Millisecond
	longWait  = 30 * time.Second
	longStep  = 8 // the first step at longWait

	// lastingAfter is how long a refusal has to stand to be lasting: hosted
	// projects answer good keys with 401 for a second or two, and a schema cache
	// takes about as long to reload.
	lastingAfter = 5 * time.Second
)

// backoff returns the wait after so many steps, or what err asks for if that is
// longer.
func backoff(step int, err error) time.Duration {
	wait := min(firstWait<<min(step, longStep), longWait)
	wait = wait/2 + rand.N(wait/2+1)
	if e := (*Error)(nil); errors.As(err, &e) {
		wait = max(wait, e.RetryAfter)
	}
	return wait
}
