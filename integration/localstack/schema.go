package localstack

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/docevents/docevents-go/internal/postgrest"
)

// schemaCache is what the exposed schemas hold, by "schema.name". As in
// PostgREST, what was created after it was read doesn't exist.
type schemaCache struct {
	tables    map[string]*table
	functions map[string][]*function
}

// table is a table or view, and the SQL pieces that name it.
type table struct {
	schema, relation string
	columns          []*column
	byName           map[string]*column
	key              []string // the primary key's columns
}

// column has the type and the default expression as SQL, from the catalog.
type column struct{ name, typ, def string }

func (t *table) name() string { return quote(t.schema) + "." + quote(t.relation) }

// column names a column in full: PostgreSQL's message about an unknown one then
// reads as PostgREST's users know it.
func (t *table) column(name string) string { return t.name() + "." + quote(name) }

// find looks columns up by name.
func (t *table) find(names []string) ([]*column, *postgrest.Error) {
	columns := make([]*column, len(names))
	for i, name := range names {
		c, ok := t.byName[name]
		if !ok {
			return nil, postgrest.ErrColumn(t.relation, name)
		}
		columns[i] = c
	}
	return columns, nil
}

// A view's key is that of the table beneath, where it shows all of it: each
// column's origin is in the view's rule, and PostgREST looks there too.
const tablesQuery = `
WITH keys AS (
    SELECT indrelid, unnest(indkey) AS attnum FROM pg_index WHERE indisprimary
), origins AS (
    SELECT r.ev_class, m[1]::smallint AS attnum, m[2]::oid AS base, m[3]::smallint AS base_attnum
    FROM pg_rewrite r
    JOIN pg_class c ON c.oid = r.ev_class AND c.relkind = 'v'
    JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = ANY($1),
        regexp_matches(r.ev_action::text, ':resno (\d+) :resname \S+ :ressortgroupref \d+ :resorigtbl (\d+) :resorigcol (\d+)', 'g') AS m
    WHERE r.rulename = '_RETURN'
)
SELECT n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
       coalesce(pg_get_expr(d.adbin, d.adrelid), ''),
       EXISTS (SELECT FROM keys k WHERE k.indrelid = c.oid AND k.attnum = a.attnum)
       OR EXISTS (
           SELECT FROM origins o JOIN keys k ON k.indrelid = o.base AND k.attnum = o.base_attnum
           WHERE o.ev_class = c.oid AND o.attnum = a.attnum
               AND NOT EXISTS (SELECT FROM keys k WHERE k.indrelid = o.base AND k.attnum NOT IN (
                   SELECT base_attnum FROM origins WHERE ev_class = c.oid AND base = o.base)))
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum AND a.attgenerated = ''
WHERE n.nspname = ANY($1) AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
ORDER BY c.oid, a.attnum`

func loadSchema(ctx context.Context, conn *pgx.Conn, schemas []string) (*schemaCache, error) {
	found, err := conn.Query(ctx, tablesQuery, schemas)
	if err != nil {
		return nil, err
	}
	tables := map[string]*table{}
	var schema, relation string
	var c column
	var key bool
	_, err = pgx.ForEachRow(found, []any{&schema, &relation, &c.name, &c.typ, &c.def, &key}, func() error {
		t := tables[schema+"."+relation]
		if t == nil {
			t = &table{schema: schema, relation: relation, byName: map[string]*column{}}
			tables[schema+"."+relation] = t
		}
		added := c
		t.columns = append(t.columns, &added)
		t.byName[c.name] = &added
		if key {
			t.key = append(t.key, c.name)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	functions, err := loadFunctions(ctx, conn, schemas)
	return &schemaCache{tables, functions}, err
}

// roleSettings are what ALTER ROLE ... SET gave to the roles that authenticator
// may become: name and value, by role. PostgREST applies them in every
// transaction, since SET ROLE by itself doesn't, and keeps them until it is told
// to reload its config.
type roleSettings map[string][][2]string

// Only what a user may set: PostgREST leaves out the rest as well.
const settingsQuery = `
SELECT r.rolname, split_part(s.setting, '=', 1), substr(s.setting, strpos(s.setting, '=') + 1)
FROM pg_auth_members m
JOIN pg_roles r ON r.oid = m.roleid
CROSS JOIN unnest(r.rolconfig) AS s(setting)
JOIN pg_settings p ON p.name = split_part(s.setting, '=', 1) AND p.context = 'user'
WHERE m.member = current_user::regrole`

func loadSettings(ctx context.Context, conn *pgx.Conn) (roleSettings, error) {
	found, err := conn.Query(ctx, settingsQuery)
	if err != nil {
		return nil, err
	}
	settings := roleSettings{}
	var role, name, value string
	_, err = pgx.ForEachRow(found, []any{&role, &name, &value}, func() error {
		settings[role] = append(settings[role], [2]string{name, strings.ToLower(value)})
		return nil
	})
	return settings, err
}
