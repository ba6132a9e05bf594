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
	"unicode/utf8"
)

const (
	maxExtraBytes = 64 << 10 // of the JSON with its keys
	maxExtraDepth = 1000     // levels; for some thousands, PostgreSQL refuses the request (max_stack_depth)
	maxJSONDepth  = 10_000   // of encoding/json
)

// An extraEncoder is reused, so an event allocates only the string of its JSON, and
// what encoding/json allocates for structs, slices and the like.
type extraEncoder struct {
	text bytes.Buffer
	json *json.Encoder // to text
}

var extraEncoders = sync.Pool{New: func() any {
	e := &extraEncoder{}
	e.json = json.NewEncoder(&e.text)
	e.json.SetEscapeHTML(false)
	return e
}}

// EncodeExtra returns the values as they are in a row's JSON, each after its key. Its
// errors name the key, never the value.
func (c *Columns) EncodeExtra(extra map[string]any) (string, error) {
	if len(extra) == 0 {
		return "", nil
	}
	e := extraEncoders.Get().(*extraEncoder)
	defer func() {
		if e.text.Cap() <= 2*maxExtraBytes { // a larger one is left to the garbage collector
			e.text.Reset()
			extraEncoders.Put(e)
		}
	}()
	found := 0
	for i, name := range c.extra {
		value, given := extra[name]
		if !given {
			continue
		}
		found++
		e.text.WriteString(c.extraKeys[i])
		if !e.encode(value) {
			return "", fmt.Errorf("the event's Extra[%q] is a %T that can't be encoded as JSON: pass strings, numbers, maps and slices", name, value)
		}
	}
	if found < len(extra) {
		unknown := slices.Sorted(maps.Keys(extra))
		unknown = slices.DeleteFunc(unknown, func(name string) bool { return slices.Contains(c.extra, name) })
		return "", fmt.Errorf("the event's Extra[%.70q] has no column: name it in WithColumns' Extra", unknown[0])
	}
	text := cleanJSON(e.text.Bytes())
	switch {
	case len(text) > maxExtraBytes:
		return "", fmt.Errorf("the event's Extra is %d bytes as JSON: %d are the most", len(text), maxExtraBytes)
	case tooDeep(text):
		return "", fmt.Errorf("the event's Extra nests deeper than %d levels", maxExtraDepth)
	}
	return string(text), nil
}

// encode reports whether v can be encoded. A method of the app may fail or panic.
func (e *extraEncoder) encode(v any) (ok bool) {
	defer func() { _ = recover() }()
	return e.value(v, 0) == nil
}

// value encodes the most common types without the allocations of encoding/json, and
// leaves the others to that, as well as maps that are nested deeply or contain
// themselves.
func (e *extraEncoder) value(v any, depth int) error {
	switch v := v.(type) {
	case string:
		return e.quote(v)
	case int:
		e.text.Write(strconv.AppendInt(e.text.AvailableBuffer(), int64(v), 10))
		return nil
	case map[string]any:
		if len(v) > 0 && depth < 8 {
			return e.object(v, depth+1)
		}
	}
	return e.marshal(v)
}

func (e *extraEncoder) quote(s string) error {
	if !isPlain(s) {
		return e.marshal(s)
	}
	e.text.WriteByte('"')
	e.text.WriteString(s)
	return e.text.WriteByte('"')
}

func (e *extraEncoder) marshal(v any) error {
	if err := e.json.Encode(v); err != nil {
		return err
	}
	e.text.Truncate(e.text.Len() - 1) // the line break
	return nil
}

func (e *extraEncoder) object(object map[string]any, depth int) error {
	var room [16]string
	keys := slices.AppendSeq(room[:0], maps.Keys(object))
	slices.Sort(keys)
	separator := byte('{')
	for _, key := range keys {
		e.text.WriteByte(separator)
		if err := e.quote(key); err != nil {
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

// escapes matches the escapes in JSON. A pair of surrogates is one match.
var escapes = regexp.MustCompile(`\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\u....|\\.`)

// cleanJSON does for the texts in JSON what CleanText does. PostgreSQL refuses escaped
// NULs (22P05), and surrogates that are not in a pair (22P02).
func cleanJSON(text []byte) []byte {
	if !utf8.Valid(text) {
		text = bytes.ToValidUTF8(text, []byte("\uFFFD"))
	}
	if !bytes.Contains(text, []byte(`\u`)) {
		return text
	}
	return escapes.ReplaceAllFunc(text, func(escape []byte) []byte {
		switch {
		case string(escape) == `\u0000`:
			return nil
		case len(escape) == 6 && escape[2]|0x20 == 'd' && escape[3] >= '8':
			return []byte(`\ufffd`)
		}
		return escape
	})
}

// tooDeep reports whether ,"key":value,... has more than maxExtraDepth levels. It puts
// the text into more levels, up to those that encoding/json accepts, and validates it.
func tooDeep(text []byte) bool {
	if bytes.Count(text, []byte("{"))+bytes.Count(text, []byte("[")) <= maxExtraDepth {
		return false
	}
	const around = maxJSONDepth - maxExtraDepth - 1
	nested := strings.Repeat("[", around) + "{" + string(text[1:]) + "}" + strings.Repeat("]", around)
	return !json.Valid([]byte(nested))
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
