package checking

import "github.com/docevents/docevents-go"

const (
	document = "11111111-1111-4111-8111-111111111111"
	user     = "22222222-2222-4222-8222-222222222222"

	parents = `CREATE TABLE IF NOT EXISTS public.check_documents (id uuid PRIMARY KEY); CREATE TABLE IF NOT EXISTS public.check_tenants (id bigint PRIMARY KEY);
		CREATE TABLE IF NOT EXISTS public.check_nobody (id uuid PRIMARY KEY); CREATE TABLE IF NOT EXISTS public.check_audit (what text NOT NULL);
		REVOKE ALL ON public.check_audit FROM service_role; GRANT ALL ON public.check_documents, public.check_tenants, public.check_nobody TO service_role;
		INSERT INTO public.check_documents VALUES ('` + document + `') ON CONFLICT DO NOTHING; INSERT INTO public.check_tenants VALUES (7) ON CONFLICT DO NOTHING`

	columns = `document_id uuid NOT NULL, user_id uuid NOT NULL, event_type text NOT NULL,
		duration_ms integer, error_message text, stage text, created_at timestamptz NOT NULL DEFAULT now()`
	viewed = `CREATE TABLE {t}_base (id uuid PRIMARY KEY, ` + columns + `); CREATE VIEW {t} AS SELECT * FROM {t}_base`
	table  = `CREATE TABLE {t} (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), ` + columns + `)`
)

// A quirk is a difference from the migration's table. In its SQL, {t} is the table
// with its schema and {n} is the table's name.
type quirk struct {
	name    string
	about   string // two quirks about the same thing aren't combined
	table   string // replaces the usual CREATE TABLE
	sql     string // runs after CREATE TABLE
	after   string // runs after the grants
	columns docevents.Columns
	own     bool // the client has WithColumns even if columns is empty
	types   docevents.EventTypes
	fill    map[string]any // the values that a suitable app sends
	none    []string       // the columns that a suitable app doesn't send
	hidden  bool           // Check can't detect the fault
}

func extra(names ...string) docevents.Columns { return docevents.Columns{Extra: names} }

func trigger(when, body string) string {
	return "CREATE FUNCTION {t}_" + "f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN " + body + " END $$; CREATE TRIGGER tr " + when + " ON {t} FOR EACH ROW EXECUTE FUNCTION {t}_f()"
}

var doneWords = docevents.EventTypes{
	Arrived: []docevents.EventType{"queued"}, Started: []docevents.EventType{"running"},
	Completed: []docevents.EventType{"done"}, Failed: []docevents.EventType{"broken"},
}

var quirks = []quirk{
	{name: "the migration's"},

	// Types.
	{name: "CHECK of the types", about: "type", sql: "ALTER TABLE {t} ADD CHECK (event_type IN ('upload_started', 'processing_started', 'completed', 'failed'))"},
	{name: "CHECK lacks a type", about: "type", sql: "ALTER TABLE {t} ADD CONSTRAINT valid_kind CHECK (event_type IN ('upload_started', 'processing_started', 'completed'))"},
	{name: "CHECK of other types", about: "type", sql: "ALTER TABLE {t} ADD CHECK (event_type IN ('queued'))"},
	{name: "CHECK of own types", about: "type", types: doneWords, sql: "ALTER TABLE {t} ADD CHECK (event_type IN ('queued', 'running', 'done', 'broken'))"},
	{name: "enum of types", about: "type", types: doneWords, sql: "CREATE TYPE {t}_kind AS ENUM ('queued', 'running', 'done', 'broken'); ALTER TABLE {t} ALTER event_type TYPE {t}_kind USING NULL"},
	{name: "enum lacks types", about: "type", sql: "CREATE TYPE {t}_kind AS ENUM ('completed', 'failed'); ALTER TABLE {t} ALTER event_type TYPE {t}_kind USING NULL"},
	{name: "short type", about: "type", sql: "ALTER TABLE {t} ALTER event_type TYPE varchar(16)"},
	{name: "a failure needs a message", about: "message", sql: "ALTER TABLE {t} ADD CONSTRAINT explained CHECK (event_type <> 'failed' OR error_message IS NOT NULL)"},
	{name: "a message only of a failure", about: "message", sql: "ALTER TABLE {t} ADD CONSTRAINT quiet CHECK (event_type = 'failed' OR error_message IS NULL)"},

	// Values.
	{name: "stage enum", about: "stage", fill: map[string]any{"stage": "ocr"}, sql: "CREATE TYPE {t}_kind AS ENUM ('ocr', 'parse'); ALTER TABLE {t} ALTER stage TYPE {t}_kind USING NULL"},
	{name: "stage NOT NULL", about: "stage", fill: map[string]any{"stage": "ocr"}, sql: "ALTER TABLE {t} ALTER stage SET NOT NULL"},
	{name: "stage of a list", about: "stage", sql: "ALTER TABLE {t} ADD CONSTRAINT known_step CHECK (stage IN ('ocr', 'parse'))"},
	{name: "stage of a list NOT NULL", about: "stage", hidden: true, fill: map[string]any{"stage": "ocr"}, sql: "ALTER TABLE {t} ALTER stage SET NOT NULL, ADD CONSTRAINT known_step CHECK (stage IN ('ocr', 'parse'))"},
	{name: "short stage", about: "stage", sql: "ALTER TABLE {t} ALTER stage TYPE varchar(3)"},
	{name: "duration numeric", about: "duration", sql: "ALTER TABLE {t} ALTER duration_ms TYPE numeric"},
	{name: "duration interval", about: "duration", fill: map[string]any{"duration_ms": 1840}, sql: "ALTER TABLE {t} ALTER duration_ms TYPE interval USING NULL"},
	{name: "duration date", about: "duration", fill: map[string]any{"duration_ms": 1840}, sql: "ALTER TABLE {t} ALTER duration_ms TYPE date USING NULL"},
	{name: "duration NOT NULL", about: "duration", fill: map[string]any{"duration_ms": 1840}, sql: "ALTER TABLE {t} ALTER duration_ms SET NOT NULL"},
	{name: "duration small", about: "duration", sql: "ALTER TABLE {t} ADD CHECK (duration_ms < 100000)"},
	{name: "message NOT NULL", about: "message", fill: map[string]any{"error_message": "no"}, sql: "ALTER TABLE {t} ALTER error_message SET NOT NULL"},
	{name: "timestamp", about: "time", sql: "ALTER TABLE {t} ALTER created_at TYPE timestamp"},
	{name: "date", about: "time", sql: "ALTER TABLE {t} ALTER created_at TYPE date"},
	{name: "generated time", about: "time", sql: "ALTER TABLE {t} DROP created_at, ADD made timestamp, ADD created_at timestamp GENERATED ALWAYS AS (made) STORED"},
	{name: "generated stage", about: "stage", sql: "ALTER TABLE {t} DROP stage, ADD stage text GENERATED ALWAYS AS (event_type || '!') STORED"},

	{name: "generated from the stage", about: "stage", fill: map[string]any{"stage": "OCR"}, sql: "ALTER TABLE {t} ADD step text GENERATED ALWAYS AS (lower(stage)) STORED NOT NULL"},
	{name: "generated from nothing", about: "stage", sql: "ALTER TABLE {t} ADD name text, ADD step text GENERATED ALWAYS AS (lower(name)) STORED NOT NULL"},
	{name: "a trigger fills a column from the stage", about: "stage", fill: map[string]any{"stage": "ocr"}, sql: "ALTER TABLE {t} ADD step text NOT NULL; " + trigger("BEFORE INSERT", "NEW.step := NEW.stage; RETURN NEW;")},

	// Documents and users.
	{name: "user bigint", about: "user", sql: "ALTER TABLE {t} DROP user_id, ADD user_id bigint"},
	{name: "document text", about: "document", columns: docevents.Columns{TextIDs: true}, fill: map[string]any{"document_id": "a/1.pdf"}, sql: "ALTER TABLE {t} ALTER document_id TYPE text"},
	{name: "document bigint", about: "document", columns: docevents.Columns{TextIDs: true}, fill: map[string]any{"document_id": "42"}, sql: "ALTER TABLE {t} DROP document_id, ADD document_id bigint NOT NULL"},
	{name: "document short", about: "document", sql: "ALTER TABLE {t} ALTER document_id TYPE varchar(10)"},
	{name: "user nullable, with a foreign key", about: "user", own: true, fill: map[string]any{"user_id": nil}, sql: "ALTER TABLE {t} ALTER user_id DROP NOT NULL, ADD FOREIGN KEY (user_id) REFERENCES public.check_nobody"},
	{name: "document with a foreign key", about: "document", hidden: true, sql: "ALTER TABLE {t} ADD FOREIGN KEY (document_id) REFERENCES public.check_documents"},
	{name: "not SystemUser", about: "user", sql: "ALTER TABLE {t} ADD CONSTRAINT not_nil CHECK (user_id <> '00000000-0000-0000-0000-000000000000')"},
	{name: "no user column", about: "user", columns: docevents.Columns{UserID: "-"}, none: []string{"user_id"}, sql: "ALTER TABLE {t} DROP user_id"},
	{name: "user column is missing", about: "user", sql: "ALTER TABLE {t} DROP user_id"},
	{name: "one event for each document", about: "unique", sql: "ALTER TABLE {t} ADD UNIQUE (document_id)"},
	{name: "one event for each user", about: "unique", sql: "ALTER TABLE {t} ADD UNIQUE (user_id)"},
	{name: "exclusion", about: "unique", sql: "ALTER TABLE {t} ADD EXCLUDE USING btree (document_id WITH =)"},
	{name: "unique with the time", about: "unique", sql: "ALTER TABLE {t} ADD UNIQUE (document_id, created_at)"},

	// Further columns.
	{name: "extra bigint", columns: extra("tenant_id"), fill: map[string]any{"tenant_id": 7}, sql: "ALTER TABLE {t} ADD tenant_id bigint NOT NULL"},
	{name: "extra enum", columns: extra("plan"), fill: map[string]any{"plan": "paid"}, sql: "CREATE TYPE {t}_plan AS ENUM ('free', 'paid'); ALTER TABLE {t} ADD plan {t}_plan NOT NULL"},
	{name: "extra date", columns: extra("due"), fill: map[string]any{"due": "2026-01-01"}, sql: "ALTER TABLE {t} ADD due date NOT NULL"},
	{name: "extra inet", columns: extra("host"), fill: map[string]any{"host": "10.0.0.1"}, sql: "ALTER TABLE {t} ADD host inet NOT NULL"},
	{name: "extra time of day", columns: extra("opens"), fill: map[string]any{"opens": "10:00"}, sql: "ALTER TABLE {t} ADD opens time NOT NULL"},
	{name: "extra default of a list", columns: extra("channel"), sql: "ALTER TABLE {t} ADD channel text NOT NULL DEFAULT 'api' CHECK (channel IN ('api', 'mail'))"},
	{name: "extra whose name contains the type's", hidden: true, columns: extra("job_event_type"), fill: map[string]any{"job_event_type": "pdf"}, sql: "ALTER TABLE {t} ADD job_event_type text NOT NULL CHECK (job_event_type IN ('pdf', 'docx'))"},
	{name: "extra array", columns: extra("tags"), fill: map[string]any{"tags": []string{"a"}}, sql: "ALTER TABLE {t} ADD tags text[] NOT NULL"},
	{name: "extra boolean", columns: extra("flag"), fill: map[string]any{"flag": true}, sql: "ALTER TABLE {t} ADD flag boolean NOT NULL"},
	{name: "extra short", columns: extra("code"), fill: map[string]any{"code": "abc"}, sql: "ALTER TABLE {t} ADD code char(3) NOT NULL"},
	{name: "extra jsonb", columns: extra("meta"), fill: map[string]any{"meta": map[string]any{}}, sql: "ALTER TABLE {t} ADD meta jsonb NOT NULL DEFAULT '{}'"},
	{name: "extra domain", hidden: true, columns: extra("mail"), fill: map[string]any{"mail": "a@b.co"}, sql: "CREATE DOMAIN {t}_mail AS text NOT NULL CHECK (value LIKE '%@%'); ALTER TABLE {t} ADD mail {t}_mail"},
	{name: "extra of a list", hidden: true, columns: extra("origin"), fill: map[string]any{"origin": "api"}, sql: "ALTER TABLE {t} ADD origin text NOT NULL CONSTRAINT known_source CHECK (origin IN ('api', 'mail'))"},
	{name: "extra required by a CHECK", columns: extra("page"), fill: map[string]any{"page": 1}, sql: "ALTER TABLE {t} ADD page integer, ADD CONSTRAINT must CHECK (page IS NOT NULL)"},
	{name: "one of two", columns: extra("page", "pages"), fill: map[string]any{"page": 1}, sql: "ALTER TABLE {t} ADD page integer, ADD pages integer, ADD CONSTRAINT one_of CHECK (num_nonnulls(page, pages) = 1)"},
	{name: "extra with a foreign key", hidden: true, columns: extra("tenant"), fill: map[string]any{"tenant": 7}, sql: "ALTER TABLE {t} ADD tenant bigint NOT NULL REFERENCES public.check_tenants"},
	{name: "extra nullable with a foreign key", columns: extra("client"), fill: map[string]any{"client": 7}, sql: "ALTER TABLE {t} ADD client bigint REFERENCES public.check_tenants"},
	{name: "extra is missing", columns: extra("absent"), fill: map[string]any{"absent": 1}},
	{name: "NOT NULL that nobody fills", sql: "ALTER TABLE {t} ADD org_id uuid NOT NULL"},
	{name: "NOT NULL number that nobody fills", sql: "ALTER TABLE {t} ADD team_id bigint NOT NULL"},
	{name: "NOT NULL with a default", sql: "ALTER TABLE {t} ADD region text NOT NULL DEFAULT 'eu'"},
	{name: "NOT NULL that a trigger fills", about: "trigger", sql: "ALTER TABLE {t} ADD zone text NOT NULL; " + trigger("BEFORE INSERT", "NEW.zone := 'a'; RETURN NEW;")},

	// Keys.
	{name: "no key", about: "id", sql: "ALTER TABLE {t} DROP CONSTRAINT {n}_pkey"},
	{name: "id unique", about: "id", sql: "ALTER TABLE {t} DROP CONSTRAINT {n}_pkey, ADD UNIQUE (id)"},
	{name: "id unique and nullable", about: "id", sql: "ALTER TABLE {t} DROP id, ADD id uuid UNIQUE"},
	{name: "id text", about: "id", sql: "ALTER TABLE {t} ALTER id DROP DEFAULT, ALTER id TYPE text"},
	{name: "id short", about: "id", sql: "ALTER TABLE {t} ALTER id DROP DEFAULT, ALTER id TYPE varchar(20)"},
	{name: "id generated", about: "id", sql: "ALTER TABLE {t} DROP id, ADD id uuid GENERATED ALWAYS AS (md5(document_id::text)::uuid) STORED PRIMARY KEY"},
	{name: "key of the document and the id", about: "id", sql: "ALTER TABLE {t} DROP CONSTRAINT {n}_pkey, ADD PRIMARY KEY (document_id, id)"},
	{name: "id bigint", about: "id", sql: "ALTER TABLE {t} DROP id, ADD id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY"},
	{name: "id bigint always", about: "id", sql: "ALTER TABLE {t} DROP id, ADD id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY"},
	{name: "event_id", about: "id", columns: docevents.Columns{ID: "event_id"}, sql: "ALTER TABLE {t} DROP id, ADD id bigserial PRIMARY KEY, ADD event_id uuid NOT NULL UNIQUE", after: "GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO service_role"},
	{name: "event_id that isn't unique", about: "id", columns: docevents.Columns{ID: "event_id"}, sql: "ALTER TABLE {t} ADD event_id uuid"},
	{name: "deferrable key", about: "id", sql: "ALTER TABLE {t} DROP CONSTRAINT {n}_pkey, ADD PRIMARY KEY (id) DEFERRABLE"},
	{name: "key with the time", about: "id", sql: "ALTER TABLE {t} DROP CONSTRAINT {n}_pkey, ADD PRIMARY KEY (id, created_at)"},
	{name: "a trigger replaces the id", about: "id", sql: trigger("BEFORE INSERT", "NEW.id := gen_random_uuid(); RETURN NEW;")},

	// Triggers, rules, grants.
	{name: "a trigger raises", about: "trigger", hidden: true, sql: trigger("BEFORE INSERT", "RAISE EXCEPTION 'no';")},
	{name: "a trigger rejects unknown documents", about: "trigger", sql: trigger("BEFORE INSERT", "IF NEW.document_id::text NOT IN (SELECT id::text FROM public.check_documents UNION SELECT 'a/1.pdf') THEN RAISE check_violation USING MESSAGE = 'unknown'; END IF; RETURN NEW;"), hidden: true},
	{name: "a trigger without a right", about: "trigger", sql: trigger("AFTER INSERT", "INSERT INTO public.check_audit VALUES ('x'); RETURN NULL;")},
	{name: "a trigger to a missing table", about: "trigger", sql: trigger("AFTER INSERT", "INSERT INTO public.check_gone VALUES ('x'); RETURN NULL;")},
	{name: "a trigger discards rows", about: "trigger", sql: trigger("BEFORE INSERT", "RETURN NULL;")},
	{name: "a trigger discards a type", about: "trigger", hidden: true, sql: trigger("BEFORE INSERT", "IF NEW.event_type::text IN ('completed', 'done') THEN RETURN NULL; END IF; RETURN NEW;")},
	{name: "a trigger keeps one event for each document", about: "trigger", hidden: true, sql: trigger("BEFORE INSERT", "IF EXISTS (SELECT FROM {t} WHERE document_id = NEW.document_id) THEN RETURN NULL; END IF; RETURN NEW;")},
	{name: "a deferred trigger", about: "trigger", hidden: true, sql: "CREATE FUNCTION {t}_f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$; CREATE CONSTRAINT TRIGGER tr AFTER INSERT ON {t} DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {t}_f()"},
	{name: "a rule", sql: "CREATE RULE also AS ON INSERT TO {t} DO ALSO NOTIFY something"},
	{name: "no INSERT", after: "REVOKE INSERT ON {t} FROM service_role"},
	{name: "no SELECT", after: "REVOKE SELECT ON {t} FROM service_role"},
	{name: "no DELETE", after: "REVOKE DELETE ON {t} FROM service_role"},

	// Partitions and views.
	{name: "partitions by time", about: "id", table: `CREATE TABLE {t} (id uuid, ` + columns + `, PRIMARY KEY (id, created_at)) PARTITION BY RANGE (created_at); CREATE TABLE {t}_p PARTITION OF {t} DEFAULT`},
	{name: "no partition", about: "id", table: `CREATE TABLE {t} (id uuid, ` + columns + `, PRIMARY KEY (id, created_at)) PARTITION BY RANGE (created_at)`},
	{name: "partitions by type", about: "id", table: `CREATE TABLE {t} (id uuid, ` + columns + `, PRIMARY KEY (id, event_type)) PARTITION BY LIST (event_type); CREATE TABLE {t}_p PARTITION OF {t} FOR VALUES IN ('completed', 'failed')`},
	{name: "partitions by an extra column", about: "id", hidden: true, columns: extra("region_id"), fill: map[string]any{"region_id": "eu"}, table: `CREATE TABLE {t} (id uuid, region_id text NOT NULL, ` + columns + `, PRIMARY KEY (id, region_id)) PARTITION BY LIST (region_id); CREATE TABLE {t}_p PARTITION OF {t} FOR VALUES IN ('eu')`},
	{name: "a view", about: "view", table: viewed},
	{name: "a view of a table with a stage of a list NOT NULL", about: "view", hidden: true, fill: map[string]any{"stage": "ocr"}, table: viewed + "; ALTER TABLE {t}_base ALTER stage SET NOT NULL, ADD CONSTRAINT known_step CHECK (stage IN ('ocr', 'parse'))"},
	{name: "a view with a trigger", about: "view", table: viewed + `; CREATE FUNCTION {t}_f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO {t}_base SELECT NEW.* ON CONFLICT DO NOTHING; RETURN NEW; END $$;
		CREATE TRIGGER instead INSTEAD OF INSERT ON {t} FOR EACH ROW EXECUTE FUNCTION {t}_f()`},
	{name: "a view of a table with a column that nobody fills", about: "view", table: viewed + `; ALTER TABLE {t}_base ADD hidden uuid NOT NULL`},
	{name: "a view with another name for a NOT NULL column", about: "view", columns: extra("org"), fill: map[string]any{"org": 7}, table: `CREATE TABLE {t}_base (id uuid PRIMARY KEY, org_number bigint NOT NULL, ` + columns + `);
		CREATE VIEW {t} AS SELECT id, document_id, user_id, event_type, duration_ms, error_message, stage, created_at, org_number AS org FROM {t}_base`},
	{name: "hash partitions", about: "id", table: `CREATE TABLE {t} (id uuid PRIMARY KEY, ` + columns + `) PARTITION BY HASH (id); CREATE TABLE {t}_p PARTITION OF {t} FOR VALUES WITH (MODULUS 1, REMAINDER 0)`},
}
