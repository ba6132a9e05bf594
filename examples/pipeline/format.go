package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"github.com/docevents/docevents-go/examples/internal/printable"
)

func newTable(out io.Writer) *tabwriter.Writer {
	return tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
}

var english = message.NewPrinter(language.English)

// grouped writes a number as 12,345.
func grouped[N int | int64](n N) string { return english.Sprintf("%d", n) }

// column is grouped for the beginning of a line.
func column[N int | int64](n N) string { return fmt.Sprintf("%*s", columnWidth, grouped(n)) }

const columnWidth = len("1,234,567") + 2

// round leaves three digits or so.
func round(d time.Duration) time.Duration {
	unit := time.Duration(1)
	for d/unit >= 1000 {
		unit *= 10
	}
	return d.Round(unit)
}

// shortPath keeps the end of a path, which says more than its beginning.
func shortPath(path string) string {
	path = printable.Quote(path)
	const limit = 30
	r := []rune(path)
	if len(r) <= limit {
		return path
	}
	tail := string(r[len(r)-limit+1:])
	if i := strings.IndexByte(tail, '/'); i >= 0 {
		tail = tail[i:]
	}
	return "…" + tail
}
