package docevents

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"
)

// What a message may hold is told by its code. PostgreSQL's own messages of the
// first kind name columns, tables and constraints; those of the second kind, and
// a gateway's without a code, quote values as well. What is of neither kind may
// hold anything: a trigger or a function has raised it, for all one knows.
var (
	namesOnly    = regexp.MustCompile(`^((08|0A|21|23|25|26|28|2B|2D|34|3B|3D|3F|40|42|44|53|54|55|57|58|XX)[0-9A-Z]{3}|PGRST[0-9A-Z]{3})$`)
	quotesValues = regexp.MustCompile(`^(22[0-9A-Z]{3}|27000|42601|PGRST1..)?$`)
	codeFormat   = regexp.MustCompile(`^[0-9A-Za-z]{1,16}$`)
)

// leftOut stands for a message that may hold anything.
const leftOut = "a message that is not PostgreSQL's own, left out since it may repeat the row"

const quotes = `"«»„“”‟‹›「」『』`

var (
	// values is from the first quote to the last, or to the end: a value may
	// hold quotes of its own. A single one after a letter is an apostrophe.
	values = regexp.MustCompile(`((^|[^\pL\pN` + quotes + `])['‘‚]|[` + quotes + `])(.*['’‘` + quotes + `]|.*)`)

	// Names stay as they are; a quote that can't be a name is a value after all.
	quoted = regexp.MustCompile(`[` + quotes + `][^` + quotes + `]*[` + quotes + `]`)
	name   = regexp.MustCompile(`^.[\pZ]?[\pL\pN_$.-]{1,127}[\pZ]?.$`)
)

// oneLine replaces what could break a line, be a terminal's escape or change
// the direction of what follows. Invalid UTF-8 comes out as U+FFFD.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsGraphic(r):
			return r
		case unicode.IsSpace(r):
			return ' '
		}
		return unicode.ReplacementChar
	}, text)
}

// repeatable returns what may be logged of a message that came with that code:
// one line of at most maxErrorText bytes, without what may be a row's text.
func repeatable(code, text string) string {
	text = oneLine(text)
	switch {
	case text == "":
	case quotesValues.MatchString(code):
		text = values.ReplaceAllString(text, `$2"…"`)
	case namesOnly.MatchString(code):
		text = quoted.ReplaceAllStringFunc(text, func(q string) string {
			if name.MatchString(q) {
				return q
			}
			return `"…"`
		})
	default:
		text = leftOut
	}
	return cutText(text, maxErrorText)
}

// query is a URL's, as it may stand in a text.
var query = regexp.MustCompile(`\?\S+`)

// A saidError is an error with a text that may be logged.
type saidError struct {
	error
	text string
}

func (e saidError) Error() string { return e.text }
func (e saidError) Unwrap() error { return e.error }

// loggable returns what a transport has returned instead of an answer, with a
// text that may be logged: a foreign one's may hold the URL, and net/http quotes
// what is not HTTP, as an echo of the request.
func loggable(err error, key string) error {
	said := fmt.Sprint(err) // unlike err.Error() it can't panic
	text := repeatable("", query.ReplaceAllString(strings.ReplaceAll(said, key, "[key]"), "?…"))
	if text == said {
		return err
	}
	return saidError{err, text}
}
