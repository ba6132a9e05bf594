package integration_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/docevents/docevents-go/integration/localstack"
)

// here marks a line of printed that TestPrintedLines runs. The lines run in the order
// of the list: a command in an app's folder next to this repository, and SQL in a
// transaction that is rolled back.
const here = "here"

const (
	slow    = "not run: it takes minutes; TestCommands checks that the program or the benchmark exists"
	noCLI   = "not run: the Supabase CLI can't be downloaded in a test"
	pattern = "not run: a pattern that the reader completes"
)

// printed lists every command and every inline SQL statement of README.md, docs/ and
// sql/README.md. by names what runs the line: the constant here, a test, or .ci/run. If
// nothing runs it, by is the reason. printed doesn't list blocks of SQL. TestSQL runs
// the blocks in docs/, and sqlSections lists those in sql/README.md.
var printed = []struct{ line, by string }{
	// README.md
	{"git clone https://github.com/docevents/docevents-go && cd docevents-go", "not run: it needs the network"},
	{"go run ./examples/quickstart", ".ci/run"},
	{"go test ./... ./examples/... ./integration/...", ".ci/run"},
	{"go mod edit -replace github.com/docevents/docevents-go=../docevents-go", here},
	{"go mod tidy", here},
	{"go install ./cmd/docevents", "TestPrintedLines"}, // before the commands below
	{"go install github.com/docevents/docevents-go/cmd/docevents@latest", "not run: it needs a release; go install ./cmd/docevents builds the same program"},
	{"docevents sql", here},
	{"docevents sql reading", here},
	{"docevents sql NAME", pattern},
	{`docevents sql | psql "$DATABASE_URL" -v ON_ERROR_STOP=1`, here},
	{"docevents sql >supabase/migrations/$(date -u +%Y%m%d%H%M%S)_docevents.sql", here},
	{"supabase db push", noCLI},
	{"supabase db push --remote", noCLI},
	{"export SUPABASE_URL=https://abcdefgh.supabase.co", here},
	{"export SUPABASE_SECRET_KEY=sb_secret_...", here},
	{"docevents check", here},
	{"docevents check -config job_events.json", "TestProgramOfYourTable"},
	{"go run ./examples/localstack", "TestMain"},
	{"docevents serve", "not run: its port may be taken; the tests of the command run it on another"},
	{"docevents documents -state failed", here},
	{"docevents purge -older-than 30d -dry-run", here},
	{"docevents purge -older-than 30d", here},

	// sql/README.md
	{"go test ./integration/sqltest", "not run: .ci/run tests ./integration/..., which includes it"},
	{`psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f sql/013_create_processing_events_table.sql`, here},
	{"cp sql/013_create_processing_events_table.sql supabase/migrations/$(date -u +%Y%m%d%H%M%S)_create_document_processing_events.sql", here},
	{"supabase db push --remote --yes", noCLI},
	{"supabase db push --local", noCLI},
	{"DELETE FROM goose_db_version WHERE version_id IN (13, 14)", "TestMigrationsInTheAppsTable"},
	{"DROP FUNCTION public.document_processing_events_summary", here},
	{"docevents purge", pattern},
	{"ANALYZE public.document_processing_events", here},
	{"CREATE UNIQUE INDEX CONCURRENTLY", pattern},
	{"SELECT public.docevents_health();", "TestAlert"},

	// docs/performance.md
	{"go run ./integration/benchmark -guard", ".ci/run"},
	{"go run ./integration/benchmark -quick -rounds 5", slow},
	{"go run ./integration/benchmark -rounds 1", slow},
	{"go test -run '^$' -bench 'Record|Floor' .", slow},
	{"go test ./integration/retention -run '^$' -bench '^BenchmarkPurge$' -benchtime 5x -rows 1000000 -timeout 1h", slow},
	{"go test ./integration/retention -run '^$' -bench RecordDuringPurge -benchtime 5x -rows 1000000 -timeout 1h", slow},
	{"go test ./integration/retention -run '^$' -bench 'PurgeHalf|Partition' -benchtime 1x -rows 10000000 -timeout 1h", slow},
	{"go test ./integration/sqltest -run '^$' -bench ForeignKey -count 3", slow},
	{"go test ./integration/sqltest -run '^$' -bench OwnTable -benchtime 60x -count 3", slow},
	{"go test ./integration/sqltest -run '^$' -bench Summary -benchtime 3x -summary-rows 1000000", slow},

	// docs/purge.md
	{"docevents purge -h", here},
	{"docevents sql retention_pg_cron", here},
	{"docevents health", "TestHealth"},
	{"docevents purge -older-than 30d -table steps -columns id=event_id,created_at=at", pattern},
	{"17 3 * * *  . /etc/docevents.env; /usr/local/bin/docevents purge -older-than 30d >>/var/log/docevents-purge.log 2>&1", "not run: cron runs it; the same command is run above"},

	// docs/observability.md, docs/troubleshooting.md, docs/your-table.md
	{"go run ./integration/demo", "TestMain"},
	{"GRANT SELECT, INSERT, DELETE ON public.document_processing_events TO service_role;", here},
	{"NOTIFY pgrst, 'reload schema';", here},
	{"ALTER TABLE ... ALTER COLUMN ... DROP NOT NULL", pattern},
	{"GRANT USAGE ON SEQUENCE", pattern},
	{"GRANT SELECT, INSERT, DELETE", pattern},
	{"ALTER TABLE ... ADD COLUMN event_id uuid NOT NULL DEFAULT gen_random_uuid() UNIQUE", pattern},
	{"ALTER TABLE ... ADD PRIMARY KEY (id)", pattern},
	{"ALTER TYPE ... ADD VALUE", pattern},
}

// sqlSections lists the sections of sql/README.md that have blocks of SQL, each
// with the test of package sqltest that runs them.
var sqlSections = map[string]string{
	"## 013_create_processing_events_table.sql": "TestUndo",
	"## 014_create_docevents_reading.sql":       "TestUndo",
	"## Reading by SQL":                         "TestReadingBySQL",
	"## optional/retention_pg_cron.sql":         "TestUndo",
	"## optional/alert_pg_cron.sql":             "TestUndo",
	"## optional/partitioned.sql":               "TestReadmeExamples",
	"### Back to the plain table":               "TestUndo",
	"## optional/partitioned_prepare.sql":       "TestUndo",
	"## optional/read_own.sql":                  "TestUndo",
	"## optional/event_types.sql":               "TestUndo",
	"## optional/foreign_key.sql":               "TestUndo",
	"### A column that the database fills":      "TestColumnFilled",
	"### A uuid next to a bigint id":            "TestUUIDNextToBigint",
	"### A view, if the table can't change":     "TestView",
	"### An index for timelines":                "TestTimelineIndex",
	"## Grafana":                                "TestGrafana",
}

var (
	inlineCode  = regexp.MustCompile("`([^`\n]+)`")
	commandLine = regexp.MustCompile(`^(go (run|test|build|install|mod|get)|docevents [a-z]+|psql|supabase \w+ |goose|bash|git) ?`)
	statement   = regexp.MustCompile(`^(ALTER|ANALYZE|CALL|CREATE|DELETE FROM|DROP|GRANT|INSERT INTO|NOTIFY|REVOKE|SELECT|UPDATE) .`)
	afterHash   = regexp.MustCompile(`\s+# .*$`)
)

// printedLines returns the page of each command and each inline SQL statement.
func printedLines(t *testing.T) map[string]string {
	t.Helper()
	docs, err := filepath.Glob("../docs/*.md")
	if err != nil || len(docs) == 0 {
		t.Fatal(docs, err)
	}
	lines := map[string]string{}
	for _, page := range append(docs, "../README.md", "../sql/README.md") {
		text := read(t, page)
		for _, code := range inlineCode.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
			if commandLine.MatchString(code[1]) || statement.MatchString(code[1]) {
				lines[code[1]] = page
			}
		}
	}
	for _, language := range []string{"sh", "bash", "console", "crontab"} {
		for _, b := range blocks(t, language) {
			if b.page != "../README.md" && b.page != "../sql/README.md" && filepath.Dir(b.page) != "../docs" {
				continue
			}
			for line := range strings.Lines(b.text) {
				if line = afterHash.ReplaceAllString(strings.TrimSpace(line), ""); line != "" {
					lines[line] = b.page
				}
			}
		}
	}
	return lines
}

// TestPrintedLines checks that every printed command and SQL statement is listed in
// printed, and runs those marked with here.
func TestPrintedLines(t *testing.T) {
	lines := printedLines(t)
	shell := newShell(t)
	ci := read(t, "../.ci/run")
	tests := allTests(t)
	for _, p := range printed {
		if lines[p.line] == "" {
			t.Errorf("no page prints %s", p.line)
		}
		delete(lines, p.line)
		switch {
		case p.by == here && statement.MatchString(p.line):
			shell.sql(t, p.line)
		case p.by == here:
			shell.run(t, p.line)
		case p.by == ".ci/run":
			if !strings.Contains(ci, p.line) && !strings.Contains(ci, regexp.QuoteMeta(p.line)) { // .ci/run may have it as a pattern of grep
				t.Errorf(".ci/run doesn't run %s", p.line)
			}
		case strings.HasPrefix(p.by, "not run: "):
		case !strings.Contains(tests, "\nfunc "+p.by+"("):
			t.Errorf("%s: there is no test %s", p.line, p.by)
		}
	}
	for line, page := range lines {
		t.Errorf("%s prints %q: add it to printed in this file", page, line)
	}
}

// TestPrintedSections checks that every section of sql/README.md with a block of
// SQL has a test.
func TestPrintedSections(t *testing.T) {
	tests := sources(t, "sqltest", true)
	title := ""
	found := map[string]bool{}
	for line := range strings.Lines(read(t, "../sql/README.md")) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "## ") || strings.HasPrefix(line, "### ") {
			title = line
		}
		if line != "```sql" || found[title] {
			continue
		}
		found[title] = true
		if test := sqlSections[title]; !strings.Contains(tests, "\nfunc "+test+"(") {
			t.Errorf("sql/README.md, %q: there is no test %q; add the section to sqlSections in this file", title, test)
		}
	}
	if len(found) != len(sqlSections) {
		t.Errorf("found %d sections with SQL, but sqlSections lists %d", len(found), len(sqlSections))
	}
}

// A shell runs commands as a reader of the pages would. It is in an app's folder next
// to the repository, the command docevents is installed, and the environment has the
// settings of the local stack.
type shell struct {
	app, bin string
	env      []string
	stack    *localstack.Stack
}

func newShell(t *testing.T) *shell {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	parent := t.TempDir()
	s := &shell{app: filepath.Join(parent, "app"), bin: filepath.Join(parent, "bin"), stack: localstack.Shared(t)}
	if err := os.MkdirAll(filepath.Join(s.app, "supabase", "migrations"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"docevents-go": root, "app/sql": filepath.Join(root, "sql")} {
		if err := os.Symlink(target, filepath.Join(parent, name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"go.mod":  "module example.com/app\n\ngo 1.26.0\n\nrequire github.com/docevents/docevents-go v0.0.0\n",
		"main.go": pieces(t, "README.md", "go", "package main")[0].text,
	} {
		if err := os.WriteFile(filepath.Join(s.app, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	install := exec.Command("go", "install", "./cmd/docevents")
	install.Dir, install.Env = root, append(os.Environ(), "GOBIN="+s.bin)
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("go install ./cmd/docevents: %v\n%s", err, out)
	}
	s.env = append(os.Environ(), "GOWORK=off", "PATH="+s.bin+string(os.PathListSeparator)+os.Getenv("PATH"),
		"SUPABASE_URL="+s.stack.URL, "SUPABASE_SECRET_KEYS=", "SUPABASE_SECRET_KEY=",
		"SUPABASE_SERVICE_ROLE_KEY="+s.stack.ServiceRoleKey, "DATABASE_URL="+s.stack.DatabaseURL)
	return s
}

func (s *shell) run(t *testing.T, line string) {
	t.Helper()
	if _, err := exec.LookPath("psql"); err != nil && strings.Contains(line, "psql") && os.Getenv("CI") == "" {
		t.Logf("not run, since there is no psql: %s", line)
		return
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", line)
	cmd.Dir, cmd.Env = s.app, s.env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", line, err, out)
	}
}

func (s *shell) sql(t *testing.T, line string) {
	t.Helper()
	tx, err := s.stack.Pool().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.Background())
	if strings.Contains(line, "document_processing_events_summary") { // a function of the first version
		if _, err := tx.Exec(t.Context(), "CREATE FUNCTION public.document_processing_events_summary() RETURNS void LANGUAGE sql AS ''"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tx.Exec(t.Context(), line); err != nil {
		t.Errorf("%s: %v", line, err)
	}
}
