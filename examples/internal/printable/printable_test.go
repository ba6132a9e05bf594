package printable

import "testing"

func TestQuote(t *testing.T) {
	for text, want := range map[string]string{
		"":                  "",
		"Überblick 2026.md": "Überblick 2026.md",
		`a "b" \c.txt`:      `a "b" \c.txt`,
		"a\nb":              `"a\nb"`,
		"\x1b[2Jgone":       `"\x1b[2Jgone"`,
		"fdp.\u202Eexe":     `"fdp.\u202eexe"`,
		"a\u00a0b":          `"a\u00a0b"`,
		"\xff.txt":          `"\xff.txt"`,
	} {
		if got := Quote(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}
