// Package spool keeps rows in files, so that they survive the end of the process:
// a panic, kill -9, running out of memory, or the restart of a container whose volume
// is kept. It doesn't call fsync, so rows don't survive a loss of power.
//
// A row is pending as long as the caller needs it on disk. A segment is a file of rows.
// It belongs to one process, and goes through these states:
//
//	--Append--> current --Retire--> retired --Discard--> removed, or kept as .bad or .kept
//	                                   ^
//	                                   | read to its end
//	                                   |
//	          abandoned --Next--> being read
//
// Append adds rows to the newest current segment. When that segment is large, Append
// begins another one. To get rid of segments in which few rows are still pending, the
// caller calls Retire, appends these pending rows to a new segment, and then calls
// Discard. Discard removes the retired segments, but keeps a segment that is damaged
// (.bad) or has rows that the caller can't use (.kept).
//
// When a process ends, its segments are abandoned. Another process takes a segment by
// renaming it, so only one process succeeds. Next returns the rows of the segment to
// that process, which must send them.
//
// A segment's name is PROJECT-STAMP-OWNER.seg. PROJECT is a hash of the project. STAMP
// is the time at which the segment was made, followed by random digits. OWNER is a
// random number that stands for the process. As long as the process lives, it locks the
// file PROJECT-OWNER.lock, so that other processes don't use its segments. Any number
// of processes can share a folder. Each process has at most two files open.
//
// If a process is killed before it calls Discard, some rows may be in two segments, and
// are sent twice. So the table must ignore a row that it already has.
package spool

import (
	"cmp"
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
	// A segment that has reached segmentBytes takes no more rows. The limit is small
	// because Next reads an entire segment into memory.
	segmentBytes = 8 << 20

	// A segment consists of frames. The first frame contains a description of the
	// table's columns, and each further frame contains a row. A frame begins with the
	// length of its content, followed by a checksum at sumAt and the content at rowAt.
	// The length and the checksum have 4 bytes each and are little-endian.
	sumAt, rowAt = 4, 8
)

var (
	// ErrFull is returned by Append when the segments have more bytes than the limit.
	ErrFull = errors.New("the spool is full, mostly with events that earlier processes left, which are sent first")

	// ErrShared is returned by Look if other users can write to the folder.
	ErrShared = errors.New("other users can write to the spool's folder, and the client would insert events from their files: make it your own, with mode 0700")

	// ErrDamaged is returned by Next if a row of a segment is incomplete or was changed.
	ErrDamaged = errors.New("the file is damaged: the events before the damage are replayed, then it is kept as .bad")

	// ErrKept is returned by Keep, once for each file.
	ErrKept = errors.New("some events have values that WithColumns has no column for: the others are replayed, then the file is kept as .kept; to replay all its events, add the columns and remove .kept from its name")
)

// An FS has the functions of package os that a spool uses. Tests wrap [OS] in an FS
// that injects faults.
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

// A Spool may be used by one goroutine at a time. It can still be used after an error.
// Its errors can be logged, because they contain no text from a row.
type Spool struct {
	fs      FS
	dir     string
	project string // the start of the names of its files
	header  []byte // the first frame of a segment
	limit   int64  // in bytes

	owner   string    // stands for this process in the names of its files
	lock    *os.File  // this process's lock file, or nil until the method own makes it
	torn    bool      // the last write failed, so the next Append begins a new segment
	current []segment // from the oldest to the newest
	retired []segment

	found   []segment // segments of dead processes, from the oldest to the newest
	reading []segment // the segment that is being read, if any
	read    int64     // how many segments have been read, including the one that is being read
	columns string    // the description of the columns in that segment
	rest    []byte    // the rows of that segment that Next has not returned yet
}

type segment struct {
	name   string
	suffix string // Discard appends it to the file's name; if suffix is "", Discard removes the file
	size   int64  // in bytes
}

// New returns a spool in the folder dir, an absolute path. It does no I/O: the first
// Append makes the folder. The spool ignores the segments of other projects. The
// parameter columns is a description of the table's columns. Append returns ErrFull if
// the current segments and the segments of dead processes together have more than
// maxBytes bytes.
func New(files FS, dir string, project [32]byte, columns string, maxBytes int64) *Spool {
	header := Frame(nil, func(buf []byte) []byte { return append(buf, columns...) })
	return &Spool{fs: files, dir: dir, project: hex.EncodeToString(project[:8]) + "-", header: header, limit: maxBytes}
}

// Frame adds a frame to rows and returns the result, which the caller passes to Append.
// The function row must append the row's bytes to buf.
func Frame(rows []byte, row func(buf []byte) []byte) []byte {
	start := len(rows)
	rows = row(append(rows, make([]byte, rowAt)...))
	frame := rows[start:]
	binary.LittleEndian.PutUint32(frame, uint32(len(frame)-rowAt))
	binary.LittleEndian.PutUint32(frame[sumAt:], checksum(frame))
	return rows
}

func checksum(frame []byte) uint32 {
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(frame[:sumAt], castagnoli), castagnoli, frame[rowAt:])
}

// Append writes rows to disk. The caller must have made rows with Frame. After an
// error, the caller must append all of these rows again. If the error matches
// fs.ErrNotExist, somebody has removed the current segments, and the caller must also
// append the pending rows of earlier calls again.
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
		err = cmp.Or(err, f.Close()) // NFS may report a full disk only here
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

// own makes and locks this process's lock file, unless it has done so before. The lock
// shows other processes that this process is alive.
func (s *Spool) own() error {
	if s.lock != nil {
		return nil
	}
	if err := s.fs.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	s.owner = fmt.Sprintf("%016x", rand.Uint64())
	made := s.lockPath(s.owner) + ".new" // renamed once it is locked, so that no process finds it without its lock
	f, err := s.fs.OpenFile(made, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err = lock(f, exclusive); err == nil {
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

// Discard removes the retired segments. But a damaged segment is kept as .bad, and a
// segment marked by Keep is kept as .kept. Before you call Discard, append the pending
// rows of the retired segments again, so that they stay on disk.
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
	Reading int64 // n if the n-th segment of a dead process is being read, 0 if none is
}

// State returns the state of the spool.
func (s *Spool) State() State {
	return State{total(s.current), len(s.retired) > 0, s.read * int64(len(s.reading))}
}

// Close removes this process's lock file, so that other processes can use the segments.
// After Close, State doesn't count segments that somebody has removed.
func (s *Spool) Close() error {
	for _, segments := range []*[]segment{&s.current, &s.retired, &s.reading} {
		for _, g := range *segments {
			if _, err := s.fs.Stat(s.path(g.name)); errors.Is(err, fs.ErrNotExist) {
				*segments = nil // the other segments in this state are probably gone as well
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
