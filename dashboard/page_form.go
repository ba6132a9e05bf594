package dashboard

import (
	"net/url"
	"time"
)

// The form for the filters and the range is part of a view, which a link opens.

// IsEdited reports whether the form for the range and the filters is open.
func (p *page) IsEdited() bool { return p.query.Get("edit") != "" }

// InputTime is a time of the range as the form shows it. It is "" for one of the
// spans.
func (p *page) InputTime(t time.Time) string {
	if p.Range.Name != "" || p.isRangeBad {
		return ""
	}
	return inputTime(t.Truncate(time.Minute))
}

// IsPlain reports whether an input can hold the filter's value. Browsers remove
// line breaks, and other characters can't be seen there.
func (f filter) IsPlain() bool { return clean(f.Value, 6*longestValue) == f.Value }

// Keep returns the parameters that the form has no inputs for, as one encoded
// value, which a form sends unchanged.
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

// unkeep returns the query of a request, with the parameters of Keep in it.
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
