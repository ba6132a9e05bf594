package localstack

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// param is a pair of the URL's query, in its order: url.Values would lose it.
type param struct{ key, value string }

func parseParams(rawQuery string) ([]param, *apiError) {
	var params []param
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
		params = append(params, param{key, value})
	}
	return params, nil
}

// query is what a request's URL asks for, as far as the gateway understands it.
type query struct {
	table      *table
	selects    []string
	filters    []filter
	order      []orderTerm
	limit      *int64
	offset     int64
	columns    []string // of the columns parameter; nil where there is none
	onConflict []string
}

type orderTerm struct{ column, direction string }

// parseQuery reads the parameters. Everything that is not one of PostgREST's
// own is a filter.
func parseQuery(t *table, rawQuery string) (*query, *apiError) {
	params, err := parseParams(rawQuery)
	if err != nil {
		return nil, err
	}
	q := &query{table: t, selects: t.all()}
	for _, p := range params {
		switch p.key {
		case "select":
			q.selects, err = parseSelect(t, p.value)
		case "order":
			q.order, err = parseOrder(p.value)
		case "limit":
			if n, convErr := strconv.ParseInt(p.value, 10, 64); convErr == nil {
				if n < 0 {
					return nil, errNegativeLimit
				}
				q.limit = &n
			}
		case "offset":
			if n, convErr := strconv.ParseInt(p.value, 10, 64); convErr == nil && n > 0 {
				q.offset = n
			}
		case "columns":
			q.columns = splitList(p.value)
		case "on_conflict":
			q.onConflict = splitList(p.value)
		case "and":
			err = q.parseGroup(p.value)
		default:
			err = q.parseFilter(p.key, p.value)
		}
		if err != nil {
			return nil, err
		}
	}
	return q, nil
}

// splitList splits names at commas; a name with a comma or a dot in it stands in
// quotes.
func splitList(list string) []string {
	names := []string{}
	for _, name := range splitTop(list) {
		if name = unquote(strings.TrimSpace(name)); name != "" {
			names = append(names, name)
		}
	}
	return names
}

func parseSelect(t *table, list string) ([]string, *apiError) {
	if !strings.Contains(list, `"`) && strings.ContainsAny(list, "(:>") {
		return nil, parseError("select parameter", list, "column names: this gateway has no embedding, JSON paths, casts or aliases")
	}
	columns := splitList(list)
	if len(columns) == 0 || slices.Equal(columns, []string{"*"}) {
		return t.all(), nil
	}
	return columns, nil
}

func parseOrder(list string) ([]orderTerm, *apiError) {
	directions := map[string]string{
		"asc": " ASC", "desc": " DESC", "nullsfirst": " NULLS FIRST", "nullslast": " NULLS LAST",
	}
	var terms []orderTerm
	for _, item := range splitTop(list) {
		column, rest, _ := strings.Cut(item, ".")
		term := orderTerm{column: unquote(column)}
		for word := range strings.SplitSeq(rest, ".") {
			direction, ok := directions[word]
			if !ok && word != "" {
				return nil, parseError("order", list, "asc, desc, nullsfirst or nullslast")
			}
			term.direction += direction
		}
		terms = append(terms, term)
	}
	return terms, nil
}

// filter is a comparison; all of them must hold.
type filter struct {
	column, operator string
	value            string   // of every operator but in
	values           []string // of in
}

// operators with one value, in SQL.
var operators = map[string]string{"eq": "=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}

const operatorList = "operator (eq, gt, gte, lt, lte, in)"

// parseFilter reads a comparison like created_at=lt.2026-01-01.
func (q *query) parseFilter(column, text string) *apiError {
	operator, value, found := strings.Cut(text, ".")
	f := filter{column: unquote(column), operator: operator, value: value}
	switch {
	case operator == "in":
		if !isList(value) {
			return parseError("filter", text, "a list in parentheses")
		}
		f.values = splitList(value[1 : len(value)-1])
	case operators[operator] == "" || !found:
		return parseError("filter", text, operatorList)
	}
	q.filters = append(q.filters, f)
	return nil
}

// parseGroup reads and=(created_at.gte.X,created_at.lt.Y), which postgrest-go
// makes of two filters on one column.
func (q *query) parseGroup(text string) *apiError {
	if !isList(text) {
		return parseError("logic tree", text, "a list in parentheses")
	}
	for _, item := range splitTop(text[1 : len(text)-1]) {
		column, comparison, _ := strings.Cut(strings.TrimSpace(item), ".")
		if err := q.parseFilter(column, comparison); err != nil {
			return err
		}
	}
	return nil
}

func isList(text string) bool {
	return len(text) >= 2 && text[0] == '(' && text[len(text)-1] == ')'
}

// splitTop splits at the commas that are outside of parentheses and quotes.
func splitTop(list string) []string {
	var parts []string
	depth, start, quoted := 0, 0, false
	for i := 0; i < len(list); i++ {
		switch c := list[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ',' && depth == 0:
			parts = append(parts, list[start:i])
			start = i + 1
		}
	}
	return append(parts, list[start:])
}

// unquote strips double quotes, if any, and the backslashes inside them.
func unquote(text string) string {
	if len(text) < 2 || text[0] != '"' || text[len(text)-1] != '"' {
		return text
	}
	return strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(text[1 : len(text)-1])
}
