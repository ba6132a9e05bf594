// Package postgrest reads requests and writes answers as PostgREST 14 does: what
// doceventstest's server, which has its rows in memory, and the integration
// module's gateway, which has a PostgreSQL, would both say. It is test support,
// and imports the standard library alone.
package postgrest

import (
	"bytes"
	"cmp"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// Schema is the one that the request means, or def.
func Schema(r *http.Request, def string) string {
	header := "Content-Profile"
	if r.Method == http.MethodGet {
		header = "Accept-Profile"
	}
	return cmp.Or(r.Header.Get(header), def)
}

const (
	mediaJSON   = "application/json"
	mediaObject = "application/vnd.pgrst.object+json"
)

// mediaType is that of an element of an Accept header.
func mediaType(item string) string {
	media, _, _ := strings.Cut(item, ";")
	return strings.ToLower(strings.TrimSpace(media))
}

// Single reports whether the request asks for one JSON object in place of an
// array of rows. It looks at the media type that Accept names first.
func Single(r *http.Request) bool {
	first, _, _ := strings.Cut(r.Header.Get("Accept"), ",")
	return mediaType(first) == mediaObject
}

// CheckRows returns an error if PostgREST refuses a result of n rows, else nil.
// PostgREST checks the number after the statement has run and before it commits.
// After an error the caller must roll back.
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

// An Answer is a response that is no error.
type Answer struct {
	Status       int
	ContentRange string // empty: no such header
	Applied      string // preferences
	ContentType  string // empty: application/json
	Body         []byte // nil: none, and no Content-Type
}

// For gives the answer the form that the request asks for: if that is a single
// object, the body is the one row without its array.
func (a *Answer) For(r *http.Request) *Answer {
	if a.Body != nil && Single(r) {
		a.ContentType = mediaObject
		a.Body = bytes.TrimSuffix(bytes.TrimPrefix(a.Body, []byte("[")), []byte("]"))
	}
	return a
}

// ReadAnswer answers with so many rows, those from the offset on. total is how
// many there are, nil where nobody asked.
func (p Preferences) ReadAnswer(offset, rows int64, total *int64, body []byte) (*Answer, *Error) {
	a := &Answer{Status: http.StatusOK, Applied: p.Applied(http.MethodGet), Body: body}
	span, all := "*", "*"
	if rows > 0 {
		span = fmt.Sprintf("%d-%d", offset, offset+rows-1)
	}
	if total != nil {
		all = strconv.FormatInt(*total, 10)
		switch {
		case offset > *total:
			// PostgREST writes this error as it writes rows, so it has the headers of
			// rows, and no Proxy-Status.
			return nil, Errorf(416, "PGRST103", "Requested range not satisfiable").
				WithDetails(fmt.Sprintf("An offset of %d was requested, but there are only %d rows.", offset, *total)).
				WithHeader("Content-Range", "*/"+all).
				WithHeader("Preference-Applied", a.Applied)
		case rows < *total:
			a.Status = http.StatusPartialContent
		}
	}
	a.ContentRange = span + "/" + all
	return a, nil
}

// ChangeAnswer answers an insert or a delete of so many rows, which body has.
func (p Preferences) ChangeAnswer(method string, rows int64, body []byte) *Answer {
	a := &Answer{Status: http.StatusCreated, ContentRange: "*/*", Applied: p.Applied(method)}
	if method == http.MethodDelete {
		a.Status = http.StatusNoContent
	}
	if p.Counts() {
		a.ContentRange = "*/" + strconv.FormatInt(rows, 10)
	}
	if p.Representation() {
		a.Body = body
		if method == http.MethodDelete {
			a.Status = http.StatusOK
		}
	}
	return a
}

// Write answers a request with it.
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
