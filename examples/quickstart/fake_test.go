package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
)

func answer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// forgetful accepts everything and has nothing.
var forgetful = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Range", "*/0")
	switch body, _ := io.ReadAll(r.Body); {
	case strings.HasSuffix(r.Header.Get("Accept"), "object+json"): // Check's rehearsal: a copy of a row doesn't count
		rows := strings.Count(string(body), `"id":`) - 1
		answer(http.StatusNotAcceptable, fmt.Sprintf(`{"code":"PGRST116","details":"The result contains %d rows"}`, rows))(w, r)
	case r.Method == http.MethodPost:
		answer(http.StatusCreated, "")(w, r)
	default:
		answer(http.StatusOK, "[]")(w, r)
	}
})
