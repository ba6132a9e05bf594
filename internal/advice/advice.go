// Package advice turns the server's error responses into advice on how to fix their
// causes. The advice depends only on the response and on the client's settings.
package advice

import (
	"fmt"
	"regexp"
	"strings"
)

// Settings are the client's settings that appear in the advice or decide which advice
// fits.
type Settings struct {
	Schema, Table string

	// HasToken is true if the key is sent in the header Authorization. A secret key
	// (sb_secret_...) is sent only in the header apikey.
	HasToken bool
}

// Compare is the advice if the key, the table or a grant is wrong, but no rule matches
// the response.
const Compare = "compare the table and the key's role with sql/013_create_processing_events_table.sql"

// For gives advice on how to fix the cause of an error response to a request about the
// table. If there is no advice, the result is "". status is the HTTP status. code and
// message are those of PostgREST's error. The method also returns advice on a response
// that rejects a row's data, because the table may be wrong.
func (s Settings) For(status int, code, message string) string {
	if !s.HasToken && (code == "PGRST302" || status == 401 && code == "42501") {
		return anonymous
	}
	if m := relationName.FindStringSubmatch(message); m != nil && m[1] != s.Table {
		message += anotherRelation
	}
	return s.first(answers, status, code, message)
}

// ForCall returns advice on an error response to a call to a function in
// sql/014_create_docevents_reading.sql. If no rule matches, the result is "", but the
// method For may have more general advice.
func (s Settings) ForCall(status int, code, message string) string {
	return s.first(calls, status, code, message)
}

// TableName returns the table's name with its schema, in quotes if SQL needs them.
func (s Settings) TableName() string { return SQLName(s.Schema) + "." + SQLName(s.Table) }

// A rule has the advice for the responses that its pattern matches. In the advice,
// {schema} and {table} are replaced with the names in Settings, and ${1} with the text
// that the pattern's first group matched.
type rule struct {
	answer *regexp.Regexp // matches "STATUS CODE message"
	do     string
}

// first returns the advice of the first rule that matches, or "".
func (s Settings) first(rules []rule, status int, code, message string) string {
	answer := fmt.Sprintf("%03d %s %s", status, code, message)
	for _, r := range rules {
		if m := r.answer.FindStringSubmatchIndex(answer); m != nil {
			do := string(r.answer.ExpandString(nil, r.do, answer, m))
			return strings.NewReplacer("{schema}", SQLName(s.Schema), "{table}", s.TableName()).Replace(do)
		}
	}
	return ""
}

// A name needs no quotes in SQL if bareName matches it and reservedWord doesn't.
// reservedWord matches only the SQL keywords that are likely names of a schema, table
// or column.
// https://www.postgresql.org/docs/15/sql-keywords-appendix.html
var (
	bareName     = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)
	reservedWord = regexp.MustCompile(`^(all|analyze|any|array|as|authorization|binary|both|case|cast|check|column|constraint|create|default|desc|distinct|do|else|end|fetch|for|foreign|from|grant|group|in|into|join|left|like|limit|new|not|null|offset|old|on|only|or|order|primary|references|right|select|table|then|to|union|unique|user|using|verbose|when|where|window|with)$`)
)

// SQLName returns the name as SQL needs it. Keywords and names with special characters
// get quotes, and so do names with capitals, which SQL would otherwise change to lower
// case.
func SQLName(name string) string {
	if bareName.MatchString(name) && !reservedWord.MatchString(name) {
		return name
	}
	return `"` + name + `"`
}
