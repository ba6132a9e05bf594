package doceventstest

import (
	"net/http"

	"github.com/docevents/docevents-go/internal/postgrest"
)

// describe answers GET / as PostgREST describes the migration's table. A column
// of Extra takes any JSON and may be empty.
func (s *Server) describe(r *http.Request) (*postgrest.Answer, error) {
	types := map[string]postgrest.Column{
		"ID":           {Type: "uuid", Default: "gen_random_uuid()", Key: true},
		"DocumentID":   {Type: "uuid"},
		"UserID":       {Type: "uuid"},
		"Type":         {Type: "text"},
		"Duration":     {Type: "integer"},
		"ErrorMessage": {Type: "text"},
		"Stage":        {Type: "text"},
		"CreatedAt":    {Type: "timestamp with time zone", Default: "now()"},
		"":             {Type: "jsonb"},
	}
	table := postgrest.Table{Name: s.Table}
	for _, c := range s.columns() {
		described := types[c.field]
		described.Name, described.NotNull = c.name, c.required
		table.Columns = append(table.Columns, described)
	}
	answer, refusal := postgrest.Describe(r, []postgrest.Table{table})
	if refusal != nil {
		return nil, refusal
	}
	return answer, nil
}
