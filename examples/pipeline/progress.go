package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/docevents/docevents-go"
)

// progress shows how far the pipeline is. Lines written to it, as log lines
// are, stay whole.
type progress interface {
	io.Writer
	done(result)
	finish()
}

// newProgress returns a bar on a terminal, else lines.
func newProgress(out *os.File, total int, stats func() docevents.Stats) progress {
	if total > 0 && term.IsTerminal(int(out.Fd())) {
		return newBar(out, total, stats)
	}
	return &lines{out: out, total: total, stats: stats, now: time.Now, shown: time.Now()}
}

// lines is progress for a log file: a line every few seconds.
type lines struct {
	out   io.Writer
	total int
	stats func() docevents.Stats
	now   func() time.Time

	mu      sync.Mutex // guards what follows, and keeps lines apart
	count   int
	failed  int
	shown   time.Time
	written int // the count of the last line
}

const lineInterval = 2 * time.Second

func (l *lines) done(r result) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count++
	if r.err != nil {
		l.failed++
	}
	if now := l.now(); now.Sub(l.shown) >= lineInterval {
		l.shown = now
		l.showLocked()
	}
}

func (l *lines) showLocked() {
	s := l.stats()
	l.written = l.count
	fmt.Fprintf(l.out, "%s of %s documents (%d%%), %s failed; events: %s delivered, %s on their way\n",
		grouped(l.count), grouped(l.total), 100*l.count/l.total, grouped(l.failed), grouped(s.Delivered), grouped(s.Pending))
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out.Write(b)
}

func (l *lines) finish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.count > l.written {
		l.showLocked()
	}
}

// bar is progress for a terminal.
type bar struct {
	out   io.Writer
	stats func() docevents.Stats

	mu     sync.Mutex // guards what follows, and keeps what is drawn apart
	bar    *progressbar.ProgressBar
	failed int
}

func newBar(out io.Writer, total int, stats func() docevents.Stats) *bar {
	return &bar{out: out, stats: stats, bar: progressbar.NewOptions(total,
		progressbar.OptionSetWriter(out),
		progressbar.OptionSetWidth(16),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionShowCount(),
		progressbar.OptionShowIts(),
		progressbar.OptionSetItsString("docs"),
		progressbar.OptionSetRenderBlankState(true),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionSetTheme(progressbar.ThemeASCII),
	)}
}

func (b *bar) done(r result) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.err != nil {
		b.failed++
	}
	b.bar.Describe(fmt.Sprintf("%s failed, %s events stored", grouped(b.failed), grouped(b.stats().Delivered)))
	_ = b.bar.Add(1) // fails for what the bar can't draw: nothing to be done
}

func (b *bar) Write(line []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fmt.Fprint(b.out, clearLine) // and not bar.Clear, which leaves a ^C there
	return b.out.Write(line)     // the bar comes back with the next document
}

// finish takes the bar away: the summary says the same.
func (b *bar) finish() {
	b.mu.Lock()
	defer b.mu.Unlock()
	_ = b.bar.Exit()
	fmt.Fprint(b.out, clearLine)
}

const clearLine = "\r\x1b[K"
