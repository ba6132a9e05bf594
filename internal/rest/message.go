package rest

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"unicode"
)

// knownMessages lists the messages and hints of PostgreSQL and PostgREST that are safe
// to log. Any other message is not logged, because a trigger of the app may have
// written it, with values of the row.
//
// Each line contains a regular expression for error codes, a space, and a regular
// expression for the messages with these codes. Five words are placeholders:
//
//   - NAME: a name in quotes
//   - BARE: a name without quotes
//   - TYPE: the name of a type
//   - KIND: a kind of object, such as table
//   - VALUE: any text, which is logged as an ellipsis because it may come from the row
//
// The messages are listed in:
//
// https://github.com/postgres/postgres/tree/REL_15_STABLE/src/backend
// https://docs.postgrest.org/en/v14/references/errors.html
const knownMessages = `
0A000 cached plan must not change result type
0A000 INSERT with ON CONFLICT clause cannot be used with table that has INSERT or UPDATE rules
0A000 cannot (insert into|update) column NAME of view NAME
21000 (DELETE|UPDATE) requires a WHERE clause
22001 value too long for type TYPE
22003 (smallint|integer|bigint|real|double precision|numeric|interval|money) out of range|numeric field overflow|value "VALUE" is out of range for type TYPE
22007|22P02 invalid input syntax for type TYPE(: "VALUE")?
22008 date/time field value out of range: "VALUE"|timestamp out of range
22012 division by zero
22021 invalid byte sequence for encoding NAME: VALUE
22023 role NAME does not exist
22P02 invalid input value for enum (BARE|NAME): "VALUE"|malformed array literal: "VALUE"
22P05 unsupported Unicode escape sequence
23502 null value in column NAME( of relation NAME)? violates not-null constraint|domain BARE does not allow null values
23503 (insert or update|update or delete) on table NAME violates foreign key constraint NAME( on table NAME)?
23505 duplicate key value violates unique constraint NAME
23514 new row for relation NAME violates (check constraint NAME|partition constraint)|value for domain BARE violates check constraint NAME|no partition of relation NAME found for row
23P01 conflicting key value violates exclusion constraint NAME
25006 cannot execute BARE in a read-only transaction
26000|42P05 prepared statement NAME (does not exist|already exists)
27000 tuple to be updated was already modified by an operation triggered by the current command
28P01 password authentication failed for user NAME
3F000 schema NAME does not exist
40001 could not serialize access due to (concurrent update|concurrent delete|read/write dependencies among transactions)
40P01 deadlock detected
42501 permission denied for KIND (BARE|NAME)|new row violates row-level security policy( BARE| NAME)?( \(USING expression\))? for table NAME|permission denied to set role NAME|must be owner of KIND BARE
42703 column (NAME|BARE)( of relation NAME)? does not exist|record "(new|old)" has no field NAME
42804 column NAME is of type TYPE but expression is of type TYPE
42809 cannot (insert into|change|delete from) (materialized view|view|foreign table|sequence) NAME
42883 function BARE\([^()]*\) does not exist|operator does not exist: TYPE \S+ TYPE
428C9 cannot insert a non-DEFAULT value into column NAME
42P01 relation NAME does not exist|missing FROM-clause entry for table NAME
42P10 there is no unique or exclusion constraint matching the ON CONFLICT specification
42P17 infinite recursion detected in (policy|rules) for relation NAME
44000 new row violates check option for view NAME
53100 could not extend file NAME: No space left on device
53300 sorry, too many clients already|remaining connection slots are reserved for (non-replication superuser connections|roles with .?SUPERUSER.? attribute|roles with privileges of the "pg_use_reserved_connections" role)|too many connections for (role|database) NAME
54000 index row size \d+ exceeds (btree version \d )?maximum \d+ for index NAME
54001 stack depth limit exceeded
55000 ON CONFLICT does not support deferrable unique constraints/exclusion constraints as arbiters|cannot (insert into|delete from) view NAME
55P03|57014 canceling statement due to (statement timeout|lock timeout|user request|conflict with recovery)
57P0. terminating connection due to (administrator command|conflict with recovery|idle-in-transaction timeout|idle-session timeout|unexpected postmaster exit)|the database system is (starting up|shutting down|in recovery mode|not yet accepting connections)
PGRST1.. "VALUE" \(line \d+, column \d+\)|Content-Type not acceptable: VALUE|None of these media types are available: VALUE
PGRST... [^"]+
XX000 cache lookup failed for (relation|type|function) \d+|tuple concurrently (updated|deleted)|Tenant or user not found`

// A knownMessage holds the two regular expressions of a line of knownMessages. The
// second one (text) is compiled only when it is needed, because compiling all lines
// would take 0.1 s. Its only capturing groups are those for VALUE.
type knownMessage struct {
	code *regexp.Regexp
	text func() *regexp.Regexp
}

var parseKnownMessages = sync.OnceValue(func() (known []knownMessage) {
	placeholders := strings.NewReplacer(`\(`, `\(`, `(`, `(?:`, // no group captures, and an escaped parenthesis stays
		"NAME", `"[\pL\pN_$./-]{1,127}"`,
		"BARE", `[\pL\pN_$.-]{1,127}`,
		"TYPE", `(?:character varying|bit varying|double precision|"?[\pL_][\pL\pN_$.]{0,126}"?)(?:\([0-9,]+\))?(?: with(?:out)? time zone)?(?:\[\])?`,
		"KIND", `(?:table|view|materialized view|foreign table|schema|sequence|function|procedure|type|relation|database)`,
		"VALUE", `(.*)`)
	for _, line := range strings.Split(strings.TrimSpace(knownMessages), "\n") {
		code, text, _ := strings.Cut(line, " ")
		known = append(known, knownMessage{regexp.MustCompile("^(" + code + ")$"), sync.OnceValue(func() *regexp.Regexp {
			return regexp.MustCompile("(?s)^(?:" + placeholders.Replace(text) + ")$")
		})})
	}
	return known
})

// If a line of knownMessages matches code and text, withoutValue returns text with an
// ellipsis in place of VALUE. If no line matches, it returns LeftOut.
func withoutValue(code, text string) string {
	for _, known := range parseKnownMessages() {
		if !known.code.MatchString(code) {
			continue
		}
		at := known.text().FindStringSubmatchIndex(text) // at[2:] are the groups for VALUE; -1 if not in this message
		for i := 2; i < len(at); i += 2 {
			if start, end := at[i], at[i+1]; start >= 0 {
				return text[:start] + "…" + text[end:]
			}
		}
		if at != nil {
			return text
		}
	}
	return LeftOut
}

var codeFormat = regexp.MustCompile(`^[0-9A-Za-z]{1,16}$`)

// LeftOut replaces a message that may contain values of the row.
const LeftOut = "a message that is not PostgreSQL's own, left out since it may repeat the row"

// quotedPart matches the part of a text that may contain quoted values. It extends from
// the first quote to the last, because a value may contain quotes. If there is only one
// quote, it extends to the end of the text. It doesn't begin at a ' after a letter or a
// digit, because that is probably an apostrophe.
var quotedPart = regexp.MustCompile(`((^|[^\pL\pN"])'|")(.*['"]|.*)`)

// OneLine returns text in a form that is safe in a log line. It replaces line breaks
// and tabs with spaces. It replaces invalid UTF-8 and invisible characters, such as
// control characters, with U+FFFD, because they could change what a terminal shows.
func OneLine(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsGraphic(r):
			return r
		case unicode.IsSpace(r):
			return ' '
		}
		return unicode.ReplacementChar
	}, text)
}

// loggableText returns a message or hint in a form that is safe to log: one line of at
// most maxErrorText bytes, without values of the row. code is the answer's error code.
// If code is "", the text isn't from PostgreSQL or PostgREST. In such a text, values
// are in quotes, so quoted parts are removed.
func loggableText(code, text string) string {
	text = OneLine(text)
	switch {
	case text == "":
	case code == "":
		text = quotedPart.ReplaceAllString(text, `$2"…"`)
	default:
		if len(text) > maxErrorText { // only a value in quotes is that long, so close the quotes again
			text = cut(text) + `"`
		}
		text = withoutValue(code, text)
	}
	return cut(text)
}

// cut cuts text to at most maxErrorText bytes of valid UTF-8.
func cut(text string) string {
	return strings.ToValidUTF8(text[:min(len(text), maxErrorText)], "")
}

// queryInText matches the query of a URL.
var queryInText = regexp.MustCompile(`\?\S+`)

// A loggableError wraps an error and has a different text.
type loggableError struct {
	error
	text string
}

func (e loggableError) Error() string { return e.text }
func (e loggableError) Unwrap() error { return e.error }

// Loggable returns an error like err, with a text that is safe to log. err is the error
// of a request that got no answer. Loggable removes the key. It also removes the
// queries of URLs and quoted text, because these may contain values of a row. The
// result wraps the cause of err, but not the *url.Error around the cause.
func (c *Client) Loggable(err error) error {
	for wrapped := (*url.Error)(nil); errors.As(err, &wrapped) && wrapped.Err != nil; { // several, if the app's transport is an http.Client
		err = wrapped.Err
	}
	text := fmt.Sprint(err) // unlike err.Error() it can't panic
	safe := loggableText("", queryInText.ReplaceAllString(strings.ReplaceAll(text, c.transport.key, "[key]"), "?…"))
	if safe == text {
		return err
	}
	return loggableError{err, safe}
}
