package localstack

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// preferences are what the Prefer headers ask for; of several of one kind the
// first counts.
type preferences struct {
	resolution, missing, returns, count, handling string
	maxAffected                                   *int64
	unknown                                       []string
}

const (
	ignoreDuplicates = "resolution=ignore-duplicates"
	mergeDuplicates  = "resolution=merge-duplicates"
)

func parsePreferences(headers []string) preferences {
	var p preferences
	kinds := map[string]*string{
		ignoreDuplicates: &p.resolution, mergeDuplicates: &p.resolution,
		"missing=default": &p.missing, "missing=null": &p.missing,
		"return=representation": &p.returns, "return=minimal": &p.returns,
		"count=exact":     &p.count,
		"handling=strict": &p.handling, "handling=lenient": &p.handling,
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
			if n, err := strconv.ParseInt(number, 10, 64); err == nil && p.maxAffected == nil {
				p.maxAffected = &n
			}
		default:
			p.unknown = append(p.unknown, item)
		}
	}
	return p
}

func (p preferences) representation() bool { return p.returns == "return=representation" }
func (p preferences) strict() bool         { return p.handling == "handling=strict" }
func (p preferences) counts() bool         { return p.count != "" }

// applied is the Preference-Applied header for a request of the method.
func (p preferences) applied(method string) string {
	var list []string
	if method == http.MethodPost {
		list = append(list, p.resolution, p.missing)
	}
	if method == http.MethodPost || method == http.MethodDelete {
		list = append(list, p.returns)
	}
	list = append(list, p.count, p.handling)
	if method == http.MethodDelete && p.strict() && p.maxAffected != nil {
		list = append(list, "max-affected="+strconv.FormatInt(*p.maxAffected, 10))
	}
	return strings.Join(slices.DeleteFunc(list, func(s string) bool { return s == "" }), ", ")
}
