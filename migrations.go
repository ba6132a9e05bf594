package docevents

import (
	"embed"
	"io/fs"
)

//go:embed sql/*.sql
var sqlFiles embed.FS

// Migrations returns the numbered files of the sql folder, without sql/optional.
// Each file is plain SQL that is safe to run again. Run the files in the order of
// their names: paste each one into Supabase's SQL editor, or pass the file system
// to goose, for which the files have Up comments. They have no Down sections,
// because the SQL editor would run those as well and drop the table.
//
// goose keeps the numbers of the migrations that have run in one table. If the
// app's migrations share that table, goose skips these files or rejects the app's
// next migration, depending on which numbers are greater. So give these files a
// separate table, and a provider that ignores the app's Go migrations:
//
//	provider, err := goose.NewProvider(goose.DialectPostgres, db, docevents.Migrations(),
//		goose.WithTableName("docevents_db_version"), goose.WithDisableGlobalRegistry(true))
//
// The file names don't fit golang-migrate (.up.sql) or the Supabase CLI (a
// timestamp). sql/README.md shows how to use those.
func Migrations() fs.FS {
	sub, err := fs.Sub(sqlFiles, "sql")
	if err != nil {
		panic(err) // unreachable: "sql" is a valid path
	}
	return sub
}
