package docevents

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestEnter(t *testing.T) {
	for in, want := range map[string]string{
		`{"a": 1, "k": 2}`:                                "2",
		`{"a": "k", "k": {"b": 3}}`:                       `{"b":3}`,
		`{"a": {"k": 1}, "b": [{"k": 1}, "k"], "k": [4]}`: `[4]`,
		`{"a": [], "k": null}`:                            "null",
		`{"a": {"k": 1}}`:                                 "",
		`["k", 1]`:                                        "",
		`"k"`:                                             "",
		`{"a": {"k": `:                                    "",
		``:                                                "",
	} {
		dec := json.NewDecoder(strings.NewReader(in))
		var got json.RawMessage
		if enter(dec, "k") {
			if err := dec.Decode(&got); err != nil {
				t.Errorf("%s: %v", in, err)
			}
		}
		if compact := strings.ReplaceAll(string(got), " ", ""); compact != want {
			t.Errorf("%s: got %s, want %s", in, compact, want)
		}
	}
}
