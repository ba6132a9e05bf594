package row

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// maxExtraBytes bounds the JSON of an event's Extra, with its keys.
const maxExtraBytes = 64 << 10

// An extraEncoder is reused, because making one for each event would double the
// allocations.
type extraEncoder struct {
	text bytes.Buffer
	json *json.Encoder // writes to text
}

var extraEncoders = sync.Pool{New: func() any {
	e := &extraEncoder{}
	e.json = json.NewEncoder(&e.text)
	e.json.SetEscapeHTML(false)
	return e
}}

// EncodeExtra returns the keys and values as a part of a row's JSON: ,"key":value for
// each. Its errors name the key, never the value.
func (c *Columns) EncodeExtra(extra map[string]any) (string, error) {
	if len(extra) == 0 {
		return "", nil
	}
	for name := range extra {
		if !slices.Contains(c.extra, name) {
			return "", fmt.Errorf("the event's Extra[%.70q] has no column: name it in WithColumns' Extra", name)
		}
	}
	e := extraEncoders.Get().(*extraEncoder)
	defer func() {
		if e.text.Cap() <= 2*maxExtraBytes { // a larger buffer is left to the garbage collector
			e.text.Reset()
			extraEncoders.Put(e)
		}
	}()
	for _, name := range c.extra {
		value, given := extra[name]
		if !given {
			continue
		}
		e.text.Write(appendKey(e.text.AvailableBuffer(), ',', name))
		if !e.encode(value) {
			return "", fmt.Errorf("the event's Extra[%q] is a %T that can't be encoded as JSON: pass strings, numbers, maps and slices", name, value)
		}
	}
	text := cleanJSON(e.text.String())
	if len(text) > maxExtraBytes {
		return "", fmt.Errorf("the event's Extra is %d bytes as JSON: %d are the most", len(text), maxExtraBytes)
	}
	return text, nil
}

// encode appends v and reports whether it can be encoded. A MarshalJSON method of the
// app may fail or panic.
func (e *extraEncoder) encode(v any) (ok bool) {
	defer func() { _ = recover() }()
	if e.json.Encode(v) != nil {
		return false
	}
	e.text.Truncate(e.text.Len() - 1) // removes the line break that Encode appends
	return true
}

// escapes matches the escapes in JSON: a NUL, a pair of surrogates, a surrogate that
// isn't in a pair, and any other escape. The last one matters for \\u0000, which is a
// backslash and five ordinary characters.
var escapes = regexp.MustCompile(`\\u0000|\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\u[dD][89a-fA-F]..|\\.`)

// cleanJSON does for the strings in JSON what CleanText does. PostgreSQL refuses
// escaped NULs (22P05), and surrogates that aren't in a pair (22P02).
func cleanJSON(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if !strings.Contains(text, `\`) {
		return text // a search with regexp would allocate
	}
	return escapes.ReplaceAllStringFunc(text, func(escape string) string {
		switch {
		case escape == `\u0000`:
			return ""
		case len(escape) == len(`\ud800`):
			return `\ufffd`
		}
		return escape
	})
}

// DecodeExtra returns the values that EncodeExtra has encoded. A number becomes a
// json.Number, which loses no digit.
func DecodeExtra(text string) map[string]any {
	if text == "" {
		return nil
	}
	var extra map[string]any
	d := json.NewDecoder(strings.NewReader("{" + text[1:] + "}"))
	d.UseNumber()
	_ = d.Decode(&extra) // EncodeExtra's text is valid
	return extra
}
