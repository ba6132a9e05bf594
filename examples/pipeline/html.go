package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
	"golang.org/x/net/html/charset"
)

// htmlContent returns the title and the text that a browser would show.
func htmlContent(data []byte) (content, error) {
	decoded, err := charset.NewReader(bytes.NewReader(data), "text/html")
	if errors.Is(err, io.EOF) {
		return content{}, nil // empty
	}
	if err != nil {
		return content{}, err
	}
	var text, title strings.Builder
	into := &text // nil: not shown
	tokens := html.NewTokenizer(decoded)
	for {
		switch kind := tokens.Next(); kind {
		case html.ErrorToken:
			if err := tokens.Err(); !errors.Is(err, io.EOF) {
				return content{}, fmt.Errorf("html: %w", err)
			}
			return content{text: text.String(), title: oneLine(title.String())}, nil
		case html.TextToken:
			if into != nil {
				into.Write(tokens.Text())
			}
		case html.StartTagToken, html.EndTagToken, html.SelfClosingTagToken:
			name, _ := tokens.TagName()
			tag := atom.Lookup(name)
			if !inline[tag] {
				text.WriteByte('\n') // <td>two<td>words
			}
			// What is in these is text to the tokenizer: an end tag follows.
			switch tag {
			case atom.Title:
				into = &title
			case atom.Script, atom.Style, atom.Textarea, atom.Iframe, atom.Noframes:
				into = nil
			}
			if kind != html.StartTagToken || into == &title && title.Len() > 0 { // an SVG has titles, too
				into = &text
			}
		}
	}
}

// inline are the tags that don't end a word.
var inline = map[atom.Atom]bool{
	atom.A: true, atom.Abbr: true, atom.B: true, atom.Bdi: true, atom.Bdo: true, atom.Big: true, atom.Cite: true,
	atom.Code: true, atom.Del: true, atom.Dfn: true, atom.Em: true, atom.Font: true, atom.I: true, atom.Ins: true,
	atom.Kbd: true, atom.Mark: true, atom.Q: true, atom.S: true, atom.Samp: true, atom.Small: true, atom.Span: true,
	atom.Strike: true, atom.Strong: true, atom.Sub: true, atom.Sup: true, atom.Tt: true, atom.U: true, atom.Var: true,
	atom.Wbr: true,
}
