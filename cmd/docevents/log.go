package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// A lineHandler prints the library's log lines as notes for the user. A note contains
// the message and the attributes "error" and "fields".
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
