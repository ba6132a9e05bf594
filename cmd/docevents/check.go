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

const checkHelp = `It rehearses Record's own insert, and a purge that matches no row. Nothing is
stored. Exit code 0: no findings. 1: findings, one a line. 2: a flag, the URL or
the key is wrong, or the server can't be reached.
`

func check(ctx context.Context, c *call) (int, error) {
	flags := c.newFlags()
	asJSON := flags.Bool("json", false, `print {"ok": ..., "findings": [...]}`)
	source := addTable(flags, true) // a file may have where for other commands
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
		fmt.Fprintf(c.stdout, "%s takes events, and they can be purged.\n", s.tableName())
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

// list returns the findings of Check's error, each a line.
func list(err error) []string {
	findings := []string{}
	joined, ok := errors.AsType[interface {
		error
		Unwrap() []error
	}](err)
	if !ok && err != nil {
		return append(findings, printable(plain(err)))
	}
	if ok {
		for _, err := range joined.Unwrap() {
			findings = append(findings, printable(plain(err)))
		}
	}
	return findings
}

// wrongProject reports whether the URL or the key is wrong: the key was refused,
// or an answer came neither from PostgREST nor from the database.
func wrongProject(err error) bool {
	e, answered := errors.AsType[*docevents.Error](err)
	return answered && (e.Status == 401 || e.Code == "")
}

// seen is what happened to the requests of a context.
type seen struct {
	request atomic.Bool // one was sent, or tried
	answer  atomic.Bool // one was answered
}

func watch(ctx context.Context) (context.Context, *seen) {
	s := &seen{}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn:              func(string) { s.request.Store(true) },
		GotFirstResponseByte: func() { s.answer.Store(true) },
	}), s
}
