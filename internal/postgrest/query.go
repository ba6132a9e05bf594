package postgrest

import (
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A Param is a parameter of the URL.
type Param struct{ Key, Value string }

// ParseParams parses the query string of a URL. Unlike url.Values, it keeps the order.
func ParseParams(rawQuery string) ([]Param, *Error) {
	var params []Param
	for pair := range strings.SplitSeq(rawQuery, "&") {
		if pair == "" {
			continue
		}
		key, value, _ := strings.Cut(pair, "=")
		key, err := url.QueryUnescape(key)
		if err != nil {
			return nil, parseError("query string", pair, "percent-encoded text")
		}
		value, err = url.QueryUnescape(value)
		if err != nil {
			return nil, parseError("query string", pair, "percent-encoded text")
		}
		params = append(params, Param{key, value})
	}
	return params, nil
}

// A Query holds the parameters of a request's URL that this package understands.
type Query struct {
	Select     []SelectItem // nil means all columns
	Filters    []Filter     // a row must match all of them
	Order      []OrderTerm
	Limit      *int64
	Offset     int64
	Columns    []string // sorted; nil without the parameter "columns"
	OnConflict []string
}

// A SelectItem is one column in the parameter "select". In created_at::text, Cast is
// "text". Without a cast, Cast is "".
type SelectItem struct{ Column, Cast string }

// An OrderTerm is one column in the parameter "order". Direction is the SQL after the
// column, with a leading space, as in " DESC".
type OrderTerm struct{ Column, Direction string }

// A Filter is a comparison of a column with one or several values.
type Filter struct {
	Column, Operator string
	Value            string   // for every operator except "in"
	Values           []string // for "in"
}

// ParseQuery parses the query string of a request. A parameter whose name has no
// meaning in PostgREST is a filter on the column of that name.
func ParseQuery(rawQuery string) (*Query, *Error) {
	params, err := ParseParams(rawQuery)
	if err != nil {
		return nil, err
	}
	q := &Query{}
	for _, p := range params {
		switch p.Key {
		case "select":
			q.Select, err = parseSelect(p.Value)
		case "order":
			q.Order, err = parseOrder(p.Value)
		case "limit":
			if n, convErr := strconv.ParseInt(p.Value, 10, 64); convErr == nil {
				if n < 0 {
					return nil, errNegativeLimit
				}
				q.Limit = &n
			}
		case "offset":
			if n, convErr := strconv.ParseInt(p.Value, 10, 64); convErr == nil && n > 0 {
				q.Offset = n
			}
		case "columns":
			q.Columns = splitList(p.Value)
			slices.Sort(q.Columns)
			q.Columns = slices.Compact(q.Columns)
		case "on_conflict":
			q.OnConflict = splitList(p.Value)
		case "and":
			err = q.parseGroup(p.Value)
		default:
			err = q.parseFilter(p.Key, p.Value)
		}
		if err != nil {
			return nil, err
		}
	}
	return q, nil
}

// splitList splits names or values at commas, and removes the quotes that supabase-js
// adds.
func splitList(list string) []string {
	names := []string{}
	for name := range strings.SplitSeq(list, ",") {
		if name = strings.Trim(strings.TrimSpace(name), `"`); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// castType matches the names of types that are safe to write into SQL.
var castType = regexp.MustCompile(`^[a-z_][a-z0-9_ ]*(\[\])?$`)

func parseSelect(list string) ([]SelectItem, *Error) {
	columns := splitList(list)
	if len(columns) == 0 || slices.Equal(columns, []string{"*"}) {
		return nil, nil
	}
	items := make([]SelectItem, len(columns))
	for i, text := range columns {
		column, cast, found := strings.Cut(text, "::")
		if strings.ContainsAny(column, "(:>") || found && !castType.MatchString(cast) {
			return nil, parseError("select parameter", list, "column names with optional casts: embedding, JSON paths and aliases are not supported here")
		}
		items[i] = SelectItem{strings.Trim(column, `"`), cast}
	}
	return items, nil
}

func parseOrder(list string) ([]OrderTerm, *Error) {
	directions := map[string]string{
		"asc": " ASC", "desc": " DESC", "nullsfirst": " NULLS FIRST", "nullslast": " NULLS LAST",
	}
	var terms []OrderTerm
	for item := range strings.SplitSeq(list, ",") {
		column, rest, _ := strings.Cut(item, ".")
		term := OrderTerm{Column: column}
		for word := range strings.SplitSeq(rest, ".") {
			direction, ok := directions[word]
			if !ok && word != "" {
				return nil, parseError("order", list, "asc, desc, nullsfirst or nullslast")
			}
			term.Direction += direction
		}
		terms = append(terms, term)
	}
	return terms, nil
}

// Operators holds the SQL operator for each PostgREST operator that takes one value.
var Operators = map[string]string{"eq": "=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}

// parseFilter parses a comparison such as created_at=lt.2026-01-01.
func (q *Query) parseFilter(column, text string) *Error {
	operator, value, found := strings.Cut(text, ".")
	f := Filter{Column: column, Operator: operator, Value: value}
	switch {
	case text == "is.null":
	case operator == "in":
		list, ok := inParentheses(value)
		if !ok || strings.ContainsAny(list, `"\(){}`) {
			return parseError("filter", text, "a list of plain values in parentheses")
		}
		f.Values = splitList(list)
	case Operators[operator] == "" || !found:
		return parseError("filter", text, "operator (eq, gt, gte, lt, lte, in), or is.null")
	}
	q.Filters = append(q.Filters, f)
	return nil
}

// parseGroup adds filters to q. text is a value of the parameter "and", such as
// (created_at.gte.X,created_at.lt.Y). postgrest-go uses this form for two filters on
// the same column.
func (q *Query) parseGroup(text string) *Error {
	list, ok := inParentheses(text)
	if !ok {
		return parseError("logic tree", text, "a list in parentheses")
	}
	for item := range strings.SplitSeq(list, ",") {
		column, comparison, _ := strings.Cut(strings.TrimSpace(item), ".")
		if err := q.parseFilter(column, comparison); err != nil {
			return err
		}
	}
	return nil
}

func inParentheses(text string) (list string, ok bool) {
	list, opened := strings.CutPrefix(text, "(")
	list, closed := strings.CutSuffix(list, ")")
	return list, opened && closed
}
