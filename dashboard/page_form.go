package dashboard

import (
	"net/url"
	"time"
)

// IsEdited reports whether the view shows the form with the range and the filters.
func (p *page) IsEdited() bool { return p.query.Get("edit") != "" }

// InputTime returns the text for one of the form's two time inputs, rounded down to the
// minute. It returns "" if the range has a name, such as 7d, or isn't valid.
func (p *page) InputTime(t time.Time) string {
	if p.Range.Name != "" || p.isRangeBad {
		return ""
	}
	return inputTime(t.Truncate(time.Minute))
}

// IsPlain reports whether a text input can hold the filter's value unchanged. For
// example, a text input can't hold line breaks.
func (f filter) IsPlain() bool { return clean(f.Value, 6*longestValue) == f.Value }

// Keep returns the parameters that have no visible input in the form, as a query
// string. The form submits this string in a hidden input. In the string, line breaks
// are escaped, so that the browser doesn't change them.
func (p *page) Keep() string {
	query := url.Values{}
	for name, value := range p.own {
		query.Set(name, value)
	}
	if p.query.Get("range") == p.Range.Name {
		query.Set("range", p.Range.Name)
	}
	if p.Still {
		query.Set("refresh", "off")
	}
	for _, f := range p.Filters {
		if !f.IsPlain() {
			query.Set(f.Param, f.Value)
		}
	}
	for name, values := range query {
		if values[0] == "" {
			query.Del(name)
		}
	}
	return query.Encode()
}

// unkeep adds the parameters in the form's hidden input "keep" to the map "query". It
// doesn't replace a value that the map already has.
func unkeep(query url.Values) url.Values {
	kept, err := url.ParseQuery(query.Get("keep"))
	if err != nil {
		return query
	}
	for name, values := range kept {
		if query.Get(name) == "" {
			query[name] = values
		}
	}
	return query
}
