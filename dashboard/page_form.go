package dashboard

import (
	"net/url"
	"time"
)

// IsEdited reports whether the view shows the form for the range and the filters.
func (p *page) IsEdited() bool { return p.query.Get("edit") != "" }

// InputTime returns the value of a time input of the form. It is "" if the range has a
// name, such as 7d, or isn't valid.
func (p *page) InputTime(t time.Time) string {
	if p.Range.Name != "" || p.isRangeBad {
		return ""
	}
	return inputTime(t.Truncate(time.Minute))
}

// IsPlain reports whether an input of the form can hold the filter's value unchanged.
// Browsers remove line breaks from an input, and don't show control characters.
func (f filter) IsPlain() bool { return clean(f.Value, 6*longestValue) == f.Value }

// Keep returns the parameters that have no input in the form. They are encoded as one
// value for a hidden input, because browsers may change line breaks in plain values.
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

// unkeep adds the parameters in the value of Keep to the query of a request, except those
// that the query already has.
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
