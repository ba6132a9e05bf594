package sqltest

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// section returns the SQL blocks of a section of sql/README.md.
func (d *db) section(title string) []string {
	d.t.Helper()
	readme := d.read("README.md")
	_, text, found := strings.Cut(readme, "\n"+title+"\n")
	if !found {
		d.t.Fatalf("sql/README.md has no section %q", title)
	}
	if next := regexp.MustCompile(`\n#{2,` + strconv.Itoa(strings.Index(title, " ")) + `} `).FindStringIndex(text); next != nil {
		text = text[:next[0]]
	}
	var blocks []string
	for _, block := range regexp.MustCompile("(?s)```sql\n(.*?)```").FindAllStringSubmatch(text, -1) {
		blocks = append(blocks, block[1])
	}
	return blocks
}

// schema returns a line for each object and property of the database that the files
// can change.
func (d *db) schema() []string {
	d.t.Helper()
	return d.texts(`
		SELECT 'table ' || relname || ' ' || relkind::text || ' ' || relrowsecurity || ' ' || coalesce(relacl::text, '')
		FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v')
		UNION ALL SELECT 'column ' || attrelid::regclass || ' ' || attname || ' ' || format_type(atttypid, atttypmod) || ' ' || attnotnull
			|| ' ' || coalesce(pg_get_expr(adbin, adrelid), '')
		FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
		WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND attnum > 0
		UNION ALL SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = 'public'
		UNION ALL SELECT 'constraint ' || conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace
		UNION ALL SELECT 'policy ' || policyname FROM pg_policies
		UNION ALL SELECT 'routine ' || oid::regprocedure FROM pg_proc WHERE pronamespace = 'public'::regnamespace
		UNION ALL SELECT 'job ' || jobname FROM cron.job
		ORDER BY 1`)
}

// TestUndo runs each file and then the SQL with which sql/README.md undoes it.
func TestUndo(t *testing.T) {
	optional, err := filepath.Glob("testdata/sql/optional/*.sql")
	if err != nil || len(optional) == 0 {
		t.Fatalf("%d files, %v", len(optional), err)
	}
	numbered, err := filepath.Glob("testdata/sql/*.sql")
	if err != nil || len(numbered) < 2 {
		t.Fatalf("%d files, %v", len(numbered), err)
	}
	all := slices.Concat(optional, numbered)
	for _, path := range all {
		name := strings.TrimPrefix(path, "testdata/sql/")
		if name == "optional/queries.sql" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			d := newDatabase(t)
			d.fakeAuth("")
			d.fakeCron()
			d.exec("CREATE TABLE documents (id uuid PRIMARY KEY)")
			if name != migration {
				d.run(migration)
				if name != foreignKeyFile { // its step 2 requires documents for existing rows
					d.plant(10, "now()")
				}
			}
			before := d.schema()
			conn := d.conn()
			file := d.read(name)
			parts := []string{file}
			if strings.Contains(file, "-- Step 1:") {
				parts = steps(t, file)
			}
			for _, part := range parts {
				if _, err := conn.Exec(ctx(t), part); err != nil {
					t.Fatal(err)
				}
			}
			if name != eventTypesFile && slices.Equal(d.schema(), before) {
				t.Fatal("the file changes nothing")
			}

			undo := d.section("## " + name)
			if name == partitionedFile {
				undo = d.section("### Back to the plain table")
				const here = "-- Here, run all of 013, which creates the indexes and grants the rights.\n"
				if !strings.Contains(undo[0], here) {
					t.Fatalf("sql/README.md lacks the line %q", here)
				}
				undo[0] = strings.Replace(undo[0], here, d.read(migration), 1)
			}
			if len(undo) == 0 {
				t.Fatal("sql/README.md has no SQL that undoes it")
			}
			for _, block := range undo {
				statements := []string{block}
				if name == prepareFile { // one at a time
					statements = strings.SplitAfter(strings.TrimSpace(block), ";")
				}
				for _, statement := range statements {
					if _, err := conn.Exec(ctx(t), statement); err != nil {
						t.Fatalf("%s: %v", statement, err)
					}
				}
			}
			wantLines(t, "schema after the undo", d.schema(), before...)
			if name != migration && name != foreignKeyFile {
				d.wantCount(10)
			}
		})
	}
}

// TestReadmeExamples runs sql/README.md's examples of the partition functions.
func TestReadmeExamples(t *testing.T) {
	d := newDatabase(t)
	d.run(partitionedFile)
	examples := d.section("## optional/partitioned.sql")[0]
	if strings.Count(examples, "SELECT") != 3 {
		t.Fatal(examples)
	}
	d.exec(examples)
}

// TestReadmeNamesFiles checks that every SQL file has a row and a section in
// sql/README.md.
func TestReadmeNamesFiles(t *testing.T) {
	text, err := os.ReadFile("testdata/sql/README.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("testdata/sql/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	optional, err := filepath.Glob("testdata/sql/optional/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range slices.Concat(files, optional) {
		name := strings.TrimPrefix(path, "testdata/sql/")
		if !strings.Contains(string(text), "]("+name+") |") || !strings.Contains(string(text), "\n## "+name+"\n") {
			t.Errorf("sql/README.md has no row or no section about %s", name)
		}
	}
}
