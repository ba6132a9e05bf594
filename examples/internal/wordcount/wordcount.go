// Package wordcount is the work that the example servers do: quick, real, and
// able to fail.
package wordcount

import (
	"bufio"
	"context"
	"errors"
	"io"
	"unicode"
	"unicode/utf8"
)

// Counts are of a text.
type Counts struct {
	Bytes, Words, Lines int
}

// Count counts what is in a text, until ctx ends.
func Count(ctx context.Context, text io.Reader) (Counts, error) {
	var c Counts
	inWord := false
	in := bufio.NewReader(text)
	for i := 0; ; i++ {
		r, size, err := in.ReadRune()
		switch {
		case errors.Is(err, io.EOF) && c.Bytes == 0:
			return c, errors.New("the document is empty")
		case errors.Is(err, io.EOF):
			return c, nil
		case err != nil:
			return c, err
		case r == 0 || r == utf8.RuneError && size == 1:
			return c, errors.New("the document is not a text in UTF-8")
		case i%(64<<10) == 0 && ctx.Err() != nil:
			return c, context.Cause(ctx)
		}
		c.Bytes += size
		if r == '\n' {
			c.Lines++
		}
		wasInWord := inWord
		inWord = !unicode.IsSpace(r)
		if inWord && !wasInWord {
			c.Words++
		}
	}
}
