package localstack

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// apiError is an error as PostgREST answers it. The fields are in the order in
// which PostgREST writes them.
type apiError struct {
	Code    string  `json:"code"`
	Details *string `json:"details"`
	Hint    *string `json:"hint"`
	Message string  `json:"message"`

	status       int
	authenticate string // the WWW-Authenticate header, if any
}

func (e *apiError) Error() string { return e.Code + ": " + e.Message }

func newError(status int, code, message string) *apiError {
	return &apiError{status: status, Code: code, Message: message}
}

func (e *apiError) withDetails(details string) *apiError {
	e.Details = &details
	return e
}

func (e *apiError) withHint(hint string) *apiError {
	e.Hint = &hint
	return e
}

// The errors of PostgREST's own that the gateway gives, by
// https://docs.postgrest.org/en/v14/references/errors.html.
var (
	errNoSchemaCache = newError(503, "PGRST002", "Could not query the database for the schema cache. Retrying.")
	errPoolTimeout   = newError(504, "PGRST003", "Timed out acquiring connection from connection pool.")
	errInvalidJSON   = newError(400, "PGRST102", "Empty or invalid json")
	errKeysDiffer    = newError(400, "PGRST102", "All object keys must match")
	errNegativeLimit = newError(416, "PGRST103", "Requested range not satisfiable").
				withDetails("Limit should be greater than or equal to zero.")
	// A connection to PostgreSQL that died under a statement: seen of 14.17 and 16.2.
	errLostConnection = newError(400, "", "")
	errInvalidPath    = newError(404, "PGRST125", "Invalid path specified in request URL")
	errNoRoot         = newError(404, "PGRST126", "Root endpoint metadata is disabled")
)

// connectError is a database that can't be reached.
func connectError(err error) *apiError {
	return newError(503, "PGRST000", "Database connection error. Retrying the connection.").withDetails(err.Error())
}

func parseError(what, value, expecting string) *apiError {
	return newError(400, "PGRST100", `"failed to parse `+what+" ("+value+`)" (line 1, column 1)`).
		withDetails("expecting " + expecting)
}

// databaseError turns what a request's transaction failed with into an answer.
// PostgreSQL's own errors keep their code and text.
func databaseError(err error, anonymous bool) *apiError {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return errLostConnection
	}
	e := newError(httpStatus(pg, anonymous), pg.Code, pg.Message)
	if pg.Detail != "" {
		e.Details = &pg.Detail
	}
	if pg.Hint != "" {
		e.Hint = &pg.Hint
	}
	if e.status == http.StatusUnauthorized {
		e.authenticate = "Bearer"
	}
	return e
}

// httpStatus is PostgREST's table of statuses, by
// https://docs.postgrest.org/en/v14/references/errors.html#http-status-codes.
func httpStatus(pg *pgconn.PgError, anonymous bool) int {
	unauthorized := http.StatusForbidden
	if anonymous {
		unauthorized = http.StatusUnauthorized
	}
	switch pg.Code {
	case "23503", "23505":
		return http.StatusConflict
	case "25006":
		return http.StatusMethodNotAllowed
	case "21000":
		if strings.HasSuffix(pg.Message, "requires a WHERE clause") { // the pg-safeupdate extension
			return http.StatusBadRequest
		}
		return http.StatusInternalServerError
	case "22023":
		if strings.HasPrefix(pg.Message, "role") && strings.HasSuffix(pg.Message, "does not exist") {
			return http.StatusUnauthorized
		}
		return http.StatusBadRequest
	case "42501":
		return unauthorized
	case "42883", "42P01":
		return http.StatusNotFound
	case "42P17", "53400":
		return http.StatusInternalServerError
	case "57P01":
		return http.StatusServiceUnavailable
	case "P0001":
		return http.StatusBadRequest
	}
	if number, ok := strings.CutPrefix(pg.Code, "PT"); ok {
		if status, err := strconv.Atoi(number); err == nil && status >= 200 && status < 600 {
			return status
		}
		return http.StatusInternalServerError
	}
	switch pg.Code[:min(2, len(pg.Code))] {
	case "08", "53":
		return http.StatusServiceUnavailable
	case "0L", "0P", "28":
		return http.StatusForbidden
	case "09", "25", "2D", "38", "39", "3B", "40", "54", "55", "57", "58", "F0", "HV", "P0", "XX":
		return http.StatusInternalServerError
	}
	return http.StatusBadRequest
}

func (e *apiError) write(w http.ResponseWriter) {
	body := encodeJSON(e)
	h := w.Header()
	h.Set("Content-Type", jsonType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Proxy-Status", "PostgREST; error="+e.Code)
	if e.authenticate != "" {
		h.Set("WWW-Authenticate", e.authenticate)
	}
	w.WriteHeader(e.status)
	_, _ = w.Write(body) // the client may be gone
}

const jsonType = "application/json; charset=utf-8"

// encodeJSON is json.Marshal without its escapes for HTML, which PostgREST
// doesn't make.
func encodeJSON(v any) []byte {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		panic(err) // unreachable: only our own structs and JWT claims get here
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
