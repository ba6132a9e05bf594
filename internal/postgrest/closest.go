package postgrest

import "strings"

const (
	// If a request uses an unknown table, the error's hint suggests a table with a similar
	// name, as in PostgREST. similarEnough is the minimum similarity of that name.
	similarEnough = 0.75
	// If the schema has maxHintTables or more tables, the hint suggests none, as in
	// PostgREST.
	maxHintTables = 500
)

// closest returns the name in known that is most similar to tableName. If no name is
// similar enough, or if known contains too many names, it returns "". The similarity is
// 1 - d/n, where d is the Levenshtein distance of the two names, and n is the length of
// the longer name.
func closest(tableName string, known []string) string {
	best, found := similarEnough, ""
	if len(known) >= maxHintTables {
		return ""
	}
	for _, candidate := range known {
		length := max(len(tableName), len(candidate), 1)
		if s := 1 - float64(distance(tableName, strings.ToLower(candidate)))/float64(length); s >= best && (found == "" || s > best) {
			best, found = s, candidate
		}
	}
	return found
}

// distance is the Levenshtein distance of two names.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substituted := diagonal
			if a[i] != b[j] {
				substituted++
			}
			diagonal = row[j+1]
			row[j+1] = min(substituted, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}
