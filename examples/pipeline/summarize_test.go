package main

import (
	"errors"
	"strings"
	"testing"
)

func TestSummarize(t *testing.T) {
	long := strings.Repeat("wörter ", 30)
	for _, test := range []struct {
		name string
		content
		want digest
	}{
		{"first line", content{text: "A title\n\nSome text."}, digest{4, "A title"}},
		{"a line without words first", content{text: "=====\n\n  The \t title \n====="}, digest{2, "The title"}},
		{"the format's own", content{text: "Heading\ntext", title: "Title"}, digest{2, "Title"}},
		{"numbers and signs", content{text: "1 + 1 = 2, don't"}, digest{4, "1 + 1 = 2, don't"}},
		{"other scripts", content{text: "Мир 日本 مرحبا"}, digest{3, "Мир 日本 مرحبا"}},
		{"long first line", content{text: long}, digest{30, strings.Repeat("wörter ", 11) + "wö…"}},
		{"markdown", content{text: "intro\n# The title #\ntext", markdown: true}, digest{4, "The title"}},
		{"markdown, deeper", content{text: "text\n\n### Third level\n# First", markdown: true}, digest{4, "Third level"}},
		{"markdown, underlined", content{text: "text\n\nThe title\n=========\n# Next", markdown: true}, digest{4, "The title"}},
		{"markdown, dashes", content{text: "The title\n---\ntext", markdown: true}, digest{3, "The title"}},
		{"markdown, a comment in code", content{text: "```sh\n# comment\n```\n# Title", markdown: true}, digest{3, "Title"}},
		{"markdown, no space", content{text: "#hashtag\ntext", markdown: true}, digest{2, "#hashtag"}},
		{"markdown, Windows", content{text: "text\r\n# Title\r\n", markdown: true}, digest{2, "Title"}},
		{"no markdown", content{text: "text\n# comment"}, digest{2, "text"}},
	} {
		got, err := summarize(test.content)
		if got != test.want || err != nil {
			t.Errorf("%s: got %+v, %v, want %+v", test.name, got, err, test.want)
		}
	}
	for _, text := range []string{"", " \n\t", "--- *** ---"} {
		if got, err := summarize(content{text: text, title: "A title"}); !errors.Is(err, errNoWords) || got != (digest{}) {
			t.Errorf("%q: got %+v, %v, want %v", text, got, err, errNoWords)
		}
	}
}

func TestShorten(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"", ""},
		{"12345", "12345"},
		{"123456", "1234…"},
		{"äöüßéè", "äöüß…"},
		{"abc def", "abc…"},
	} {
		if got := shorten(test.text, 5); got != test.want {
			t.Errorf("%q: got %q, want %q", test.text, got, test.want)
		}
	}
}
