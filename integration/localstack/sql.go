package localstack

import (
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

// separate appends the separator before every element of a list but the first.
func (s *statement) separate(i int, separator string) {
	if i > 0 {
		s.add(separator)
	}
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

// where appends the WHERE clause.
func (q *query) where(s *statement) {
	for i, f := range q.filters {
		if i == 0 {
			s.add(" WHERE ")
		} else {
			s.add(" AND ")
		}
		s.add(q.table.column(f.column))
		if f.operator == "in" {
			s.add(" = ANY(")
			s.bind(arrayLiteral(f.values))
			s.add(")")
			continue
		}
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
		s.separate(i, ", ")
		s.add(q.table.column(c))
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
		s.columnNames(columns)
		s.add(")")
	}
	s.add(" SELECT ")
	s.columnNames(columns)
	s.add(" FROM ")
	s.payload(columns, body, prefer)
	if target := q.conflictTarget(prefer); target != nil {
		s.add(" ON CONFLICT (")
		for i, name := range target {
			s.separate(i, ", ")
			s.add(quote(name))
		}
		s.add(") DO ")
		if prefer.resolution == ignoreDuplicates || len(columns) == 0 {
			s.add("NOTHING")
		} else {
			s.add("UPDATE SET ")
			for i, c := range columns {
				s.separate(i, ", ")
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
	s.add(") SELECT NULL::bigint, count(*), ", inserted, ", ", resultBody(prefer), " FROM "+rows)
	return s
}

// payload appends the body as the rows to insert.
func (s *statement) payload(columns []*column, body []byte, prefer preferences) {
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
		s.columnDefaults(columns)
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
		s.columnTypes(columns)
		s.add(")")
	default:
		s.add("json_to_record")
		if !object {
			s.add("set")
		}
		s.add("(")
		s.bind(body)
		s.add("::json) AS body(")
		s.columnTypes(columns)
		s.add(")")
	}
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

// columnNames appends the columns' names.
func (s *statement) columnNames(columns []*column) {
	for i, c := range columns {
		s.separate(i, ", ")
		s.add(quote(c.name))
	}
}

// columnTypes appends the columns' names with their types, for json_to_record.
func (s *statement) columnTypes(columns []*column) {
	for i, c := range columns {
		s.separate(i, ", ")
		s.add(quote(c.name), " ", c.typ)
	}
}

// columnDefaults appends a jsonb object of the columns' default expressions.
func (s *statement) columnDefaults(columns []*column) {
	s.add("jsonb_build_object(")
	n := 0
	for _, c := range columns {
		if c.def == "" {
			continue
		}
		s.separate(n, ", ")
		s.bind(c.name)
		s.add("::text, ", c.def)
		n++
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
