package localstack

import (
	"encoding/json"
	"net/http"

	"github.com/jackc/pgx/v5"

	"github.com/docevents/docevents-go/internal/postgrest"
)

// describedQuery and describedRights, with the schema's name between them, return
// the relations on which the current role has any right. PostgREST lists these
// relations with all of their columns.
const describedQuery = `
SELECT NULL::bigint, count(*), 0::bigint, coalesce(json_agg(c.relname ORDER BY c.relname), '[]')::text
FROM pg_class c
WHERE c.relnamespace = to_regnamespace(`

const describedRights = `) AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition AND (
    pg_has_role(c.relowner, 'USAGE')
    OR has_table_privilege(c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
    OR has_any_column_privilege(c.oid, 'SELECT, INSERT, UPDATE, REFERENCES'))`

// describe answers GET / with the schema's tables. It reads the tables from the
// schema cache and the caller's rights from the database.
func (g *gateway) describe(r *http.Request, who caller, schema string) (*postgrest.Answer, *postgrest.Error) {
	if (*g.config.Load())["openapi_mode"] == "disabled" {
		return nil, postgrest.ErrDescriptionDisabled
	}
	s := &statement{}
	s.add(describedQuery)
	s.bind(quote(schema))
	s.add(describedRights)
	result, refusal := g.run(who, pgx.ReadOnly, s, nil)
	if refusal != nil {
		return nil, refusal
	}
	var names []string
	_ = json.Unmarshal(result.body, &names) // PostgreSQL wrote it
	var tables []postgrest.Table
	for _, name := range names {
		t := g.schema.Load().tables[schema+"."+name]
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
