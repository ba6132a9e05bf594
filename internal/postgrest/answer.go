// Package postgrest parses requests and writes answers as PostgREST 14 does, for two
// test servers: doceventstest, which stores rows in memory, and integration/localstack,
// which stores rows in PostgreSQL. The package imports only the standard library.
package postgrest

import (
	"bytes"
	"cmp"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// Schema returns the schema in the request's headers, or defaultSchema if there is
// none.
func Schema(r *http.Request, defaultSchema string) string {
	header := "Content-Profile"
	if r.Method == http.MethodGet {
		header = "Accept-Profile"
	}
	return cmp.Or(r.Header.Get(header), defaultSchema)
}

const (
	mediaJSON   = "application/json"
	mediaObject = "application/vnd.pgrst.object+json"
)

// mediaType returns the media type of one element of an Accept header.
func mediaType(item string) string {
	media, _, _ := strings.Cut(item, ";")
	return strings.ToLower(strings.TrimSpace(media))
}

// Single reports whether the request asks for one JSON object instead of an array: the
// first media type in the Accept header is application/vnd.pgrst.object+json.
func Single(r *http.Request) bool {
	first, _, _ := strings.Cut(r.Header.Get("Accept"), ",")
	return mediaType(first) == mediaObject
}

// CheckRows returns an error if the request doesn't allow a result of n rows, for
// example if it asks for a single object and n is 2. Call CheckRows after the SQL
// statement, and roll back if CheckRows returns an error.
func CheckRows(r *http.Request, p Preferences, n int64) *Error {
	switch {
	case Single(r) && n != 1:
		return Errorf(406, "PGRST116", "Cannot coerce the result to a single JSON object").
			WithDetails(fmt.Sprintf("The result contains %d rows", n))
	case r.Method == http.MethodDelete && p.Strict() && p.MaxAffected != nil && n > *p.MaxAffected:
		return Errorf(400, "PGRST124", "Query result exceeds max-affected preference constraint").
			WithDetails(fmt.Sprintf("The query affects %d rows", n))
	}
	return nil
}

// An Answer is a response that isn't an error.
type Answer struct {
	Status       int
	ContentRange string // the header Content-Range; "" means no such header
	Applied      string // the header Preference-Applied; "" means no such header
	ContentType  string // "" means application/json
	Body         []byte // nil means no body and no Content-Type
}

// FitTo changes the answer to the form that the request asks for, and returns the
// answer. For a single object, it removes the brackets of the array.
func (a *Answer) FitTo(r *http.Request) *Answer {
	if a.Body != nil && Single(r) {
		a.ContentType = mediaObject
		a.Body = bytes.TrimSuffix(bytes.TrimPrefix(a.Body, []byte("[")), []byte("]"))
	}
	return a
}

// ReadAnswer returns the answer to a GET. body contains the rows as a JSON array, and
// rowCount is their number. offset is the number of matching rows that are skipped.
// total is the number of all matching rows, or nil if the request doesn't ask for it.
func (p Preferences) ReadAnswer(offset, rowCount int64, total *int64, body []byte) (*Answer, *Error) {
	a := &Answer{Status: http.StatusOK, Applied: p.Applied(http.MethodGet), Body: body}
	span, all := "*", "*"
	if rowCount > 0 {
		span = fmt.Sprintf("%d-%d", offset, offset+rowCount-1)
	}
	if total != nil {
		all = strconv.FormatInt(*total, 10)
		switch {
		case offset > *total:
			// As in PostgREST, this error has the headers of a successful read, and no
			// Proxy-Status.
			return nil, Errorf(416, "PGRST103", "Requested range not satisfiable").
				WithDetails(fmt.Sprintf("An offset of %d was requested, but there are only %d rows.", offset, *total)).
				WithHeader("Content-Range", "*/"+all).
				WithHeader("Preference-Applied", a.Applied)
		case rowCount < *total:
			a.Status = http.StatusPartialContent
		}
	}
	a.ContentRange = span + "/" + all
	return a, nil
}

// ChangeAnswer returns the answer to an insert or a delete. rowCount is the number of
// changed rows. body contains the changed rows as JSON, for a request that asks for
// them.
func (p Preferences) ChangeAnswer(method string, rowCount int64, body []byte) *Answer {
	a := &Answer{Status: http.StatusCreated, ContentRange: "*/*", Applied: p.Applied(method)}
	if method == http.MethodDelete {
		a.Status = http.StatusNoContent
	}
	if p.Counts() {
		a.ContentRange = "*/" + strconv.FormatInt(rowCount, 10)
	}
	if p.Representation() {
		a.Body = body
		if method == http.MethodDelete {
			a.Status = http.StatusOK
		}
	}
	return a
}

// Write writes the answer to w.
func (a *Answer) Write(w http.ResponseWriter) {
	h := w.Header()
	if a.ContentRange != "" {
		h.Set("Content-Range", a.ContentRange)
	}
	if a.Applied != "" {
		h.Set("Preference-Applied", a.Applied)
	}
	if a.Status != http.StatusNoContent {
		h.Set("Content-Length", strconv.Itoa(len(a.Body)))
	}
	if a.Body == nil {
		w.WriteHeader(a.Status)
		return
	}
	writeBody(w, a.Status, cmp.Or(a.ContentType, mediaJSON), a.Body)
}
