package localstack

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// statement is SQL under construction. Names from outside are always quoted,
// values are always parameters.
type statement struct {
	strings.Builder
	args []any
}

// add appends the pieces.
func (s *statement) add(pieces ...string) {
	for _, piece := range pieces {
		s.WriteString(piece)
	}
}

// bind appends a value as a parameter, whose type PostgreSQL infers.
func (s *statement) bind(value any) {
	s.args = append(s.args, value)
	s.add("$", strconv.Itoa(len(s.args)))
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

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

// where appends the WHERE clause.
func (q *query) where(s *statement) {
	for i, f := range q.filters {
		if i == 0 {
			s.add(" WHERE ")
		} else {
			s.add(" AND ")
		}
		q.condition(s, f)
	}
}

func (q *query) condition(s *statement, f filter) {
	if f.negated {
		s.add("NOT ")
	}
	if f.joiner != "" {
		s.add("(")
		for i, member := range f.group {
			if i > 0 {
				s.add(f.joiner)
			}
			q.condition(s, member)
		}
		s.add(")")
		return
	}
	s.add(q.table.column(f.column))
	switch f.operator {
	case "in":
		s.add(" = ANY(")
		s.bind(arrayLiteral(f.values))
		s.add(")")
	case "is":
		s.add(" IS ", constants[strings.ToLower(f.value)])
	case "like", "ilike":
		s.add(" ", operators[f.operator], " ")
		s.bind(strings.ReplaceAll(f.value, "*", "%"))
	default:
		s.add(" ", operators[f.operator], " ")
		s.bind(f.value)
	}
}

// arrayLiteral writes the values as one PostgreSQL array, so that the type of
// its elements is inferred from the column.
func arrayLiteral(values []string) string {
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = `"` + escape.Replace(v) + `"`
	}
	return "{" + strings.Join(quoted, ",") + "}"
}

// list appends the selected columns.
func (q *query) list(s *statement) {
	for i, c := range q.selects {
		if i > 0 {
			s.add(", ")
		}
		s.add(q.table.column(c.column))
		if c.alias != c.column {
			s.add(" AS ", quote(c.alias))
		}
	}
}

// rows is what the statements call their intermediate result: a name that no
// column has, since in json_agg(name) a column would come first.
const rows = "localstack_rows"

// Every statement is one row of these four columns, so that its result has the
// same type whatever the table looks like, and a prepared one stays valid: the
// rows of the table that match (of reads that count), the rows returned or
// affected, how many of these are new (of inserts that merge), and the body.

// read builds a SELECT.
func (q *query) read(maxRows int64, count bool) *statement {
	s := &statement{}
	s.add("WITH " + rows + " AS (SELECT ")
	q.list(s)
	s.add(" FROM ", q.table.name())
	q.where(s)
	for i, term := range q.order {
		if i == 0 {
			s.add(" ORDER BY ")
		} else {
			s.add(", ")
		}
		s.add(q.table.column(term.column), term.direction)
	}
	limit := maxRows
	if q.limit != nil {
		limit = min(limit, *q.limit)
	}
	s.add(" LIMIT ")
	s.bind(limit)
	s.add(" OFFSET ")
	s.bind(q.offset)
	s.add(") SELECT ")
	if count {
		s.add("(SELECT count(*) FROM ", q.table.name())
		q.where(s)
		s.add(")")
	} else {
		s.add("NULL::bigint")
	}
	s.add(", count(*), 0::bigint, coalesce(json_agg(" + rows + "), '[]')::text FROM " + rows)
	return s
}

// remove builds a DELETE. Order, limit and offset are ignored, as PostgREST
// does since version 13.
func (q *query) remove(prefer preferences) *statement {
	s := &statement{}
	s.add("WITH "+rows+" AS (DELETE FROM ", q.table.name())
	q.where(s)
	q.returning(s, prefer)
	s.add(") SELECT NULL::bigint, count(*), 0::bigint, ", resultBody(prefer), " FROM "+rows)
	return s
}

// insert builds an INSERT whose rows PostgreSQL takes out of the JSON itself.
func (q *query) insert(columns []*column, body []byte, prefer preferences) *statement {
	s := &statement{}
	s.add("WITH "+rows+" AS (INSERT INTO ", q.table.name())
	if len(columns) > 0 {
		s.add("(")
		names(s, columns, "")
		s.add(")")
	}
	s.add(" SELECT ")
	names(s, columns, "")
	s.add(" FROM ")
	object := firstByte(body) == '{'
	switch {
	case len(columns) == 0 && object:
		s.add("(VALUES (1)) AS body") // one row of defaults; VALUES needs a column
	case len(columns) == 0:
		s.add("json_array_elements(")
		s.bind(body)
		s.add("::json) AS body")
	case prefer.missing == "missing=default":
		s.add("jsonb_to_recordset((SELECT coalesce(jsonb_agg(")
		defaults(s, columns)
		s.add(" || row), '[]') FROM jsonb_array_elements(")
		if object {
			s.add("jsonb_build_array(")
			s.bind(body)
			s.add("::jsonb)")
		} else {
			s.bind(body)
			s.add("::jsonb")
		}
		s.add(") AS row)) AS body(")
		names(s, columns, "type")
		s.add(")")
	default:
		s.add("json_to_record")
		if !object {
			s.add("set")
		}
		s.add("(")
		s.bind(body)
		s.add("::json) AS body(")
		names(s, columns, "type")
		s.add(")")
	}
	if target := q.conflictTarget(prefer); target != nil {
		s.add(" ON CONFLICT (")
		for i, name := range target {
			if i > 0 {
				s.add(", ")
			}
			s.add(quote(name))
		}
		s.add(") DO ")
		if prefer.resolution == ignoreDuplicates || len(columns) == 0 {
			s.add("NOTHING")
		} else {
			s.add("UPDATE SET ")
			for i, c := range columns {
				if i > 0 {
					s.add(", ")
				}
				s.add(quote(c.name), " = EXCLUDED.", quote(c.name))
			}
		}
	}
	q.returning(s, prefer)
	inserted := "0::bigint"
	if prefer.resolution == mergeDuplicates {
		s.add(", (xmax = 0) AS localstack_inserted") // an updated row has an xmax
		inserted = "count(*) FILTER (WHERE localstack_inserted)"
	}
	s.add(") SELECT NULL::bigint, count(*), ", inserted, ", ")
	if prefer.resolution == mergeDuplicates && prefer.representation() {
		s.add("(SELECT coalesce(json_agg(row), '[]')::text FROM (SELECT ")
		for i, c := range q.selects {
			if i > 0 {
				s.add(", ")
			}
			s.add(quote(c.alias))
		}
		s.add(" FROM " + rows + ") AS row)")
	} else {
		s.add(resultBody(prefer))
	}
	s.add(" FROM " + rows)
	return s
}

// conflictTarget is the columns of ON CONFLICT: those asked for, else the
// primary key; nil where duplicates are errors.
func (q *query) conflictTarget(prefer preferences) []string {
	switch {
	case prefer.resolution == "":
		return nil
	case len(q.onConflict) > 0:
		return q.onConflict
	}
	return q.table.key
}

// names appends the columns' names, with their types or default expressions,
// which come from the catalog.
func names(s *statement, columns []*column, what string) {
	for i, c := range columns {
		if i > 0 {
			s.add(", ")
		}
		s.add(quote(c.name))
		if what == "type" {
			s.add(" ", c.typ)
		}
	}
}

// defaults appends a jsonb object of the default expressions, which come from
// the catalog.
func defaults(s *statement, columns []*column) {
	s.add("jsonb_build_object(")
	first := true
	for _, c := range columns {
		if c.def == "" {
			continue
		}
		if !first {
			s.add(", ")
		}
		first = false
		s.bind(c.name)
		s.add("::text, ", c.def)
	}
	s.add(")")
}

// returning appends a RETURNING that needs no right to read unless rows are
// asked for.
func (q *query) returning(s *statement, prefer preferences) {
	s.add(" RETURNING ")
	if prefer.representation() {
		q.list(s)
	} else {
		s.add("1")
	}
}

func resultBody(prefer preferences) string {
	if prefer.representation() {
		return "coalesce(json_agg(" + rows + "), '[]')::text"
	}
	return "''::text"
}

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
		"return=representation": &p.returns, "return=minimal": &p.returns, "return=headers-only": &p.returns,
		"count=exact": &p.count, "count=planned": &p.count, "count=estimated": &p.count,
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
