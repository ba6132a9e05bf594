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

// A progress is a writer to a terminal that keeps a changing line below what is
// written to it. It shows no line on anything else.
type progress struct {
	mu    sync.Mutex // guards writing, and line
	w     io.Writer
	width func() int // 0: not a terminal
	line  string     // on the screen now
}

func newProgress(w io.Writer) *progress {
	return &progress{w: w, width: func() int { return terminalWidth(w) }}
}

func (p *progress) Write(text []byte) (int, error) {
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

// set replaces the line. "" removes it.
func (p *progress) set(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if width := p.width(); width > 0 && line != p.line {
		p.line = cut(line, width-1) // the cursor stands behind it
		fmt.Fprint(p.w, eraseLine+p.line)
	}
}

// show shows the line that f returns, again and again until stop is called.
func (p *progress) show(f func() string) (stop func()) {
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
