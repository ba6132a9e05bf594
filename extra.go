package docevents

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
	// An event's Extra is bounded as JSON: its size with its keys, and how deep
	// it nests, since beyond some thousands PostgreSQL refuses the whole request
	// (max_stack_depth).
	maxExtraBytes = 64 << 10
	maxExtraDepth = 1000
	maxJSONDepth  = 10_000 // encoding/json's
)

// An extraEncoder is reused: an event costs no more than the string of its JSON,
// and what encoding/json needs for structs, slices and the like.
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

// encodeExtra returns the values as they stand in a row, each behind its key.
// Its errors name the key, never the value.
func (c *columns) encodeExtra(extra map[string]any) (string, error) {
	if len(extra) == 0 {
		return "", nil
	}
	e := extraEncoders.Get().(*extraEncoder)
	defer func() {
		if e.text.Cap() <= 2*maxExtraBytes { // else it goes
			e.text.Reset()
			extraEncoders.Put(e)
		}
	}()
	found := 0
	for i, name := range c.Extra {
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
		unknown = slices.DeleteFunc(unknown, func(name string) bool { return slices.Contains(c.Extra, name) })
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

// encode says whether v has a JSON form. A method of the app's may fail, or
// panic: then it hasn't.
func (e *extraEncoder) encode(v any) (ok bool) {
	defer func() { _ = recover() }()
	return e.value(v, 0) == nil
}

// value does itself what is most of Extra, without what encoding/json allocates
// for maps, and leaves all else to that; also what is nested deep, or in itself.
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
	e.text.Truncate(e.text.Len() - 1) // the line's end
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

// escapes are those of a JSON text, surrogates by the pair where they are one.
var escapes = regexp.MustCompile(`\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\u....|\\.`)

// cleanJSON makes the JSON's texts storable, as cleanText does: PostgreSQL
// refuses escaped NULs (22P05) and surrogates without their other half (22P02).
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

// tooDeep leaves it to encoding/json to count the levels of ,"key":value,... by
// putting it into as many as leave maxExtraDepth.
func tooDeep(text []byte) bool {
	if bytes.Count(text, []byte("{"))+bytes.Count(text, []byte("[")) <= maxExtraDepth {
		return false
	}
	const around = maxJSONDepth - maxExtraDepth - 1
	nested := strings.Repeat("[", around) + "{" + string(text[1:]) + "}" + strings.Repeat("]", around)
	return !json.Valid([]byte(nested))
}

// decodeExtra is the way back, with numbers as json.Number, which loses no
// digit.
func decodeExtra(text string) map[string]any {
	if text == "" {
		return nil
	}
	var extra map[string]any
	d := json.NewDecoder(strings.NewReader("{" + text[1:] + "}"))
	d.UseNumber()
	_ = d.Decode(&extra) // it is encodeExtra's
	return extra
}
