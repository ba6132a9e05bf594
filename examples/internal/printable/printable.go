// Package printable makes text from elsewhere harmless to print.
package printable

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Quote returns the text as it is, or quoted where anything in it can't be seen:
// a file's name may hold line ends, and what moves a terminal's cursor.
func Quote(text string) string {
	if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return strconv.Quote(text)
	}
	return text
}
