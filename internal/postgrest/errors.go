package postgrest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
)

// An Error is an error response of PostgREST, with the JSON fields in PostgREST's
// order.
type Error struct {
	Code    string  `json:"code"`
	Details *string `json:"details"`
	Hint    *string `json:"hint"`
	Message string  `json:"message"`

	Status int         `json:"-"`
	Header http.Header `json:"-"` // in addition to the headers of every error
}

func (e *Error) Error() string {
	return strings.TrimSpace(fmt.Sprintf("HTTP %d %s", e.Status, e.Code)) + ": " + e.Message
}

// Errorf returns an error without details or a hint.
func Errorf(status int, code, format string, args ...any) *Error {
	return &Error{Status: status, Code: code, Message: fmt.Sprintf(format, args...)}
}

func (e *Error) WithDetails(details string) *Error {
	e.Details = &details
	return e
}

// WithHeader sets a header. name must be in canonical form.
func (e *Error) WithHeader(name, value string) *Error {
	if e.Header == nil {
		e.Header = http.Header{}
	}
	e.Header[name] = []string{value}
	return e
}

func (e *Error) WithHint(hint string) *Error {
	e.Hint = &hint
	return e
}

// The following errors come from PostgREST, not from PostgreSQL. They are explained at
// https://docs.postgrest.org/en/v14/references/errors.html.

var errNegativeLimit = Errorf(416, "PGRST103", "Requested range not satisfiable").
	WithDetails("Limit should be greater than or equal to zero.")

func parseError(part, value, expecting string) *Error {
	return Errorf(400, "PGRST100", `"failed to parse %s (%s)" (line 1, column 1)`, part, value).
		WithDetails("expecting " + expecting)
}

func ErrSchema(schema string, exposed ...string) *Error {
	return Errorf(406, "PGRST106", "Invalid schema: %s", schema).
		WithHint("Only the following schemas are exposed: " + strings.Join(exposed, ", "))
}

// ErrTable returns the error for an unknown table. Its hint suggests a similar name
// from knownTables, the tables of the schema.
func ErrTable(schema, table string, knownTables ...string) *Error {
	e := Errorf(404, "PGRST205", "Could not find the table '%s.%s' in the schema cache", schema, table)
	if name := closest(table, knownTables); name != "" {
		e.WithHint(fmt.Sprintf("Perhaps you meant the table '%s.%s'", schema, name))
	}
	return e
}

func ErrColumn(table, column string) *Error {
	return Errorf(400, "PGRST204", "Could not find the '%s' column of '%s' in the schema cache", column, table)
}

func ErrMethod(method string) *Error {
	return Errorf(405, "PGRST117", "Unsupported HTTP method: %s", method)
}

// ErrFunction returns the error for an unknown function, which was called with
// argumentNames. The details for a POST differ from those for a GET.
func ErrFunction(name string, argumentNames []string, posted bool) *Error {
	signature, with := "("+strings.Join(argumentNames, ", ")+")", " with parameter "+strings.Join(argumentNames, ", ")
	switch {
	case len(argumentNames) == 0:
		signature = " without parameters"
		with = signature
	case len(argumentNames) > 1:
		with = strings.Replace(with, "parameter", "parameters", 1)
	}
	if posted {
		with += " or with a single unnamed json/jsonb parameter"
	}
	return Errorf(404, "PGRST202", "Could not find the function %s%s in the schema cache", name, signature).
		WithDetails(fmt.Sprintf("Searched for the function %s%s, but no matches were found in the schema cache.", name, with))
}

// Write writes the error to w.
func (e *Error) Write(w http.ResponseWriter) {
	body := EncodeJSON(e)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if e.Status != http.StatusRequestedRangeNotSatisfiable || e.Header == nil { // see ReadAnswer
		w.Header().Set("Proxy-Status", "PostgREST; error="+e.Code)
	}
	maps.Copy(w.Header(), e.Header)
	WriteJSON(w, e.Status, body)
}

// WriteJSON writes an answer of PostgREST, or of a gateway in front of it.
func WriteJSON(w http.ResponseWriter, status int, body []byte) {
	writeBody(w, status, mediaJSON, body)
}

func writeBody(w http.ResponseWriter, status int, media string, body []byte) {
	w.Header().Set("Content-Type", media+"; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may have closed the connection
}

// EncodeJSON is like json.Marshal, but doesn't escape HTML. PostgREST doesn't either.
func EncodeJSON(v any) []byte {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		panic(err) // unreachable: all callers pass JSON types
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
