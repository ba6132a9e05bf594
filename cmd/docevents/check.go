package main

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"time"

	"github.com/docevents/docevents-go"
)

const checkTimeout = 30 * time.Second

const checkHelp = `It sends an insert that the server rolls back, and a purge that matches no row.
Nothing is stored. A "where" in a -config file has no effect. Exit codes: 0 no
problem was found. 1 problems were found; each is printed on a line. 2 a flag,
the URL or the key is wrong, or the server didn't answer.
`

func check(ctx context.Context, c *call) (int, error) {
	flags := c.newFlags()
	asJSON := flags.Bool("json", false, `print {"ok": ..., "findings": [...]}`)
	source := addTable(flags, whereIgnored)
	if _, err := c.parse(flags, 0); err != nil {
		return 0, err
	}
	client, s, err := c.connect(source)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	ctx, seen := watch(ctx)
	defer client.Close(ctx) // nothing is queued
	err = client.Check(ctx)
	findings := list(err)
	if *asJSON {
		if err := printJSON(c.stdout, map[string]any{"ok": err == nil, "findings": findings}); err != nil {
			return 0, err
		}
	} else if err == nil {
		fmt.Fprintf(c.stdout, "%s takes events, and its rows can be purged.\n", s.Schema+"."+s.Table)
	}
	if text := strings.Join(findings, "\n"); text != "" && !*asJSON {
		fmt.Fprintln(c.stdout, text)
		c.explain(text)
	}
	switch {
	case err == nil:
		return exitDone, nil
	case !seen.answer.Load() || wrongProject(err):
		return exitUsage, nil
	}
	return exitFailed, nil
}

// list returns the problems in err, one line for each. err is the error that Check
// returned.
func list(err error) []string {
	findings := []string{} // not nil, which -json would print as null
	var each []error
	if joined, ok := errors.AsType[interface {
		error
		Unwrap() []error
	}](err); ok {
		each = joined.Unwrap()
	} else if err != nil {
		each = []error{err}
	}
	for _, err := range each {
		findings = append(findings, printable(plain(err)))
	}
	return findings
}

// wrongProject reports whether an error of Check shows that the URL or the key is
// wrong: the status is 401, or the answer has no error code. PostgREST always sends a
// code, so an answer without one came from another server.
func wrongProject(err error) bool {
	e, answered := errors.AsType[*docevents.Error](err)
	return answered && (e.Status == 401 || e.Code == "")
}

// A requestLog records whether the requests of a context were sent and answered.
type requestLog struct {
	request atomic.Bool // a request was attempted
	answer  atomic.Bool // the server answered a request
}

// watch returns a context, and a requestLog of the requests that use it.
func watch(ctx context.Context) (context.Context, *requestLog) {
	s := &requestLog{}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn:              func(string) { s.request.Store(true) },
		GotFirstResponseByte: func() { s.answer.Store(true) },
	}), s
}
