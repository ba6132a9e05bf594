package docevents

import (
	"errors"
	"regexp"
	"strings"
)

// remedies says what to do about an answer, by "STATUS CODE message"; the first
// match counts. {schema} and {table} stand for the client's, ${1} for a group of the
// pattern. The message ends in anotherRelation if it names a relation that isn't the
// table. Remedies for codes of bad data hold if every row is refused: then the table
// is at fault.
var remedies = []struct {
	answer *regexp.Regexp
	do     string
}{
	{regexp.MustCompile(`^[0-3]\d\d `), "check SUPABASE_URL: the answer is not from Supabase's API (no redirect is followed, because it would carry the key to another host)"},
	{regexp.MustCompile(`^(402|540) `), "look at the project in the Supabase dashboard: it is paused or over its quota"},
	{regexp.MustCompile(` 25006 `), "the database is read-only: SUPABASE_URL may be a read replica's, or the project's disk is full (see the dashboard)"},
	{regexp.MustCompile(` PGRST300 `), "give the server its JWT secret (PostgREST's jwt-secret, PGRST_JWT_SECRET): without it no key can be verified"},
	{regexp.MustCompile(` PGRST302 `), "the server saw no token: a proxy in front of it removes the header Authorization"},
	{regexp.MustCompile(` PGRST303 .*(not yet valid|at future)`), "this passes by itself if the key was made just now or the servers' clocks differ by seconds; if it lasts, copy the key again"},
	{regexp.MustCompile(` PGRST303 .*audience`), "the server accepts keys for another audience: compare the key's claim aud with the server's jwt-aud (PGRST_JWT_AUD)"},
	{regexp.MustCompile(` PGRST303 `), "the key has expired or has a claim that the server can't use: copy the project's service-role (secret) key again"},
	{regexp.MustCompile(`^401 42501 | 42501 .*row-level security`), "use the service-role (secret) key: this one is kept out by row-level security or a missing grant"},
	{regexp.MustCompile(` 42501 .*(for function|` + anotherRelation + `)`), "a trigger or view of {table} needs it: let service_role do what the message names, or make the trigger's function SECURITY DEFINER; what the table itself needs: GRANT SELECT, INSERT, DELETE ON {table} TO service_role;"},
	{regexp.MustCompile(` 42501 `), "run: GRANT SELECT, INSERT, DELETE ON {table} TO service_role; if the message names the schema or a sequence, run: GRANT USAGE ON SCHEMA {schema} TO service_role; GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO service_role;"},
	{regexp.MustCompile(` (42P01|42703|42883) .*(` + anotherRelation + `|record |function )`), "a trigger, rule, view or default of {table} needs it: create it, or change what needs it"},
	{regexp.MustCompile(` (PGRST205|42P01) `), "create the table: run sql/013_create_processing_events_table.sql, or name yours with WithTable and WithSchema" + reload},
	{regexp.MustCompile(` (PGRST204|42703) `), "add the column: {table} needs those of sql/013_create_processing_events_table.sql, or name yours with WithColumns" + reload},
	{regexp.MustCompile(` (PGRST106|3F000) `), "expose the schema {schema} in the project's API settings, or name another with WithSchema"},
	{regexp.MustCompile(`^40[456]  | PGRST125 |^401  .*(HTML|no Route|path)`), "check SUPABASE_URL: the API is not at this address (pass the project's URL without a path); or, a PostgREST before 13 answers so if it doesn't know {table}" + reload},
	{regexp.MustCompile(`^401 `), "check the key: it must be the service-role (secret) key of this very project"},
	{regexp.MustCompile(` 0A000 .*cached plan`), "this passes by itself once the server's connections are renewed, mostly within minutes; if it lasts, restart PostgREST or the pooler"},
	{regexp.MustCompile(` 0A000 .*rules`), "replace the rule of {table} by a trigger: PostgreSQL allows no ON CONFLICT, by which an event is stored once, on a table with a rule for INSERT or UPDATE"},
	{regexp.MustCompile(` 55000 .*deferrable`), "make the key of the id NOT DEFERRABLE: drop the constraint and add it again without DEFERRABLE (ALTER CONSTRAINT can't change a key)"},
	{regexp.MustCompile(` (55000|42809) .*view`), "{table} is a view that can't be written to: name the table beneath it with WithTable, or make it a view of one table and its columns, without GROUP BY, DISTINCT or joins"},
	{regexp.MustCompile(` 42P10 `), "nothing makes the id unique: make the id column UNIQUE or the primary key. A partitioned table takes only a primary key of a column called id and its partition key. A view with an INSTEAD OF trigger takes none: name the table beneath it with WithTable"},
	{regexp.MustCompile(` (428C9|0A000) .*column ("[^"]+")`), "the column ${2} takes no value. If it is generated, run: ALTER TABLE {table} ALTER COLUMN ${2} DROP EXPRESSION. Or write \"-\" for it in WithColumns; for ID and CreatedAt, name another column there"},
	{regexp.MustCompile(` 22P02 .*\b(bigint|integer|smallint)\b`), "if every event is refused, a column is a number and can't be: the id must be a uuid (name another UNIQUE column as ID with WithColumns), created_at a timestamptz; document and user ids may be numbers with WithColumns(Columns{TextIDs: true})"},
	{regexp.MustCompile(` (22P02 .*enum|22001 )`), "if every event of a type is refused, run ALTER TYPE ... ADD VALUE for an enum, make a short column text, or list with WithEventTypes only the types that the column takes"},
	{regexp.MustCompile(` 23502 `), "if every event is refused, nothing fills that column: give it a DEFAULT or a BEFORE INSERT trigger, or, if its name is of letters, digits and underscores, fill it from Event.Extra with WithColumns"},
	{regexp.MustCompile(` 23503 .*constraint ("[^"]+")`), "the row that ${1} points to isn't there: record the event after that row is committed. docevents.SystemUser is only for a table without a foreign key on the user: with WithColumns an empty UserID is stored as NULL"},
	{regexp.MustCompile(` 23(505|P01) .*constraint ("[^"]+")`), "if all later events of a document are refused, drop the constraint ${2}, or make the id column a part of it"},
	{regexp.MustCompile(` 23514 .*partition`), "make a partition for the event's created_at or type, or a DEFAULT one (sql/optional/partitioned.sql)"},
	{regexp.MustCompile(` 23514 .*constraint ("[^"]+")`), "if every event of a type is refused, the CHECK ${1} lacks the type: add it (sql/optional/event_types.sql), or list only the types of the CHECK with WithEventTypes; if the CHECK is about another column, fill that from Event.Extra"},
}

const (
	reload          = "; if that is done, run: NOTIFY pgrst, 'reload schema'"
	anotherRelation = " another-relation"
	anonymous       = "the server took the request for an anonymous one: only Supabase's API gateway reads a secret key (sb_secret_...): check that SUPABASE_URL is the gateway's, or, for a PostgREST without one, use a JWT whose role is service_role"
)

var relationName = regexp.MustCompile(`(?:relation|table|view) "?(?:[^" ]+\.)?([^". ]+)`)

// remedy says what to do about an answer of configuration or bad data. It is empty
// for the latter if nothing is known.
func remedy(err error, schema, table string) string {
	e, _ := errors.AsType[*Error](err)
	answer := e.line()
	if m := relationName.FindStringSubmatch(e.Message); m != nil && m[1] != table {
		answer += anotherRelation
	}
	do := ""
	if classify(err) == configuration {
		do = "compare the table and the key's role with sql/013_create_processing_events_table.sql"
	}
	for _, r := range remedies {
		if m := r.answer.FindStringSubmatchIndex(answer); m != nil {
			do = string(r.answer.ExpandString(nil, r.do, answer, m))
			break
		}
	}
	return strings.NewReplacer("{schema}", sqlName(schema), "{table}", sqlName(schema)+"."+sqlName(table)).Replace(do)
}

// remedy is the same for a client's own table and key.
func (c *Client) remedy(e *Error) string {
	if c.headers["Authorization"] == "" && (e.Code == "PGRST302" || e.Status == 401 && e.Code == "42501") {
		return anonymous
	}
	return remedy(e, c.config.schema, c.config.table)
}

func (c *Client) tableName() string { return sqlName(c.config.schema) + "." + sqlName(c.config.table) }

// bareName matches names that SQL takes without quotes; reserved are the ones among
// them that it doesn't take and that a schema, a table or a column may well have.
// https://www.postgresql.org/docs/15/sql-keywords-appendix.html
var (
	bareName = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)
	reserved = regexp.MustCompile(`^(all|analyze|any|array|as|authorization|binary|both|case|cast|check|column|constraint|create|default|desc|distinct|do|else|end|fetch|for|foreign|from|grant|group|in|into|join|left|like|limit|new|not|null|offset|old|on|only|or|order|primary|references|right|select|table|then|to|union|unique|user|using|verbose|when|where|window|with)$`)
)

// sqlName returns a name as SQL takes it: without quotes capitals would be lost.
func sqlName(name string) string {
	if bareName.MatchString(name) && !reserved.MatchString(name) {
		return name
	}
	return `"` + name + `"`
}
