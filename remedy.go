package docevents

import (
	"errors"
	"regexp"
	"strings"
)

// What to do about an answer, by "STATUS CODE message"; the first match wins.
// {schema} and {table} stand for the client's. Those for codes of bad data hold
// where every row is refused: then it is the table that is at fault.
var remedies = []struct {
	answer *regexp.Regexp
	do     string
}{
	{regexp.MustCompile(`^[0-3]\d\d `), "check SUPABASE_URL: what answers there is not Supabase's API (no redirect is followed: it would carry the key to another host)"},
	{regexp.MustCompile(`^(402|540) `), "look at the project in the Supabase dashboard: it is paused or over its quota"},
	{regexp.MustCompile(` 25006 `), "the database is read-only: SUPABASE_URL may be a read replica's, or the project's disk is full (see the dashboard)"},
	{regexp.MustCompile(` PGRST303 .*expired`), "the key has expired: copy the project's service-role (secret) key again"},
	{regexp.MustCompile(` PGRST303 `), "this passes by itself where the key was made just now or the servers' clocks differ by seconds; if it lasts, copy the key again"},
	{regexp.MustCompile(`^401 42501 | 42501 .*row-level security`), "use the service-role (secret) key: this one is kept out by row-level security or a missing grant"},
	{regexp.MustCompile(` 42501 .*for schema`), "run: GRANT USAGE ON SCHEMA {schema} TO service_role;"},
	{regexp.MustCompile(` 42501 .*for sequence`), "run: GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO service_role;"},
	{regexp.MustCompile(` 42501 `), "let service_role do what the message names; for this table, run: GRANT SELECT, INSERT, DELETE ON {table} TO service_role; and for its schema: GRANT USAGE ON SCHEMA {schema} TO service_role;"},
	{regexp.MustCompile(` (PGRST205|42P01) `), "create the table: run sql/013_create_processing_events_table.sql, or name yours with WithTable and WithSchema" + reload},
	{regexp.MustCompile(` (PGRST204|42703) `), "add the column: {table} needs those of sql/013_create_processing_events_table.sql, or name yours with WithColumns" + reload},
	{regexp.MustCompile(` (PGRST106|3F000) `), "expose the schema {schema} in the project's API settings, or name another with WithSchema"},
	{regexp.MustCompile(`^(40[1456]  |\d+ PGRST125 ).*(HTML|no Route|path)`), "check SUPABASE_URL: the API is not at this address; pass the project's, without a path of its own"},
	{regexp.MustCompile(`^401 `), "check the key: it must be the service-role (secret) key of this very project"},
	{regexp.MustCompile(`^40[456]  `), "check SUPABASE_URL, the API may not be at this address, and the table: a PostgREST before 13 answers so where it doesn't know {table}" + reload},
	{regexp.MustCompile(` 0A000 .*cached plan`), "this passes by itself once the server's connections are renewed, mostly within minutes; if it lasts, restart PostgREST or the pooler"},
	{regexp.MustCompile(` 42P10 `), "make the id column UNIQUE or the primary key: it is what an event is stored once by"},
	{regexp.MustCompile(` 428C9 `), "that column is GENERATED ALWAYS: say \"-\" for it in WithColumns; if it is the id, name a unique uuid column there (Columns.ID), or make it a uuid"},
	{regexp.MustCompile(` 22P02 .*\b(bigint|integer|smallint)\b`), "if every event is refused, the id column is a number: name a unique uuid column with WithColumns (Columns.ID), or make the id a uuid"},
	{regexp.MustCompile(` 22P02 .*(?i:` + enum + `)`), "if every event of a type is refused, the enum lacks it: run ALTER TYPE ... ADD VALUE, or list the types that it has with WithEventTypes"},
	{regexp.MustCompile(` 23502 `), "if every event is refused, nobody fills that column: give it a default or a trigger, or fill it from Event.Extra with WithColumns"},
	{regexp.MustCompile(` 23514 .*(?i:` + partition + `)`), "make a partition for the events' created_at, or a default one: see sql/optional/partitioned.sql"},
	{regexp.MustCompile(` 23514 .*type`), "if every event of a type is refused, the CHECK lacks it: run sql/optional/event_types.sql with it, and list the types with WithEventTypes"},
}

// PostgreSQL's words, as it has them in its languages.
const (
	enum      = `enum|列挙|열거|перечисл|перелік|枚举`
	partition = `partition|partición|partizion|パーティション|파티션|секци|секці|分区`
)

const reload = "; if that is done, run: NOTIFY pgrst, 'reload schema'"

// remedy says what to do about an answer of configuration or bad data. "" for
// the latter means that nothing is known.
func remedy(err error, schema, table string) string {
	e, _ := errors.AsType[*Error](err)
	do := ""
	if classify(err) == configuration {
		do = "compare the table and the key's role with sql/013_create_processing_events_table.sql"
	}
	for _, r := range remedies {
		if r.answer.MatchString(e.line()) {
			do = r.do
			break
		}
	}
	return strings.NewReplacer("{schema}", schema, "{table}", sqlName(schema)+"."+sqlName(table)).Replace(do)
}
