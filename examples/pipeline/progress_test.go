package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/docevents/docevents-go"
)

func TestLines(t *testing.T) {
	var out strings.Builder
	now := time.Unix(0, 0)
	l := &lines{
		out: &out, total: 2000, now: func() time.Time { return now }, shown: now,
		stats: func() docevents.Stats { return docevents.Stats{Delivered: 3210, Pending: 4} },
	}
	for i := range 1500 {
		if i == 1000 || i == 1200 {
			now = now.Add(lineInterval)
		}
		var r result
		if i%500 == 0 {
			r.err = errors.New("broken")
		}
		l.done(r)
	}
	fmt.Fprintln(l, "a log line")
	l.finish()
	l.finish()
	const want = `1,001 of 2,000 documents (50%), 3 failed; events: 3,210 delivered, 4 on their way
1,201 of 2,000 documents (60%), 3 failed; events: 3,210 delivered, 4 on their way
a log line
1,500 of 2,000 documents (75%), 3 failed; events: 3,210 delivered, 4 on their way
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func TestLinesOfNoDocuments(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	newProgress(null, 0, func() docevents.Stats { return docevents.Stats{} }).finish()
}

// A log line replaces the bar, which comes back below it, and goes at the end.
func TestBar(t *testing.T) {
	var out strings.Builder
	b := newBar(&out, 3, func() docevents.Stats { return docevents.Stats{Delivered: 1234} })
	b.done(result{err: errors.New("broken")})
	fmt.Fprintln(b, "a log line")
	b.done(result{})
	b.done(result{})
	b.finish()
	got := out.String()
	if !strings.Contains(got, "\r\x1b[Ka log line\n") {
		t.Errorf("the log line doesn't stand alone: %q", got)
	}
	if !strings.Contains(got, "[.....") {
		t.Errorf("no bar: %q", got)
	}
	if !strings.HasSuffix(got, clearLine) {
		t.Errorf("the bar stays: %q", got)
	}
}
