package wordcount

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/iotest"
)

func TestCount(t *testing.T) {
	for _, test := range []struct {
		text string
		want Counts
		err  string
	}{
		{text: "one two\n  three\n", want: Counts{Bytes: 16, Words: 3, Lines: 2}},
		{text: "größer, kleiner", want: Counts{Bytes: 17, Words: 2}},
		{text: "  \n", want: Counts{Bytes: 3, Lines: 1}},
		{text: "\uFFFD", want: Counts{Bytes: 3, Words: 1}},
		{text: "", err: "the document is empty"},
		{text: "a\x00b", err: "the document is not a text in UTF-8"},
		{text: "a\xffb", err: "the document is not a text in UTF-8"},
	} {
		got, err := Count(t.Context(), strings.NewReader(test.text))
		if err != nil || test.err != "" {
			if err == nil || err.Error() != test.err {
				t.Errorf("%q: got %v, want %s", test.text, err, test.err)
			}
			continue
		}
		if got != test.want {
			t.Errorf("%q: got %+v, want %+v", test.text, got, test.want)
		}
	}
}

func TestCountFails(t *testing.T) {
	broken := errors.New("broken")
	if _, err := Count(t.Context(), iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	ended := errors.New("ended")
	ctx, cancel := context.WithCancelCause(t.Context())
	endless := readerFunc(func(p []byte) (int, error) { // ends the context on its way
		cancel(ended)
		return copy(p, "€"), nil
	})
	if _, err := Count(ctx, endless); !errors.Is(err, ended) {
		t.Errorf("got %v", err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
