package doceventstest

import (
	"net/http"

	"github.com/docevents/docevents-go/internal/postgrest"
)

// describe answers GET / as PostgREST does for the migration's table. The columns
// of Extra take any JSON and may be NULL.
func (s *Server) describe(r *http.Request) (*postgrest.Answer, error) {
	table := postgrest.Table{Name: s.Table}
	for _, c := range s.columns() {
		described := postgrest.Column{Name: c.name, Type: c.typ, NotNull: c.required}
		switch c.field {
		case "ID":
			described.Key, described.Default = true, "gen_random_uuid()"
		case "CreatedAt":
			described.Default = "now()"
		}
		table.Columns = append(table.Columns, described)
	}
	answer, refusal := postgrest.Describe(r, []postgrest.Table{table})
	if refusal != nil {
		return nil, refusal
	}
	return answer, nil
}
