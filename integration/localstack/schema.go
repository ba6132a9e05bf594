package localstack

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/docevents/docevents-go/internal/postgrest"
)

// schemaCache contains the tables and functions that requests can use, by name. The
// stand-in reads them when it connects and after each NOTIFY pgrst, as PostgREST does.
type schemaCache struct {
	tables    map[string]*table
	functions map[string][]*function
}

func (c *schemaCache) names() []string { return slices.Sorted(maps.Keys(c.tables)) }

// table is a table or view.
type table struct {
	relation string
	comment  string
	columns  []*column
	byName   map[string]*column
	key      []string // the primary key's columns
}

// column is a column with its type and its default expression, as SQL.
type column struct {
	name, typ, def string
	described      postgrest.Column // not set for a function's arguments
}

func (t *table) name() string { return exposed + "." + quote(t.relation) }

// column returns the column's name with its schema and table, quoted for SQL. PostgREST
// uses this form as well, so PostgreSQL's errors are the same as with PostgREST.
func (t *table) column(name string) string { return t.name() + "." + quote(name) }

// find returns the columns with these names.
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

// tablesQuery returns the tables and views in the schema public, with their columns and
// keys. PostgreSQL stores no keys for a view, so the query finds the view's table in
// the view's rewrite rule. The view gets the table's foreign keys that consist of one
// column. It gets the table's primary key only if the view contains all columns of that
// key.
const tablesQuery = `
WITH RECURSIVE rules AS (
    SELECT r.ev_class, m[1]::smallint AS attnum, m[2]::oid AS base, m[3]::smallint AS base_attnum
    FROM pg_rewrite r
    JOIN pg_class c ON c.oid = r.ev_class AND c.relkind IN ('v', 'm')
    JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = '` + exposed + `',
        regexp_matches(r.ev_action::text, ':resno (\d+) :resname \S+ :ressortgroupref \d+ :resorigtbl (\d+) :resorigcol (\d+)', 'g') AS m
    WHERE r.rulename = '_RETURN'
), paths AS (
    SELECT * FROM rules
    UNION
    SELECT p.ev_class, p.attnum, r.base, r.base_attnum
    FROM paths p JOIN rules r ON r.ev_class = p.base AND r.attnum = p.base_attnum
), own AS (
    SELECT oid, contype, conrelid, unnest(conkey) AS attnum, cardinality(conkey) AS columns, confrelid, confkey[1] AS target
    FROM pg_constraint WHERE contype IN ('p', 'f') AND (contype = 'p' OR conparentid = 0 AND cardinality(conkey) = 1)
), keys AS (
    SELECT *, conrelid AS relation, attnum AS shown_as, columns AS shown FROM own
    UNION ALL
    SELECT k.*, p.ev_class, p.attnum, count(*) OVER (PARTITION BY k.oid, p.ev_class)
    FROM own k
    JOIN (SELECT ev_class, base, base_attnum, min(attnum) AS attnum FROM paths GROUP BY 1, 2, 3) p
        ON p.base = k.conrelid AND p.base_attnum = k.attnum
), foreign_keys AS (
    SELECT k.relation, k.shown_as, t.relnamespace, min(t.relname::text || E'\n' || a.attname) AS target
    FROM keys k
    JOIN pg_class t ON t.oid = k.confrelid
    JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = k.target
    WHERE k.contype = 'f' GROUP BY 1, 2, 3
)
SELECT c.relname, coalesce(obj_description(c.oid, 'pg_class'), ''),
       a.attname, format_type(a.atttypid, a.atttypmod),
       coalesce(CASE
           WHEN a.attgenerated <> '' OR a.attidentity = 'a' THEN NULL
           WHEN a.attidentity = 'd' THEN (
               SELECT format('nextval(%L)', objid::regclass) FROM pg_depend
               WHERE refclassid = 'pg_class'::regclass AND refobjid = c.oid AND refobjsubid = a.attnum
                   AND classid = 'pg_class'::regclass AND deptype = 'i')
           WHEN d.oid IS NULL THEN pg_get_expr(t.typdefaultbin, 0)
           ELSE pg_get_expr(d.adbin, d.adrelid)
       END, ''),
       coalesce(col_description(c.oid, a.attnum), ''),
       CASE WHEN b.typnamespace = 'pg_catalog'::regnamespace THEN format_type(b.oid, NULL)
           ELSE format_type(a.atttypid, a.atttypmod) END,
       a.attnotnull OR t.typnotnull,
       p.oid IS NOT NULL,
       information_schema._pg_char_max_length(
           information_schema._pg_truetypid(a, t), information_schema._pg_truetypmod(a, t)),
       ARRAY(SELECT enumlabel::text FROM pg_enum WHERE enumtypid = b.oid ORDER BY enumsortorder),
       coalesce(f.target, '')
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid
JOIN pg_type b ON b.oid = coalesce(nullif(t.typbasetype, 0), t.oid)
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
LEFT JOIN keys p ON p.relation = c.oid AND p.shown_as = a.attnum AND p.contype = 'p' AND p.shown = p.columns
LEFT JOIN foreign_keys f ON f.relation = c.oid AND f.shown_as = a.attnum AND f.relnamespace = c.relnamespace
WHERE n.nspname = '` + exposed + `' AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
ORDER BY c.oid, a.attnum`

func loadSchema(ctx context.Context, conn *pgx.Conn) (*schemaCache, error) {
	// With this search_path, the catalog functions add the schema to the names of types
	// and sequences.
	if _, err := conn.Exec(ctx, "SET search_path = ''"); err != nil {
		return nil, err
	}
	found, err := conn.Query(ctx, tablesQuery)
	if err != nil {
		return nil, err
	}
	tables := map[string]*table{}
	var relation, comment, typ, target string
	var c postgrest.Column
	_, err = pgx.ForEachRow(found, []any{
		&relation, &comment, &c.Name, &typ, &c.Default, &c.Comment, &c.Type, &c.NotNull, &c.Key, &c.MaxLength, &c.Enum, &target,
	}, func() error {
		t := tables[relation]
		if t == nil {
			t = &table{relation: relation, comment: comment, byName: map[string]*column{}}
			tables[relation] = t
		}
		c.ForeignTable, c.ForeignColumn, _ = strings.Cut(target, "\n")
		added := &column{c.Name, typ, c.Default, c}
		t.columns = append(t.columns, added)
		t.byName[c.Name] = added
		if c.Key {
			t.key = append(t.key, c.Name)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	functions, err := loadFunctions(ctx, conn)
	return &schemaCache{tables, functions}, err
}

// roleSettings contains each role's settings from ALTER ROLE ... SET, as pairs of name
// and value. PostgreSQL applies them at login, but not after SET ROLE. So the stand-in,
// like PostgREST, applies them in every transaction.
type roleSettings map[string][][2]string

// Like PostgREST, settingsQuery reads only settings that any user is allowed to change.
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
