package localstack

import (
	"bytes"
	"encoding/json"
	"slices"
	"unicode/utf8"
)

// payloadKeys returns the keys that every object of the body has, sorted, and
// the body to insert from. It looks at the keys only: the values are read by
// PostgreSQL.
func payloadKeys(body []byte) ([]string, []byte, *apiError) {
	if !json.Valid(body) || !utf8.Valid(body) {
		return nil, nil, errInvalidJSON
	}
	s := scanner{rest: body}
	switch firstByte(body) {
	case '{':
		return uniqueKeys(s.object()), body, nil
	case '[':
	default:
		return nil, []byte("[]"), nil // a lone value is no row
	}
	s.skipTo('[')
	var first [][]byte
	for row := 0; ; row++ {
		switch s.next() {
		case ']':
			return uniqueKeys(first), body, nil
		case ',':
			s.rest = s.rest[1:]
			if s.next() != '{' {
				return nil, nil, errKeysDiffer
			}
		case '{':
		default:
			return nil, nil, errKeysDiffer
		}
		keys := s.object()
		if row == 0 {
			first = slices.Clone(keys)
			continue
		}
		// Nearly always the keys come in one order.
		if !slices.EqualFunc(keys, first, bytes.Equal) && !slices.Equal(uniqueKeys(keys), uniqueKeys(first)) {
			return nil, nil, errKeysDiffer
		}
	}
}

// uniqueKeys decodes the keys and sorts them, as PostgREST does: so the same
// columns make the same statement.
func uniqueKeys(raw [][]byte) []string {
	keys := make([]string, len(raw))
	for i, key := range raw {
		_ = json.Unmarshal(key, &keys[i]) // valid: the whole body is
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

func firstByte(body []byte) byte {
	s := scanner{rest: body}
	return s.next()
}

// scanner walks through JSON that is known to be valid.
type scanner struct {
	rest []byte
	keys [][]byte // of the last object, with their quotes; reused
}

// next skips white space and returns the byte that comes then, 0 at the end.
func (s *scanner) next() byte {
	for i, c := range s.rest {
		if c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			s.rest = s.rest[i:]
			return c
		}
	}
	s.rest = nil
	return 0
}

// skipTo skips past the byte, which is known to come next.
func (s *scanner) skipTo(c byte) {
	if s.next() == c {
		s.rest = s.rest[1:]
	}
}

// object reads an object and returns its keys.
func (s *scanner) object() [][]byte {
	s.keys = s.keys[:0]
	s.skipTo('{')
	for {
		switch s.next() {
		case '"':
			s.keys = append(s.keys, s.text())
			s.skipTo(':')
			s.value()
		case ',':
			s.rest = s.rest[1:]
		default: // the closing brace
			s.rest = s.rest[1:]
			return s.keys
		}
	}
}

// text reads a string.
func (s *scanner) text() []byte {
	end := 1
	for s.rest[end] != '"' {
		if s.rest[end] == '\\' {
			end++
		}
		end++
	}
	text := s.rest[:end+1]
	s.rest = s.rest[end+1:]
	return text
}

// value skips a value.
func (s *scanner) value() {
	for depth := 0; ; {
		switch s.next() {
		case '"':
			s.text()
		case '{', '[':
			depth++
			s.rest = s.rest[1:]
		case '}', ']':
			depth--
			s.rest = s.rest[1:]
		case ',', ':':
			s.rest = s.rest[1:]
		default: // a number, true, false, null
			end := bytes.IndexAny(s.rest, ",]} \t\r\n")
			s.rest = s.rest[end:]
		}
		if depth == 0 {
			return
		}
	}
}
