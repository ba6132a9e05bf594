package localstack

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/docevents/docevents-go/internal/postgrest"
)

// These are errors of PostgREST, not of PostgreSQL. They are explained at
// https://docs.postgrest.org/en/v14/references/errors.html.
var (
	errNoSchemaCache = postgrest.Errorf(503, "PGRST002", "Could not query the database for the schema cache. Retrying.")
	errPoolTimeout   = postgrest.Errorf(504, "PGRST003", "Timed out acquiring connection from connection pool.")
	errInvalidJSON   = postgrest.Errorf(400, "PGRST102", "Empty or invalid json")
	errKeysDiffer    = postgrest.Errorf(400, "PGRST102", "All object keys must match")
	// errLostConnection is the answer if the connection to PostgreSQL breaks during a
	// statement. PostgREST 14.17 and 16.2 also send an empty code and message.
	errLostConnection = postgrest.Errorf(400, "", "")
	errInvalidPath    = postgrest.Errorf(404, "PGRST125", "Invalid path specified in request URL")
)

// connectError is the answer if PostgreSQL can't be reached.
func connectError(err error) *postgrest.Error {
	return postgrest.Errorf(503, "PGRST000", "Database connection error. Retrying the connection.").WithDetails(err.Error())
}

// databaseError returns the answer to a request whose transaction failed with err. The
// argument "anonymous" is true if the request ran as the role anon.
func databaseError(err error, anonymous bool) *postgrest.Error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return errLostConnection
	}
	if pg.Code == "PGRST" {
		return raised(pg)
	}
	e := postgrest.Errorf(httpStatus(pg, anonymous), pg.Code, "%s", pg.Message)
	if pg.Detail != "" {
		e.Details = &pg.Detail
	}
	if pg.Hint != "" {
		e.Hint = &pg.Hint
	}
	if e.Status == http.StatusUnauthorized {
		e.WithHeader("Www-Authenticate", "Bearer")
	}
	return e
}

// raised returns the answer for an error with SQLSTATE 'PGRST'. With such an error, a
// database function or trigger chooses the answer. The message and the detail of pg
// should be JSON. See
// https://docs.postgrest.org/en/v14/references/errors.html#raise-errors-with-http-status-codes.
func raised(pg *pgconn.PgError) *postgrest.Error {
	var message struct {
		Code, Message *string
		Details, Hint *string
	}
	var detail struct {
		Status  *int
		Headers *map[string]string
	}
	refuse := func(what, hint string) *postgrest.Error {
		return postgrest.Errorf(500, "PGRST121", `Could not parse JSON in the "RAISE SQLSTATE 'PGRST'" error`).
			WithDetails(what).WithHint(hint)
	}
	const detailHint = "DETAIL must be a JSON object with obligatory keys: 'status', 'headers' and optional key: 'status_text'."
	switch {
	case json.Unmarshal([]byte(pg.Message), &message) != nil || message.Code == nil || message.Message == nil:
		return refuse("Invalid JSON value for MESSAGE: '"+pg.Message+"'",
			"MESSAGE must be a JSON object with obligatory keys: 'code', 'message' and optional keys: 'details', 'hint'.")
	case pg.Detail == "":
		return refuse("DETAIL is missing in the RAISE statement", detailHint)
	case json.Unmarshal([]byte(pg.Detail), &detail) != nil || detail.Status == nil || detail.Headers == nil:
		return refuse("Invalid JSON value for DETAIL: '"+pg.Detail+"'", detailHint)
	}
	e := postgrest.Errorf(*detail.Status, *message.Code, "%s", *message.Message)
	e.Details, e.Hint = message.Details, message.Hint
	for name, value := range *detail.Headers {
		e.WithHeader(http.CanonicalHeaderKey(name), value)
	}
	return e
}

// httpStatus returns the status of PostgREST's answer for the error pg. For the role
// anon, a missing right is a 401 instead of a 403. PostgREST's list is at
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
