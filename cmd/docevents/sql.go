package main

import (
	"context"
	"io/fs"
	"strings"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/sql/optional"
)

// An sqlFile is a file that docevents sql prints.
type sqlFile struct {
	name string // the argument of docevents sql
	fsys fs.FS
	path string
}

// sqlFiles returns the two migrations, and then the optional files.
func sqlFiles() []sqlFile {
	files := []sqlFile{
		{"table", docevents.Migrations(), "013_create_processing_events_table.sql"},
		{"reading", docevents.Migrations(), "014_create_docevents_reading.sql"},
	}
	names, err := fs.Glob(optional.Files, "*.sql")
	if err != nil {
		panic(err) // unreachable: the pattern is a constant
	}
	for _, name := range names {
		files = append(files, sqlFile{strings.TrimSuffix(name, ".sql"), optional.Files, name})
	}
	return files
}

func sqlHelp() string {
	help := `Without FILE it prints table and reading. Run them once, in this order:

  docevents sql | psql "$DATABASE_URL" -v ON_ERROR_STOP=1

FILE is one of:

`
	about := map[string]string{
		"table":   "the table document_processing_events, its indexes and grants",
		"reading": "functions for summary, documents, health and serve, for any table",
	}
	for _, f := range sqlFiles() {
		if does, found := about[f.name]; found {
			help += "  " + f.name + strings.Repeat(" ", 9-len(f.name)) + does + "\n"
		}
	}
	return help + "\nor an optional file, described in sql/README.md:\n\n  " + strings.Join(optionalNames(), "\n  ") + "\n"
}

func optionalNames() (names []string) {
	for _, f := range sqlFiles()[2:] {
		names = append(names, f.name)
	}
	return names
}

func printSQL(_ context.Context, c *call) (int, error) {
	others, err := c.parse(c.newFlags(), 1)
	if err != nil {
		return 0, err
	}
	files := sqlFiles()[:2]
	if len(others) == 1 {
		files = nil
		for _, f := range sqlFiles() {
			if name := strings.TrimSuffix(others[0], ".sql"); name == f.name || name+".sql" == f.path {
				files = []sqlFile{f}
			}
		}
		if files == nil {
			return 0, usagef("there is no file %q: use table, reading, %s", others[0], strings.Join(optionalNames(), ", "))
		}
	}
	for _, f := range files {
		text, err := fs.ReadFile(f.fsys, f.path)
		if err != nil {
			return 0, err
		}
		if _, err := c.stdout.Write(text); err != nil {
			return 0, err
		}
	}
	return exitDone, nil
}
