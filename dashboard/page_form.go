package dashboard

import (
	"net/url"
	"time"
)

// IsEdited reports whether the view shows the form for the range and the filters.
func (p *page) IsEdited() bool { return p.query.Get("edit") != "" }

// InputTime returns the text for one of the form's two time inputs. t is the start or
// the end of the range, which InputTime rounds down to the minute. If the range has a
// name, such as 7d, InputTime returns "", so that the form keeps the named range. It
// also returns "" if the range isn't valid.
func (p *page) InputTime(t time.Time) string {
	if p.Range.Name != "" || p.isRangeBad {
		return ""
	}
	return inputTime(t.Truncate(time.Minute))
}

// IsPlain reports whether the form has a text input for the filter. Some values, such as
// those with line breaks, might be changed by a text input. The form leaves out the
// inputs of filters with such values.
func (f filter) IsPlain() bool { return clean(f.Value, 6*longestValue) == f.Value }

// Keep returns the parameters of the URL that have no visible input in the form. The
// form submits these parameters in a hidden input, so that they aren't lost. Keep
// encodes them as a query string, because a browser may change line breaks in the value
// of an input.
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

// unkeep decodes the hidden input of the form, which is the parameter keep, and adds
// the decoded parameters to query. If query already has a value for a parameter,
// unkeep doesn't change it.
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
