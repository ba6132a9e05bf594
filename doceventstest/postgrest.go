package doceventstest

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/docevents/docevents-go/internal/postgrest"
)

// maxRows limits how many rows a read returns, as on a hosted project.
const maxRows = 1000

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler) // the client has closed the connection
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
	case e.Code == "": // a response like one from the gateway, without a code
		postgrest.WriteJSON(w, e.Status, postgrest.EncodeJSON(map[string]any{"message": e.Message}))
	default:
		e.Write(w)
	}
	s.refused = e
}

func refuse(status int, code, format string, args ...any) error {
	return postgrest.Errorf(status, code, format, args...)
}

// notUnderstood returns the error for a part of a request that PostgREST understands
// and this server doesn't. docevents never sends such a request.
func notUnderstood(part string) error {
	return refuse(http.StatusNotImplemented, "", "doceventstest doesn't understand %s", part)
}

// answerLocked returns the answer to a request, or an error if the request is refused.
// It checks for faults in the order of Supabase's gateway and PostgREST, so that a
// request with several faults gets the error that Supabase would return.
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
	case isCall: // the functions of sql/014 need PostgreSQL
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
		return nil, postgrest.ErrTable(s.Schema, table, s.Table)
	}
	q, err := s.parseQuery(r)
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
		return q.read(r, q.sorted(rows))
	}
	return nil, postgrest.ErrMethod(r.Method)
}

// changeLocked carries out an insert or a DELETE, and returns the answer. changedRows
// contains the inserted or deleted rows, and rowsAfter contains the rows of the table
// afterwards. If the request doesn't allow that number of changed rows, the table stays
// unchanged, as after PostgREST's rollback.
func (s *Server) changeLocked(r *http.Request, q *query, changedRows, rowsAfter []row) (*postgrest.Answer, error) {
	if refusal := postgrest.CheckRows(r, q.prefer, int64(len(changedRows))); refusal != nil {
		return nil, refusal
	}
	s.rows = rowsAfter
	var body []byte
	if q.prefer.Representation() {
		body = q.selected(changedRows)
	}
	return q.prefer.ChangeAnswer(r.Method, int64(len(changedRows)), body).FitTo(r), nil
}
