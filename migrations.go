package docevents

import (
	"embed"
	"io/fs"
)

//go:embed sql/*.sql
var sqlFiles embed.FS

// Migrations returns the SQL files that create the table and the functions that read
// it: the numbered files of the folder sql, without sql/optional. Each file is plain
// SQL that is safe to run again. Run the files in the order of their names. You can
// paste each file into Supabase's SQL editor, or pass the file system to the
// migration tool goose. The files have the Up comments that goose needs, but no Down
// sections, because the SQL editor would run a Down section as well and drop the
// table.
//
// goose keeps a version table with the numbers of the migrations that have run. If
// these files share the app's version table, goose confuses their numbers with the
// app's: it may skip these files, or reject the app's next migration. So use a separate
// version table for these files, and a provider that ignores the app's Go migrations:
//
//	provider, err := goose.NewProvider(goose.DialectPostgres, db, docevents.Migrations(),
//		goose.WithTableName("docevents_db_version"), goose.WithDisableGlobalRegistry(true))
//
// Other tools need other file names: golang-migrate needs names that end in .up.sql,
// and the Supabase CLI needs a timestamp at the start. sql/README.md shows how to use
// these tools.
func Migrations() fs.FS {
	sub, err := fs.Sub(sqlFiles, "sql")
	if err != nil {
		panic(err) // unreachable: "sql" is a valid path
	}
	return sub
}
