// Package optional holds this folder's SQL files for the command docevents sql.
package optional

import "embed"

// Files are the folder's SQL files. ../README.md describes each.
//
//go:embed *.sql
var Files embed.FS
