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
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	// MaxRow bounds a row, in bytes: what a damaged length makes a reader take.
	MaxRow = 1 << 20

	segmentBytes = 8 << 20

	// A header is magic, version, key, checksum. It is so in every version; the
	// version is that of all that follows, the rows included.
	magic      = "rowspool"
	version    = 1
	headerSize = len(magic) + 4 + 32 + 4

	frameHead = 8 // of a row: length and checksum, 4 bytes each, little-endian

	// rescanAfter is how long Next goes by its last look at the folder: those
	// who die later leave something, too.
	rescanAfter = time.Minute
)

var (
	// ErrDamaged is of a segment that ends in a torn row, or in one that isn't
	// what was written. The rows before it are replayed, and the file is kept,
	// as .bad.
	ErrDamaged = errors.New("damaged: what precedes the damage is replayed, and the file kept as .bad")

	// ErrForeign is of segments that are left alone. It comes once.
	ErrForeign = errors.New("left alone: of another project, table or version of this library")

	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// A Spool is for one goroutine at a time. Its errors are for the log: after any
// of them it goes on. None holds bytes of a row.
type Spool struct {
	dir, name string // the name is this spool's alone, and owes nothing to a clock
	header    []byte
	limit     int32

	live   map[int32]*segment // by number
	last   int32              // the newest number; 0 is none's
	lost   int32              // up to this number, segments have been removed by somebody
	active *segment           // takes the next rows; nil: none
	buf    []byte

	scanned time.Time // the last look at the folder
	found   []string  // segments to be looked at since
	reading *segment  // an adopted one; nil: none
	from    *bufio.Reader
	row     []byte
	said    map[string]bool // the errors of adoption
}

// A segment is live, open and locked until all of its rows are settled.
type segment struct {
	number  int32
	file    *os.File
	size    int64 // while it is active
	rows    int   // not settled
	damaged bool
}

// New returns a spool in dir, which is made when it is needed. Segments with
// another key are left alone. limit is how many segments, of 8 MiB, the pending
// rows may be spread over; see Floor.
func New(dir string, key [32]byte, limit int32) *Spool {
	h := binary.LittleEndian.AppendUint32([]byte(magic), version)
	h = append(h, key[:]...)
	h = binary.LittleEndian.AppendUint32(h, crc32.Checksum(h, castagnoli))
	return &Spool{dir: dir, name: rand.Text(), header: h, limit: limit, live: map[int32]*segment{}, said: map[string]bool{}}
}

// Append writes n rows at once, and returns the number of their segment. row
// appends the i-th to buf: at most MaxRow bytes, and together well below a
// segment's 8 MiB. After an error none of them is on disk.
func (s *Spool) Append(n int, row func(buf []byte, i int) []byte) (int32, error) {
	buf := s.buf[:0]
	for i := range n {
		start := len(buf)
		buf = row(append(buf, make([]byte, frameHead)...), i)
		head, row := buf[start:start+frameHead], buf[start+frameHead:]
		binary.LittleEndian.PutUint32(head, uint32(len(row)))
		binary.LittleEndian.PutUint32(head[4:], checksum(head, row))
	}
	s.buf = buf
	if g := s.active; g != nil {
		_, err := os.Lstat(g.file.Name()) // what is written to a file that was removed is lost
		if err != nil {
			s.lost = s.last
		}
		if err != nil || g.size+int64(len(buf)) > segmentBytes {
			s.seal()
		}
	}
	if s.active == nil {
		if err := s.begin(); err != nil {
			return 0, err
		}
	}
	g := s.active
	if _, err := g.file.Write(buf); err != nil {
		g.file.Truncate(g.size) // or its reader finds a torn row
		s.seal()
		return 0, err
	}
	g.size += int64(len(buf))
	g.rows += n
	return g.number, nil
}

// checksum is of a row and its length.
func checksum(head, row []byte) uint32 {
	return crc32.Update(crc32.Checksum(head[:4], castagnoli), castagnoli, row)
}

// begin makes the next segment.
func (s *Spool) begin() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	name := fmt.Sprintf("%s-%08d.seg", s.name, s.last+1)
	f, err := os.OpenFile(filepath.Join(s.dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	s.active = s.add(f)
	if err = lock(f); err == nil {
		_, err = f.Write(s.header)
	}
	if err != nil {
		s.seal()
	}
	return err
}

func (s *Spool) add(f *os.File) *segment {
	s.last++
	g := &segment{number: s.last, file: f, size: int64(headerSize)}
	s.live[s.last] = g
	return g
}

// Floor is the highest number of those segments whose rows must be appended
// again, and then settled where they were: they were removed, or would let a few
// old rows keep ever more of the disk.
func (s *Spool) Floor() int32 { return max(s.lost, s.last-s.limit) }

// Settle says that n rows of a segment are settled. With the last one the
// segment is deleted.
func (s *Spool) Settle(number int32, n int) {
	if g := s.live[number]; g != nil {
		g.rows -= n
		s.finish(g)
	}
}

func (s *Spool) seal() {
	g := s.active
	s.active = nil
	s.finish(g)
}

// finish lets go of g if none of its rows is pending, nor to be read. A file that
// can't be removed is replayed in vain.
func (s *Spool) finish(g *segment) {
	if g.rows > 0 || g == s.reading {
		return
	}
	if g == s.active {
		s.active = nil
	}
	delete(s.live, g.number)
	if name := g.file.Name(); g.damaged {
		os.Rename(name, name+".bad")
	} else {
		os.Remove(name)
	}
	g.file.Close() // last: nobody may adopt what is settled
}

// Next returns a row that a dead process has left, valid until the next call,
// and the number of its segment. It returns io.EOF where there is none for now;
// any other error tells of one file, and the next call goes on.
func (s *Spool) Next() (row []byte, number int32, err error) {
	for err == nil {
		g := s.reading
		if g == nil {
			err = s.advance()
			continue
		}
		if err = s.readRow(); err == nil {
			return s.row, g.number, nil
		}
		s.reading = nil
		if g.damaged = err != io.EOF; !g.damaged {
			err = nil
		}
		s.finish(g)
	}
	return nil, 0, err
}

// advance looks at the next segment that may be adopted.
func (s *Spool) advance() error {
	if len(s.found) == 0 {
		if time.Since(s.scanned) < rescanAfter {
			return io.EOF
		}
		s.scanned = time.Now()
		s.found, _ = fs.Glob(os.DirFS(s.dir), "*.seg") // a folder that can't be read fails Append
		return nil
	}
	path := filepath.Join(s.dir, s.found[0])
	s.found = s.found[1:]
	err := s.adopt(path)
	if err == nil || errors.Is(err, fs.ErrNotExist) || s.said[err.Error()] {
		return nil
	}
	s.said[err.Error()] = true
	return err
}

// adopt begins to read the segment at path, if its process is dead.
func (s *Spool) adopt(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	header := make([]byte, headerSize)
	n, _ := io.ReadFull(f, header)
	fields, sum := header[:headerSize-4], header[headerSize-4:]
	whole := binary.LittleEndian.Uint32(sum) == crc32.Checksum(fields, castagnoli)
	switch {
	case whole && !bytes.Equal(header, s.header):
		f.Close()
		return ErrForeign
	case n == 0, lock(f) != nil: // its process is about to lock it, or has
		return f.Close()
	}
	s.reading, s.from = s.add(f), bufio.NewReader(f)
	if !whole {
		s.from.Reset(bytes.NewReader(header[:1])) // a torn row
	}
	return nil
}

// readRow returns io.EOF where the segment ends as it should.
func (s *Spool) readRow() error {
	head := make([]byte, frameHead)
	_, err := io.ReadFull(s.from, head)
	if err == io.EOF {
		return err
	}
	if size := binary.LittleEndian.Uint32(head); err == nil && size <= MaxRow {
		s.row = slices.Grow(s.row[:0], int(size))[:size]
		_, err = io.ReadFull(s.from, s.row)
		if err == nil && checksum(head, s.row) == binary.LittleEndian.Uint32(head[4:]) {
			s.reading.rows++
			return nil
		}
	}
	return fmt.Errorf("%s: %w", s.reading.file.Name(), ErrDamaged)
}

// Close keeps what is not settled for the next process. The spool is of no use
// any more.
func (s *Spool) Close() {
	for _, g := range s.live {
		g.file.Close()
	}
}
