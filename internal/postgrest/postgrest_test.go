package postgrest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/docevents/docevents-go/internal/postgrest"
)

// FuzzParseQuery checks that no URL makes the parser panic.
func FuzzParseQuery(f *testing.F) {
	f.Add(`select=a,"b,c":d&and=(a.eq."x",c.in.(1,2))&order=a.desc&limit=1`)
	f.Add("select=a::text,b::int[]&order=a.desc.nullslast")
	f.Add("a=eq.%zz&and=((,)&b=in.()")
	f.Fuzz(func(t *testing.T, rawQuery string) {
		q, err := postgrest.ParseQuery(rawQuery)
		if (q == nil) == (err == nil) {
			t.Errorf("%v, %v", q, err)
		}
	})
}

func TestPreferences(t *testing.T) {
	tests := []struct {
		method  string
		headers []string
		want    string // Preference-Applied
	}{
		{"POST", nil, ""},
		{"POST", []string{"return=minimal", "return=representation, missing=default", "resolution=merge-duplicates,resolution=ignore-duplicates"}, "resolution=merge-duplicates, missing=default, return=minimal"},
		{"GET", []string{"return=minimal, count=exact, missing=null"}, "count=exact"},
		{"DELETE", []string{"max-affected=3,handling=strict,max-affected=4,max-affected=x"}, "handling=strict, max-affected=3"},
		{"DELETE", []string{"max-affected=3, odd, ,"}, ""},
	}
	for _, tt := range tests {
		if got := postgrest.ParsePreferences(tt.headers).Applied(tt.method); got != tt.want {
			t.Errorf("%s %q: %q, want %q", tt.method, tt.headers, got, tt.want)
		}
	}
}

// TestHint checks the hints of ErrTable with PostgREST's own examples: similarities
// of 0.875 and 0.75 are enough, 0.5 is not.
func TestHint(t *testing.T) {
	known := []string{"clients", "projects", "Tasks"}
	many := make([]string, 500)
	for i := range many {
		many[i] = fmt.Sprint("projects", i)
	}
	for _, test := range []struct {
		name  string
		known []string
		want  string
	}{
		{"projectx", known, "projects"},
		{"projecxx", known, "projects"},
		{"projxxxx", known, ""},
		{"task", known, "Tasks"},
		{"", known, ""},
		{"projects", nil, ""},
		{"projects0", many[:499], "projects0"},
		{"projects0", many, ""},
	} {
		got := ""
		if hint := postgrest.ErrTable("api", test.name, test.known...).Hint; hint != nil {
			got = strings.TrimSuffix(strings.TrimPrefix(*hint, "Perhaps you meant the table 'api."), "'")
		}
		if got != test.want {
			t.Errorf("%q among %d tables: got %q, want %q", test.name, len(test.known), got, test.want)
		}
	}
}
