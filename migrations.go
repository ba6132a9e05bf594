package docevents

import (
	"embed"
	"io/fs"
)

//go:embed sql/*.sql
var sqlFiles embed.FS

// Migrations returns the numbered files of the sql folder, not those of
// sql/optional. Each is plain SQL, safe to run again, to be run whole and in
// the order of their names: paste it into Supabase's SQL editor, or hand the
// file system to goose, whose Up comments the files carry. There are no Down
// parts on purpose: they would drop the table for those who paste the file.
//
// goose keeps the numbers that it has run in a table, by default one for all: in
// an app that has more than 12 migrations of its own these would be passed over,
// and in one that has fewer, its next would be refused. So give them a table of
// their own, and a provider without the app's migrations in Go:
//
//	provider, err := goose.NewProvider(goose.DialectPostgres, db, docevents.Migrations(),
//		goose.WithTableName("docevents_db_version"), goose.WithDisableGlobalRegistry(true))
//
// The names are not golang-migrate's (.up.sql), nor the Supabase CLI's
// (a timestamp): see sql/README.md.
func Migrations() fs.FS {
	sub, err := fs.Sub(sqlFiles, "sql")
	if err != nil {
		panic(err) // unreachable: the folder's name is a constant
	}
	return sub
}
