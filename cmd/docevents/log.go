package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// A lineHandler is a slog.Handler that prints each log line of the library as a note.
// The note has the message, and the attribute error or fields if the line has one.
type lineHandler struct {
	w       io.Writer
	command string
}

func (h lineHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h lineHandler) WithAttrs([]slog.Attr) slog.Handler       { return h } // the library adds no attributes
func (h lineHandler) WithGroup(string) slog.Handler            { return h } // and no groups

func (h lineHandler) Handle(_ context.Context, r slog.Record) error {
	line := strings.TrimPrefix(strings.TrimPrefix(r.Message, "docevents: "), "Check: ")
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "error" || a.Key == "fields" {
			line += ": " + a.Value.String()
		}
		return true
	})
	_, err := fmt.Fprintf(h.w, "docevents %s: note: %s\n", h.command, line)
	return err
}
