//go:build darwin || linux

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/google/uuid"

	"github.com/docevents/docevents-go/examples/internal/printable"
)

// A queue is a folder of jobs. A job is taken by a lock on its file, which goes
// away with the process: for files what FOR UPDATE SKIP LOCKED is for rows.
type queue struct {
	dir, done, failed string

	out    io.Writer
	passed *sync.Map // names of what is no job, each said once
}

func openQueue(dir string, out io.Writer) (queue, error) {
	q := queue{dir, filepath.Join(dir, "done"), filepath.Join(dir, "failed"), out, new(sync.Map)}
	return q, errors.Join(os.MkdirAll(q.done, 0o755), os.MkdirAll(q.failed, 0o755))
}

// A job is taken until end.
type job struct {
	document string // UUID
	file     *os.File
	queue    queue
}

// next takes the first job that is free, nil where there is none.
func (q queue) next() (*job, error) {
	entries, err := os.ReadDir(q.dir) // in the order of their names
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		const length = len("00000000-0000-0000-0000-000000000000")
		name := entry.Name()
		id, err := uuid.Parse(name[:min(length, len(name))])
		if err != nil || entry.IsDir() {
			q.pass(entry)
			continue // no job, or one that is still being written, under another name
		}
		file, err := take(filepath.Join(q.dir, name))
		if withPath := (*fs.PathError)(nil); errors.As(err, &withPath) {
			err = fmt.Errorf("%s: %s: %w", withPath.Op, printable.Quote(withPath.Path), withPath.Err)
		}
		if err != nil {
			return nil, err
		}
		if file != nil {
			return &job{id.String(), file, q}, nil
		}
	}
	return nil, nil
}

// pass says what is passed over.
func (q queue) pass(entry fs.DirEntry) {
	name := entry.Name()
	if entry.IsDir() && (name == "done" || name == "failed") {
		return
	}
	if _, said := q.passed.LoadOrStore(name, true); !said {
		fmt.Fprintf(q.out, "passed over: %s is no file whose name begins with a UUID\n", printable.Quote(name))
	}
}

// take opens and locks a file, unless somebody else has taken it: then it
// returns nil.
func take(path string) (*os.File, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	locked := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	mine, err := file.Stat()
	there, gone := os.Stat(path)
	if err == nil && locked == nil && gone == nil && os.SameFile(mine, there) {
		return file, nil
	}
	file.Close()
	if err != nil || locked != nil && !errors.Is(locked, syscall.EWOULDBLOCK) {
		return nil, errors.Join(err, locked)
	}
	return nil, nil // locked, or moved away since it was opened
}

// end takes the job off the queue.
func (j *job) end(well bool) error {
	to := j.queue.failed
	if well {
		to = j.queue.done
	}
	err := os.Rename(j.file.Name(), filepath.Join(to, filepath.Base(j.file.Name())))
	return errors.Join(err, j.file.Close())
}
