package postgrest

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// Preferences are the preferences in a request's Prefer headers. Each string field
// contains a preference such as "count=exact", or "". If a kind of preference occurs
// twice, the first one applies. Unknown contains the preferences that this package
// doesn't know.
type Preferences struct {
	Resolution, Missing, Return, Count, Handling string
	MaxAffected                                  *int64
	Unknown                                      []string
}

const (
	IgnoreDuplicates = "resolution=ignore-duplicates"
	MergeDuplicates  = "resolution=merge-duplicates"
	MissingDefault   = "missing=default"
)

// ParsePreferences parses the values of a request's Prefer headers.
func ParsePreferences(headers []string) Preferences {
	var p Preferences
	kinds := map[string]*string{
		IgnoreDuplicates: &p.Resolution, MergeDuplicates: &p.Resolution,
		MissingDefault: &p.Missing, "missing=null": &p.Missing,
		"return=representation": &p.Return, "return=minimal": &p.Return,
		"count=exact":     &p.Count,
		"handling=strict": &p.Handling, "handling=lenient": &p.Handling,
	}
	for item := range strings.SplitSeq(strings.Join(headers, ","), ",") {
		item = strings.TrimSpace(item)
		kind, known := kinds[item]
		number, isMax := strings.CutPrefix(item, "max-affected=")
		switch {
		case item == "":
		case known:
			if *kind == "" {
				*kind = item
			}
		case isMax:
			if n, err := strconv.ParseInt(number, 10, 64); err == nil && p.MaxAffected == nil {
				p.MaxAffected = &n
			}
		default:
			p.Unknown = append(p.Unknown, item)
		}
	}
	return p
}

// Representation reports whether the answer must contain the rows.
func (p Preferences) Representation() bool { return p.Return == "return=representation" }

// Strict reports whether the request must fail if it contains an unknown preference, or
// if it would delete more than MaxAffected rows.
func (p Preferences) Strict() bool { return p.Handling == "handling=strict" }

// Counts reports whether the answer must contain the number of rows.
func (p Preferences) Counts() bool { return p.Count != "" }

// Applied returns the Preference-Applied header for a request with the given method.
func (p Preferences) Applied(method string) string {
	var list []string
	if method == http.MethodPost {
		list = append(list, p.Resolution, p.Missing)
	}
	if method == http.MethodPost || method == http.MethodDelete {
		list = append(list, p.Return)
	}
	list = append(list, p.Count, p.Handling)
	if method == http.MethodDelete && p.Strict() && p.MaxAffected != nil {
		list = append(list, "max-affected="+strconv.FormatInt(*p.MaxAffected, 10))
	}
	return strings.Join(slices.DeleteFunc(list, func(s string) bool { return s == "" }), ", ")
}
