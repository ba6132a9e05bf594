package doceventstest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docevents/docevents-go"
)

// maxRows is how many rows a read returns at most, as on a hosted project.
const maxRows = 1000

// A reply is an answer of PostgREST's.
type reply struct {
	status       int
	contentRange string
	body         any // nil: none
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler) // the client has gone
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	answer, err := s.answerLocked(r, body)
	if e := (*docevents.Error)(nil); errors.As(err, &e) {
		s.refused = e
		answer = reply{status: e.Status, body: map[string]any{"message": e.Message}} // a gateway's
		if e.Code != "" {
			answer.body = map[string]any{"code": e.Code, "details": nil, "hint": nil, "message": e.Message}
			w.Header().Set("Proxy-Status", "PostgREST; error="+e.Code)
		}
	}
	s.changed.Broadcast()
	if answer.contentRange != "" {
		w.Header().Set("Content-Range", answer.contentRange)
	}
	if answer.body == nil {
		w.WriteHeader(answer.status)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(answer.status)
	_ = json.NewEncoder(w).Encode(answer.body) // the client may be gone
}

func refuse(status int, code, format string, args ...any) error {
	return &docevents.Error{Status: status, Code: code, Message: fmt.Sprintf(format, args...)}
}

// notUnderstood refuses what docevents doesn't send: to pass over it would be
// to answer something else than PostgREST.
func notUnderstood(what string) error {
	return refuse(http.StatusNotImplemented, "", "doceventstest doesn't understand %s", what)
}

// answerLocked looks at a request in the order in which Supabase's gateway and
// PostgREST do.
func (s *Server) answerLocked(r *http.Request, body []byte) (reply, error) {
	if len(s.failures) > 0 {
		failure := s.failures[0]
		s.failures = s.failures[1:]
		return reply{}, failure
	}
	table, isAPI := strings.CutPrefix(r.URL.Path, "/rest/v1/")
	schema := r.Header.Get("Content-Profile")
	if r.Method == http.MethodGet {
		schema = r.Header.Get("Accept-Profile")
	}
	switch {
	case !isAPI:
		return reply{}, refuse(404, "", "no Route matched with those values")
	case r.Header.Get("Apikey") != s.Key:
		return reply{}, refuse(401, "", "Invalid API key")
	case schema != s.Schema:
		return reply{}, refuse(406, "PGRST106", "Invalid schema: %s", schema)
	case strings.HasPrefix(table, "rpc/"): // that of sql/014 takes a PostgreSQL
		var names []string
		for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
			name, _, _ := strings.Cut(pair, "=")
			names = append(names, name)
		}
		return reply{}, refuse(404, "PGRST202", "Could not find the function %s.%s(%s) in the schema cache",
			schema, strings.TrimPrefix(table, "rpc/"), strings.Join(names, ", "))
	case table != s.Table:
		return reply{}, refuse(404, "PGRST205", "Could not find the table '%s.%s' in the schema cache", s.Schema, table)
	}
	q, err := parseQuery(r, s.columns())
	if err != nil {
		return reply{}, err
	}
	switch r.Method {
	case http.MethodPost:
		rows, err := s.parseRows(body, q.columns, q.prefers("missing=default"))
		if err == nil {
			rows, err = s.insertLocked(rows, q.prefers("resolution=ignore-duplicates"))
		}
		return q.changed(http.StatusCreated, rows), err
	case http.MethodDelete:
		deleted, kept := q.split(s.rows)
		s.rows = kept
		return q.changed(http.StatusNoContent, deleted), nil
	case http.MethodGet:
		if q.prefers("count=exact") {
			return reply{}, notUnderstood("a read with a count")
		}
		rows, _ := q.split(s.rows)
		rows = inTime(rows)
		rows = rows[min(q.offset, len(rows)):]
		return reply{status: http.StatusOK, body: q.selected(rows[:min(q.limit, len(rows))])}, nil
	}
	return reply{}, refuse(405, "PGRST117", "Unsupported HTTP method: %s", r.Method)
}

// A query is what a request asks for beside the rows of an insert.
type query struct {
	table         []column
	filter        []comparison // all must hold
	document      any          // a UUID; nil: of any document
	selects       []string     // columns of the answer; empty: all
	columns       []string     // of an insert
	offset, limit int
	prefer        []string
}

// A comparison of created_at.
type comparison struct {
	operator string
	with     time.Time
}

func parseQuery(r *http.Request, table []column) (*query, error) {
	q := &query{table: table, limit: maxRows}
	for item := range strings.SplitSeq(strings.Join(r.Header.Values("Prefer"), ","), ",") {
		switch item {
		case "resolution=ignore-duplicates", "missing=default", "return=minimal", "return=representation", "count=exact", "":
			q.prefer = append(q.prefer, item)
		default:
			return nil, notUnderstood("Prefer: " + item)
		}
	}
	for name, values := range r.URL.Query() {
		for _, value := range values {
			if err := q.add(name, value); err != nil {
				return nil, err
			}
		}
	}
	return q, nil
}

func (q *query) add(name, value string) error {
	switch name {
	case "select":
		q.selects = strings.Split(value, ",")
	case "columns":
		q.columns = strings.Split(value, ",")
	case "offset", "limit":
		n, err := strconv.ParseUint(value, 10, 31)
		switch {
		case err != nil:
			return notUnderstood("the " + name + " " + value)
		case name == "offset":
			q.offset = int(n)
		default:
			q.limit = min(int(n), maxRows)
		}
	case "on_conflict":
		if value != nameOf("ID", q.table) {
			return refuse(400, "42P10", "there is no unique or exclusion constraint matching the ON CONFLICT specification")
		}
	case "order":
		at := nameOf("CreatedAt", q.table) + ".asc"
		if value != at+".nullslast" && value != at+","+nameOf("ID", q.table)+".asc" {
			return notUnderstood("the order " + value)
		}
	case "and": // what postgrest-go makes of two filters of one column
		for filter := range strings.SplitSeq(strings.Trim(value, "()"), ",") {
			column, rest, _ := strings.Cut(filter, ".")
			if err := q.add(column, rest); err != nil {
				return err
			}
		}
	case nameOf("CreatedAt", q.table):
		operator, text, _ := strings.Cut(value, ".")
		if !slices.Contains([]string{"lt", "lte", "gt"}, operator) {
			return notUnderstood("the operator " + operator)
		}
		with, err := parseTime(text)
		if err != nil {
			return err
		}
		q.filter = append(q.filter, comparison{operator, with.(time.Time)})
	case nameOf("DocumentID", q.table):
		text, equals := strings.CutPrefix(value, "eq.")
		if !equals {
			return notUnderstood("the operator of " + value)
		}
		var err error
		q.document, err = parseUUID(text)
		return err
	default:
		return notUnderstood("the parameter " + name)
	}
	return nil
}

func (q *query) prefers(item string) bool { return slices.Contains(q.prefer, item) }

// split returns the rows that match the filter, and those that don't.
func (q *query) split(rows []row) (matching, others []row) {
	for _, r := range rows {
		if q.document != nil && r.fields["DocumentID"] != q.document ||
			slices.ContainsFunc(q.filter, func(c comparison) bool { return !c.holds(r.createdAt()) }) {
			others = append(others, r)
		} else {
			matching = append(matching, r)
		}
	}
	return matching, others
}

func (c comparison) holds(t time.Time) bool {
	switch c.operator {
	case "lt":
		return t.Before(c.with)
	case "lte":
		return !t.After(c.with)
	default:
		return t.After(c.with)
	}
}

// changed answers an insert or a delete of these rows.
func (q *query) changed(status int, rows []row) reply {
	a := reply{status: status, contentRange: "*/*"}
	if q.prefers("count=exact") {
		a.contentRange = fmt.Sprintf("*/%d", len(rows))
	}
	if q.prefers("return=representation") {
		a.body = q.selected(rows)
		if status == http.StatusNoContent {
			a.status = http.StatusOK
		}
	}
	return a
}

// selected returns the columns that were asked for.
func (q *query) selected(rows []row) []map[string]any {
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
			if len(q.selects) == 0 || slices.Contains(q.selects, c.name) {
				list[i][c.name] = value
			}
		}
	}
	return list
}
