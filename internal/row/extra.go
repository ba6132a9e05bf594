package row

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// maxExtraBytes limits the size of the JSON of an event's Extra, including its keys.
const maxExtraBytes = 64 << 10

// maxExtraDepth limits how deep maps and slices may be nested in a value of Extra.
// encoding/json reads at most 10,000 levels. The array of rows in a request and the
// object of a row are two of them.
const maxExtraDepth = 9_998

// An extraEncoder encodes the values of Event.Extra as JSON. The pool extraEncoders
// keeps encoders for reuse, because a new encoder for each event would double the
// number of allocations.
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

// EncodeExtra encodes an event's Extra as the last part of the row's JSON, for example
// `,"a":1,"b":2`. If extra is empty, the result is "". If a value can't be encoded, the
// error contains the key, but never the value.
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
		if e.text.Cap() <= 2*maxExtraBytes { // don't keep a larger buffer
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
	// json.Valid rejects JSON with more than 10,000 levels. It is slow, so it is called
	// only if the text contains that many brackets.
	if opened := strings.Count(text, "[") + strings.Count(text, "{"); opened > maxExtraDepth && !json.Valid([]byte("[{"+text[1:]+"}]")) {
		return "", fmt.Errorf("the event's Extra has more than %d levels of maps and slices", maxExtraDepth)
	}
	return text, nil
}

// encode appends the JSON of v to e.text. It returns false if v can't be encoded, for
// example because a MarshalJSON method of the app returns an error or panics.
func (e *extraEncoder) encode(v any) (ok bool) {
	defer func() { _ = recover() }()
	return e.value(v, 0) == nil
}

// value appends the JSON of v to e.text. It encodes ints, maps and plain strings
// itself, because encoding/json would allocate memory. depth is the number of maps
// around v.
func (e *extraEncoder) value(v any, depth int) error {
	switch v := v.(type) {
	case string:
		return e.string(v)
	case int:
		e.text.Write(strconv.AppendInt(e.text.AvailableBuffer(), int64(v), 10))
		return nil
	case map[string]any:
		if len(v) > 0 && depth < 8 { // a deeper map may contain itself, and encoding/json returns an error for that
			return e.object(v, depth+1)
		}
	}
	return e.marshal(v)
}

func (e *extraEncoder) string(s string) error {
	if s == "" || !isPlain(s) {
		return e.marshal(s)
	}
	e.text.Write(appendText(e.text.AvailableBuffer(), s))
	return nil
}

// object appends a map as a JSON object with sorted keys, as encoding/json does.
func (e *extraEncoder) object(object map[string]any, depth int) error {
	var space [16]string
	keys := slices.AppendSeq(space[:0], maps.Keys(object))
	slices.Sort(keys)
	separator := byte('{')
	for _, key := range keys {
		e.text.WriteByte(separator)
		if err := e.string(key); err != nil {
			return err
		}
		e.text.WriteByte(':')
		if err := e.value(object[key], depth); err != nil {
			return err
		}
		separator = ','
	}
	return e.text.WriteByte('}')
}

func (e *extraEncoder) marshal(v any) error {
	if err := e.json.Encode(v); err != nil {
		return err
	}
	e.text.Truncate(e.text.Len() - 1) // removes the line break that Encode appends
	return nil
}

// jsonEscape matches each escape in JSON: an escaped NUL, a pair of surrogates, a
// surrogate that isn't in a pair, or any other escape. The last alternative also
// matches an escaped backslash, so that the second of its two backslashes isn't
// mistaken for the start of an escape.
var jsonEscape = regexp.MustCompile(`\\u0000|\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\u[dD][89a-fA-F]..|\\.`)

// cleanJSON converts the JSON text to a form that PostgreSQL accepts. It removes
// escaped NULs (error 22P05). It replaces invalid UTF-8, and surrogates that aren't in
// a pair (22P02), with U+FFFD.
func cleanJSON(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if !strings.Contains(text, `\`) {
		return text // the regexp would allocate memory
	}
	return jsonEscape.ReplaceAllStringFunc(text, func(escape string) string {
		switch {
		case escape == `\u0000`:
			return ""
		case len(escape) == len(`\ud800`):
			return `\ufffd`
		}
		return escape
	})
}

// DecodeExtra decodes text, a result of EncodeExtra. A number becomes a json.Number,
// because a float64 could lose digits.
func DecodeExtra(text string) map[string]any {
	if text == "" {
		return nil
	}
	var extra map[string]any
	d := json.NewDecoder(strings.NewReader("{" + text[1:] + "}"))
	d.UseNumber()
	_ = d.Decode(&extra) // text is valid JSON
	return extra
}
