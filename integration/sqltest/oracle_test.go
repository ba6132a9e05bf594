package sqltest

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/docevents/docevents-go"
)

var (
	oracleTables = flag.Int("oracle-tables", 24, "number of random tables in TestReadingRandomTables")
	oracleSeed   = flag.Uint64("oracle-seed", 1, "random seed of TestReadingRandomTables")
)

// TestReadingRandomTables compares Summary and Documents with plain, which computes the
// same results in Go. The tables are random: they differ in their names, columns, types,
// event types and indexes. Some are partitioned, and some are views. The databases have
// different time zones.
func TestReadingRandomTables(t *testing.T) {
	for i, zone := range []string{"UTC", "America/New_York", "Asia/Kolkata", "Europe/Amsterdam"} {
		t.Run(zone, func(t *testing.T) {
			d := newDatabase(t)
			d.exec("ALTER DATABASE " + d.pool.Config().ConnConfig.Database + " SET timezone = '" + zone + "'")
			d.pool.Reset()
			d.run(readingFile)
			for n := i; n < *oracleTables; n += 4 {
				r := rand.New(rand.NewPCG(*oracleSeed, uint64(n)))
				table := newRandomTable(d, r, n)
				if table.compare(); t.Failed() {
					t.Fatalf("table %d: %s", n, table.ddl)
				}
			}
		})
	}
}

// A randomTable has a column for each field of Event, in the order of the fields,
// and a tenant. Some of the columns may be missing.
type randomTable struct {
	*db
	r            *rand.Rand
	schema, name string
	columns      [9]randomColumn
	types        docevents.EventTypes
	ddl          string
}

type randomColumn struct {
	name string // "-" if the table lacks the column
	typ  string
	from string // SQL that computes the value from a stored row r
}

func (c randomColumn) quoted() string { return pgx.Identifier{c.name}.Sanitize() }

const (
	colID = iota
	colDocument
	colUser
	colType
	colDuration
	colError
	colStage
	colCreated
	colTenant
)

// oddNames are column names that SQL takes for something else if they have no quotes or no
// table name before them.
var oddNames = []string{"id", "User", "from", "group", "X", "source", "event", "at", "kind", "row_to_json", "later", "created_at", "document_id", "n1", "state", "ctid_", "seen"}

func newRandomTable(d *db, r *rand.Rand, n int) *randomTable {
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	t := &randomTable{db: d, r: r, schema: pick("public", "public", "App"), name: fmt.Sprint(pick("events_", "Events", "order", "select_"), n)}
	d.exec(`CREATE SCHEMA IF NOT EXISTS "App"; GRANT USAGE ON SCHEMA "App" TO service_role`)
	names := slices.Clone(oddNames)
	r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for i, types := range [9][]string{
		colID:       {"uuid", "text"},
		colDocument: {"uuid", "text", "varchar(40)", "bigint", "integer", "char(40)", "code"},
		colUser:     {"uuid", "text", "bigint", "-"},
		colType:     {"text", "varchar(30)", "char(30)", "words", "code"},
		colDuration: {"integer", "bigint", "numeric(12,3)", "double precision", "real", "text", "-"},
		colError:    {"text", "varchar(4000)", "text NOT NULL", "-"},
		colStage:    {"text", "varchar(40)", "integer", "-"},
		colCreated:  {"timestamptz", "timestamp", "moment"},
		colTenant:   {"uuid", "text", "integer", "varchar(40)"},
	} {
		c := randomColumn{name: names[i], typ: pick(types...)}
		if c.typ == "-" {
			c.name = "-"
		}
		c.typ = strings.NewReplacer("words", fmt.Sprint("words_", n), "code", fmt.Sprint("code_", n), "moment", fmt.Sprint("moment_", n)).Replace(c.typ)
		t.columns[i] = c
	}
	t.columns[colTenant].name = pick("tenant", "ten ant", `ten"%I`, "tenant$1", "täñänt")
	words := []string{"it's", `do"ne`, "fertig geworden", "a,b", "{x}", "NULL", `\`, "1", "%s", "done", "Done", "$1", "error"}
	r.Shuffle(len(words), func(i, j int) { words[i], words[j] = words[j], words[i] })
	for _, list := range []*[]docevents.EventType{&t.types.Arrived, &t.types.Started, &t.types.Completed, &t.types.Failed, &t.types.Skipped, &t.types.Notes} {
		for range 1 + r.IntN(2) {
			*list, words = append(*list, docevents.EventType(words[0])), words[1:]
		}
	}
	t.create(n)
	return t
}

// create creates the table: a plain table, a partitioned table, or a view of a table.
func (t *randomTable) create(n int) {
	t.t.Helper()
	var all []string
	for _, list := range [][]docevents.EventType{t.types.Arrived, t.types.Started, t.types.Completed, t.types.Failed, t.types.Skipped, t.types.Notes} {
		for _, word := range list {
			all = append(all, "'"+strings.ReplaceAll(string(word), "'", "''")+"'")
		}
	}
	var columns, renamed []string
	for i, c := range t.columns {
		if c.name == "-" {
			continue
		}
		columns = append(columns, c.quoted()+" "+c.typ)
		renamed = append(renamed, fmt.Sprintf("base.%s AS %s", c.quoted(), c.quoted()))
		t.columns[i].from = fmt.Sprintf(`r."%s"::%s`, [...]string{"ID", "Document", "User", "Type", "MS", "Message", "Stage", "At", "Tenant"}[i], strings.TrimSuffix(c.typ, " NOT NULL"))
	}
	t.columns[colCreated].from = `r."At"::timestamptz`
	if t.columns[colCreated].typ == "timestamp" {
		t.columns[colCreated].from += " AT TIME ZONE 'UTC'"
	}
	table := pgx.Identifier{t.schema, t.name}.Sanitize()
	base, kind := table, ""
	switch t.r.IntN(6) {
	case 0:
		kind = fmt.Sprintf(" PARTITION BY RANGE (%s)", t.columns[colCreated].quoted())
	case 1:
		kind = fmt.Sprintf(" PARTITION BY LIST (%s)", t.columns[colType].quoted())
	case 2:
		base = pgx.Identifier{t.schema, t.name + "_base"}.Sanitize()
	}
	t.ddl = fmt.Sprintf("CREATE TYPE words_%[1]d AS ENUM (%[2]s); CREATE DOMAIN code_%[1]d AS text; CREATE DOMAIN moment_%[1]d AS timestamptz;\n", n, strings.Join(all, ", "))
	t.ddl += fmt.Sprintf("CREATE TABLE %s (number bigint GENERATED ALWAYS AS IDENTITY, %s)%s;\n", base, strings.Join(columns, ", "), kind)
	if kind != "" {
		t.ddl += fmt.Sprintf("CREATE TABLE %s PARTITION OF %s DEFAULT;\n", pgx.Identifier{t.schema, t.name + "_rest"}.Sanitize(), base)
	}
	for _, i := range []int{colCreated, colDocument} {
		if t.r.IntN(2) == 0 {
			t.ddl += fmt.Sprintf("CREATE INDEX ON %s (%s);\n", base, t.columns[i].quoted())
		}
	}
	if base != table {
		t.ddl += fmt.Sprintf("CREATE VIEW %s AS SELECT %s FROM %s AS base;\n", table, strings.Join(renamed, ", "), base)
	}
	t.exec(t.ddl)
	t.table = base
}

// rows returns random rows that fit the table's columns and event types.
func (t *randomTable) rows(since, until time.Time) []stored {
	rows := randomRows(t.r, since, until, 1+t.r.IntN(10))
	of := func(list []docevents.EventType) string { return string(list[t.r.IntN(len(list))]) }
	for i := range rows {
		r := &rows[i]
		switch number := int(r.Document[35]) * 1_000_000; t.columns[colDocument].typ {
		case "uuid":
		case "bigint":
			r.Document = strconv.Itoa(1e15 + number*100_000) // all numbers have the same number of digits, so that they sort as text does
		case "integer":
			r.Document = strconv.Itoa(1e9 + number)
		default:
			r.Document = fmt.Sprintf("doc/%s ü 100%%", r.Document[34:])
		}
		if t.r.IntN(20) == 0 {
			r.Document = ""
		}
		switch r.Type {
		case "upload_started":
			r.Type = of(t.types.Arrived)
		case "processing_started":
			r.Type = of(t.types.Started)
		case "completed":
			if r.Type = of(t.types.Completed); t.r.IntN(3) == 0 {
				r.Type = of(t.types.Skipped)
			}
		case "failed":
			r.Type = of(t.types.Failed)
		default:
			r.Type = of(t.types.Notes)
		}
		switch t.columns[colStage].typ {
		case "-":
			r.Stage = ""
		case "integer":
			if r.Stage != "" {
				r.Stage = strconv.Itoa(int(r.Stage[len(r.Stage)-1]))
			}
		}
		switch typ := t.columns[colError].typ; {
		case typ == "-":
			r.Message = ""
		case typ == "text NOT NULL" && r.Message == "":
			r.Message = "-"
		}
		switch t.columns[colUser].typ {
		case "-":
		case "bigint":
			r.User = strconv.Itoa(t.r.IntN(3))
		default:
			r.User = []string{user, ""}[t.r.IntN(2)]
		}
		r.Tenant = strconv.Itoa(t.r.IntN(3))
		if t.columns[colTenant].typ == "uuid" {
			r.Tenant = strings.Replace(user, "2", r.Tenant, 1)
		}
		switch typ := t.columns[colDuration].typ; {
		case typ == "-":
			r.MS = -1
		case r.MS >= 0 && !slices.Contains([]string{"integer", "bigint"}, typ):
			r.MS += float64(t.r.IntN(4)) / 4
		}
	}
	return rows
}

// store replaces the table's rows. If a row has no duration, the column holds NULL
// or, in some types, a value such as NaN that isn't a number.
func (t *randomTable) store(rows []stored) {
	t.t.Helper()
	text, err := json.Marshal(rows)
	if err != nil {
		t.t.Fatal(err)
	}
	var names, values []string
	for i, c := range t.columns {
		if c.name == "-" {
			continue
		}
		names = append(names, c.quoted())
		value := c.from
		none, ok := map[string]string{"numeric(12,3)": "'NaN'", "double precision": "'Infinity'", "real": "'NaN'", "text": "'soon'"}[c.typ]
		if i == colDuration {
			if !ok || t.r.IntN(2) == 0 {
				none = "NULL"
			}
			value = fmt.Sprintf(`CASE WHEN r."MS" >= 0 THEN %s ELSE %s END`, c.from, none)
		}
		values = append(values, value)
	}
	t.exec("DELETE FROM " + t.table)
	_, err = t.pool.Exec(ctx(t.t), fmt.Sprintf(`INSERT INTO %s (%s) SELECT %s FROM (
		SELECT "ID", nullif("Document", '') AS "Document", nullif("User", '') AS "User", "Type", "MS", nullif("Message", '') AS "Message",
			nullif("Stage", '') AS "Stage", "At", "Tenant"
		FROM jsonb_to_recordset($1::jsonb) AS r("ID" text, "Document" text, "User" text, "Type" text, "MS" float, "Message" text, "Stage" text, "At" text, "Tenant" text)) AS r`,
		t.table, strings.Join(names, ", "), strings.Join(values, ", ")), text)
	if err != nil {
		t.t.Fatalf("%s: %v", t.ddl, err)
	}
}

// compare fills the table with random rows and compares all results.
func (t *randomTable) compare() {
	t.t.Helper()
	spans := []time.Duration{time.Minute, time.Hour, 24 * time.Hour, 30 * 24 * time.Hour, 693 * 24 * time.Hour}
	until := time.Now().UTC().AddDate(0, -1, 0).Truncate(time.Minute).Add(-time.Duration(t.r.IntN(1e9)) * time.Microsecond)
	q := docevents.Query{Since: until.Add(-spans[t.r.IntN(len(spans))]), Until: until, StuckAfter: []time.Duration{0, time.Second, 5 * time.Hour}[t.r.IntN(3)]}
	rows := t.rows(q.Since, q.Until)
	t.store(rows)
	want := plain{rows, t.types}
	c := t.columns
	client := t.reader(docevents.WithSchema(t.schema), docevents.WithTable(t.name), docevents.WithEventTypes(t.types),
		docevents.WithColumns(docevents.Columns{
			ID: c[colID].name, DocumentID: c[colDocument].name, UserID: c[colUser].name, Type: c[colType].name, Duration: c[colDuration].name,
			ErrorMessage: c[colError].name, Stage: c[colStage].name, CreatedAt: c[colCreated].name, TextIDs: c[colDocument].typ != "uuid",
		}))
	asked, plainQuery := q, q
	if len(rows) > 0 && t.r.IntN(2) == 0 {
		asked.Where, plainQuery.Where = map[string]string{c[colTenant].name: rows[0].Tenant}, map[string]string{"tenant": rows[0].Tenant}
	}
	s, err := client.Summary(ctx(t.t), asked)
	if err != nil {
		t.t.Error(err)
		return
	}
	t.wantSame("Summary", lines(s), lines(want.summary(plainQuery)))
	var stage, group string
	for _, e := range s.Errors {
		if e.Message != "" {
			stage, group = e.Stage, e.Message
		}
	}
	for _, state := range []docevents.State{"", docevents.StateCompleted, docevents.StateFailed, docevents.StateUnderWay, docevents.StateStuck, docevents.StateSkipped} {
		for _, l := range []docevents.DocumentsQuery{{State: state}, {State: state, Stage: stage}, {State: state, Error: group}, {State: state, Stage: stage, Error: group}} {
			l.Query = plainQuery
			wanted := documentLines(want.list(l))
			l.Query, l.Limit = asked, 3+t.r.IntN(40)
			t.wantSame(fmt.Sprintf("Documents %q of stage %q, error %q", l.State, l.Stage, l.Error), documentLines(t.pages(client, l)), wanted)
		}
	}
}

// wantSame reports the first line that differs.
func (d *db) wantSame(what string, got, want []string) {
	d.t.Helper()
	got, want = append(got, "the end"), append(want, "the end")
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			d.t.Errorf("%s, line %d:\n%s\nwant\n%s", what, i, got[i], want[i])
			return
		}
	}
}

// pages returns the documents of all pages. It requests the second and later pages with
// another range, to check that the cursor overrides the range.
func (d *db) pages(client *docevents.Client, q docevents.DocumentsQuery) (list []docevents.Document) {
	d.t.Helper()
	for {
		page, err := client.Documents(ctx(d.t), q)
		if err != nil {
			d.t.Fatal(err)
		}
		if len(page.Documents) > q.Limit || page.Next != "" && len(page.Documents) < q.Limit {
			d.t.Errorf("%d documents of at most %d, next %q", len(page.Documents), q.Limit, page.Next)
		}
		list = append(list, page.Documents...)
		if q.Cursor = page.Next; q.Cursor == "" {
			return list
		}
		q.Since, q.Until = time.Now(), time.Now().Add(time.Second)
	}
}

func documentLines(list []docevents.Document) (lines []string) {
	for _, d := range list {
		d.Started, d.LastAt = d.Started.UTC(), d.LastAt.UTC()
		lines = append(lines, fmt.Sprintf("%+v", d))
	}
	return lines
}

// TestReadingErrors checks the errors for wrong settings of a client. Each error says how
// to fix it. Names of functions and system columns are not accepted as columns.
func TestReadingErrors(t *testing.T) {
	d := newDatabase(t).migrated()
	d.run(readingFile)
	d.exec("ALTER TABLE " + d.table + " ADD details json, ADD tenant uuid, ADD at_text text")
	columns := func(c docevents.Columns) []docevents.Option {
		return []docevents.Option{docevents.WithColumns(c)}
	}
	for want, c := range map[string]struct {
		opts  []docevents.Option
		where string
	}{
		`42703: column "nope" of relation "public.` + d.table + `" does not exist; name the columns`:        {columns(docevents.Columns{Stage: "nope"}), ""},
		`42703: column "row_to_json" of relation "public.` + d.table + `" does not exist; name the columns`: {columns(docevents.Columns{ErrorMessage: "row_to_json"}), ""},
		`42703: column "tableoid" of relation "public.` + d.table + `" does not exist; name the columns`:    {columns(docevents.Columns{Stage: "tableoid"}), ""},
		`42703: column "pg_typeof" of relation "public.` + d.table + `" does not exist; name the columns`:   {nil, "pg_typeof"},
		`42804: column "at_text" is of type text but expression`:                                            {columns(docevents.Columns{CreatedAt: "at_text"}), ""},
		`42P01: relation "public.nope" does not exist; create the table`:                                    {[]docevents.Option{docevents.WithTable("nope")}, ""},
		`3F000: schema "nope" does not exist; name the table's schema`:                                      {[]docevents.Option{docevents.WithSchema("nope")}, ""},
		`42883: operator does not exist: json = json; in Where name only`:                                   {nil, "details"},
		`22P02: invalid input syntax for type uuid: "…"; a value of Where`:                                  {nil, "tenant"},
	} {
		client := d.reader(c.opts...)
		q := docevents.Query{Since: time.Now().Add(-time.Hour), Until: time.Now()}
		if c.where != "" {
			q.Where = map[string]string{c.where: "x' OR true --"}
		}
		if _, err := client.Summary(ctx(t), q); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Summary: %v, want %q", err, want)
		}
		if _, err := client.Documents(ctx(t), docevents.DocumentsQuery{Query: q}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Documents: %v, want %q", err, want)
		}
	}
	for _, source := range []string{"null", "[]", `"{}"`, `{"columns": []}`, `{"events": ["failed"]}`, `{"filters": "x"}`} {
		if got := d.as("service_role", "SELECT docevents_summary('"+source+"', now() - interval '1 hour', now())"); got != "22023" {
			t.Errorf("%s: error %q", source, got)
		}
	}
	long := strings.Repeat("x", 64)
	if got := d.as("service_role", `SELECT docevents_summary('{"table": "`+long+`"}', now(), now())`); got != "42P01" {
		t.Errorf("a name that PostgreSQL would cut: error %q", got)
	}
	if got := d.as("service_role", "SELECT docevents_summary('{}', '-infinity', now())"); got != "22023" {
		t.Errorf("an infinite range: error %q", got)
	}
}

// TestReadingFileReplacesOlderFunctions checks that 014 drops functions of the same
// names with other arguments, and keeps the grants on the current functions.
func TestReadingFileReplacesOlderFunctions(t *testing.T) {
	d := newDatabase(t).migrated()
	d.exec(`CREATE FUNCTION docevents_summary(since timestamptz) RETURNS json LANGUAGE sql AS 'SELECT NULL::json';
		CREATE FUNCTION docevents_source(source jsonb) RETURNS text LANGUAGE sql AS 'SELECT NULL::text'`)
	d.run(readingFile)
	d.exec("GRANT EXECUTE ON FUNCTION docevents_summary, docevents_source TO pg_monitor")
	d.run(readingFile)
	if n := d.number("SELECT count(*) FROM pg_proc WHERE proname LIKE 'docevents%'"); n != 3 {
		t.Errorf("%d functions, want 3", n)
	}
	if n := d.number("SELECT count(*) FROM pg_proc WHERE proname LIKE 'docevents%' AND has_function_privilege('pg_monitor', oid, 'EXECUTE')"); n != 2 {
		t.Errorf("%d grants are left, want 2", n)
	}
}
