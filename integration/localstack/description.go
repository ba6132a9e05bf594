package localstack

import (
	"encoding/json"
	"net/http"

	"github.com/jackc/pgx/v5"

	"github.com/docevents/docevents-go/internal/postgrest"
)

// describedQuery returns the names of the tables and views on which the current role
// has at least one right.
const describedQuery = `
SELECT NULL::bigint, count(*), 0::bigint, coalesce(json_agg(c.relname ORDER BY c.relname), '[]')::text
FROM pg_class c
WHERE c.relnamespace = '` + exposed + `'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition AND (
    pg_has_role(c.relowner, 'USAGE')
    OR has_table_privilege(c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
    OR has_any_column_privilege(c.oid, 'SELECT, INSERT, UPDATE, REFERENCES'))`

// describe answers GET / with a description of the tables that the caller may use.
// Their columns come from the schema cache.
func (s *standIn) describe(r *http.Request, who caller) (*postgrest.Answer, *postgrest.Error) {
	st := &statement{}
	st.add(describedQuery)
	result, err := s.run(who, pgx.ReadOnly, st, nil)
	if err != nil {
		return nil, err
	}
	var names []string
	_ = json.Unmarshal(result.body, &names) // PostgreSQL wrote it
	var tables []postgrest.Table
	for _, name := range names {
		t := s.schema.Load().tables[name]
		if t == nil {
			continue // newer than the cache
		}
		described := postgrest.Table{Name: name, Comment: t.comment}
		for _, c := range t.columns {
			described.Columns = append(described.Columns, c.described)
		}
		tables = append(tables, described)
	}
	return postgrest.Describe(r, tables)
}
