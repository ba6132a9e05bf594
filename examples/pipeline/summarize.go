package main

import (
	"errors"
	"regexp"
	"strings"
	"unicode"
)

// A digest is what there is to know about a document's text.
type digest struct {
	words int
	title string
}

var errNoWords = errors.New("no words in it")

// maxTitle bounds a title, in characters: a first line may be a page long.
const maxTitle = 80

// summarize counts the words and finds the title: the format's own, or the
// first heading of markdown, or the first line that has words.
func summarize(c content) (digest, error) {
	d := digest{title: c.title}
	if c.markdown {
		d.title = markdownTitle(c.text)
	}
	for line := range strings.Lines(c.text) {
		n := 0
		for word := range strings.FieldsSeq(line) {
			if strings.ContainsFunc(word, isWordRune) { // a line of ===== has none
				n++
			}
		}
		if n > 0 && d.title == "" {
			d.title = line
		}
		d.words += n
	}
	if d.words == 0 {
		return digest{}, errNoWords
	}
	d.title = shorten(oneLine(d.title), maxTitle)
	return d, nil
}

func isWordRune(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }

var (
	codeBlock = regexp.MustCompile("(?ms)^ {0,3}```.*?^ {0,3}```")
	hashes    = regexp.MustCompile(`(?m)^ {0,3}#{1,6}[ \t]+(\S.*?)[ \t]*#*[ \t]*\r?$`)
	underline = regexp.MustCompile(`(?m)^ {0,3}(\S.*?)[ \t]*\r?\n {0,3}(?:=+|-{3,})[ \t]*\r?$`)
)

// markdownTitle returns the first heading, "" where there is none. A comment of
// a shell script in a code block is no heading.
func markdownTitle(text string) string {
	text = codeBlock.ReplaceAllString(text, "")
	first, title := len(text), ""
	for _, heading := range []*regexp.Regexp{hashes, underline} {
		if m := heading.FindStringSubmatchIndex(text); m != nil && m[0] < first {
			first, title = m[0], text[m[2]:m[3]]
		}
	}
	return title
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// shorten cuts s to so many characters, the last of them an ellipsis.
func shorten(s string, limit int) string {
	if r := []rune(s); len(r) > limit {
		return strings.TrimSpace(string(r[:limit-1])) + "…"
	}
	return s
}
