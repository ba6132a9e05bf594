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
	selects    []selected
	filters    []filter
	order      []orderTerm
	limit      *int64
	offset     int64
	columns    []string // of the columns parameter; nil where there is none
	onConflict []string
}

type selected struct{ column, alias string }

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
		case "and", "or", "not.and", "not.or":
			var f filter
			f, err = parseLogic(p.key, p.value)
			q.filters = append(q.filters, f)
		default:
			var f filter
			f, err = parseFilter(p.key, p.value)
			q.filters = append(q.filters, f)
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

func parseSelect(t *table, list string) ([]selected, *apiError) {
	var columns []selected
	for _, item := range splitTop(list) {
		item = strings.TrimSpace(item)
		switch {
		case item == "":
		case item == "*":
			columns = append(columns, t.all()...)
		case strings.ContainsAny(item, "(>") || strings.Contains(item, "::"):
			return nil, parseError("select parameter", list, "column names: this gateway has no embedding, JSON paths or casts")
		default:
			alias, column, found := strings.Cut(item, ":")
			if !found {
				alias, column = item, item
			}
			columns = append(columns, selected{unquote(column), unquote(alias)})
		}
	}
	if columns == nil {
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

// filter is a comparison, or a group of them.
type filter struct {
	negated bool

	// A comparison.
	column, operator string
	value            string   // of every operator but in
	values           []string // of in

	// A group: " AND " or " OR ", and its members.
	joiner string
	group  []filter
}

// operators with one value, in SQL.
var operators = map[string]string{
	"eq": "=", "neq": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<=", "like": "LIKE", "ilike": "ILIKE",
}

// constants of the operator is, in SQL. They can't be parameters.
var constants = map[string]string{
	"null": "NULL", "not_null": "NOT NULL", "true": "TRUE", "false": "FALSE", "unknown": "UNKNOWN",
}

const operatorList = "operator (eq, neq, gt, gte, lt, lte, like, ilike, is, in) or not"

// parseFilter reads a comparison like created_at=lt.2026-01-01.
func parseFilter(column, text string) (filter, *apiError) {
	f := filter{column: unquote(column)}
	rest, negated := strings.CutPrefix(text, "not.")
	f.negated = negated
	operator, value, found := strings.Cut(rest, ".")
	if !found {
		return f, parseError("filter", text, operatorList)
	}
	f.operator, f.value = operator, value
	switch {
	case operator == "in":
		if !strings.HasPrefix(value, "(") || !strings.HasSuffix(value, ")") {
			return f, parseError("filter", text, "a list in parentheses")
		}
		f.values = []string{}
		if list := value[1 : len(value)-1]; list != "" {
			for _, v := range splitTop(list) {
				f.values = append(f.values, unquote(v))
			}
		}
	case operator == "is":
		if constants[strings.ToLower(value)] == "" {
			return f, parseError("filter", text, "null, not_null, true, false or unknown")
		}
	case operators[operator] == "":
		return f, parseError("filter", text, operatorList)
	}
	return f, nil
}

// parseLogic reads a group like and=(created_at.gte.X,or(a.eq.1,b.is.null)),
// whose members may be groups.
func parseLogic(key, text string) (filter, *apiError) {
	name, negated := strings.CutPrefix(key, "not.")
	f := filter{negated: negated, joiner: " " + strings.ToUpper(name) + " "}
	if len(text) < 2 || text[0] != '(' || text[len(text)-1] != ')' {
		return f, parseError("logic tree", text, "a list in parentheses")
	}
	for _, item := range splitTop(text[1 : len(text)-1]) {
		item = strings.TrimSpace(item)
		var member filter
		var err *apiError
		if head, _, found := strings.Cut(item, "("); found && slices.Contains([]string{"and", "or", "not.and", "not.or"}, head) {
			member, err = parseLogic(head, item[len(head):])
		} else {
			column, rest, _ := strings.Cut(item, ".")
			// Inside a group a value may be quoted, so that it can hold commas.
			if dot := strings.LastIndex(rest, `."`); dot >= 0 && strings.HasSuffix(rest, `"`) {
				rest = rest[:dot+1] + unquote(rest[dot+1:])
			}
			member, err = parseFilter(column, rest)
		}
		if err != nil {
			return f, err
		}
		f.group = append(f.group, member)
	}
	return f, nil
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
