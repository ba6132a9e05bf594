package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzParse holds that whatever a file has in it, the text is text.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{htmlPage, "# Title\n\ntext", "\xff\xfeG\x00", "Gr\xfcn", packed(f, "text"), "<title>", ""} {
		for _, name := range []string{"a.html", "a.md", "a"} {
			f.Add(name, []byte(seed))
		}
	}
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		if bytes.Contains(data, []byte("%PDF-")) {
			t.Skip("a program of its own")
		}
		c, err := parse(t.Context(), name, data)
		if err != nil {
			return
		}
		if !utf8.ValidString(c.text) || !utf8.ValidString(c.title) {
			t.Errorf("not UTF-8: %q", fmt.Sprint(c))
		}
		if d, err := summarize(c); err == nil && (d.words == 0 || len([]rune(d.title)) > maxTitle || strings.ContainsAny(d.title, "\n\r")) {
			t.Errorf("%+v", d)
		}
	})
}
