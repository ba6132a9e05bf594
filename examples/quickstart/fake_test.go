package main

import (
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
	case strings.Contains(string(body), `"id":null`): // of Check
		answer(http.StatusBadRequest, `{"code":"23502","message":"null value in column \"id\" of relation \"document_processing_events\" violates not-null constraint"}`)(w, r)
	case r.Method == http.MethodPost:
		answer(http.StatusCreated, "")(w, r)
	default:
		answer(http.StatusOK, "[]")(w, r)
	}
})
