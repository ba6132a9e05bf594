// Package optional embeds this folder's SQL files for the command "docevents sql".
package optional

import "embed"

// Files holds the SQL files. sql/README.md describes each.
//
//go:embed *.sql
var Files embed.FS
