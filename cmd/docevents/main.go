// Docevents checks, reads and purges the table in which an app records its
// document events.
//
//	go install github.com/docevents/docevents-go/cmd/docevents@latest
//
// The commands are listed by docevents -h, their flags by docevents COMMAND -h.
// The project is that of SUPABASE_URL and SUPABASE_SECRET_KEY, or of the other
// names that docevents.NewFromEnv reads.
//
// Results go to the standard output, errors and notes to the standard error. The
// exit code is 0 if all is well, 1 if the command failed or found a problem, and
// 2 if a flag or a setting is wrong. check and purge have further rules, which
// their -h lists.
//
// The files:
//
//	main          the commands, and how one is run
//	flags         the flags of a command, and its -h
//	settings      the flags and the file that describe the table
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
	exitStopped    // of purge
	exitIncomplete // of purge
)

func main() {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		cancel(fmt.Errorf("stopped by %s", <-signals))
		signal.Reset() // the second signal kills
	}()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// A command is one of the program's.
type command struct {
	name, arguments string // arguments besides the flags
	does            string // one line of docevents -h
	more            string // further lines of the command's own -h
	run             func(context.Context, *call) (exitCode int, err error)
}

var commands = []command{
	{name: "check", does: "look for what keeps events from being stored or purged", more: checkHelp, run: check},
	{name: "sql", arguments: "[FILE]", does: "print the SQL that creates the table, and optional SQL", more: sqlHelp(), run: printSQL},
	{name: "purge", does: "delete old rows", more: purgeHelp, run: runPurge},
	{name: "health", does: "judge the documents: exit code 0 if they are well, else 1", run: health},
	{name: "summary", does: "count documents, steps, errors and stuck documents", run: summary},
	{name: "timeline", arguments: "DOCUMENT", does: "list the events of one document", run: timeline},
	{name: "documents", does: "list documents by their latest event, newest first", run: documents},
	{name: "serve", does: "show the dashboard in a browser on this machine", run: serve},
}

// A call is one run of a command.
type call struct {
	command
	args           []string // after the command's name
	stdout, stderr io.Writer
}

// run runs the program and returns its exit code.
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
	fmt.Fprintf(stderr, "docevents: there is no command %q; docevents -h lists the commands\n", args[0])
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
		fmt.Fprintf(c.stderr, "The flags: docevents %s -h\n", c.name)
		return exitUsage
	case errors.As(err, new(settingsError)):
		fmt.Fprintln(c.stderr, "The settings: docevents -h")
		return exitUsage
	}
	return max(code, exitFailed)
}

type (
	usageError    struct{ error } // about a flag or an argument
	settingsError struct{ error } // about the environment
)

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

var (
	errHelp = errors.New("help was asked for")

	libraryPrefix = regexp.MustCompile(`^docevents: ((Check|Summary|Documents|Timeline|TimelineBefore|Health|PurgeBefore): )?`)
	optionName    = regexp.MustCompile(`\b(WithTable|WithSchema|WithColumns|WithEventTypes|TextIDs)\b`)
	sqlFileName   = regexp.MustCompile(`sql/(?:optional/)?(\w+\.sql)`)
)

// plain returns the text of an error of the library without the names of its
// package and its method.
func plain(err error) string { return libraryPrefix.ReplaceAllString(err.Error(), "") }

// explain says what the options of the library and the SQL files that a text
// names are here.
func (c *call) explain(text string) {
	if optionName.MatchString(text) {
		fmt.Fprintln(c.stderr, "Here, -table and -schema stand for WithTable and WithSchema, -columns, -extra and -text-ids for WithColumns, -types for WithEventTypes.")
	}
	for _, f := range sqlFiles() {
		if slices.ContainsFunc(sqlFileName.FindAllStringSubmatch(text, -1), func(name []string) bool { return name[1] == f.path }) {
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

The project is that of these environment variables:

  SUPABASE_URL          https://abcdefgh.supabase.co
  SUPABASE_SECRET_KEY   sb_secret_..., from the project's API settings; or
                        SUPABASE_SECRET_KEYS, SUPABASE_SERVICE_ROLE_KEY or
                        SUPABASE_SERVICE_KEY
`)
	return b.String()
}
