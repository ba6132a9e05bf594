package docevents

import (
	"embed"
	"io/fs"
)

//go:embed sql/*.sql
var sqlFiles embed.FS

// Migrations returns the SQL files that create the table and the functions that read
// it: the numbered files of the folder sql, without sql/optional. Each file is plain
// SQL that is safe to run again. Run the files in the order of their names.
//
// You can paste each file into Supabase's SQL editor, or pass the result of Migrations
// to the migration tool goose. goose uses a Down section to undo a migration. The files
// have none, because the SQL editor would run such a section too, and drop the table.
//
// goose has a version table with the numbers of the migrations that have run. If these
// files shared the app's version table, goose would confuse their numbers with those of
// the app's migrations. So use a separate version table, and a provider that ignores
// the app's Go migrations:
//
//	provider, err := goose.NewProvider(goose.DialectPostgres, db, docevents.Migrations(),
//		goose.WithTableName("docevents_db_version"), goose.WithDisableGlobalRegistry(true))
//
// Other tools, such as golang-migrate and the Supabase CLI, need other file names: see
// sql/README.md.
func Migrations() fs.FS {
	sub, err := fs.Sub(sqlFiles, "sql")
	if err != nil {
		panic(err) // unreachable: "sql" is a valid path
	}
	return sub
}
