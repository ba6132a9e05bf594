package localstack

import (
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/docevents/docevents-go/internal/postgrest"
)

// statement builds an SQL statement. Names from a request are always quoted, and values
// are always parameters ($1), so a request can't inject SQL.
type statement struct {
	strings.Builder
	args []any
}

func (s *statement) add(pieces ...string) {
	for _, piece := range pieces {
		s.WriteString(piece)
	}
}

// bind appends a value as a parameter. PostgreSQL infers its type.
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

// query is a request's query on a table.
type query struct {
	*postgrest.Query
	table *table
}

func (q *query) where(s *statement) {
	for i, f := range q.Filters {
		if i == 0 {
			s.add(" WHERE ")
		} else {
			s.add(" AND ")
		}
		s.add(q.table.column(f.Column))
		switch f.Operator {
		case "is":
			s.add(" IS NULL")
		case "in":
			s.add(" = ANY(")
			s.bind("{" + strings.Join(f.Values, ",") + "}") // PostgreSQL infers an array of the column's type
			s.add(")")
		default:
			s.add(" ", postgrest.Operators[f.Operator], " ")
			s.bind(f.Value)
		}
	}
}

// list appends the selected columns.
func (q *query) list(s *statement) {
	if q.Select == nil {
		for i, c := range q.table.columns {
			s.separate(i, ", ")
			s.add(q.table.column(c.name))
		}
	}
	for i, item := range q.Select {
		s.separate(i, ", ")
		if item.Cast == "" {
			s.add(q.table.column(item.Column))
		} else {
			s.add("CAST(", q.table.column(item.Column), " AS ", item.Cast, ") AS ", quote(item.Column))
		}
	}
}

// withName is the name of the WITH query in each SQL statement below. The name is
// unusual: if a table had a column of this name, json_agg(localstack_rows) would return
// only that column.
const withName = "localstack_rows"

// Every SQL statement below returns one row with the four columns of the struct result.
// The columns' types don't depend on the table, so prepared statements still work after
// a table has changed.

// read builds a SELECT.
func (q *query) read(count bool) *statement {
	s := &statement{}
	s.add("WITH " + withName + " AS (SELECT ")
	q.list(s)
	s.add(" FROM ", q.table.name())
	q.where(s)
	for i, term := range q.Order {
		if i == 0 {
			s.add(" ORDER BY ")
		} else {
			s.add(", ")
		}
		s.add(q.table.column(term.Column), term.Direction)
	}
	limit := int64(maxRows)
	if q.Limit != nil {
		limit = min(limit, *q.Limit)
	}
	s.add(" LIMIT ")
	s.bind(limit)
	s.add(" OFFSET ")
	s.bind(q.Offset)
	s.add(") SELECT ")
	if count {
		s.add("(SELECT count(*) FROM ", q.table.name())
		q.where(s)
		s.add(")")
	} else {
		s.add("NULL::bigint")
	}
	s.add(", count(*), 0::bigint, coalesce(json_agg(" + withName + "), '[]')::text FROM " + withName)
	return s
}

// remove builds a DELETE of the rows that match the filters. Like PostgREST 13 and
// later, it ignores the parameters "order", "limit" and "offset".
func (q *query) remove(prefer postgrest.Preferences) *statement {
	s := &statement{}
	s.add("WITH "+withName+" AS (DELETE FROM ", q.table.name())
	q.where(s)
	q.returning(s, prefer)
	s.add(") SELECT NULL::bigint, count(*), 0::bigint, ", resultBody(prefer), " FROM "+withName)
	return s
}

// insert builds an INSERT of the rows in the JSON body.
func (q *query) insert(columns []*column, body []byte, prefer postgrest.Preferences) *statement {
	s := &statement{}
	s.add("WITH "+withName+" AS (INSERT INTO ", q.table.name())
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
		if prefer.Resolution == postgrest.IgnoreDuplicates || len(columns) == 0 {
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
	if prefer.Resolution == postgrest.MergeDuplicates {
		s.add(", (xmax = 0) AS localstack_inserted") // an inserted row has xmax 0, an updated row doesn't
		inserted = "count(*) FILTER (WHERE localstack_inserted)"
	}
	s.add(") SELECT NULL::bigint, count(*), ", inserted, ", ", resultBody(prefer), " FROM "+withName)
	return s
}

// payload appends an SQL expression for the rows of the body.
func (s *statement) payload(columns []*column, body []byte, prefer postgrest.Preferences) {
	object := firstByte(body) == '{'
	switch {
	case len(columns) == 0 && object:
		s.add("(VALUES (1)) AS body") // one row of defaults; VALUES needs a column
	case len(columns) == 0:
		s.add("json_array_elements(")
		s.bind(body)
		s.add("::json) AS body")
	case prefer.Missing == postgrest.MissingDefault:
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

// conflictTarget returns the columns for the ON CONFLICT clause: those of the parameter
// on_conflict, or else the primary key. If the Prefer header doesn't say what to do
// with duplicates, conflictTarget returns nil.
func (q *query) conflictTarget(prefer postgrest.Preferences) []string {
	switch {
	case prefer.Resolution == "":
		return nil
	case len(q.OnConflict) > 0:
		return q.OnConflict
	}
	return q.table.key
}

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

// returning appends a RETURNING clause with the selected columns. If the request
// doesn't want the rows, the clause is RETURNING 1, which needs no right to read a
// column.
func (q *query) returning(s *statement, prefer postgrest.Preferences) {
	s.add(" RETURNING ")
	if prefer.Representation() {
		q.list(s)
	} else {
		s.add("1")
	}
}

func resultBody(prefer postgrest.Preferences) string {
	if prefer.Representation() {
		return "coalesce(json_agg(" + withName + "), '[]')::text"
	}
	return "''::text"
}
