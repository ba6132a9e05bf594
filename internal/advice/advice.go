// Package advice returns advice on how to fix the cause of an error that the server
// answered. The advice depends only on the answer and on the client's settings.
package advice

import (
	"fmt"
	"regexp"
	"strings"
)

// Settings are the settings that the advice names or depends on.
type Settings struct {
	Schema, Table string

	// HasToken reports whether requests carry the key as a token, in the header
	// Authorization. A secret key (sb_secret_...) is in the header apikey only.
	HasToken bool
}

// Compare is the advice if the client or the table is misconfigured and nothing
// more is known.
const Compare = "compare the table and the key's role with sql/013_create_processing_events_table.sql"

// For returns how to fix the cause of an answer about the table, or "" if that is
// unknown. There is also advice for rows that are rejected for their data: if the
// server rejects every row, the table is at fault.
func (s Settings) For(status int, code, message string) string {
	if !s.HasToken && (code == "PGRST302" || status == 401 && code == "42501") {
		return anonymous
	}
	if m := relationName.FindStringSubmatch(message); m != nil && m[1] != s.Table {
		message += anotherRelation
	}
	return s.first(answers, status, code, message)
}

// ForCall returns how to fix the cause of an answer to a call of a function in
// sql/014_create_docevents_reading.sql. It returns "" if the answer means the same as
// an answer about the table.
func (s Settings) ForCall(status int, code, message string) string {
	return s.first(calls, status, code, message)
}

// TableName returns the table's name with its schema, in quotes if SQL needs them.
func (s Settings) TableName() string { return SQLName(s.Schema) + "." + SQLName(s.Table) }

// A rule is the advice for the answers that match. In the advice, {schema} and
// {table} stand for the client's names, and ${1} for a group of the pattern.
type rule struct {
	answer *regexp.Regexp // matches "STATUS CODE message"
	do     string
}

// first returns the advice of the first rule that matches.
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

// bareName matches the names that need no quotes in SQL if they aren't keywords.
// reserved lists the keywords that a schema, a table or a column may well have as its
// name.
// https://www.postgresql.org/docs/15/sql-keywords-appendix.html
var (
	bareName = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)
	reserved = regexp.MustCompile(`^(all|analyze|any|array|as|authorization|binary|both|case|cast|check|column|constraint|create|default|desc|distinct|do|else|end|fetch|for|foreign|from|grant|group|in|into|join|left|like|limit|new|not|null|offset|old|on|only|or|order|primary|references|right|select|table|then|to|union|unique|user|using|verbose|when|where|window|with)$`)
)

// SQLName returns a name, in quotes if SQL needs them: for a keyword, or for capitals,
// which SQL would turn into small letters.
func SQLName(name string) string {
	if bareName.MatchString(name) && !reserved.MatchString(name) {
		return name
	}
	return `"` + name + `"`
}
