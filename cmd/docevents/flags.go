package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
)

// newFlags returns an empty set of flags. A usage text is one line: the flag's
// argument in back quotes and a bar, if it has an argument, and a description.
func (c *call) newFlags() *flag.FlagSet {
	flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors are returned
	flags.Usage = func() {}
	return flags
}

// parse reads the arguments. Flags may also follow the other arguments, of which
// there are at most max.
func (c *call) parse(flags *flag.FlagSet, max int) (others []string, err error) {
	for args := c.args; ; {
		switch err := flags.Parse(args); {
		case errors.Is(err, flag.ErrHelp):
			fmt.Fprint(c.stdout, c.help(flags))
			return nil, errHelp
		case err != nil:
			return nil, usageError{err}
		case flags.NArg() == 0:
			return others, nil
		case len(others) == max:
			return nil, usagef("unexpected argument %q", flags.Arg(0))
		}
		others = append(others, flags.Arg(0))
		args = flags.Args()[1:]
	}
}

// help is the text of -h: the command's own flags first, then those of the
// table.
func (c *call) help(flags *flag.FlagSet) string {
	var own, table strings.Builder
	flags.VisitAll(func(f *flag.Flag) {
		b := &own
		if tableFlags[f.Name] {
			b = &table
		}
		argument, text := flag.UnquoteUsage(f)
		text = strings.TrimPrefix(text, argument+"|")
		if f.DefValue == "false" { // UnquoteUsage calls the argument value
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
		text += "\nyour table, if it differs:\n" + table.String()
	}
	if c.more != "" {
		text += "\n" + c.more
	}
	return text
}
