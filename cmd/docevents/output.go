package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

func printJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}

// printable replaces control characters and line breaks with spaces, and trims the
// text, so that it is safe to print on a terminal and in a table.
func printable(text string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsGraphic(r) {
			return r
		}
		return ' '
	}, text))
}

const timeFormat = "2006-01-02 15:04:05"

// inUTC formats a time for a table. The zero time is "-".
func inUTC(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(timeFormat)
}

// short formats a duration for a table, with about three digits. 0 is "-".
func short(d time.Duration) string {
	switch {
	case d == 0:
		return "-"
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(10 * time.Millisecond).String()
	case d < time.Hour:
		return plainDuration(d.Round(time.Second))
	}
	return plainDuration(d.Round(time.Minute))
}

// orDash returns printable(text), or "-" if that is empty.
func orDash(text string) string {
	if text = printable(text); text == "" {
		return "-"
	}
	return text
}

// A table prints rows in columns. A column is as wide as its widest cell. On a
// terminal, lines are cut at the terminal's width.
type table struct {
	head []string // in capitals; a leading space aligns the column to the right
	rows [][]string
}

func (t *table) add(cells ...any) {
	row := make([]string, len(cells))
	for i, cell := range cells {
		row[i] = fmt.Sprint(cell)
	}
	t.rows = append(t.rows, row)
}

func (t *table) print(w io.Writer) {
	lines := append([][]string{t.head}, t.rows...)
	widths := make([]int, len(t.head))
	for _, line := range lines {
		for i, cell := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(strings.TrimSpace(cell)))
		}
	}
	limit := terminalWidth(w)
	for _, line := range lines {
		var b strings.Builder
		for i, cell := range line {
			cell = strings.TrimSpace(cell)
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if strings.HasPrefix(t.head[i], " ") {
				cell = pad + cell
			} else {
				cell += pad
			}
			if i > 0 {
				cell = "  " + cell
			}
			b.WriteString(cell)
		}
		fmt.Fprintln(w, cut(strings.TrimRight(b.String(), " "), limit))
	}
}

// cut shortens line to at most maxLength characters. If maxLength is 0, there is no
// limit.
func cut(line string, maxLength int) string {
	runes := []rune(line)
	if maxLength <= 0 || len(runes) <= maxLength {
		return line
	}
	return string(runes[:maxLength-1]) + "…"
}

// terminalWidth returns the width of the terminal w in characters, 80 if the width is
// unknown, and 0 if w isn't a terminal.
func terminalWidth(w io.Writer) int {
	file, ok := w.(*os.File)
	if !ok || !isTerminal(file) {
		return 0
	}
	if width := columns(file); width > 0 {
		return width
	}
	return 80
}

// isTerminal reports whether file is a terminal. It also returns true for other
// devices, such as /dev/null. That does no harm.
func isTerminal(file *os.File) bool {
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
