package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/docevents/docevents-go"
)

// settings describe the table that a command uses. They come from the command's flags,
// and from the JSON file of the flag -config. The keys of the file are the names of the
// flags, such as text_ids for -text-ids. A flag takes precedence over the file.
type settings struct {
	Schema  string               `json:"schema"`
	Table   string               `json:"table"`
	Columns map[string]string    `json:"columns"` // the names of the table's columns, by the names in the migration
	TextIDs bool                 `json:"text_ids"`
	Extra   []string             `json:"extra"`
	Types   docevents.EventTypes `json:"types"`
	Where   map[string]string    `json:"where"`
}

// A whereUse is the effect of the setting "where" in a -config file. This setting
// contains columns, each with a value, and selects the events that have these values.
// Some commands don't support "where", but users might pass the same file to all
// commands.
type whereUse int

const (
	whereFilters whereUse = iota // the command takes -where, and "where" in the file
	whereIgnored                 // "where" in the file has no effect
	whereRefused                 // "where" in the file is an error, because the command always works on all rows
)

// A tableSource collects the flags that describe the table. They are applied after the
// -config file, even if -config comes last.
type tableSource struct {
	file    string
	changes []func(*settings) error
	where   whereUse
}

var errEmpty = errors.New("the value is empty")

func addTable(flags *flag.FlagSet, where whereUse) *tableSource {
	source := &tableSource{where: where}
	change := func(name, usage string, apply func(s *settings, value string) error) {
		flags.Func(name, usage, func(value string) error {
			if value == "" { // probably an unset variable in a script
				return errEmpty
			}
			source.changes = append(source.changes, func(s *settings) error {
				if err := apply(s, value); err != nil {
					return fmt.Errorf("-%s: %w", name, err)
				}
				return nil
			})
			return nil
		})
	}
	flags.Func("config", "`FILE`|JSON file with these flags as keys, such as text_ids", func(value string) error {
		if source.file = value; value == "" {
			return errEmpty
		}
		return nil
	})
	change("schema", "`NAME`|schema, if not public", func(s *settings, v string) error { s.Schema = v; return nil })
	change("table", "`NAME`|table, if not document_processing_events", func(s *settings, v string) error { s.Table = v; return nil })
	change("columns", "`LIST`|names that differ: id=event_id,user_id=- (- means none)", func(s *settings, v string) error {
		return eachPair(v, func(name, column string) error { return put(&s.Columns, name, column) })
	})
	change("extra", "`LIST`|more columns that the app fills: tenant_id,job_id", func(s *settings, v string) error {
		s.Extra = strings.Split(v, ",")
		return nil
	})
	flags.BoolFunc("text-ids", "document and user ids are text or numbers", func(v string) error {
		on, err := strconv.ParseBool(v)
		source.changes = append(source.changes, func(s *settings) error { s.TextIDs = on; return nil })
		return err
	})
	given := map[string]bool{}
	change("types", "`LIST`|its event types: completed=done,failed=error,failed=bad", func(s *settings, v string) error {
		return eachPair(v, func(meaning, word string) error {
			list := typesOf(&s.Types, meaning)
			switch {
			case meaning == "open" && (word == "true" || word == "false"):
				s.Types.Open = word == "true"
				return nil
			case list == nil:
				return fmt.Errorf("%q is not a meaning: use arrived, started, completed, failed, skipped, notes, or open=true", meaning)
			case !given[meaning]: // a flag replaces the file's list
				*list = nil
			}
			given[meaning] = true
			*list = append(*list, docevents.EventType(word))
			return nil
		})
	})
	if where == whereFilters {
		change("where", "`COL=VALUE`|only events with this value; may be repeated", func(s *settings, v string) error {
			column, value, found := strings.Cut(v, "=")
			if !found {
				return fmt.Errorf("%q: want a column, =, and a value", v)
			}
			return put(&s.Where, column, value)
		})
	}
	return source
}

func put(m *map[string]string, key, value string) error {
	if *m == nil {
		*m = map[string]string{}
	}
	(*m)[key] = value
	return nil
}

// eachPair calls f for each pair in a list such as a=b,c=d.
func eachPair(list string, f func(key, value string) error) error {
	for pair := range strings.SplitSeq(list, ",") {
		key, value, found := strings.Cut(pair, "=")
		if !found || key == "" || value == "" {
			return fmt.Errorf("%q: want pairs such as a=b,c=d", list)
		}
		if err := f(key, value); err != nil {
			return err
		}
	}
	return nil
}

// typesOf returns the list of types with the given meaning, such as &types.Failed for
// "failed". If the meaning is unknown, it returns nil.
func typesOf(types *docevents.EventTypes, meaning string) *[]docevents.EventType {
	switch meaning {
	case "arrived":
		return &types.Arrived
	case "started":
		return &types.Started
	case "completed":
		return &types.Completed
	case "failed":
		return &types.Failed
	case "skipped":
		return &types.Skipped
	case "notes":
		return &types.Notes
	}
	return nil
}

// read returns the settings from the file and the flags.
func (source *tableSource) read() (*settings, error) {
	s := &settings{Schema: docevents.DefaultSchema, Table: docevents.DefaultTable}
	if source.file != "" {
		text, err := os.ReadFile(source.file)
		if err != nil {
			return nil, usagef("-config: %w", err)
		}
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(s); err != nil {
			return nil, usagef("-config: %s: %w", source.file, err)
		}
		if decoder.More() {
			return nil, usagef("-config: %s: want one JSON object", source.file)
		}
	}
	for _, change := range source.changes {
		if err := change(s); err != nil {
			return nil, usageError{err}
		}
	}
	if len(s.Where) > 0 && source.where == whereRefused {
		return nil, usagef("-config: %s contains where, but this command always works on all rows: use a file without where", source.file)
	}
	return s, nil
}

func (s *settings) options() ([]docevents.Option, error) {
	columns := docevents.Columns{TextIDs: s.TextIDs, Extra: s.Extra}
	fields := []struct {
		name  string
		field *string
	}{
		{"id", &columns.ID},
		{"document_id", &columns.DocumentID},
		{"user_id", &columns.UserID},
		{"event_type", &columns.Type},
		{"duration_ms", &columns.Duration},
		{"error_message", &columns.ErrorMessage},
		{"stage", &columns.Stage},
		{"created_at", &columns.CreatedAt},
	}
	var known []string
	for _, f := range fields {
		*f.field = s.Columns[f.name]
		known = append(known, f.name)
	}
	for name, column := range s.Columns {
		if !slices.Contains(known, name) {
			return nil, usagef("-columns: %q is not a column of document_processing_events: use %s", name, strings.Join(known, ", "))
		}
		if column == "" { // only in a file
			return nil, usagef("-columns: the name for %s: %w", name, errEmpty)
		}
	}
	options := []docevents.Option{
		docevents.WithSchema(s.Schema),
		docevents.WithTable(s.Table),
		docevents.WithEventTypes(s.Types),
	}
	if len(s.Columns) > 0 || s.TextIDs || len(s.Extra) > 0 { // WithColumns also allows NULL ids, so pass it only if needed
		options = append(options, docevents.WithColumns(columns))
	}
	return options, nil
}

// connect returns a client for the table that source describes, and the table's
// settings. The URL and the key come from the environment variables. The client also
// gets moreOptions.
func (c *call) connect(source *tableSource, moreOptions ...docevents.Option) (*docevents.Client, *settings, error) {
	s, err := source.read()
	if err != nil {
		return nil, nil, err
	}
	options, err := s.options()
	if err != nil {
		return nil, nil, err
	}
	options = append(options, docevents.WithSlog(slog.New(lineHandler{c.stderr, c.name})))
	client, err := docevents.NewFromEnv(append(options, moreOptions...)...)
	switch {
	case err != nil && optionName.MatchString(err.Error()):
		return nil, nil, usageError{err}
	case err != nil:
		return nil, nil, settingsError{err}
	}
	return client, s, nil
}
