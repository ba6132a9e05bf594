package postgrest

import "strings"

const (
	// similarEnough is the least similarity of a name that PostgREST suggests in a
	// hint. Earlier versions also suggest less similar names.
	similarEnough = 0.75
	// maxHintTables limits the search: like PostgREST, closest finds nothing among 500
	// or more names.
	maxHintTables = 500
)

// closest returns the known name that is most similar to name, or "" if no name is
// similar enough. The similarity is 1 - distance / length of the longer name.
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
