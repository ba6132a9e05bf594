package main

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/docevents/docevents-go/examples/internal/exampletest"
)

func TestMain(m *testing.M) { exampletest.Main(m, main) }

func TestParseAge(t *testing.T) {
	const day = 24 * time.Hour
	for s, want := range map[string]time.Duration{
		"1h": time.Hour, "12h": 12 * time.Hour, "30d": 30 * day, "030d": 30 * day, "2w": 14 * day, "36500d": 36500 * day,
		"": 0, "30": 0, "d": 0, "0d": 0, "-1d": 0, "+1d": 0, "1.5d": 0, " 1d": 0, "1d ": 0, "1 d": 0, "1m": 0, "1y": 0,
		"30D": 0, "1d12h": 0, "1_0d": 0, "0x1d": 0, "106752d": 0, "9223372036854775807w": 0, "99999999999999999999d": 0,
	} {
		got, err := parseAge(s)
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %s, %v; want %s", s, got, err, want)
		}
	}
}

func TestUsage(tt *testing.T) {
	t := newTable(tt)
	t.plant(5, "31 days")
	for args, want := range map[string]string{
		"":                                  "-older-than is missing",
		"-older-than 30":                    "it has to end in h, d or w",
		"-older-than 30d now":               `no argument is expected beside the flags: "now"`,
		"-older-than 30d -timeout -1s":      "can't be negative",
		"-older-than 30d -batch 0":          "WithPurgeBatch",
		"-older-than 30d -table a/b":        "WithTable",
		"-older-than 30d -color":            "not defined: -color",
		"-older-than 30d -timeout tomorrow": "invalid value",
	} {
		if out, errs := t.purge(exitUsage, strings.Fields(args)...); !strings.Contains(errs, want) || out != "" {
			t.Errorf("%s: %s%s, want %q", args, out, errs, want)
		}
	}
	if _, errs := t.purge(exitDone, "-h"); !strings.Contains(errs, "as 12h, 30d, 2w") {
		t.Error(errs)
	}
	for _, tt := range []struct{ url, key, want string }{
		{"", "", "set SUPABASE_URL and SUPABASE_SECRET_KEYS"},
		{"", t.stack.ServiceRoleKey, "SUPABASE_URL is not set"},
		{t.stack.URL, "", "SUPABASE_SERVICE_ROLE_KEY"},
		{t.stack.URL, t.stack.AnonKey, "not a service-role key"},
	} {
		t.Setenv("SUPABASE_URL", tt.url)
		t.Setenv("SUPABASE_SERVICE_ROLE_KEY", tt.key)
		if out, errs := t.purge(exitUsage, "-older-than", "30d"); !strings.Contains(errs, tt.want) || out != "" {
			t.Errorf("%s%s, want %q", out, errs, tt.want)
		}
	}
	t.wantCount(5)
}

func TestFails(tt *testing.T) {
	t := newTable(tt)
	t.plant(5, "31 days")
	t.Run("at once", func(tt *testing.T) {
		for args, want := range map[string]string{
			"-table no_such_table":          "013_create_processing_events_table.sql",
			"-table no_such_table -dry-run": "013_create_processing_events_table.sql",
			"-schema elsewhere":             "expose the schema elsewhere",
			"-schema elsewhere -dry-run":    "expose the schema elsewhere",
		} {
			tt.Run(args, func(tt *testing.T) {
				tt.Parallel() // Check waits 5 s for something better
				t := &table{tt, t.stack, t.name}
				if r := t.json(exitFailed, strings.Fields("-older-than 30d "+args)...); r.Outcome != "failed" || !strings.Contains(r.Error, want) {
					t.Errorf("%+v", r)
				}
			})
		}
	})
	t.Setenv("SUPABASE_URL", "http://127.0.0.1:1")
	if r := t.json(exitFailed, "-older-than", "30d"); !strings.Contains(r.Error, "check SUPABASE_URL") {
		t.Errorf("%+v", r)
	}
	t.wantCount(5)

	// After some steps, a row that can't be deleted.
	t.Setenv("SUPABASE_URL", t.stack.URL)
	t.onDelete("FOR EACH ROW WHEN (OLD.stage = 'kept')", "RAISE EXCEPTION 'this one is kept';")
	t.exec("UPDATE " + t.name + " SET stage = 'kept' WHERE id = (SELECT id FROM " + t.name + " ORDER BY created_at OFFSET 3 LIMIT 1)")
	out, errs := t.purge(exitFailed, "-older-than", "30d", "-batch", "2")
	if !strings.HasPrefix(out, "purge: failed: deleted 2 rows ") || !strings.Contains(errs, "P0001") || strings.Contains(errs, "this one is kept") {
		t.Errorf("%s%s", out, errs)
	}
	t.wantCount(3)
}

// TestReadme: its commands are ones that the program understands, and its table
// of exit codes is this program's.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	commands := regexp.MustCompile(`purge( -[a-z][^\n"'|;&#>]*)`).FindAllStringSubmatch(string(text), -1)
	lists := regexp.MustCompile(`args: \[(".*")\]`).FindAllStringSubmatch(string(text), -1)
	for _, list := range lists {
		commands = append(commands, []string{"", strings.NewReplacer(`"`, "", ",", "").Replace(list[1])})
	}
	if len(commands) < 5 || len(lists) != 1 {
		t.Fatalf("%d commands, %d of them lists", len(commands), len(lists))
	}
	for _, command := range commands {
		args := strings.Fields(strings.ReplaceAll(command[1], "`", " "))
		if _, err := parse(args, io.Discard); err != nil {
			t.Errorf("%q: %v", args, err)
		}
	}
	source, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	for code := exitDone; code <= exitIncomplete; code++ {
		meaning := regexp.MustCompile(fmt.Sprintf(`(?m)^//\t%d  (\w+)`, code)).FindSubmatch(source)
		if meaning == nil || !regexp.MustCompile(fmt.Sprintf(`(?m)^\| %d \| %s`, code, meaning[1])).Match(text) {
			t.Errorf("exit code %d is not described the same in README.md and in main.go: %s", code, meaning)
		}
	}
}
