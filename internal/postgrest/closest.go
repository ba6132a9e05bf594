package postgrest

import "strings"

const (
	// A hint suggests a table only if the similarity of its name to the requested name
	// is at least similarEnough, as in PostgREST.
	similarEnough = 0.75
	// If the schema has maxHintTables tables or more, there is no hint, as in
	// PostgREST.
	maxHintTables = 500
)

// closest returns the name in knownNames that is most similar to tableName. It returns
// "" if no name is similar enough, or if there are too many names. The similarity is
// 1-d/n, with the Levenshtein distance d of the names and the length n of the longer
// name.
func closest(tableName string, knownNames []string) string {
	best, found := similarEnough, ""
	if len(knownNames) >= maxHintTables {
		return ""
	}
	for _, candidate := range knownNames {
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
