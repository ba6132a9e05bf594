package cmdtest

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	p.wants(0, []string{"check"}, "public.document_processing_events takes events, and its rows can be purged.\n")
	p.wants(0, args("check", p.steps()), " takes events")
	p.on(p.stack.URL+"/rest/v1/", p.stack.SecretKey).wants(0, []string{"check"}, "takes events")

	// Each finding has a line, which names the flag or file that fixes it.
	name := p.create("CREATE TABLE %s (id uuid PRIMARY KEY, document_id uuid, user_id uuid, event_type text, duration_ms integer, stage text, created_at timestamptz); GRANT SELECT, INSERT, DELETE ON %s TO service_role")
	p.exec("REVOKE DELETE ON " + name + " FROM service_role")
	stdout, stderr := p.run(1, "check", "-table", name)
	if lines := strings.Split(strings.TrimSpace(stdout), "\n"); len(lines) != 2 || !strings.Contains(stdout, "error_message") || !strings.Contains(stdout, "DELETE") {
		t.Errorf("%q, want two findings", lines)
	}
	if !strings.Contains(stderr, "-columns") || !strings.Contains(stderr, "docevents sql table prints 013_create") {
		t.Errorf("%q", stderr)
	}
	var r struct {
		OK       bool
		Findings []string
	}
	p.json(1, &r, "check", "-table", name)
	if r.OK || len(r.Findings) != 2 {
		t.Errorf("%+v", r)
	}
	p.json(0, &r, "check")
	if !r.OK || len(r.Findings) != 0 {
		t.Errorf("%+v", r)
	}

	// Events may leave Stage empty, so a NOT NULL column for it may cause rejections.
	// That depends on the app's events, so the command prints a note and no finding.
	name = p.create("CREATE TABLE %s (id uuid PRIMARY KEY, document_id uuid, user_id uuid, event_type text, duration_ms integer, error_message text, stage text NOT NULL, created_at timestamptz); GRANT SELECT, INSERT, DELETE ON %s TO service_role")
	p.wants(0, []string{"check", "-table", name}, "docevents check: note: ", "Stage")
}

func TestCheckOfAWrongProject(t *testing.T) {
	p := newProgram(t)
	web := httptest.NewServer(http.NotFoundHandler())
	defer web.Close()
	for name, test := range map[string]struct{ url, key, want string }{
		"no settings":   {"", "", "set SUPABASE_URL and SUPABASE_SECRET_KEYS"},
		"no key":        {p.url, "", "no key is set"},
		"no URL":        {"", p.key, "SUPABASE_URL is not set"},
		"anonymous key": {p.url, p.stack.AnonKey, "not a service-role key"},
		"wrong key":     {p.url, "sb_secret_nonsense", "check the key"},
		"no network":    {"http://127.0.0.1:1", p.key, "check SUPABASE_URL and the network"},
		"a web site":    {web.URL, p.key, "check SUPABASE_URL"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // Check retries for 5 s
			p := &program{t, p.stack, test.url, test.key}
			p.wants(2, []string{"check"}, test.want)
		})
	}
}

// TestUsage checks that wrong arguments give an error line that names them, and
// exit code 2.
func TestUsage(t *testing.T) {
	p := newProgram(t)
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "config.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	where := file(`{"where": {"tenant_id": "a"}}`)
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"clean"}, `there is no command "clean"`},
		{[]string{"check", "now"}, `unexpected argument "now"`},
		{[]string{"check", "-tabel", "x"}, "-tabel"},
		{[]string{"check", "-table", "a/b"}, "1 to 63 letters"},
		{[]string{"check", "-columns", "doc"}, `-columns: "doc": want pairs such as a=b,c=d`},
		{[]string{"check", "-columns", "doc=x"}, `"doc" is not a column of document_processing_events: use id, document_id`},
		{[]string{"check", "-types", "ended=x"}, `"ended" is not a meaning`},
		{[]string{"check", "-types", "failed=x,completed=x"}, `"x" is both in Completed and in Failed`},
		{[]string{"check", "-config", "missing.json"}, "missing.json"},
		{[]string{"check", "-config", file(`{"tabel": "x"}`)}, `unknown field "tabel"`},
		{[]string{"check", "-config", file(`{} {}`)}, "want one JSON object"},
		{[]string{"check", "-text-ids=maybe"}, "-text-ids"},
		{[]string{"purge", "-older-than", "30d", "-table", ""}, "the value is empty"},
		{[]string{"purge", "-older-than", "30d", "-config", ""}, "the value is empty"},
		{[]string{"purge", "-older-than", "30d", "-config", file(`{"table": ""}`)}, "WithTable"},
		{[]string{"purge", "-older-than", "30d", "-config", file(`{"schema": ""}`)}, "WithSchema"},
		{[]string{"purge", "-older-than", "30d", "-config", file(`{"columns": {"created_at": ""}}`)}, "the name for created_at: the value is empty"},
		{[]string{"sql", "no_such"}, "use table, reading, "},
		{[]string{"sql", "table", "reading"}, `unexpected argument "reading"`},
		{[]string{"purge"}, "-older-than is missing"},
		{[]string{"purge", "-older-than", "30"}, "an age ends in h, d or w"},
		{[]string{"purge", "-older-than", "1m"}, "an age ends in h, d or w"},
		{[]string{"purge", "-older-than", "0d"}, "at least 1"},
		{[]string{"purge", "-older-than", "30d", "-batch", "0"}, "WithPurgeBatch"},
		{[]string{"purge", "-older-than", "30d", "-timeout", "tomorrow"}, "want a duration"},
		{[]string{"purge", "-older-than", "30d", "-where", "tenant_id=a"}, "-where"},
		{[]string{"serve", "-where", "tenant_id=a"}, "-where"},
		{[]string{"check", "-where", "tenant_id=a"}, "-where"},
		{[]string{"timeline", "invoice 1", "-where", "tenant_id=a"}, "-where"},
		{[]string{"purge", "-older-than", "30d", "-config", where}, "this command always works on all rows"},
		{[]string{"serve", "-config", where}, "this command always works on all rows"},
		{[]string{"serve", "-addr", "0.0.0.0:8080"}, "this machine only"},
		{[]string{"serve", "-addr", ":8080"}, "this machine only"},
		{[]string{"serve", "-addr", "8080"}, "want HOST:PORT"},
		{[]string{"health", "-max-failure-rate", "50"}, "from 0 to 1"},
		{[]string{"health", "-window", "-1h"}, "want a duration"},
		{[]string{"summary", "-since", "yesterday"}, "2026-01-31T12:00:00Z"},
		{[]string{"summary", "-since", "1h", "-until", "2h"}, "since must be before until"},
		{[]string{"summary", "-where", "tenant_id"}, "want a column, =, and a value"},
		{[]string{"timeline"}, "the document's id is missing"},
		{[]string{"timeline", "invoice 1"}, "-text-ids"},
		{[]string{"documents", "-state", "done"}, `"done" is not a state: use completed, failed, under_way, stuck, skipped`},
		{[]string{"documents", "-limit", "501"}, "500"},
		{[]string{"documents", "-cursor", "x"}, "Cursor"},
	} {
		p.wants(2, test.args, test.want)
	}
	p.wants(2, []string{"health", "-silence", "x"}, "docevents health -h")
	p.on("", "").wants(2, []string{"summary"}, "docevents -h")
	if _, stderr := p.run(2); !strings.Contains(stderr, "usage: docevents COMMAND") {
		t.Error(stderr)
	}
}

// TestConfig checks that the settings of the file and the flags are combined, and
// that a flag overrides the file.
func TestConfig(t *testing.T) {
	p := newProgram(t)
	flags := p.steps()
	path := filepath.Join(t.TempDir(), "docevents.json")
	err := os.WriteFile(path, []byte(`{"table": "`+flags[1]+`", "text_ids": true, "extra": ["tenant_id"],
		"columns": {"id": "event_id", "document_id": "doc", "user_id": "-", "event_type": "kind",
			"duration_ms": "ms", "error_message": "problem", "stage": "-", "created_at": "at"},
		"types": {"started": ["begun"], "completed": ["done"], "failed": ["no", "nonsense"]}, "where": {"tenant_id": "b"}}`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	var page struct{ Documents []map[string]any }
	p.json(0, &page, "documents", "-config", path, "-where", "tenant_id=a", "-types", "failed=error", "-columns", "stage=step", "-state", "failed")
	if len(page.Documents) != 1 || page.Documents[0]["document_id"] != "invoice 2" {
		t.Errorf("%+v", page)
	}
	p.wants(0, []string{"documents", "-config", path}, "invoice 3")
	p.wants(0, []string{"check", "-config", path}, "takes events")
	p.wants(0, []string{"timeline", "-config", path, "invoice 1"}, "note: where in "+path+" has no effect", "begun")
}
