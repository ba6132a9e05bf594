package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
)

// newFlags returns an empty set of flags. Each flag that is added to it has a usage
// text of one line. The text begins with the name of the flag's argument, if any:
// "`AGE`|delete rows older than this".
func (c *call) newFlags() *flag.FlagSet {
	flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
	flags.SetOutput(io.Discard) // parse returns the errors
	flags.Usage = func() {}
	return flags
}

// parse sets the flags and returns the other arguments, which may come before, between
// or after the flags. More than maxOthers other arguments are a usage error.
func (c *call) parse(flags *flag.FlagSet, maxOthers int) (others []string, err error) {
	for args := c.args; ; {
		switch err := flags.Parse(args); {
		case errors.Is(err, flag.ErrHelp):
			fmt.Fprint(c.stdout, c.help(flags))
			return nil, errHelp
		case err != nil:
			return nil, usageError{err}
		case flags.NArg() == 0:
			return others, nil
		case len(others) == maxOthers:
			return nil, usagef("unexpected argument %q", flags.Arg(0))
		}
		others = append(others, flags.Arg(0))
		args = flags.Args()[1:]
	}
}

// help returns the text for -h: first the command's own flags, then those that describe
// the table.
func (c *call) help(flags *flag.FlagSet) string {
	ofTable := c.newFlags()
	addTable(ofTable, whereFilters)
	var own, table strings.Builder
	flags.VisitAll(func(f *flag.Flag) {
		b := &own
		if ofTable.Lookup(f.Name) != nil {
			b = &table
		}
		argument, text := flag.UnquoteUsage(f)
		text = strings.TrimPrefix(text, argument+"|")
		if f.DefValue == "false" { // a flag without an argument
			argument = ""
		}
		fmt.Fprintf(b, "  %-22s %s\n", strings.TrimSpace("-"+f.Name+" "+argument), text)
	})
	text := "docevents " + c.name + ": " + c.does + "\n\nusage: " + strings.TrimSpace("docevents "+c.name+" "+c.arguments)
	if own.Len()+table.Len() > 0 {
		text += " [flags]"
	}
	text += "\n"
	if own.Len() > 0 {
		text += "\n" + own.String()
	}
	if table.Len() > 0 {
		text += "\nfor a table that differs from the default:\n" + table.String()
	}
	if c.more != "" {
		text += "\n" + c.more
	}
	return text
}
