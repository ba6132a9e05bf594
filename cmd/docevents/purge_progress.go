package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	progressInterval = 200 * time.Millisecond
	eraseLine        = "\r\x1b[K"
)

// A progressWriter is an io.Writer that keeps a progress line below the text that is
// written to it. If the output isn't a terminal, there is no progress line. A
// progressWriter is safe for concurrent use.
type progressWriter struct {
	mu    sync.Mutex // guards line and writes to w
	w     io.Writer
	width func() int // the terminal's width; 0 if w isn't a terminal
	line  string     // the progress line on the screen, or ""
}

func newProgress(w io.Writer) *progressWriter {
	return &progressWriter{w: w, width: func() int { return terminalWidth(w) }}
}

func (p *progressWriter) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.line == "" {
		return p.w.Write(text)
	}
	if _, err := fmt.Fprintf(p.w, "%s%s%s", eraseLine, text, p.line); err != nil {
		return 0, err
	}
	return len(text), nil
}

// set replaces the progress line. "" removes it.
func (p *progressWriter) set(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if width := p.width(); width > 0 && line != p.line {
		p.line = cut(line, width-1) // leaves a character for the cursor
		fmt.Fprint(p.w, eraseLine+p.line)
	}
}

// show calls f every progressInterval, and prints the line that f returns. The function
// stop removes the line and ends the goroutine of show.
func (p *progressWriter) show(f func() string) (stop func()) {
	if p.width() == 0 {
		return func() {}
	}
	ended := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		ticker := time.NewTicker(progressInterval)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				p.set(f())
			case <-ended:
				p.set("")
				return
			}
		}
	})
	return sync.OnceFunc(func() {
		close(ended)
		wg.Wait()
	})
}
