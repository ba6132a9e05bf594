package postgrest

import "strings"

const (
	// similarEnough is the minimum similarity of a suggested name. If a table is
	// unknown, PostgREST suggests a similar name in the error's hint. Earlier versions
	// of PostgREST also suggest less similar names.
	similarEnough = 0.75
	// maxHintTables is a limit for the number of tables. If the schema has at least
	// this many tables, closest suggests none of them, as in PostgREST.
	maxHintTables = 500
)

// closest returns the known name that is most similar to name. If no known name is
// similar enough, or if there are too many, it returns "". The similarity is 1 - d/n. d
// is the Levenshtein distance, and n is the length of the longer name.
func closest(name string, known []string) string {
	best, found := similarEnough, ""
	if len(known) >= maxHintTables {
		return ""
	}
	for _, candidate := range known {
		length := max(len(name), len(candidate), 1)
		if s := 1 - float64(distance(name, strings.ToLower(candidate)))/float64(length); s >= best && (found == "" || s > best) {
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
