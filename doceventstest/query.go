package doceventstest

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/docevents/docevents-go/internal/postgrest"
)

// A query holds the URL parameters and the preferences of a request.
type query struct {
	*postgrest.Query
	table      []column
	conditions []func(row) bool     // a row matches the filters if all return true
	order      []func(a, b row) int // the first that doesn't return 0 decides
	prefer     postgrest.Preferences
}

// parseQuery parses the URL parameters and the header Prefer of a request. It returns
// an error if the request is wrong, or if this server doesn't understand a part of it.
func (s *Server) parseQuery(r *http.Request) (*query, error) {
	asked, refusal := postgrest.ParseQuery(r.URL.RawQuery)
	if refusal != nil {
		return nil, refusal
	}
	q := &query{Query: asked, table: s.columns(), prefer: postgrest.ParsePreferences(r.Header.Values("Prefer"))}
	switch p := q.prefer; {
	case len(p.Unknown) > 0 || p.Handling != "" || p.MaxAffected != nil || p.Resolution == postgrest.MergeDuplicates:
		return nil, notUnderstood("Prefer: " + strings.Join(r.Header.Values("Prefer"), ","))
	case q.OnConflict != nil && !slices.Equal(q.OnConflict, []string{nameOf("ID", q.table)}):
		return nil, refuse(400, "42P10", "there is no unique or exclusion constraint matching the ON CONFLICT specification")
	}
	for _, item := range q.Select {
		if _, err := s.column(item.Column); err != nil {
			return nil, err
		}
		if item.Cast != "" && item.Cast != "text" {
			return nil, notUnderstood("a cast to " + item.Cast)
		}
	}
	for _, f := range q.Filters {
		c, err := s.column(f.Column)
		if err != nil {
			return nil, err
		}
		condition, err := newCondition(f, c)
		if err != nil {
			return nil, err
		}
		q.conditions = append(q.conditions, condition)
	}
	for _, term := range q.Order {
		c, err := s.column(term.Column)
		if err != nil {
			return nil, err
		}
		q.order = append(q.order, newOrder(term, c))
	}
	return q, nil
}

// column returns the column with the given name, or PostgreSQL's error.
func (s *Server) column(name string) (column, error) {
	for _, c := range s.columns() {
		if c.name == name {
			return c, nil
		}
	}
	return column{}, refuse(400, "42703", "column %s.%s does not exist", s.Table, name)
}

// newCondition returns a function that reports whether a row matches the filter f on
// the column c. NULL matches only the filter "is.null".
func newCondition(f postgrest.Filter, c column) (func(row) bool, error) {
	if f.Operator == "is" {
		return func(r row) bool { return r.value(c) == nil }, nil
	}
	if c.field == "" && f.Operator != "eq" && f.Operator != "in" {
		return nil, notUnderstood("the filter " + f.Operator + " on a column of Extra")
	}
	texts := f.Values
	if f.Operator != "in" {
		texts = []string{f.Value}
	}
	values := make([]any, len(texts))
	for i, text := range texts {
		var err error
		if values[i], err = c.parse(text); err != nil {
			return nil, err
		}
	}
	holds := map[string]func(order int) bool{
		"eq": func(order int) bool { return order == 0 },
		"in": func(order int) bool { return order == 0 },
		"lt": func(order int) bool { return order < 0 }, "lte": func(order int) bool { return order <= 0 },
		"gt": func(order int) bool { return order > 0 }, "gte": func(order int) bool { return order >= 0 },
	}[f.Operator]
	return func(r row) bool {
		value := r.value(c)
		return value != nil && slices.ContainsFunc(values, func(with any) bool { return holds(compare(value, with)) })
	}, nil
}

// newOrder returns the comparison function of a term in the parameter "order".
func newOrder(term postgrest.OrderTerm, c column) func(a, b row) int {
	sign := 1
	if strings.Contains(term.Direction, " DESC") {
		sign = -1
	}
	nulls := sign // NULL is larger than all values, so it comes first in descending order
	if strings.Contains(term.Direction, "NULLS FIRST") {
		nulls = -1
	} else if strings.Contains(term.Direction, "NULLS LAST") {
		nulls = 1
	}
	return func(a, b row) int {
		switch x, y := a.value(c), b.value(c); {
		case x == nil && y == nil:
			return 0
		case x == nil:
			return nulls
		case y == nil:
			return -nulls
		default:
			return sign * compare(x, y)
		}
	}
}

// sorted returns the rows in the order that the request asks for, then by time and id.
func (q *query) sorted(rows []row) []row {
	rows = sortedByTime(rows)
	slices.SortStableFunc(rows, func(a, b row) int {
		for _, order := range q.order {
			if n := order(a, b); n != 0 {
				return n
			}
		}
		return 0
	})
	return rows
}

// split returns the rows that match the filters, and the rows that don't.
func (q *query) split(rows []row) (matching, others []row) {
	for _, r := range rows {
		if slices.ContainsFunc(q.conditions, func(holds func(row) bool) bool { return !holds(r) }) {
			others = append(others, r)
		} else {
			matching = append(matching, r)
		}
	}
	return matching, others
}

// selected returns the rows as JSON, with the columns in the parameter "select".
func (q *query) selected(rows []row) []byte {
	items := q.Select
	if items == nil {
		for _, c := range q.table {
			items = append(items, postgrest.SelectItem{Column: c.name})
		}
	}
	list := make([]map[string]any, len(rows))
	for i, r := range rows {
		list[i] = map[string]any{}
		for _, item := range items {
			at := slices.IndexFunc(q.table, func(c column) bool { return c.name == item.Column })
			value := r.value(q.table[at])
			if item.Cast != "" && value != nil {
				value = asText(value)
			} else if at, isTime := value.(time.Time); isTime {
				value = at.Format("2006-01-02T15:04:05.999999-07:00") // as PostgreSQL writes it
			}
			list[i][item.Column] = value
		}
	}
	return postgrest.EncodeJSON(list)
}

// read answers a GET whose filters match the given rows.
func (q *query) read(r *http.Request, rows []row) (*postgrest.Answer, error) {
	var total *int64
	if q.prefer.Counts() {
		total = new(int64(len(rows)))
	}
	rows = rows[min(q.Offset, int64(len(rows))):]
	if limit := int64(maxRows); q.Limit == nil || *q.Limit > limit {
		q.Limit = &limit
	}
	rows = rows[:min(*q.Limit, int64(len(rows)))]
	if refusal := postgrest.CheckRows(r, q.prefer, int64(len(rows))); refusal != nil {
		return nil, refusal
	}
	answer, refusal := q.prefer.ReadAnswer(q.Offset, int64(len(rows)), total, q.selected(rows))
	if refusal != nil {
		return nil, refusal
	}
	return answer.FitTo(r), nil
}
