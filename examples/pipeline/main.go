// Pipeline processes the documents of a folder and records what happens to each:
// it extracts the text of text, markdown, HTML, PDF and gzip-ed files, counts
// the words and finds the title.
//
// Usage:
//
//	go run ./examples/pipeline [-workers n] [-dashboard 127.0.0.1:8080] DIR
//
// With -dashboard it shows its run on a page there, until a Ctrl-C.
//
// With SUPABASE_URL and SUPABASE_SECRET_KEY in the environment the events
// go to that project, which must have the table. Without them it starts a local
// PostgreSQL with a REST API in front, for as long as it runs.
//
// A file that can't be read, is binary or broken is recorded as failed, which
// is what events are for, and no failure of the program. The PDF files need
// pdftotext, of poppler-utils. Symbolic links are left out: what they point to
// is a document of its own where it is in the folder, and none where it isn't.
//
// Ctrl-C ends it after the documents under way, with everything recorded
// delivered; the second one kills.
//
// The exit code is 0 where every event is in the table, 1 where one was lost or
// the counts disagree or it couldn't begin, 2 after wrong arguments, 130 after a
// Ctrl-C that cost nothing.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/sirupsen/logrus"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/examples/internal/printable"
	"github.com/docevents/docevents-go/examples/internal/project"
)

const (
	// deliveryTimeout is how long the last events may take when all is done.
	deliveryTimeout = time.Minute

	// quietly is how much of that passes without a word.
	quietly = time.Second

	// interruptTimeout is how long they may take after a Ctrl-C.
	interruptTimeout = 5 * time.Second

	// countTimeout bounds the final look at the table.
	countTimeout = 30 * time.Second
)

const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

func main() {
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: pipeline [-workers n] [-dashboard addr] DIR, a folder of documents; to try it: go run ./examples/pipeline sql")
	}
	workers := flag.Int("workers", 2*runtime.NumCPU(), "documents processed at a time")
	page := flag.String("dashboard", "", "address of a page about the run, such as 127.0.0.1:8080; port 0 is a free one")
	flag.Parse()
	if flag.NArg() != 1 || *workers < 1 {
		flag.Usage()
		os.Exit(exitUsage)
	}

	signaled, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithCancel(context.Background())
	context.AfterFunc(signaled, func() {
		stop() // first: when run says so, the second Ctrl-C kills
		cancel()
	})
	err := run(ctx, flag.Arg(0), *workers, *page, os.Stdout, os.Stderr)
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "pipeline:", err)
		os.Exit(exitFailed)
	case ctx.Err() != nil:
		os.Exit(exitInterrupted)
	}
}

// run processes the folder. An interrupt is no error, what it loses is.
func run(ctx context.Context, dir string, workers int, page string, out io.Writer, terminal *os.File) (err error) {
	folder, err := walk(ctx, dir)
	if err != nil {
		return unlessInterrupted(ctx, err)
	}
	p, err := project.Open(ctx, terminal)
	if err != nil {
		return unlessInterrupted(ctx, err)
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	log := logrus.New()
	log.SetOutput(terminal)
	client, err := p.Connect(ctx, docevents.WithLogger(log))
	if err != nil {
		return unlessInterrupted(ctx, err)
	}
	stopPage, err := servePage(page, client, out)
	if err != nil {
		return err
	}
	defer stopPage()

	fmt.Fprintf(terminal, "%s: %s documents, %d at a time\n", printable.Quote(folder.root), grouped(len(folder.documents)), workers)
	shown := newProgress(terminal, len(folder.documents), client.Stats)
	log.SetOutput(shown)                     // a log line must not end up in the middle of the bar
	user := uuid.Must(uuid.NewV7()).String() // of this run: tells its rows from all others
	line := newPipeline(user, client.Record, shown.done)
	defer context.AfterFunc(ctx, func() {
		fmt.Fprintln(shown, "Interrupted: finishing the documents under way and delivering what is recorded. Once more kills.")
	})()
	start := time.Now()
	results := line.run(ctx, folder.documents, workers)
	took := time.Since(start)
	shown.finish()
	log.SetOutput(terminal)

	lost := deliver(ctx, client, terminal)
	stored, countErr := countStored(context.WithoutCancel(ctx), p, user)
	s := summary{
		folder: folder, results: results, took: took,
		recorded: line.recorded, stored: stored, stats: client.Stats(),
	}
	if err := s.print(out); err != nil {
		return err
	}
	if !p.Local() {
		fmt.Fprintf(out, "These rows stay in the table. To delete them: DELETE FROM %s WHERE user_id = '%s';\n", docevents.DefaultTable, user)
	}
	if page != "" {
		fmt.Fprintln(terminal, "The page stays until Ctrl-C.")
		<-ctx.Done()
	}
	return errors.Join(lost, countErr, s.check())
}

// deliver waits until everything recorded is delivered, after an interrupt not
// for long.
func deliver(ctx context.Context, client *docevents.Client, notes io.Writer) error {
	err := flush(ctx, client, quietly)
	if errors.Is(err, context.DeadlineExceeded) {
		fmt.Fprintf(notes, "Waiting for %s events to be delivered, for up to %s. Ctrl-C gives up.\n",
			grouped(client.Stats().Pending), deliveryTimeout)
		_ = flush(ctx, client, deliveryTimeout) // what it couldn't do is Close's to try, and to say
	}
	closeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), interruptTimeout)
	defer cancel()
	return client.Close(closeCtx)
}

func flush(ctx context.Context, client *docevents.Client, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return client.Flush(ctx)
}

// unlessInterrupted returns the error of a beginning that an interrupt has cut
// short as none: nothing had been recorded.
func unlessInterrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// countStored counts the rows of this run.
func countStored(ctx context.Context, p *project.Project, user string) (counts, error) {
	ctx, cancel := context.WithTimeout(ctx, countTimeout)
	defer cancel()
	stored := make(counts)
	for _, t := range eventTypes {
		n, err := p.Count(ctx, map[string]string{"user_id": user, "event_type": string(t)})
		if err != nil {
			return nil, err
		}
		stored[t] = n
	}
	return stored, nil
}
