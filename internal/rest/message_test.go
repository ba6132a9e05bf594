package rest

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// A server's message is logged in one line, without the parts that may contain values of
// a row.
func TestLoggableText(t *testing.T) {
	const secret = "patient Jane Doe"
	for _, test := range []struct{ code, text, want string }{
		// The text is PostgreSQL's, and the value in it may be the row's.
		{"22P02", `invalid input syntax for type json: "` + secret + `"`, `invalid input syntax for type json: "…"`},
		{"22P02", `invalid input value for enum kind: "` + secret + `"`, `invalid input value for enum kind: "…"`},
		{"22P02", `invalid input value for enum "Kind": "` + secret + `"`, `invalid input value for enum "Kind": "…"`},
		{"22007", `invalid input syntax for type timestamp with time zone: "` + secret + `"`, `invalid input syntax for type timestamp with time zone: "…"`},
		{"22003", `value "` + secret + `" is out of range for type integer`, `value "…" is out of range for type integer`},
		{"22001", "value too long for type character varying(3)", "value too long for type character varying(3)"},
		{"22P02", `invalid input syntax for type json: "` + secret + `" and "` + secret + `" "`, `invalid input syntax for type json: "…"`},
		{"22P02", "invalid input syntax for type json: \"a\n" + secret + "\nb\"", `invalid input syntax for type json: "…"`},
		{"22P02", `invalid input syntax for type json: "a"` + secret + `"b" rest`, LeftOut},
		{"22P02", `invalid input syntax for type json: "` + secret, LeftOut},
		{"PGRST100", `"failed to parse filter (` + secret + `)" (line 1, column 1)`, `"…" (line 1, column 1)`},
		{"", `Blocked: '` + secret + `' isn't allowed`, `Blocked: "…"t allowed`}, // a firewall
		{"", "no Route matched with those values", "no Route matched with those values"},

		// Names of columns, tables and constraints are kept.
		{"23502", `null value in column "tenant_id" of relation "events" violates not-null constraint`, `null value in column "tenant_id" of relation "events" violates not-null constraint`},
		{"23514", `new row for relation "events" violates check constraint "events_kind_check"`, `new row for relation "events" violates check constraint "events_kind_check"`},
		{"42P01", `relation "public.events" does not exist`, `relation "public.events" does not exist`},
		{"42501", "permission denied for table events", "permission denied for table events"},
		{"PGRST204", "Could not find the 'stage' column of 'events' in the schema cache", "Could not find the 'stage' column of 'events' in the schema cache"},
		{"PGRST303", "JWT issued at future", "JWT issued at future"},

		// A trigger can raise any code with any text.
		{"P0001", secret, LeftOut},
		{"PT400", secret, LeftOut},
		{"my own code", secret, LeftOut},
		{"P0001", "", ""},
		{"23514", secret + " has no consent", LeftOut},
		{"23514", `new row for relation "events" violates check constraint "` + secret + `"`, LeftOut},
		{"23505", "document of " + secret + " already exists", LeftOut},
		{"42501", "permission denied for patient jane", LeftOut},
		{"22001", "value too long for type of " + secret, LeftOut},
		{"57014", "canceled by " + secret, LeftOut},
		{"PGRST301", `"` + secret + `"`, LeftOut},

		// Line breaks become spaces, and characters that control a terminal become U+FFFD.
		{"", "a\r\nb\tc\x1b[31md\x00e\u202ef\x9bg\ufeffh", "a  b c\ufffd[31md\ufffde\ufffdf\ufffdg\ufffdh"},
		{"", strings.Repeat("é", 2000), strings.Repeat("é", 512)},
	} {
		if got := loggableText(test.code, test.text); got != test.want {
			t.Errorf("%s %q:\n got %q\nwant %q", test.code, test.text, got, test.want)
		}
	}
}

func inOneLine(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) })
}

// FuzzLoggableText checks that any message becomes one line of limited length, and that
// no value in quotes is in it.
func FuzzLoggableText(f *testing.F) {
	for _, value := range []string{"patient Jane Doe", `Jane "J." Doe`, "a\nb", "»a«", "'", "\xff", "\u202eJane", strings.Repeat("x", 3000)} {
		for _, code := range []string{"22P02", "P0001", ""} {
			f.Add(code, value, false)
			f.Add(code, value, true)
		}
	}
	f.Fuzz(func(t *testing.T, code, value string, single bool) {
		quote := map[bool]string{false: `"`, true: "'"}[single]
		got := loggableText(code, "before: "+quote+value+quote+" after")
		if !inOneLine(got) || len(got) > maxErrorText {
			t.Errorf("%s: %d bytes %q", code, len(got), got)
		}
		want := LeftOut // no code has such a message
		if code == "" {
			want = `before: "…" after`
		}
		if got != want {
			t.Errorf("%s %q: got %q, want %q", code, value, got, want)
		}
	})
}
