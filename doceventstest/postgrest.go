package doceventstest

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/docevents/docevents-go/internal/postgrest"
)

// maxRows is how many rows a read returns at most, as on a hosted project.
const maxRows = 1000

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler) // the client has gone
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	answer, err := s.answerLocked(r, body)
	s.changed.Broadcast()
	e, refused := errors.AsType[*postgrest.Error](err)
	switch {
	case !refused:
		answer.Write(w)
		return
	case e.Code == "": // a gateway's
		postgrest.WriteJSON(w, e.Status, postgrest.EncodeJSON(map[string]any{"message": e.Message}))
	default:
		e.Write(w)
	}
	s.refused = e
}

func refuse(status int, code, format string, args ...any) error {
	return postgrest.Errorf(status, code, format, args...)
}

// notUnderstood refuses what docevents doesn't send: to pass over it would be
// to answer something else than PostgREST.
func notUnderstood(what string) error {
	return refuse(http.StatusNotImplemented, "", "doceventstest doesn't understand %s", what)
}

// answerLocked looks at a request in the order in which Supabase's gateway and
// PostgREST do.
func (s *Server) answerLocked(r *http.Request, body []byte) (*postgrest.Answer, error) {
	if len(s.failures) > 0 {
		failure := s.failures[0]
		s.failures = s.failures[1:]
		return nil, failure
	}
	table, isAPI := strings.CutPrefix(r.URL.Path, "/rest/v1/")
	function, isCall := strings.CutPrefix(table, "rpc/")
	schema := postgrest.Schema(r, "")
	switch {
	case !isAPI:
		return nil, refuse(404, "", "no Route matched with those values")
	case r.Header.Get("Apikey") != s.Key:
		return nil, refuse(401, "", "Invalid API key")
	case table == "" && schema == s.Schema:
		return s.describe(r)
	case isCall: // the functions of sql/014 take a PostgreSQL
		params, err := postgrest.ParseParams(r.URL.RawQuery)
		if err != nil {
			return nil, err
		}
		var names []string
		for _, p := range params {
			names = append(names, p.Key)
		}
		return nil, postgrest.ErrFunction(schema+"."+function, names, false)
	case schema != s.Schema:
		return nil, postgrest.ErrSchema(schema, s.Schema)
	case table != s.Table:
		return nil, postgrest.ErrTable(s.Schema, table)
	}
	q, err := parseQuery(r, s.columns())
	if err != nil {
		return nil, err
	}
	switch r.Method {
	case http.MethodPost:
		rows, err := s.parseRows(body, q.Columns, q.prefer.Missing == postgrest.MissingDefault)
		if err != nil {
			return nil, err
		}
		added, err := s.newRows(rows, q.prefer.Resolution == postgrest.IgnoreDuplicates)
		if err != nil {
			return nil, err
		}
		return s.changeLocked(r, q, added, slices.Concat(s.rows, added))
	case http.MethodDelete:
		deleted, kept := q.split(s.rows)
		return s.changeLocked(r, q, deleted, kept)
	case http.MethodGet:
		rows, _ := q.split(s.rows)
		if rows = inTime(rows); len(q.Order) > 1 {
			slices.Reverse(rows)
		}
		return q.read(r, rows)
	}
	return nil, postgrest.ErrMethod(r.Method)
}

// changeLocked answers an insert or a delete of the changed rows, after which the
// table holds the rows of after. If PostgREST would roll it back, nothing changes.
func (s *Server) changeLocked(r *http.Request, q *query, changed, after []row) (*postgrest.Answer, error) {
	if refusal := postgrest.CheckRows(r, q.prefer, int64(len(changed))); refusal != nil {
		return nil, refusal
	}
	s.rows = after
	var body []byte
	if q.prefer.Representation() {
		body = q.selected(changed)
	}
	return q.prefer.ChangeAnswer(r.Method, int64(len(changed)), body).For(r), nil
}

// read answers a GET that those rows match.
func (q *query) read(r *http.Request, rows []row) (*postgrest.Answer, error) {
	var total *int64
	if q.prefer.Counts() {
		total = new(int64(len(rows)))
	}
	rows = rows[min(q.Offset, int64(len(rows))):]
	if limit := int64(maxRows); q.Limit == nil || *q.Limit > limit {
		q.Limit = &limit
	}
	rows = rows[:min(*q.Limit, int64(len(rows)))]
	if refusal := postgrest.CheckRows(r, q.prefer, int64(len(rows))); refusal != nil {
		return nil, refusal
	}
	answer, refusal := q.prefer.ReadAnswer(q.Offset, int64(len(rows)), total, q.selected(rows))
	if refusal != nil {
		return nil, refusal
	}
	return answer.For(r), nil
}

// A query is what a request asks for beside the rows of an insert.
type query struct {
	*postgrest.Query
	table      []column
	conditions []func(row) bool // all must hold
	prefer     postgrest.Preferences
}

// parseQuery refuses what PostgREST understands and docevents doesn't send.
func parseQuery(r *http.Request, table []column) (*query, error) {
	asked, refusal := postgrest.ParseQuery(r.URL.RawQuery)
	if refusal != nil {
		return nil, refusal
	}
	q := &query{Query: asked, table: table, prefer: postgrest.ParsePreferences(r.Header.Values("Prefer"))}
	id, at := nameOf("ID", table), nameOf("CreatedAt", table)
	byTime := []postgrest.OrderTerm{{Column: at, Direction: " ASC NULLS LAST"}}
	newestFirst := []postgrest.OrderTerm{{Column: at, Direction: " DESC"}, {Column: id, Direction: " DESC"}}
	switch p := q.prefer; {
	case len(p.Unknown) > 0 || p.Handling != "" || p.MaxAffected != nil || p.Resolution == postgrest.MergeDuplicates:
		return nil, notUnderstood("Prefer: " + strings.Join(r.Header.Values("Prefer"), ","))
	case q.OnConflict != nil && !slices.Equal(q.OnConflict, []string{id}):
		return nil, refuse(400, "42P10", "there is no unique or exclusion constraint matching the ON CONFLICT specification")
	case q.Order != nil && !slices.Equal(q.Order, byTime) && !slices.Equal(q.Order, newestFirst):
		return nil, notUnderstood("the order " + fmt.Sprint(q.Order))
	}
	for _, f := range q.Filters {
		condition, err := newCondition(f, table)
		if err != nil {
			return nil, err
		}
		q.conditions = append(q.conditions, condition)
	}
	return q, nil
}

// newCondition knows those of a document and of a time.
func newCondition(f postgrest.Filter, table []column) (func(row) bool, error) {
	switch filter := f.Column + " " + f.Operator; filter {
	case nameOf("DocumentID", table) + " eq":
		i := slices.IndexFunc(table, func(c column) bool { return c.field == "DocumentID" })
		id, err := table[i].parse(f.Value)
		return func(r row) bool { return r.fields["DocumentID"] == id }, err
	case nameOf("CreatedAt", table) + " lt", nameOf("CreatedAt", table) + " lte", nameOf("CreatedAt", table) + " gt":
		value, err := parseTime(f.Value)
		with, _ := value.(time.Time)
		return func(r row) bool {
			order := r.createdAt().Compare(with)
			return order < 0 && f.Operator != "gt" || order == 0 && f.Operator == "lte" || order > 0 && f.Operator == "gt"
		}, err
	default:
		return nil, notUnderstood("the filter " + filter)
	}
}

// split returns the rows that match the filters, and those that don't.
func (q *query) split(rows []row) (matching, others []row) {
	for _, r := range rows {
		if slices.ContainsFunc(q.conditions, func(holds func(row) bool) bool { return !holds(r) }) {
			others = append(others, r)
		} else {
			matching = append(matching, r)
		}
	}
	return matching, others
}

// selected returns the columns that were asked for, as JSON.
func (q *query) selected(rows []row) []byte {
	list := make([]map[string]any, len(rows))
	for i, r := range rows {
		list[i] = map[string]any{}
		for _, c := range q.table {
			value := r.fields[c.field]
			if c.field == "" {
				value = r.extra[c.name]
			}
			if at, isTime := value.(time.Time); isTime {
				value = at.Format("2006-01-02T15:04:05.999999-07:00") // as PostgreSQL writes it
			}
			if value != nil && slices.Contains(q.Texts, c.name) {
				value = fmt.Sprint(value)
			}
			if q.Select == nil || slices.Contains(q.Select, c.name) {
				list[i][c.name] = value
			}
		}
	}
	return postgrest.EncodeJSON(list)
}
