package cmdtest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

func TestSummary(t *testing.T) {
	p := newProgram(t)
	flags := p.steps()
	stdout, _ := p.run(0, args("summary", flags, "-stuck-after", "30m")...)
	want := regexp.MustCompile(`^\S+ \S+ to \S+ \S+ UTC

documents          3
completed          1  last \d.*
failed             1  last failure of any step \d.*
under way          1  1 stuck for longer than 30m
skipped            0

STAGE           ENDED  FAILED  MEDIAN    P95    MAX
.*
.*

FAILURES  DOCUMENTS  LAST \(UTC\)           STAGE  ERROR
       1          1  \S+ \S+  ocr    page # of #:  \[#mimage too small

STUCK DOCUMENT  FOR  STARTS  LAST EVENT  STAGE
invoice 3       44m       1  begun       ocr
$`)
	if !want.MatchString(stdout) || !strings.Contains(stdout, "whole document") {
		t.Error(stdout)
	}
	var s struct {
		Documents, Completed int
		Interval             int `json:"interval_seconds"`
		Stages               []struct {
			Stage string
			P95   int `json:"p95_ms"`
		}
		LastCompleted string `json:"last_completed"`
		LastFailure   string `json:"last_failure"`
	}
	p.json(0, &s, args("summary", flags, "-where", "tenant_id=a", "-since", "2h")...)
	if s.Documents != 2 || s.Completed != 1 || s.Interval != 120 || len(s.Stages) != 2 || s.Stages[0].P95 != 61000 || s.LastFailure == "" {
		t.Errorf("%+v", s)
	}
	s.LastCompleted = ""
	p.json(0, &s, args("summary", flags, "-where", "tenant_id=b")...)
	if s.Documents != 1 || s.LastCompleted != "" {
		t.Errorf("%+v", s)
	}
	p.wants(1, args("summary", flags, "-where", "nobody=b"), "nobody")
}

func TestTimeline(t *testing.T) {
	p := newProgram(t)
	flags := p.steps()
	stdout, _ := p.run(0, args("timeline", flags, "invoice 2")...)
	if lines := strings.Split(stdout, "\n"); len(lines) != 5 || !strings.HasPrefix(lines[0], "TIME (UTC)") ||
		!strings.Contains(lines[1], "begun") || !strings.HasSuffix(lines[2], "error  ocr       -  page 3 of 7:  [31mimage too small") {
		t.Error(stdout)
	}
	var events struct {
		Events []struct {
			Type     string `json:"event_type"`
			Duration int    `json:"duration_ms"`
			Extra    map[string]any
		}
		Truncated bool
	}
	p.json(0, &events, args("timeline", flags, "invoice 1")...)
	if len(events.Events) != 3 || events.Events[1].Type != "done" || events.Events[1].Duration != 1840 || events.Events[0].Extra["tenant_id"] != "a" || events.Truncated {
		t.Errorf("%+v", events)
	}
	p.json(0, &events, args("timeline", flags, "invoice 1", "-before", "49m30s")...)
	if len(events.Events) != 1 {
		t.Errorf("%+v", events)
	}
	if stdout, stderr := p.run(0, args("timeline", flags, "invoice 9")...); stdout != "" || !strings.Contains(stderr, "no events") {
		t.Errorf("%s%s", stdout, stderr)
	}
	p.json(0, &events, args("timeline", flags, "invoice 9")...)
	if events.Events == nil || len(events.Events) != 0 {
		t.Errorf("%+v", events)
	}

	// If there are more than 1,000 events, the command prints the newest 1,000, and
	// the flag that lists the older ones.
	p.exec("INSERT INTO " + flags[1] + " (doc, kind, at) SELECT 'long', 'begun', now() - i * interval '1 second' FROM generate_series(1, 1001) i")
	stdout, stderr := p.run(0, args("timeline", flags, "long")...)
	more := regexp.MustCompile(`newest 1000 events; for older ones add (-before \S+)`).FindStringSubmatch(stderr)
	if strings.Count(stdout, "\n") != 1001 || more == nil {
		t.Fatalf("%d lines, %s", strings.Count(stdout, "\n"), stderr)
	}
	p.json(0, &events, args("timeline", flags, append([]string{"long"}, strings.Fields(more[1])...)...)...)
	if len(events.Events) != 1 {
		t.Errorf("%+v", events)
	}
	p.json(0, &events, args("timeline", flags, "long")...)
	if len(events.Events) != 1000 || !events.Truncated {
		t.Errorf("%d events, %t", len(events.Events), events.Truncated)
	}
}

func TestDocuments(t *testing.T) {
	p := newProgram(t)
	flags := p.steps()
	stdout, _ := p.run(0, args("documents", flags)...)
	for i, want := range []string{`^DOCUMENT   STATE`, `^invoice 3  (under_way|stuck) `, `^invoice 2  failed  .*  page 3 of 7:  \[31mimage too small$`, `^invoice 1  completed `} {
		if line := strings.Split(stdout, "\n")[i]; !regexp.MustCompile(want).MatchString(line) {
			t.Errorf("line %d: %q", i, line)
		}
	}
	p.wants(0, args("documents", flags, "-state", "completed"), "invoice 1")
	p.wants(0, args("documents", flags, "-error", "page # of #:\n\x1b[#mimage too small"), "invoice 2")
	p.wants(0, args("documents", flags, "-stage", "nowhere"), "no documents were found")

	// Page by page.
	stdout, stderr := p.run(0, args("documents", flags, "-limit", "2")...)
	more := regexp.MustCompile(`-cursor \S+`).FindString(stderr)
	if strings.Count(stdout, "\n") != 3 || more == "" {
		t.Fatal(stdout, stderr)
	}
	var page struct {
		Documents []struct {
			ID string `json:"document_id"`
		}
		Next string
	}
	p.json(0, &page, args("documents", flags, strings.Fields(more)...)...)
	if len(page.Documents) != 1 || page.Documents[0].ID != "invoice 1" || page.Next != "" {
		t.Errorf("%+v", page)
	}
	p.json(0, &page, args("documents", flags, "-stage", "nowhere")...)
	if page.Documents == nil || len(page.Documents) != 0 {
		t.Errorf("%+v", page)
	}
}

func TestHealth(t *testing.T) {
	p := newProgram(t)
	flags := p.steps()
	stdout, _ := p.run(1, args("health", flags)...)
	if lines := strings.Split(stdout, "\n"); lines[0] != "not ok" || !strings.HasPrefix(lines[1], "1 document has been under way for longer than 30 min") ||
		lines[2] != "in the last 1h: 2 documents ended, 1 of them failed" || !strings.HasPrefix(lines[3], "now: 1 under way, 1 of them stuck; last completed: 2") {
		t.Error(stdout)
	}
	p.wants(0, args("health", flags, "-max-stuck", "1"), "ok\n")
	p.wants(1, args("health", flags, "-max-stuck", "1", "-silence", "40m"), "No document has completed")
	p.wants(1, args("health", flags, "-stuck-after", "2h", "-min-ended", "1", "-max-failure-rate", "0.4"), "1 of the 2 documents that ended in the last 60 min failed")
	p.wants(1, args("health", flags, "-stuck-after", "2h", "-min-ended", "0", "-max-failure-rate", "0"), "the limit is 0.0 %")
	var h map[string]any
	p.json(1, &h, args("health", flags)...)
	if h["ok"] != false || len(h["problems"].([]any)) != 1 || h["stuck"] != 1.0 {
		t.Errorf("%+v", h)
	}
	if _, found := h["stats"]; found {
		t.Errorf("%+v has the counts of this process, which recorded nothing", h)
	}
}

// TestCannotRead checks that a failed read gives exit code 1 and an error that says
// what to do.
func TestCannotRead(t *testing.T) {
	p := newProgram(t)
	missing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"code":"PGRST202","message":"Could not find the function public.docevents_summary"}`)
	}))
	defer missing.Close()
	for _, command := range []string{"summary", "documents", "health"} {
		p.wants(1, []string{command, "-table", "no_such_table"}, "no_such_table")
		p.on(missing.URL, p.key).wants(1, []string{command}, "run sql/014", "docevents sql reading prints 014_create")
		p.on(p.url, "sb_secret_nonsense").wants(1, []string{command}, "check the key")
		p.on("http://127.0.0.1:1", p.key).wants(1, []string{command}, "no answer from SUPABASE_URL: check it and the network: dial tcp")
	}
	p.wants(1, []string{"timeline", "0198a5e2-0000-7000-8000-000000000001", "-table", "no_such_table"}, "docevents sql table prints 013_create")
}

func TestServe(t *testing.T) {
	p := newProgram(t)
	cmd := p.command(args("serve", p.steps(), "-addr", "127.0.0.1:0")...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it may have ended already
	line, err := bufio.NewReader(stdout).ReadString('\n')
	url := regexp.MustCompile(`http://(127\.0\.0\.1:\d+)/`).FindStringSubmatch(line)
	if err != nil || url == nil {
		t.Fatalf("%q, %v", line, err)
	}
	resp, err := http.Get(url[0])
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if page, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK || !strings.Contains(string(page), "invoice 3") {
		t.Errorf("%d: %s", resp.StatusCode, page)
	}
	p.wants(1, []string{"serve", "-addr", url[1]}, "choose another address with -addr", "address already in use")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", url[1]); err == nil {
		t.Error("the command still listens after the signal")
	}
}

// TestSQL checks that docevents sql prints the SQL files, that its help lists the
// optional ones, and that PostgreSQL runs the two migrations together.
func TestSQL(t *testing.T) {
	p := newProgram(t)
	files := map[string]string{
		"table": "013_create_processing_events_table.sql", "reading": "014_create_docevents_reading.sql",
		"queries": "optional/queries.sql", "retention_pg_cron": "optional/retention_pg_cron.sql", "event_types.sql": "optional/event_types.sql",
	}
	text := map[string]string{}
	for name, file := range files {
		want, err := os.ReadFile("../../sql/" + file)
		if err != nil {
			t.Fatal(err)
		}
		if text[name], _ = p.run(0, "sql", name); text[name] != string(want) {
			t.Errorf("docevents sql %s doesn't print %s", name, file)
		}
	}
	both, _ := p.run(0, "sql")
	if both != text["table"]+text["reading"] {
		t.Error("docevents sql doesn't print both migrations")
	}
	tx, err := p.stack.Pool().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	if _, err := tx.Exec(t.Context(), "DROP TABLE document_processing_events;"+both); err != nil {
		t.Error(err)
	}
	optional, err := os.ReadDir("../../sql/optional")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range optional {
		if name, isSQL := strings.CutSuffix(file.Name(), ".sql"); isSQL {
			p.wants(0, []string{"sql", "-h"}, "  "+name+"\n")
		}
	}
}
