package advice

import "regexp"

const (
	reload    = "; if that is done, run: NOTIFY pgrst, 'reload schema'"
	anonymous = "the server treated the request as anonymous, because only Supabase's API gateway can read a secret key (sb_secret_...): check that SUPABASE_URL is the gateway's address, or, for a PostgREST without a gateway, use a JWT whose role is service_role"

	// anotherRelation is appended to an error message about a table or view other than
	// the client's table, so that rules can match such messages.
	anotherRelation = " another-relation"
)

// relationName finds the name of the table or view in an error message, without its
// schema.
var relationName = regexp.MustCompile(`(?:relation|table|view) "?(?:[^" ]+\.)?([^". ]+)`)

// answers has the advice for responses to requests about the table.
var answers = []rule{
	{regexp.MustCompile(`^[0-3]\d\d `), "check SUPABASE_URL: the answer is not from Supabase's API (no redirect is followed, because it would carry the key to another host)"},
	{regexp.MustCompile(`^(402|540) `), "look at the project in the Supabase dashboard: it is paused or over its quota"},
	{regexp.MustCompile(` 25006 `), "the database is read-only: SUPABASE_URL may be a read replica's, or the project's disk is full (see the dashboard)"},
	{regexp.MustCompile(` PGRST300 `), "give the server its JWT secret (PostgREST's jwt-secret, PGRST_JWT_SECRET): without it no key can be verified"},
	{regexp.MustCompile(` PGRST302 `), "the server saw no token: a proxy in front of it removes the header Authorization"},
	{regexp.MustCompile(` PGRST303 .*(not yet valid|at future)`), "wait: this ends within seconds if the key is new or the servers' clocks differ; if it lasts, copy the key again"},
	{regexp.MustCompile(` PGRST303 .*audience`), "the server accepts keys for another audience: compare the key's claim aud with the server's jwt-aud (PGRST_JWT_AUD)"},
	{regexp.MustCompile(` PGRST303 `), "the key has expired or has a claim that the server can't use: copy the project's service-role (secret) key again"},
	{regexp.MustCompile(`^401 42501 | 42501 .*row-level security`), "use the service-role (secret) key: this one is kept out by row-level security or a missing grant"},
	{regexp.MustCompile(` 42501 .*(for function|` + anotherRelation + `)`), "a trigger or view of {table} needs this right: grant it to service_role, or make the trigger's function SECURITY DEFINER; for the table itself, run: GRANT SELECT, INSERT, DELETE ON {table} TO service_role;"},
	{regexp.MustCompile(` 42501 `), "run: GRANT SELECT, INSERT, DELETE ON {table} TO service_role; if the message names the schema or a sequence, run: GRANT USAGE ON SCHEMA {schema} TO service_role; GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO service_role;"},
	{regexp.MustCompile(` (42P01|42703|42883) .*(` + anotherRelation + `|record |function )`), "a trigger, rule, view or default of {table} uses something that is missing: create that, or change the trigger, rule, view or default"},
	{regexp.MustCompile(` 42P01 `), "create the table: run sql/013_create_processing_events_table.sql, or name yours with WithTable and WithSchema" + reload},
	{regexp.MustCompile(` PGRST205 `), "if {table} exists, run: NOTIFY pgrst, 'reload schema'; if not, create the table: run sql/013_create_processing_events_table.sql, or name yours with WithTable and WithSchema"},
	{regexp.MustCompile(` (PGRST204|42703) `), "add the column: {table} needs those of sql/013_create_processing_events_table.sql, or name yours with WithColumns" + reload},
	{regexp.MustCompile(` (PGRST106|3F000) `), "expose the schema {schema} in the project's API settings, or name another with WithSchema"},
	{regexp.MustCompile(`^40[456]  | PGRST125 |^401  .*(HTML|no Route|path)`), "check SUPABASE_URL: the API is not at this address (pass the project's URL without a path), or it is a PostgREST before 13 that doesn't know {table}" + reload},
	{regexp.MustCompile(`^401 `), "check the key: it must be the service-role (secret) key of this very project"},
	{regexp.MustCompile(` 0A000 .*cached plan`), "wait: this ends when the server renews its connections, mostly within minutes; if it lasts, restart PostgREST or the pooler"},
	{regexp.MustCompile(` 0A000 .*rules`), "replace the rule of {table} with a trigger: docevents needs ON CONFLICT to store an event once, and PostgreSQL doesn't allow it on a table with a rule for INSERT or UPDATE"},
	{regexp.MustCompile(` 55000 .*deferrable`), "make the key of the id NOT DEFERRABLE: drop the constraint and add it again without DEFERRABLE (ALTER CONSTRAINT can't change a key)"},
	{regexp.MustCompile(` (55000|42809) .*view`), "{table} is a view that can't be written to: name the table beneath it with WithTable, or make it a view of one table and its columns, without GROUP BY, DISTINCT or joins"},
	{regexp.MustCompile(` 42P10 `), "nothing makes the id unique: make the id column UNIQUE or the primary key. A partitioned table takes only a primary key of a column called id and its partition key. A view with an INSTEAD OF trigger takes none: name the table beneath it with WithTable"},
	{regexp.MustCompile(` (428C9|0A000) .*column ("[^"]+")`), "the column ${2} takes no value. If it is generated, run: ALTER TABLE {table} ALTER COLUMN ${2} DROP EXPRESSION. Or write \"-\" for it in WithColumns; for ID and CreatedAt, name another column there"},
	{regexp.MustCompile(` 22P02 .*\b(bigint|integer|smallint)\b`), "if every event is refused, a column is a number but can't be one: the id must be a uuid (name another UNIQUE column as ID with WithColumns), created_at a timestamptz; document and user ids may be numbers with WithColumns(Columns{TextIDs: true})"},
	{regexp.MustCompile(` (22P02 .*enum|22001 )`), "if every event of a type is refused, run ALTER TYPE ... ADD VALUE for an enum, make a short column text, or list with WithEventTypes only the types that the column takes"},
	{regexp.MustCompile(` 23502 `), "if every event is refused, nothing fills that column: give it a DEFAULT or a BEFORE INSERT trigger, or, if its name is of letters, digits and underscores, fill it from Event.Extra with WithColumns"},
	{regexp.MustCompile(` 23503 .*constraint ("[^"]+")`), "the row that ${1} points to isn't there: record the event after that row is committed. docevents.SystemUser is only for a table without a foreign key on the user: with WithColumns an empty UserID is stored as NULL"},
	{regexp.MustCompile(` 23(505|P01) .*constraint ("[^"]+")`), "if all later events of a document are refused, drop the constraint ${2}, or make the id column a part of it; if a trigger inserts into the table of ${2}, add ON CONFLICT DO NOTHING there"},
	{regexp.MustCompile(` 23514 .*partition`), "make a partition for the event's created_at or type, or a DEFAULT one (sql/optional/partitioned.sql)"},
	{regexp.MustCompile(` 23514 .*constraint ("[^"]+")`), "if every event of a type is refused, the CHECK ${1} lacks the type: add it (sql/optional/event_types.sql), or list only the types of the CHECK with WithEventTypes; if the CHECK is about another column, fill that from Event.Extra"},
}

// calls has the advice for responses to calls to the functions in
// sql/014_create_docevents_reading.sql.
var calls = []rule{
	{regexp.MustCompile(` PGRST20[23] | 42883 .*function (public\.)?docevents_`), "create the function: run sql/014_create_docevents_reading.sql in the project's database, again if an older version of it has run; it serves every table, including {table}" + reload},
	{regexp.MustCompile(` 42501 .*for function`), "run sql/014_create_docevents_reading.sql again: it grants EXECUTE to service_role"},
	{regexp.MustCompile(` PGRST106 `), "expose the schema public in the project's API settings: the functions of sql/014_create_docevents_reading.sql are in it"},
	{regexp.MustCompile(` 3F000 `), "name the table's schema with WithSchema"},
	{regexp.MustCompile(` 42703 `), "name the columns of {table} with WithColumns (\"-\" for a column that it lacks), and use only its columns in Where"},
	{regexp.MustCompile(` 42804 `), "the column for CreatedAt must be a timestamptz or a timestamp: name it with WithColumns"},
	{regexp.MustCompile(` 42883 .*operator`), "in Where name only columns that can be compared: json can't"},
	{regexp.MustCompile(` 22(P02|003|007|008) `), "a value of Where doesn't fit its column's type"},
	{regexp.MustCompile(`^5[02]4 | 57014 `), "ask for a shorter range, or raise service_role's statement_timeout"},
}
