// Docevents checks, reads and purges the table of an app's document events.
//
//	go install github.com/docevents/docevents-go/cmd/docevents@latest
//
// To list the commands, run docevents -h. To list the flags of a command, run docevents
// COMMAND -h. The environment variables SUPABASE_URL and SUPABASE_SECRET_KEY contain
// the project's URL and key.
//
// Results are printed on standard output, errors and notes on standard error. The exit
// code is 0 if all is well, 1 if the command failed or found a problem, and 2 if a flag
// or a setting is wrong. The commands "check" and "purge" have their own exit codes,
// which -h lists.
//
// The files contain:
//
//	main          the list of commands, and the code that runs one of them
//	flags         the parsing of flags, and the text of -h
//	age           flags that take an age or a time
//	settings      the flags and the -config file that describe the table
//	output, log   tables, JSON, and the library's log lines
//	check, sql, purge*, health, read, serve
//	              the commands
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

const (
	exitDone = iota
	exitFailed
	exitUsage
	exitStopped    // only purge
	exitIncomplete // only purge
)

func main() {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		cancel(fmt.Errorf("stopped by %s", <-signals))
		signal.Reset() // a second signal ends the program at once
	}()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

type command struct {
	name      string
	arguments string // the arguments that aren't flags, for docevents -h
	does      string // the command's line in docevents -h
	more      string // more lines for the command's own -h
	run       func(context.Context, *call) (exitCode int, err error)
}

var commands = []command{
	{name: "check", does: "find out whether events can be stored and purged", more: checkHelp, run: check},
	{name: "sql", arguments: "[FILE]", does: "print the SQL that creates the table, and optional SQL", more: sqlHelp(), run: printSQL},
	{name: "purge", does: "delete old rows", more: purgeHelp, run: runPurge},
	{name: "health", does: "check documents against limits: exit code 0 if ok, else 1", run: health},
	{name: "summary", does: "count documents, steps, errors and stuck documents", run: summary},
	{name: "timeline", arguments: "DOCUMENT", does: "list the events of one document", more: timelineHelp, run: timeline},
	{name: "documents", does: "list documents by their latest event, newest first", run: documents},
	{name: "serve", does: "show the dashboard in a browser on this machine", run: serve},
}

// A call is one run of a command.
type call struct {
	command
	args           []string // after the command's name
	stdout, stderr io.Writer
}

// run runs the program and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage())
		return exitUsage
	}
	switch args[0] {
	case "-h", "-help", "--help", "help":
		fmt.Fprint(stdout, usage())
		return exitDone
	}
	for _, c := range commands {
		if c.name == args[0] {
			return runCommand(ctx, &call{c, args[1:], stdout, stderr})
		}
	}
	fmt.Fprintf(stderr, "docevents: there is no command %q; for the commands, run docevents -h\n", args[0])
	return exitUsage
}

func runCommand(ctx context.Context, c *call) int {
	code, err := c.run(ctx, c)
	if err == nil {
		return code
	}
	if errors.Is(err, errHelp) {
		return exitDone
	}
	fmt.Fprintf(c.stderr, "docevents %s: %s\n", c.name, plain(err))
	c.explain(err.Error())
	switch {
	case errors.As(err, new(usageError)):
		fmt.Fprintf(c.stderr, "For the flags, run docevents %s -h\n", c.name)
		return exitUsage
	case errors.As(err, new(settingsError)):
		fmt.Fprintln(c.stderr, "For the settings, run docevents -h")
		return exitUsage
	}
	return max(code, exitFailed)
}

type (
	usageError    struct{ error } // a flag or an argument is wrong
	settingsError struct{ error } // an environment variable is wrong or missing
)

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

var (
	errHelp = errors.New("-h was given") // the command prints its help and ends

	libraryPrefix = regexp.MustCompile(`^docevents: ((Check|Summary|Documents|Timeline|TimelineBefore|Health|PurgeBefore): )?`)
	optionName    = regexp.MustCompile(`\b(WithTable|WithSchema|WithColumns|WithEventTypes|TextIDs)\b`)
	sqlFileName   = regexp.MustCompile(`sql/(?:optional/)?(\w+\.sql)`)
)

// plain returns the text of an error from the library, without the prefix "docevents:
// Check: ".
func plain(err error) string { return libraryPrefix.ReplaceAllString(err.Error(), "") }

// explain prints advice about an error message of the library. If the message mentions
// an option such as WithTable, explain prints which flags stand for which options. If
// it mentions an SQL file, explain prints the command that prints the file.
func (c *call) explain(message string) {
	if optionName.MatchString(message) {
		fmt.Fprintln(c.stderr, "The flags for these options: -table for WithTable, -schema for WithSchema, -columns, -extra and -text-ids for WithColumns, -types for WithEventTypes.")
	}
	for _, f := range sqlFiles() {
		if slices.ContainsFunc(sqlFileName.FindAllStringSubmatch(message, -1), func(name []string) bool { return name[1] == f.path }) {
			fmt.Fprintf(c.stderr, "docevents sql %s prints %s.\n", f.name, f.path)
		}
	}
}

func usage() string {
	var b strings.Builder
	b.WriteString("docevents checks, reads and purges a table of document events on Supabase.\n\nusage: docevents COMMAND [flags]\n\n")
	for _, c := range commands {
		fmt.Fprintf(&b, "  %-20s %s\n", strings.TrimSpace(c.name+" "+c.arguments), c.does)
	}
	b.WriteString(`
docevents COMMAND -h lists the flags of a command.

Set these environment variables:

  SUPABASE_URL          address of the project: https://abcdefgh.supabase.co
  SUPABASE_SECRET_KEY   sb_secret_..., from the project's API settings.
                        SUPABASE_SECRET_KEYS, SUPABASE_SERVICE_ROLE_KEY and
                        SUPABASE_SERVICE_KEY work as well.
`)
	return b.String()
}
