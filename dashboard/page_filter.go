package dashboard

import (
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/docevents/docevents-go"
)

// A span is a range of time that the page offers, such as the last hour.
type span struct {
	Name, Words string // such as "1h" and "hour", as in "in the last hour"
	length      time.Duration
}

var spans = []span{
	{"1h", "hour", time.Hour},
	{"24h", "24 hours", 24 * time.Hour}, // the default
	{"7d", "7 days", 7 * 24 * time.Hour},
	{"30d", "30 days", 30 * 24 * time.Hour},
}

// A scope is the range of time and the filters that select the events on the page.
type scope struct {
	Range      span      // its Name is "" if the user of the page has chosen the times
	Since      time.Time // in UTC
	Until      time.Time // in UTC
	Filters    []filter
	isRangeBad bool
}

// A filter selects the events that have its Value in its column. The user of the page
// chooses the Value.
type filter struct {
	Param  string   // the name of its parameter in the URL
	Label  string   // its name on the page
	Value  string   // "" means no limit
	Words  []string // suggested values
	column string   // the column's name in the table
}

// reserved lists the parameters that aren't filters.
var reserved = []string{
	"range", "since", "until", "refresh", "edit", "keep", // of every view
	"state", "error", "failed_in", "cursor", "sort", "id", "order", "before", "from", "event", // of one view
}

// newFilters returns the filters that the page offers: one for each column in
// extraColumns, and those for an event's stage, type and user, if the table has columns
// for them. The filter for the type suggests the app's event types.
//
// The parameter of a column in extraColumns has the name of the column. If another
// parameter has this name, newFilters appends a dot, as in "id.".
func newFilters(columns docevents.Columns, types docevents.EventTypes, extraColumns []string) []filter {
	var words []string
	for _, list := range [][]docevents.EventType{types.Arrived, types.Started, types.Completed, types.Failed, types.Skipped, types.Notes} {
		for _, t := range list {
			words = append(words, string(t))
		}
	}
	all := []filter{
		{Param: "stage", Label: "Stage", column: columns.Stage},
		{Param: "type", Label: "Type", column: columns.Type, Words: words},
		{Param: "user", Label: "User", column: columns.UserID},
	}
	for _, name := range extraColumns {
		all = append(all, filter{Param: name, Label: name, column: name})
	}
	var filters []filter
	taken := slices.Clone(reserved)
	for _, f := range all {
		if f.column == "" || f.column == "-" || slices.ContainsFunc(filters, func(other filter) bool { return other.column == f.column }) {
			continue
		}
		for slices.Contains(taken, f.Param) {
			f.Param += "."
		}
		taken = append(taken, f.Param)
		filters = append(filters, f)
	}
	return filters
}

func (p *page) readScope(offered []filter) {
	p.Filters = slices.Clone(offered)
	size := 0
	for i := range p.Filters {
		f := &p.Filters[i]
		f.Value = p.query.Get(f.Param)
		if size += len(url.QueryEscape(f.Value)); size > maxFilters {
			f.Value = ""
			p.refuse("The filters are too long", "Together they may take up at most 2,400 bytes of the page's address. Remove one.")
		}
	}
	p.Range = spans[1]
	for _, s := range spans {
		if s.Name == p.query.Get("range") {
			p.Range = s
		}
	}
	p.Since, p.Until = p.Now.Add(-p.Range.length), p.Now
	since, until := p.query.Get("since"), p.query.Get("until")
	if since == "" && until == "" {
		return
	}
	var ok, alsoOK bool
	p.Until, ok = parseTime(until, p.Now)
	p.Since, alsoOK = parseTime(since, p.Until.Add(-p.Range.length))
	p.Range = span{}
	if !ok || !alsoOK || !p.Since.Before(p.Until) {
		p.isRangeBad = true
		p.refuse("The time range is not valid", "The start must be before the end, both in UTC and in the form 2026-01-31T15:04. Correct the range, or choose one of the ranges above.")
	}
}

// timeFormats are the formats that datetime-local inputs send, and RFC 3339.
var timeFormats = []string{"2006-01-02T15:04", "2006-01-02T15:04:05", time.RFC3339}

// parseTime parses a time in the URL. If text isn't a time, parseTime returns the
// argument "fallback" instead. The second result is true if text is a time or empty.
func parseTime(text string, fallback time.Time) (time.Time, bool) {
	for _, format := range timeFormats {
		if t, err := time.Parse(format, text); err == nil && t.Year() >= 1 && t.Year() <= 9999 {
			return t.UTC(), true
		}
	}
	return fallback, text == ""
}

// inputTime formats a time as a datetime-local input does.
func inputTime(t time.Time) string {
	if t.Truncate(time.Minute).Equal(t) {
		return t.UTC().Format("2006-01-02T15:04")
	}
	return t.UTC().Format("2006-01-02T15:04:05.999999999")
}

const (
	longestValue = 1 << 10 // the maximum bytes of an id, an error or a stage
	maxFilters   = 2_400   // the maximum bytes of all filters in a link; a view has 25 links or more, and must fit into maxBytes
)

// scopeQuery returns the query for the events of the scope, and the query's key.
// Requests with the same key share one read. If the range has a name, the key contains
// the name, not the times. So two requests for the last hour share a read, although
// their times differ.
func (p *page) scopeQuery() (docevents.Query, string) {
	q := docevents.Query{Since: p.Since, Until: p.Until, StuckAfter: p.StuckAfter}
	key := url.Values{"range": {p.Range.Name}}
	if p.Range.Name == "" {
		key["range"] = []string{inputTime(p.Since), inputTime(p.Until)}
	}
	for _, f := range p.Filters {
		if f.Value != "" {
			if q.Where == nil {
				q.Where = map[string]string{}
			}
			q.Where[f.column] = f.Value
			key.Set("filter "+f.column, f.Value)
		}
	}
	return q, key.Encode()
}

// A chip is a label for one condition of the view, with a link that removes the
// condition.
type chip struct{ Label, Value, Without string } // Without is the link

// Chips returns a chip for each filter that has a value. It also returns a chip for an
// error, for the error's stage, and for times that the user of the page has chosen.
func (p *page) Chips() (chips []chip) {
	if p.Range.Name == "" && !p.isRangeBad {
		chips = append(chips, chip{"Range", p.UTC(p.Since) + " to " + p.UTC(p.Until) + " UTC", p.Here("since", "", "until", "")})
	}
	for _, f := range p.Filters {
		if f.Value != "" {
			chips = append(chips, chip{f.Label, f.Value, p.Here(f.Param, "")})
		}
	}
	if v := p.own["error"]; v != "" {
		chips = append(chips, chip{"Error", v, p.Here("error", "", "failed_in", "")})
	}
	if v := p.own["failed_in"]; v != "" {
		chips = append(chips, chip{"Failed in", v, p.Here("failed_in", "")})
	}
	return chips
}

func (p *page) IsFiltered() bool {
	return slices.ContainsFunc(p.Filters, func(f filter) bool { return f.Value != "" })
}

// When returns the range in words, as the beginning of a sentence.
func (p *page) When() string {
	if p.Range.Name != "" {
		return "In the last " + p.Range.Words
	}
	return "From " + p.UTC(p.Since) + " to " + p.UTC(p.Until) + " UTC"
}

// Here returns a link to the first page of the same view, with the same range, the same
// filters and the view's own parameters. namesAndValues contains a parameter's name,
// its new value, the next name, the next value, and so on. An empty value removes the
// parameter.
func (p *page) Here(namesAndValues ...string) string {
	query := p.kept()
	for name, value := range p.own {
		if value != "" {
			query.Set(name, value)
		}
	}
	return "?" + change(query, namesAndValues).Encode()
}

// To returns a link to another view, with the same range and filters. namesAndValues
// has the same form as in Here.
func (p *page) To(view string, namesAndValues ...string) string {
	return strings.TrimSuffix(view+"?"+change(p.kept(), namesAndValues).Encode(), "?")
}

// kept returns the parameters that every link repeats: range, refresh and filters.
func (p *page) kept() url.Values {
	query := url.Values{}
	set := func(name, value string) {
		if value != "" {
			query.Set(name, value)
		}
	}
	switch {
	case p.isRangeBad:
	case p.Range.Name == "":
		set("since", inputTime(p.Since))
		set("until", inputTime(p.Until))
	case p.query.Get("range") == p.Range.Name:
		set("range", p.Range.Name)
	}
	if p.Still {
		set("refresh", "off")
	}
	for _, f := range p.Filters {
		set(f.Param, f.Value)
	}
	return query
}

// change modifies the parameters in query, and returns query. namesAndValues has the
// same form as in Here. A URL has either the parameter "range", or the parameters
// "since" and "until". If one kind is changed, the other kind is removed.
func change(query url.Values, namesAndValues []string) url.Values {
	for i := 0; i+1 < len(namesAndValues); i += 2 {
		name, value := namesAndValues[i], namesAndValues[i+1]
		switch query.Del(name); name {
		case "range":
			query.Del("since")
			query.Del("until")
		case "since", "until":
			query.Del("range")
		}
		if value != "" {
			query.Set(name, value)
		}
	}
	return query
}
