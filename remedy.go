package docevents

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
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
	{regexp.MustCompile(`^[0-3]\d\d `), "check SUPABASE_URL: what answers there is not Supabase's API (no redirect is followed: it would carry the key to another host)"},
	{regexp.MustCompile(`^(402|540) `), "look at the project in the Supabase dashboard: it is paused or over its quota"},
	{regexp.MustCompile(` 25006 `), "the database is read-only: SUPABASE_URL may be a read replica's, or the project's disk is full (see the dashboard)"},
	{regexp.MustCompile(` PGRST300 `), "give the server its JWT secret (PostgREST's jwt-secret, PGRST_JWT_SECRET): without it no key can be verified"},
	{regexp.MustCompile(` PGRST302 `), "the server saw no token: a proxy in front of it removes the header Authorization"},
	{regexp.MustCompile(` PGRST303 .*expired`), "the key has expired: copy the project's service-role (secret) key again"},
	{regexp.MustCompile(` PGRST303 .*(not yet valid|at future)`), "this passes by itself if the key was made just now or the servers' clocks differ by seconds; if it lasts, copy the key again"},
	{regexp.MustCompile(` PGRST303 .*audience`), "the server accepts keys for another audience: compare the key's claim aud with the server's jwt-aud (PGRST_JWT_AUD)"},
	{regexp.MustCompile(` PGRST303 `), "the server can't use a claim of the key: copy the project's service-role (secret) key again"},
	{regexp.MustCompile(`^401 42501 | 42501 .*row-level security`), "use the service-role (secret) key: this one is kept out by row-level security or a missing grant"},
	{regexp.MustCompile(` 42501 .*for schema`), "run: GRANT USAGE ON SCHEMA {schema} TO service_role;"},
	{regexp.MustCompile(` 42501 .*for sequence`), "run: GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO service_role;"},
	{regexp.MustCompile(` 42501 .*(for function|` + anotherRelation + `)`), "a trigger or view of {table} needs it: let service_role do what the message names, or make the trigger's function SECURITY DEFINER; what the table itself needs: GRANT SELECT, INSERT, DELETE ON {table} TO service_role;"},
	{regexp.MustCompile(` 42501 `), "let service_role do what the message names; for this table, run: GRANT SELECT, INSERT, DELETE ON {table} TO service_role; and for its schema: GRANT USAGE ON SCHEMA {schema} TO service_role;"},
	{regexp.MustCompile(` (42P01|42703|42883) .*(` + anotherRelation + `|record |function )`), "a trigger, rule, view or default of {table} needs it: create it, or change what needs it"},
	{regexp.MustCompile(` (PGRST205|42P01) `), "create the table: run sql/013_create_processing_events_table.sql, or name yours with WithTable and WithSchema" + reload},
	{regexp.MustCompile(` (PGRST204|42703) `), "add the column: {table} needs those of sql/013_create_processing_events_table.sql, or name yours with WithColumns" + reload},
	{regexp.MustCompile(` (PGRST106|3F000) `), "expose the schema {schema} in the project's API settings, or name another with WithSchema"},
	{regexp.MustCompile(`^(40[1456]  |\d+ PGRST125 ).*(HTML|no Route|path)`), "check SUPABASE_URL: the API is not at this address; pass the project's, without a path of its own"},
	{regexp.MustCompile(`^401 `), "check the key: it must be the service-role (secret) key of this very project"},
	{regexp.MustCompile(`^40[456]  `), "check SUPABASE_URL, the API may not be at this address, and the table: a PostgREST before 13 answers so where it doesn't know {table}" + reload},
	{regexp.MustCompile(` 0A000 .*cached plan`), "this passes by itself once the server's connections are renewed, mostly within minutes; if it lasts, restart PostgREST or the pooler"},
	{regexp.MustCompile(` 0A000 .*rules`), "replace the rule of {table} by a trigger: PostgreSQL allows no ON CONFLICT, by which an event is stored once, on a table with a rule for INSERT or UPDATE"},
	{regexp.MustCompile(` 55000 .*deferrable`), "make the key of the id NOT DEFERRABLE: drop the constraint and add it again without DEFERRABLE (ALTER CONSTRAINT can't change a key)"},
	{regexp.MustCompile(` (55000|42809) .*view`), "{table} is a view that can't be written to: name the table beneath it with WithTable, or make it a view of one table and its columns, without GROUP BY, DISTINCT or joins"},
	{regexp.MustCompile(` 42P10 `), "make the id column UNIQUE or the primary key: it is what an event is stored once by. A partitioned table takes only a primary key of a column called id and its partition key, and a view with an INSTEAD OF trigger takes none: name the table beneath it with WithTable"},
	{regexp.MustCompile(` 428C9 `), "that column is GENERATED ALWAYS: make it an ordinary one, or, unless it is the id or the time, say \"-\" for it in WithColumns"},
	{regexp.MustCompile(` 22P02 .*\b(bigint|integer|smallint)\b`), "if every event is refused, the id column is a number: name a unique uuid column with WithColumns (Columns.ID), or make the id a uuid; document and user ids may be numbers with Columns.TextIDs"},
	{regexp.MustCompile(` 22P02 .*enum`), "if every event of a type is refused, the enum lacks it: run ALTER TYPE ... ADD VALUE, or list the types that it has with WithEventTypes"},
	{regexp.MustCompile(` 23502 `), "if every event is refused, nobody fills that column: give it a default or a trigger, or fill it from Event.Extra with WithColumns"},
	{regexp.MustCompile(` 23503 .*constraint ("[^"]+")`), "the row that ${1} points to isn't there: record the event after that row is committed. docevents.SystemUser is only for a table without a foreign key on the user: with WithColumns an empty UserID is stored as NULL"},
	{regexp.MustCompile(` 23514 .*partition`), "make a partition for the events' created_at, or a default one: see sql/optional/partitioned.sql"},
	{regexp.MustCompile(` 23514 .*type`), "if every event of a type is refused, the CHECK lacks it: run sql/optional/event_types.sql with it, and list the types with WithEventTypes"},
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

// reserved are the words that SQL takes for a name in quotes alone.
// https://www.postgresql.org/docs/15/sql-keywords-appendix.html
const reserved = " all analyse analyze and any array as asc asymmetric authorization binary both case cast check collate collation column concurrently " +
	"constraint create cross current_catalog current_date current_role current_schema current_time current_timestamp current_user default deferrable " +
	"desc distinct do else end except false fetch for foreign freeze from full grant group having ilike in initially inner intersect into is isnull " +
	"join lateral leading left like limit localtime localtimestamp natural not notnull null offset on only or order outer overlaps placing primary " +
	"references returning right select session_user similar some symmetric table tablesample then to trailing true union unique user using variadic " +
	"verbose when where window with "

var bareName = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)

// sqlName returns a name as SQL takes it: without quotes capitals would be lost.
func sqlName(name string) string {
	if bareName.MatchString(name) && !strings.Contains(reserved, " "+name+" ") {
		return name
	}
	return `"` + name + `"`
}

// The findings about a column.

// notUUID is about the id.
func (r *rehearsal) notUUID() string {
	id := r.config.columns.ID
	doesnt := fmt.Sprintf("the column %s doesn't take the UUID by which an event is stored once (Supabase's Table Editor makes it a bigint): ", id)
	switch at := r.config.columns.CreatedAt; {
	case r.about.isView():
		return doesnt + "let the view show a uuid column that is UNIQUE, and name it as ID with WithColumns"
	case r.isKey(at): // a partitioned table takes no UNIQUE of one column
		return doesnt + fmt.Sprintf("give the table a uuid column called id, in its primary key: (id, %s)", at)
	}
	name := "event_id"
	for r.has(name) || slices.Contains(r.columns, name) {
		name += "_"
	}
	return doesnt + fmt.Sprintf("give the table one that does, ALTER TABLE %s ADD COLUMN %s uuid NOT NULL DEFAULT gen_random_uuid() UNIQUE, and say WithColumns(Columns{ID: %[2]q}); or make %s itself a uuid", r.tableName(), name, id)
}

// notUnique is about an id by which nothing keeps an event from being stored twice;
// e is the refusal of ON CONFLICT, if there was one. Without a name for the id,
// PostgREST names the primary key there, which is refused for a view alone.
func (r *rehearsal) notUnique(e *Error) string {
	id, at := r.config.columns.ID, r.config.columns.CreatedAt
	nothing := fmt.Sprintf("nothing makes the column %s unique, so that an event sent again would be stored twice: ", id)
	switch {
	case r.about.isView(), e != nil && id == base[0].column:
		return nothing + "if the table is a view, name the table beneath it with WithTable, or a view of it without INSTEAD OF triggers that shows its key"
	case r.isKey(id) && e == nil:
		return nothing + "a trigger replaces it: let a DEFAULT fill it instead"
	case r.isKey(at):
		return nothing + fmt.Sprintf("a partitioned table needs a primary key of the column, called id, and of its partition key: (id, %s)", at)
	case id == base[0].column:
		return nothing + fmt.Sprintf("run: ALTER TABLE %s ADD PRIMARY KEY (%s); or, if it is partitioned, one of its partition key as well", r.tableName(), sqlName(id))
	}
	return nothing + fmt.Sprintf("run: ALTER TABLE %s ADD UNIQUE (%s); or, if it is partitioned, call the column id and make a primary key of it and the partition key", r.tableName(), sqlName(id))
}

// isKey reports whether a column is in the primary key, by the description.
func (r *rehearsal) isKey(name string) bool {
	return strings.Contains(r.about.Properties[name].Description, "<pk/>")
}

// unfilled is about a column that is NOT NULL and that the app doesn't know.
func (r *rehearsal) unfilled(name string) string {
	finding := fmt.Sprintf("the column %s takes no NULL, and nobody fills it: give it a DEFAULT or a BEFORE INSERT trigger", cmp.Or(name, "of that domain"))
	if columnFormat.MatchString(name) && len(r.config.columns.Extra) < maxExtraColumns {
		finding += ", or name it in WithColumns' Extra and fill it with every event"
	}
	return finding
}

// otherType is about a column whose type doesn't take what events have.
func (r *rehearsal) otherType(name string) string {
	columns := &r.config.columns
	switch name {
	case columns.ID:
		return r.notUUID()
	case columns.CreatedAt:
		return fmt.Sprintf("the column %s takes no time: make it a timestamptz, or name another one as CreatedAt with WithColumns", name)
	case columns.DocumentID, columns.UserID:
		return fmt.Sprintf("the column %s takes no UUID: if its ids are text or numbers, use WithColumns(Columns{TextIDs: true}) and pass them as they are", name)
	}
	return fmt.Sprintf("the column %s is of another type than the migration's: say \"-\" for it in WithColumns, and name it in its Extra", name)
}

// generated is about a column that takes no value.
func (r *rehearsal) generated(name string) string {
	columns := &r.config.columns
	switch {
	case name == columns.ID:
		return r.notUUID()
	case name == columns.CreatedAt:
		return fmt.Sprintf("the column %s takes no value: events bring their time, and purges go by it: run: ALTER TABLE %s ALTER COLUMN %s DROP EXPRESSION", name, r.tableName(), sqlName(name))
	case slices.Contains(columns.Extra, name):
		return fmt.Sprintf("the column %s takes no value: take it out of WithColumns' Extra, or make it an ordinary one", name)
	}
	return fmt.Sprintf("the column %s takes no value: say \"-\" for it in WithColumns, or make it an ordinary one", name)
}
