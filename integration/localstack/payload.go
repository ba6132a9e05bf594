package localstack

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"unicode/utf8"

	"github.com/docevents/docevents-go/internal/postgrest"
)

// payloadKeys checks the JSON body of a POST: an object, or an array of objects that
// all have the same keys. It returns these keys, sorted, and the body. A string, a
// number, a boolean or null counts as an empty array.
func payloadKeys(body []byte) ([]string, []byte, *postgrest.Error) {
	if !json.Valid(body) || !utf8.Valid(body) {
		return nil, nil, errInvalidJSON
	}
	list := body
	switch firstByte(body) {
	case '{':
		list = slices.Concat([]byte("["), body, []byte("]"))
	case '[':
	default:
		return nil, []byte("[]"), nil
	}
	var rows []map[string]json.RawMessage
	if json.Unmarshal(list, &rows) != nil {
		return nil, nil, errKeysDiffer
	}
	var keys []string
	for i, row := range rows {
		these := slices.Sorted(maps.Keys(row))
		if row == nil || i > 0 && !slices.Equal(these, keys) {
			return nil, nil, errKeysDiffer
		}
		keys = these
	}
	return keys, body, nil
}

// firstByte returns the first byte of the JSON value, or 0 if the body is empty.
func firstByte(body []byte) byte {
	if body = bytes.TrimLeft(body, " \t\r\n"); len(body) > 0 {
		return body[0]
	}
	return 0
}
