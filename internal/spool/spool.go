// Package spool keeps rows on disk while they are pending, so that they survive
// the process: kill -9, a panic, running out of memory, a container's restart on
// a volume that is kept. There is no fsync, so they don't survive the loss of
// power.
//
// A segment is a file that one process has made and holds locked for as long as
// it lives: a header, then rows, each behind its length and a checksum. It is
// deleted when all of its rows are settled. Nothing else is on disk, so there is
// nothing that must agree with it. Where the lock is free the process is dead,
// and the first to lock the file adopts it. So any number of processes may share
// a folder.
//
// All rows of an adopted segment are replayed, those that were settled too:
// storing a row twice must do no harm.
package spool

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const (
	segmentBytes = 8 << 20

	// A header is magic, version, project. The version is that of all that
	// follows, the rows included.
	magic      = "rowspool"
	version    = 1
	headerSize = len(magic) + 4 + 32

	// A frame is a row's length and checksum, 4 bytes each, little-endian, and
	// the row.
	sumAt, rowAt = 4, 8

	// pause is how long after a failed write there is none.
	pause = 30 * time.Second
)

var (
	// ErrDamaged is of a segment that ends in a torn row, or in one that isn't
	// what was written.
	ErrDamaged = errors.New("damaged: what precedes the damage is replayed, then the file is kept as .bad")

	// ErrForeign is of a segment that is left alone.
	ErrForeign = errors.New("left alone: not of this project, table and version")

	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// A Spool is for one goroutine at a time. Its errors are for the log: after any
// of them it goes on. None holds bytes of a row.
type Spool struct {
	dir    string
	header []byte

	where  map[uint32]*segment // by the rows' keys
	made   int                 // segments
	active *segment            // takes the next rows; nil: none
	resume time.Time           // nothing is written before

	looked  bool
	found   []string // segments to look at
	reading *segment // one of a dead process; nil: none
	rest    []byte   // of it
}

// A segment is open and locked until all of its rows are settled.
type segment struct {
	file    *os.File
	size    int
	rows    int      // not settled
	keys    []uint32 // of all its rows
	damaged bool
}

// New returns a spool in dir, which is made when it is needed. Segments of
// another project are left alone.
func New(dir string, project [32]byte) *Spool {
	header := append(binary.LittleEndian.AppendUint32([]byte(magic), version), project[:]...)
	return &Spool{dir: dir, header: header, where: map[uint32]*segment{}}
}

// Frame appends a row to rows, as Append takes them. row appends its bytes.
func Frame(rows []byte, row func(buf []byte) []byte) []byte {
	start := len(rows)
	rows = row(append(rows, make([]byte, rowAt)...))
	binary.LittleEndian.PutUint32(rows[start:], uint32(len(rows)-start-rowAt))
	return rows
}

// first returns the first frame of rows.
func first(rows []byte) []byte { return rows[:rowAt+binary.LittleEndian.Uint32(rows)] }

// checksum is of a row and its length.
func checksum(frame []byte) uint32 {
	return crc32.Update(crc32.Checksum(frame[:sumAt], castagnoli), castagnoli, frame[rowAt:])
}

// Append writes rows at once, all of them or none; they are to be smaller than a
// segment, and get a key for all of them. Keys grow, from 0, and may come round.
// After an error, and for 30 s more, rows are not written: nothing else is said
// of them, and Holds doesn't know their key.
func (s *Spool) Append(rows []byte, key uint32) error {
	if len(rows) == 0 || time.Now().Before(s.resume) {
		return nil
	}
	n := 0
	for b := rows; len(b) > 0; b = b[len(first(b)):] {
		binary.LittleEndian.PutUint32(b[sumAt:], checksum(first(b)))
		n++
	}
	g, err := s.room(len(rows))
	if err == nil {
		_, err = g.file.Write(rows)
	}
	if err != nil {
		s.active, s.resume = nil, time.Now().Add(pause)
		if g != nil {
			g.file.Truncate(int64(g.size)) // or a reader finds a torn row
			s.finish(g)
		}
		return err
	}
	s.active, s.where[key] = g, g
	g.size += len(rows)
	g.rows += n
	g.keys = append(g.keys, key)
	return nil
}

// room returns a segment with room for size bytes: a new one, or the active one,
// that with an error where its file has been removed.
func (s *Spool) room(size int) (*segment, error) {
	if g := s.active; g != nil && g.size+size <= segmentBytes {
		_, err := os.Lstat(g.file.Name())
		return g, err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	s.made++ // so that their order owes nothing to a clock
	f, err := os.CreateTemp(s.dir, fmt.Sprintf("%08d-*.seg", s.made))
	if err != nil {
		return nil, err
	}
	if err = lock(f); err == nil {
		_, err = f.Write(s.header)
	}
	_, gone := os.Lstat(f.Name())
	if err == nil && gone == nil {
		return &segment{file: f, size: headerSize}, nil
	}
	f.Close() // first: where there are no locks, open files can't be removed
	os.Remove(f.Name())
	if gone != nil || os.IsTimeout(err) { // before it was locked, somebody took it for a dead process's
		return s.room(size)
	}
	return nil, err
}

// Settle says that as many rows of these keys are settled. Those that aren't on
// disk do no harm.
func (s *Spool) Settle(keys []uint32) {
	for _, key := range keys {
		if g := s.where[key]; g != nil {
			g.rows--
			s.finish(g)
		}
	}
}

// finish lets go of g if none of its rows is pending, nor to be read.
func (s *Spool) finish(g *segment) {
	if g.rows > 0 || g == s.reading {
		return
	}
	for _, key := range g.keys {
		delete(s.where, key)
	}
	if g == s.active {
		s.active = nil
	}
	if name := g.file.Name(); g.damaged {
		os.Rename(name, name+".bad")
	} else {
		os.Remove(name)
	}
	g.file.Close() // last: nobody may adopt what is settled
}

// Next returns a row that a dead process has left, valid until the next call,
// and the key to settle it by; io.EOF at the end. Any other error tells of one
// file.
func (s *Spool) Next() (row []byte, key uint32, err error) {
	for err == nil {
		if g := s.reading; g == nil {
			err = s.adopt()
		} else if row, s.rest = cut(s.rest); row != nil {
			g.rows++
			return row, g.keys[0], nil
		} else {
			if g.damaged = len(s.rest) > 0; g.damaged {
				err = fmt.Errorf("%s: %w", g.file.Name(), ErrDamaged)
			}
			s.reading, s.rest = nil, nil
			s.finish(g)
		}
	}
	return nil, 0, err
}

// cut returns the first row of b, nil if there is none, and what follows it.
func cut(b []byte) (row, rest []byte) {
	if len(b) < rowAt || int64(binary.LittleEndian.Uint32(b)) > int64(len(b)-rowAt) {
		return nil, b
	}
	frame := first(b)
	if checksum(frame) != binary.LittleEndian.Uint32(b[sumAt:]) {
		return nil, b
	}
	return frame[rowAt:], b[len(frame):]
}

// adopt begins to read the next segment, if its process is dead.
func (s *Spool) adopt() error {
	if !s.looked {
		s.looked = true
		s.found, _ = fs.Glob(os.DirFS(s.dir), "*.seg") // a folder that can't be read fails Append
	}
	if len(s.found) == 0 {
		return io.EOF
	}
	path := filepath.Join(s.dir, s.found[0])
	s.found = s.found[1:]
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if lock(f) != nil {
		return f.Close()
	}
	info, err := os.Stat(path) // not before: its process may have written, then settled all, or died
	if err != nil {
		return f.Close()
	}
	b := make([]byte, min(info.Size(), segmentBytes))
	_, err = io.ReadFull(f, b)
	switch {
	case err == nil && bytes.HasPrefix(b, s.header):
		key := ^uint32(len(s.found)) // Append's are small
		s.reading, s.rest = &segment{file: f, keys: []uint32{key}}, b[headerSize:]
		s.where[key] = s.reading
		return nil
	case len(b) == 0 && info.Mode().IsRegular(): // its process died before it had written
		os.Remove(path)
		return f.Close()
	}
	f.Close()
	return fmt.Errorf("%s: %w", path, cmp.Or(err, ErrForeign))
}

// Holds says whether the key's rows that aren't settled are on disk. It may be
// called after Close, too.
func (s *Spool) Holds(key uint32) bool { return s.where[key] != nil }

// Close keeps what is not settled for the next process. Rows whose file has been
// removed aren't held any more.
func (s *Spool) Close() {
	if g := s.reading; g != nil && len(s.rest) == 0 {
		s.reading = nil
		s.finish(g)
	}
	for key, g := range s.where {
		if _, err := os.Lstat(g.file.Name()); err != nil {
			delete(s.where, key)
			g.file.Close()
		}
	}
	for _, g := range s.where { // not before: others may adopt and remove them then
		g.file.Close()
	}
}
