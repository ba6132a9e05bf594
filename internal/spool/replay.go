package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// Look finds the segments of dead processes, so that Next can read the segments. It
// removes the lock files of these processes.
func (s *Spool) Look() error {
	s.found = nil
	folder, err := s.fs.Stat(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	} else if !private(folder) {
		return fmt.Errorf("%s: %w", s.dir, ErrShared)
	}
	entries, err := s.fs.ReadDir(s.dir)
	for _, e := range entries {
		name, ours := strings.CutPrefix(e.Name(), s.project)
		name, isLock := strings.CutSuffix(name, ".lock")
		name, isSegment := strings.CutSuffix(name, ".seg")
		if !ours || !isLock && !isSegment || !e.Type().IsRegular() || s.isAlive(ownerOf(name)) {
			continue
		}
		if isLock {
			s.fs.Remove(s.path(e.Name()))
		} else if info, err := e.Info(); err == nil {
			s.found = append(s.found, segment{name: e.Name(), size: info.Size()})
		}
	}
	return err
}

func ownerOf(name string) string { return name[strings.LastIndexByte(name, '-')+1:] }

// isAlive reports whether a process may be alive. owner is the number that stands for
// the process in the names of its files. The process is dead if it has no lock file, or
// if isAlive can lock that file. The lock is shared: with exclusive locks, two
// processes that check at the same time could mistake a dead process for a live one.
func (s *Spool) isAlive(owner string) bool {
	f, err := s.fs.OpenFile(s.lockPath(owner), os.O_RDONLY, 0)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	defer f.Close()
	return lock(f, shared) != nil
}

// Next returns a row that a dead process left, and the description of the columns with
// which that process wrote the row. If there are no more rows, Next returns io.EOF.
// After any other error, you can call Next again, and it continues with the next
// segment. The row is valid until the next call.
func (s *Spool) Next() (row []byte, columns string, err error) {
	for err == nil {
		if len(s.reading) == 0 {
			err = s.claim()
		} else if row, s.rest = cut(s.rest); row != nil {
			return row, s.columns, nil
		} else {
			if len(s.rest) > 0 {
				s.reading[0].suffix = ".bad"
				err = fmt.Errorf("%s: %w", s.reading[0].name, ErrDamaged)
			}
			s.retired, s.reading, s.rest = append(s.retired, s.reading...), nil, nil
		}
	}
	return nil, "", err
}

// Keep marks the segment of the row that Next returned last, so that Discard appends
// .kept to the segment's name and doesn't remove it. The first call for a segment
// returns ErrKept, which the caller should log. Later calls return nil.
func (s *Spool) Keep() error {
	g := &s.reading[0]
	if g.suffix != "" {
		return nil
	}
	g.suffix = ".kept"
	return fmt.Errorf("%s: %w", g.name, ErrKept)
}

// cut returns the content of the first frame in b, and the bytes after that frame. If
// the frame is damaged or incomplete, cut returns nil and b.
func cut(b []byte) (row, rest []byte) {
	if len(b) < rowAt {
		return nil, b
	}
	end := rowAt + int64(binary.LittleEndian.Uint32(b))
	if end > int64(len(b)) || checksum(b[:end]) != binary.LittleEndian.Uint32(b[sumAt:]) {
		return nil, b
	}
	return b[rowAt:end], b[end:]
}

// claim takes the oldest segment that Look found, and reads it. If several processes
// try, only the first one can rename the segment.
func (s *Spool) claim() error {
	if len(s.found) == 0 {
		return io.EOF
	}
	if err := s.own(); err != nil {
		s.found = nil
		return err
	}
	g := s.found[0]
	s.found = s.found[1:]
	mine := strings.TrimSuffix(g.name, ownerOf(g.name)) + s.owner + ".seg"
	b, err := s.fs.ReadFile(s.path(g.name))
	if err == nil {
		err = s.fs.Rename(s.path(g.name), s.path(mine))
	}
	if errors.Is(err, fs.ErrNotExist) { // another process was first
		return nil
	} else if err != nil {
		return err
	}
	g.name = mine
	s.reading = []segment{g}
	s.read++
	columns, rest := cut(b)
	s.columns, s.rest = string(columns), rest
	return nil
}
