// Package postgrest reads requests and writes answers as PostgREST 14 does: what
// doceventstest's server, which has its rows in memory, and the integration
// module's gateway, which has a PostgreSQL, would both say. It is test support,
// and imports the standard library alone.
package postgrest

import (
	"cmp"
	"fmt"
	"net/http"
	"strconv"
)

// Schema is the one that the request means, or def.
func Schema(r *http.Request, def string) string {
	header := "Content-Profile"
	if r.Method == http.MethodGet {
		header = "Accept-Profile"
	}
	return cmp.Or(r.Header.Get(header), def)
}

// An Answer is a response that is no error.
type Answer struct {
	Status       int
	ContentRange string
	Applied      string // preferences
	Body         []byte // nil: none, and no Content-Type
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
			return nil, Errorf(416, "PGRST103", "Requested range not satisfiable").WithDetails(
				fmt.Sprintf("An offset of %d was requested, but there are only %d rows.", offset, *total))
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
	h.Set("Content-Range", a.ContentRange)
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
	WriteJSON(w, a.Status, a.Body)
}
