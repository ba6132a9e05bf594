package advice

import (
	"strings"
	"testing"

	"github.com/docevents/docevents-go/internal/rest"
)

const htmlPage = "the answer is an HTML page"

// There is advice about every answer to a client or a table that is misconfigured,
// and about every rejection of data for which the table is at fault if it rejects
// every row.
func TestFor(t *testing.T) {
	s := Settings{Schema: "audit", Table: "events", HasToken: true}
	for _, test := range []struct {
		status        int
		code, message string
		want          string
	}{
		{200, "", "", "check SUPABASE_URL"},
		{402, "", "", "dashboard"},
		{540, "", "", "paused"},
		{403, "42501", "new row violates row-level security policy for table", "service-role (secret) key"},
		{403, "42501", "permission denied for table events", "GRANT SELECT, INSERT, DELETE ON audit.events TO service_role;"},
		{404, "PGRST205", "", "if audit.events exists, run: NOTIFY pgrst, 'reload schema'; if not, create the table: run sql/013_create_processing_events_table.sql"},
		{404, "42P01", "", "run sql/013_create_processing_events_table.sql"},
		{400, "PGRST204", "", "add the column: audit.events"},
		{400, "42703", "", "add the column: audit.events"},
		{406, "PGRST106", "", "expose the schema audit"},
		{404, "3F000", "", "expose the schema audit"},
		{401, "", "", "check the key"},
		{401, "PGRST302", "Anonymous access is disabled", "no token"},
		{500, "PGRST300", "Server lacks JWT secret", "PGRST_JWT_SECRET"},
		{401, "PGRST303", "JWT not in audience", "PGRST_JWT_AUD"},
		{401, "PGRST303", "JWT issued at future", "wait: this ends"},
		{401, "PGRST303", "Parsing claims failed", "copy the project's"},
		{403, "42501", "permission denied for table audit_log", "SECURITY DEFINER"},
		{404, "42P01", `relation "public.audit_log" does not exist`, "a trigger"},
		{404, "42P01", `relation "audit.events" does not exist`, "sql/013_create"},
		{404, "42883", "function notify_all(uuid) does not exist", "a trigger"},
		{400, "42703", `record "new" has no field "page"`, "a trigger"},
		{400, "42703", `column "actor" of relation "audit_log" does not exist`, "a trigger"},
		{400, "42703", `column events.stage does not exist`, "add the column"},
		{500, "55000", "ON CONFLICT does not support deferrable unique constraints/exclusion constraints as arbiters", "NOT DEFERRABLE"},
		{500, "55000", `cannot insert into view "events"`, "name the table beneath"},
		{400, "0A000", "INSERT with ON CONFLICT clause cannot be used with table that has INSERT or UPDATE rules", "replace the rule"},
		{401, "42501", "permission denied for table events", "service-role (secret) key"},
		{403, "42501", "permission denied for schema audit", "GRANT USAGE ON SCHEMA audit TO service_role;"},
		{401, "", htmlPage, "check SUPABASE_URL: the API is not at this address"},
		{403, "42501", "permission denied for sequence events_id_seq", "GRANT USAGE ON ALL SEQUENCES IN SCHEMA audit TO service_role;"},
		{404, "", htmlPage, "check SUPABASE_URL: the API is not at this address"},
		{404, "", "no Route matched with those values", "check SUPABASE_URL: the API is not at this address"},
		{404, "", "Not Found", "a PostgREST before 13 that doesn't know audit.events"},
		{405, "", "Method Not Allowed", "check SUPABASE_URL"},
		{404, "PGRST125", "Invalid path specified in request URL", "check SUPABASE_URL"},
		{405, "25006", "cannot execute INSERT in a read-only transaction", "the database is read-only"},
		{400, "0A000", "cached plan must not change result type", "wait: this ends"},
		{500, "0A000", "", ""},
		{400, "42P10", "", "make the id column UNIQUE"},
		{400, "428C9", `cannot insert a non-DEFAULT value into column "stage"`, `ALTER TABLE audit.events ALTER COLUMN "stage" DROP EXPRESSION`},
		{400, "23514", `no partition of relation "events" found for row`, "make a partition"},
		{400, "22P02", `invalid input syntax for type bigint: "…"`, "the id must be a uuid"},
		{400, "22P02", `invalid input value for enum kind: "…"`, "ALTER TYPE"},
		{400, "22P02", `invalid input syntax for type json: "…"`, ""},
		{400, "23502", `null value in column "tenant_id" of relation "events" violates not-null constraint`, "give it a DEFAULT"},
		{400, "23514", `new row for relation "events" violates check constraint "document_processing_events_event_type_check"`, "sql/optional/event_types.sql"},
		{400, "23514", `new row for relation "events" violates check constraint "participants"`, "if the CHECK is about another column"},
		{400, "23514", `new row for relation "events_2026" violates partition constraint`, "make a partition"},
		{400, "23505", `duplicate key value violates unique constraint "once"`, `drop the constraint "once"`},
		{400, "P0001", "anything", ""},
	} {
		if got := s.For(test.status, test.code, test.message); test.want == "" && got != "" || !strings.Contains(got, test.want) {
			t.Errorf("%d %s %s: got %q, want %q", test.status, test.code, test.message, got, test.want)
		}
		answer := &rest.Error{Status: test.status, Code: test.code, Message: test.message}
		if v := rest.Classify(answer); v != rest.Configuration && v != rest.BadData {
			t.Errorf("%v: means %d, for which nobody asks for advice", answer, v)
		}
	}
}

// A secret key isn't sent as a token, and a server without a gateway doesn't read it.
func TestForASecretKey(t *testing.T) {
	for _, hasToken := range []bool{true, false} {
		s := Settings{Schema: "public", Table: "events", HasToken: hasToken}
		for code, message := range map[string]string{"PGRST302": "Anonymous access is disabled", "42501": "permission denied for table events"} {
			if got := s.For(401, code, message) == anonymous; got == hasToken {
				t.Errorf("%s, with a token: %t: got advice for an anonymous request: %t", code, hasToken, got)
			}
		}
	}
}

func TestForCall(t *testing.T) {
	s := Settings{Schema: "audit", Table: "Events"}
	for _, test := range []struct {
		status        int
		code, message string
		want          string
	}{
		{404, "PGRST202", "Could not find the function public.docevents_summary", `run sql/014_create_docevents_reading.sql in the project's database, again if an older version of it has run; it serves every table, including audit."Events"`},
		{404, "42883", "function docevents_summary(unknown) does not exist", "create the function"},
		{404, "42883", "operator does not exist: json = unknown", "in Where name only columns that can be compared"},
		{403, "42501", "permission denied for function docevents_summary", "grants EXECUTE"},
		{406, "PGRST106", "Invalid schema: public", "expose the schema public"},
		{504, "", "Gateway Timeout", "a shorter range"},
		{401, "PGRST301", "", ""},
	} {
		if got := s.ForCall(test.status, test.code, test.message); test.want == "" && got != "" || !strings.Contains(got, test.want) {
			t.Errorf("%d %s %s: got %q, want %q", test.status, test.code, test.message, got, test.want)
		}
	}
}

func TestSQLName(t *testing.T) {
	for name, want := range map[string]string{"events": "events", "_e1": "_e1", "Events": `"Events"`, "order": `"order"`, "1st": `"1st"`} {
		if got := SQLName(name); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}
