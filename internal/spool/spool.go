// Package spool keeps rows in files while they are pending, so that they survive
// the process: kill -9, a panic, running out of memory, or the restart of a
// container whose volume is kept. It doesn't call fsync, so rows don't survive a
// loss of power.
//
// A segment is a file of rows that belongs to one process:
//
//	 Append            Retire             Discard
//	--------> current --------> retired -----------> removed, or kept as .bad or .kept
//	             |                 |  ^
//	             | process ends    |  | read to its end
//	             v                 v  |
//	            left ---------> being read
//	                    Next
//
// The current segments have pending rows, and Append adds to the newest. A retired
// segment takes no more rows. Discard may be called once none of its rows is
// pending, or once those that are have been appended again. A segment is left when
// its process ends, and belongs to the first process that renames it. Next returns
// its rows, which are pending in that process from then on.
//
// A segment's name is PROJECT-STAMP-OWNER.seg: a hash of the project, the time at
// which the segment was made, and its process. A process locks the file
// PROJECT-OWNER.lock for as long as it lives. So any number of processes may share
// a folder, and each has at most two files open: its lock and one other.
//
// A process that is killed while it copies rows leaves them in two segments. So
// storing a row twice must do no harm.
package spool

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	// A segment of segmentBytes or more takes no more rows. It is small because Next
	// reads a segment into memory.
	segmentBytes = 8 << 20

	// A segment consists of frames. The first frame holds the table's columns, and
	// each other frame holds a row. A frame is a length and a checksum, 4 bytes
	// each, little-endian, and then as many bytes as the length.
	sumAt, rowAt = 4, 8
)

var (
	// ErrFull is returned by Append when the segments have reached the limit.
	ErrFull = errors.New("the spool is full, mostly of events that earlier processes left, which are sent first")

	// ErrShared is returned by Look if other users can write to the folder.
	ErrShared = errors.New("other users can write to the spool's folder, and the client would insert their files: make it your own, with mode 0700")

	// ErrDamaged is returned by Next for a segment with an incomplete or changed row.
	ErrDamaged = errors.New("the file is damaged: the events before the damage are replayed, then it is kept as .bad")

	// ErrKept is returned by Keep, once for each file.
	ErrKept = errors.New("some events have values that WithColumns has no column for: the others are replayed, then the file is kept as .kept; add the columns and take .kept off its name to replay these")
)

// An FS is the part of package os that a spool uses. Tests wrap [OS] in an FS that
// injects faults.
type FS interface {
	MkdirAll(path string, perm fs.FileMode) error
	Stat(path string) (fs.FileInfo, error)
	ReadDir(path string) ([]fs.DirEntry, error)
	ReadFile(path string) ([]byte, error)
	OpenFile(path string, flag int, perm fs.FileMode) (*os.File, error)
	Write(f *os.File, b []byte) (int, error)
	Rename(from, to string) error
	Remove(path string) error
}

// OS is the file system of the operating system.
type OS struct{}

func (OS) MkdirAll(path string, perm fs.FileMode) error { return os.MkdirAll(path, perm) }
func (OS) Stat(path string) (fs.FileInfo, error)        { return os.Stat(path) }
func (OS) ReadDir(path string) ([]fs.DirEntry, error)   { return os.ReadDir(path) }
func (OS) ReadFile(path string) ([]byte, error)         { return os.ReadFile(path) }
func (OS) Write(f *os.File, b []byte) (int, error)      { return f.Write(b) }
func (OS) Rename(from, to string) error                 { return os.Rename(from, to) }
func (OS) Remove(path string) error                     { return os.Remove(path) }
func (OS) OpenFile(path string, flag int, perm fs.FileMode) (*os.File, error) {
	return os.OpenFile(path, flag, perm)
}

// A Spool may be used by one goroutine at a time. It can be used after any error,
// and its errors can be logged: they hold no text of a row.
type Spool struct {
	fs      FS
	dir     string
	project string // the beginning of the files' names
	header  []byte // the first frame of a segment
	limit   int64  // in bytes

	owner   string    // this process, in the files' names
	lock    *os.File  // the locked file of this process; nil until the process makes it
	torn    bool      // the last write failed, so the next Append makes a segment
	current []segment // from the oldest to the newest
	retired []segment

	found   []segment // segments of dead processes, from the oldest to the newest
	reading []segment // the segment that is being read, if any
	read    int64     // the number of the last such segment, from 1
	columns string    // the columns of that segment
	rest    []byte    // the rows of that segment that Next has not returned yet
}

type segment struct {
	name   string
	suffix string // Discard appends it to the name, or removes the file if it is ""
	size   int64  // in bytes
}

// New returns a spool in dir, an absolute path. It does no I/O: the first Append
// makes the folder. The spool ignores segments of other projects. It writes columns
// into each segment. Append refuses rows while the current segments and those of
// dead processes have more than limit bytes.
func New(files FS, dir string, project [32]byte, columns string, limit int64) *Spool {
	header := Frame(nil, func(buf []byte) []byte { return append(buf, columns...) })
	return &Spool{fs: files, dir: dir, project: hex.EncodeToString(project[:8]) + "-", header: header, limit: limit}
}

// Frame appends a frame with a row to rows, for Append. row appends the bytes of the
// row to buf.
func Frame(rows []byte, row func(buf []byte) []byte) []byte {
	start := len(rows)
	rows = row(append(rows, make([]byte, rowAt)...))
	frame := rows[start:]
	binary.LittleEndian.PutUint32(frame, uint32(len(frame)-rowAt))
	binary.LittleEndian.PutUint32(frame[sumAt:], checksum(frame))
	return rows
}

// checksum returns a checksum of the frame's length and row.
func checksum(frame []byte) uint32 {
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(frame[:sumAt], castagnoli), castagnoli, frame[rowAt:])
}

// Append writes all of rows, or none of them if it returns an error. If the error is
// fs.ErrNotExist, somebody has removed the current segments.
func (s *Spool) Append(rows []byte) error {
	if used := total(s.current) + total(s.found) + total(s.reading); used > s.limit { // retired segments are soon removed
		return fmt.Errorf("%w: its files take %d KiB of %d", ErrFull, used>>10, s.limit>>10)
	}
	flag := os.O_WRONLY | os.O_APPEND
	if n := len(s.current); n == 0 || s.torn || s.current[n-1].size >= segmentBytes {
		if err := s.own(); err != nil {
			return err
		}
		name := fmt.Sprintf("%s%016x%08x-%s.seg", s.project, uint64(time.Now().UnixNano()), rand.Uint32(), s.owner)
		s.current = append(s.current, segment{name: name})
		rows = slices.Concat(s.header, rows)
		flag |= os.O_CREATE | os.O_EXCL
	}
	n := len(s.current) - 1
	g := &s.current[n]
	f, err := s.fs.OpenFile(s.path(g.name), flag, 0o600)
	if err == nil {
		if _, err = s.fs.Write(f, rows); err != nil {
			f.Truncate(g.size) // so that Next doesn't find an incomplete row
		}
		f.Close()
	}
	s.torn = err != nil
	if err == nil {
		g.size += int64(len(rows))
	} else if errors.Is(err, fs.ErrNotExist) {
		s.current = nil
		s.disown()
	} else if g.size == 0 {
		s.fs.Remove(s.path(g.name))
		s.current = s.current[:n]
	}
	return err
}

// own locks a file, unless this process has one, so that other processes see that
// this process is alive.
func (s *Spool) own() error {
	if s.lock != nil {
		return nil
	}
	if err := s.fs.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	s.owner = fmt.Sprintf("%016x", rand.Uint64())
	made := s.lockPath(s.owner) + ".new" // gets its final name, by which other processes find it, when it is locked
	f, err := s.fs.OpenFile(made, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err = lock(f, true); err == nil {
		err = s.fs.Rename(made, s.lockPath(s.owner))
	}
	if err != nil {
		f.Close()
		s.fs.Remove(made)
		return err
	}
	s.lock = f
	return nil
}

func (s *Spool) disown() {
	if s.lock != nil {
		s.fs.Remove(s.lockPath(s.owner))
		s.lock.Close()
		s.lock = nil
	}
}

// Retire turns all current segments into retired segments.
func (s *Spool) Retire() error {
	s.retired, s.current = append(s.retired, s.current...), nil
	return nil
}

// Discard removes the retired segments, or renames them to .bad or .kept. Call it
// only if each of their rows is no longer pending or has been appended again.
func (s *Spool) Discard() (err error) {
	s.retired = slices.DeleteFunc(s.retired, func(g segment) bool {
		path := s.path(g.name)
		discard := s.fs.Remove
		if g.suffix != "" {
			discard = func(path string) error { return s.fs.Rename(path, path+g.suffix) }
		}
		failed := discard(path)
		gone := failed == nil || errors.Is(failed, fs.ErrNotExist)
		if !gone {
			err = failed
		}
		return gone
	})
	return err
}

// A State describes the segments of this process.
type State struct {
	Current int64 // the size of the current segments, in bytes
	Retired bool  // there are retired segments
	Reading int64 // the number, from 1, of the segment that is being read, or 0
}

// State returns the state of the spool.
func (s *Spool) State() State {
	return State{total(s.current), len(s.retired) > 0, s.read * int64(len(s.reading))}
}

// Close leaves the segments to other processes. Its last State doesn't include
// segments that somebody has removed.
func (s *Spool) Close() error {
	for _, segments := range []*[]segment{&s.current, &s.retired, &s.reading} {
		for _, g := range *segments {
			if _, err := s.fs.Stat(s.path(g.name)); errors.Is(err, fs.ErrNotExist) {
				*segments = nil // the others of its kind are probably gone as well
			}
		}
	}
	s.disown()
	return nil
}

func total(segments []segment) (size int64) {
	for i := range segments {
		size += segments[i].size
	}
	return size
}

func (s *Spool) path(name string) string      { return filepath.Join(s.dir, name) }
func (s *Spool) lockPath(owner string) string { return s.path(s.project + owner + ".lock") }
