package spool_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docevents/docevents-go/internal/spool"
)

var project = sha256.Sum256([]byte("https://project/rest/v1 public events"))

func open(t testing.TB, dir string) *spool.Spool {
	s := spool.New(dir, project)
	t.Cleanup(s.Close)
	return s
}

// lastKey gives every row of a test a key of its own.
var lastKey uint32

func nextKey() uint32 {
	lastKey++
	return lastKey
}

// appendRows returns the rows' keys.
func appendRows(t testing.TB, s *spool.Spool, rows ...string) (keys []uint32) {
	t.Helper()
	for _, row := range rows {
		keys = append(keys, nextKey())
		if err := s.Append(frame(row), lastKey); err != nil {
			t.Fatal(err)
		}
	}
	return keys
}

func frame(row string) []byte {
	return spool.Frame(nil, func(buf []byte) []byte { return append(buf, row...) })
}

// A replay is all that dead processes have left.
type replay struct {
	rows []string
	keys []uint32
	errs []error
}

func replayAll(s *spool.Spool) (r replay) {
	for {
		row, key, err := s.Next()
		switch {
		case err == io.EOF:
			return r
		case err != nil:
			r.errs = append(r.errs, err)
		default:
			r.rows = append(r.rows, string(row))
			r.keys = append(r.keys, key)
		}
	}
}

func checkRows(t testing.TB, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("got %d rows %.60q..., want %d rows %.60q...", len(got), got, len(want), want)
	}
}

func files(t testing.TB, dir, pattern string) (paths []string) {
	t.Helper()
	names, err := fs.Glob(os.DirFS(dir), pattern)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		paths = append(paths, filepath.Join(dir, name))
	}
	return paths
}

func checkFiles(t testing.TB, dir, pattern string, want int) {
	t.Helper()
	if got := files(t, dir, pattern); len(got) != want {
		t.Fatalf("got files %q, want %d of %s", got, want, pattern)
	}
}

func TestSpool(t *testing.T) {
	t.Run("nothing is done before the first row", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "new")
		s := open(t, dir)
		checkRows(t, replayAll(s).rows, nil)
		s.Close()
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("got %v, want no folder", err)
		}
	})
	t.Run("what is pending survives, in order; what is settled goes", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "a", "b [c]")
		s := open(t, dir)
		keys := appendRows(t, s, "one", "two")
		appendRows(t, s, "three")
		s.Settle(keys)
		s.Close()
		if !s.Holds(lastKey) {
			t.Error("want row three to be held")
		}
		next := open(t, dir)
		r := replayAll(next)
		checkRows(t, r.rows, []string{"one", "two", "three"}) // all of a segment, or none
		checkRows(t, replayAll(open(t, dir)).rows, nil)       // they are the other's now
		next.Settle(r.keys[:2])
		checkFiles(t, dir, "*", 1)
		next.Settle(r.keys[2:])
		checkFiles(t, dir, "*", 0)
	})
	t.Run("a segment goes with its last row, and there is another", func(t *testing.T) {
		dir := t.TempDir()
		s := open(t, dir)
		keys := appendRows(t, s, "one")
		s.Settle(keys)
		checkFiles(t, dir, "*", 0)
		if s.Holds(keys[0]) {
			t.Error("want its key to be forgotten")
		}
		appendRows(t, s, "two")
		s.Settle([]uint32{0}) // which isn't there
		checkFiles(t, dir, "*.seg", 1)
	})
	t.Run("a segment stays until all of it is replayed", func(t *testing.T) {
		dir := t.TempDir()
		s := open(t, dir)
		appendRows(t, s, "one", "two")
		s.Close()
		next := open(t, dir)
		_, key, err := next.Next()
		if err != nil {
			t.Fatal(err)
		}
		next.Settle([]uint32{key})
		checkFiles(t, dir, "*", 1)
		checkRows(t, replayAll(next).rows, []string{"two"})
	})
	t.Run("a segment that is read to its end goes with its last row, Next or not", func(t *testing.T) {
		for _, settled := range []bool{true, false} {
			dir := t.TempDir()
			s := open(t, dir)
			appendRows(t, s, "one")
			s.Close()
			next := open(t, dir)
			_, key, err := next.Next()
			if err != nil {
				t.Fatal(err)
			}
			want := 1
			if settled {
				next.Settle([]uint32{key})
				want = 0
			}
			next.Close()
			checkFiles(t, dir, "*", want)
		}
	})
	t.Run("a file whose process was killed before it wrote goes", func(t *testing.T) {
		dir := t.TempDir()
		os.WriteFile(filepath.Join(dir, "00000001-1.seg"), nil, 0o600)
		checkRows(t, replayAll(open(t, dir)).rows, nil)
		checkFiles(t, dir, "*", 0)
	})
	t.Run("a new file isn't taken for a dead process's", func(t *testing.T) {
		dir := t.TempDir()
		var done atomic.Bool
		var adopters sync.WaitGroup
		for range 2 {
			adopters.Go(func() {
				for !done.Load() {
					s := spool.New(dir, project)
					for {
						if _, _, err := s.Next(); err == io.EOF {
							break
						}
					}
					s.Close()
				}
			})
		}
		s := open(t, dir)
		for range 2000 {
			key := appendRows(t, s, "one")
			checkFiles(t, dir, "*.seg", 1)
			s.Settle(key)
		}
		done.Store(true)
		adopters.Wait()
	})
	t.Run("nobody else can read it", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "new")
		appendRows(t, open(t, dir), "one")
		for path, want := range map[string]os.FileMode{dir: 0o700 | os.ModeDir, files(t, dir, "*.seg")[0]: 0o600} {
			if info, err := os.Stat(path); err != nil || info.Mode() != want {
				t.Errorf("%s: got %v, %v, want %v", path, info.Mode(), err, want)
			}
		}
	})
	t.Run("segments end at 8 MiB", func(t *testing.T) {
		dir := t.TempDir()
		s := open(t, dir)
		keys := appendRows(t, s, slices.Repeat([]string{strings.Repeat("x", 100_000)}, 200)...)
		checkFiles(t, dir, "*.seg", 3)
		for _, name := range files(t, dir, "*.seg") {
			if info, err := os.Stat(name); err != nil || info.Size() > 8<<20 {
				t.Errorf("got %d bytes, %v", info.Size(), err)
			}
		}
		s.Settle(keys)
		checkFiles(t, dir, "*", 0)
	})
	t.Run("a folder's other files are left alone", func(t *testing.T) {
		dir := t.TempDir()
		os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("mine"), 0o600)
		os.Mkdir(filepath.Join(dir, "folder"), 0o700)
		if r := replayAll(open(t, dir)); len(r.rows)+len(r.errs) > 0 {
			t.Errorf("got %+v", r)
		}
		checkFiles(t, dir, "*", 2)
	})
}

// TestDamage changes a small segment in every way at every byte: what is
// replayed is what stands before the damage, and the file is kept.
func TestDamage(t *testing.T) {
	rows := []string{"one", strings.Repeat("two", 5), "x", "\x00\x00\x00\x00\x00\x00\x00\x00"}
	whole, ends := segment(t, rows)
	header := ends[0]
	check := func(t *testing.T, content []byte, at int) {
		intact := 0
		for _, end := range ends[1:] {
			if end <= at {
				intact++
			}
		}
		torn := len(content) < len(whole)
		dir := t.TempDir()
		name := filepath.Join(dir, "x-00000001.seg")
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
		s := spool.New(dir, project)
		defer s.Close()
		r := replayAll(s)
		checkRows(t, r.rows, rows[:intact])
		if torn && (at == 0 || slices.Contains(ends, at)) { // nobody can tell
			if len(r.errs) > 0 {
				t.Fatalf("got %v, want none", r.errs)
			}
			return
		}
		want := spool.ErrDamaged
		if at < header { // it may be anybody's
			want = spool.ErrForeign
		}
		if len(r.errs) != 1 || !errors.Is(r.errs[0], want) {
			t.Fatalf("got %v, want %v, once", r.errs, want)
		}
		if want == spool.ErrForeign {
			if kept, err := os.ReadFile(name); !bytes.Equal(kept, content) {
				t.Fatalf("got %d bytes, %v, want the file left as it was", len(kept), err)
			}
			return
		}
		if intact > 0 {
			checkFiles(t, dir, "*.bad", 0) // the rows must survive this process, too
		}
		s.Settle(r.keys)
		if kept, err := os.ReadFile(name + ".bad"); !bytes.Equal(kept, content) {
			t.Fatalf("got %d bytes, %v, want the file kept as it was", len(kept), err)
		}
		checkFiles(t, dir, "*.seg", 0)
	}
	t.Run("torn", func(t *testing.T) {
		for at := range whole {
			check(t, whole[:at], at)
		}
	})
	t.Run("bit flipped", func(t *testing.T) {
		for at := range whole {
			for bit := range 8 {
				content := bytes.Clone(whole)
				content[at] ^= 1 << bit
				check(t, content, at)
			}
		}
	})
	t.Run("zeros behind", func(t *testing.T) { // as some file systems leave after a crash
		check(t, append(bytes.Clone(whole), make([]byte, 4096)...), len(whole))
	})
	t.Run("the next segment is read", func(t *testing.T) {
		dir := t.TempDir()
		os.WriteFile(filepath.Join(dir, "x-00000001.seg"), whole[:len(whole)-1], 0o600)
		os.WriteFile(filepath.Join(dir, "x-00000002.seg"), whole, 0o600)
		r := replayAll(open(t, dir))
		checkRows(t, r.rows, slices.Concat(rows[:3], rows))
	})
}

// rowAt is what stands before a row: its length and sum.
const rowAt = 4 + 4

// segment returns the bytes of a segment, where its header ends, and where each
// row does.
func segment(t testing.TB, rows []string) (content []byte, ends []int) {
	dir := t.TempDir()
	s := spool.New(dir, project)
	for _, row := range rows {
		appendRows(t, s, row)
	}
	s.Close()
	content, err := os.ReadFile(files(t, dir, "*.seg")[0])
	if err != nil {
		t.Fatal(err)
	}
	at := len(content)
	ends = []int{at}
	for _, row := range slices.Backward(rows) {
		at -= rowAt + len(row)
		ends = append(ends, at)
	}
	slices.Reverse(ends)
	return content, ends
}

// FuzzSegment: whatever bytes a file holds, no row comes of it that was not
// written.
func FuzzSegment(f *testing.F) {
	rows := []string{"one", "two", strings.Repeat("three", 100)}
	whole, ends := segment(f, rows)
	f.Add(whole[:ends[0]], whole[ends[0]:])
	f.Add(whole[:ends[0]], whole[ends[1]:])
	f.Add(whole[:ends[0]], []byte("\xff\xff\xff\x7f\x00\x00\x00\x00"))
	f.Add(whole[:ends[0]], make([]byte, 8192))
	f.Add([]byte{}, whole)
	f.Fuzz(func(t *testing.T, header, body []byte) {
		content := slices.Concat(header, body)
		dir := t.TempDir()
		os.WriteFile(filepath.Join(dir, "x-00000001.seg"), content, 0o600)
		s := spool.New(dir, project)
		defer s.Close()
		r := replayAll(s)
		content, ours := bytes.CutPrefix(content, whole[:ends[0]])
		if !ours && len(r.rows) > 0 {
			t.Fatalf("got rows of another header: %q", r.rows)
		}
		for _, row := range r.rows { // each is there, behind its length and sum
			frame := bytes.Clone(content[:min(rowAt+len(row), len(content))])
			size := binary.LittleEndian.Uint32(frame)
			sum := crc32.Checksum(slices.Concat(frame[:4], frame[8:]), crc32.MakeTable(crc32.Castagnoli))
			if int(size) != len(row) || sum != binary.LittleEndian.Uint32(frame[4:]) || string(frame[rowAt:]) != row {
				t.Fatalf("got a row that was not written: %q", row)
			}
			content = content[len(frame):]
		}
	})
}

func TestOtherProject(t *testing.T) {
	dir := t.TempDir()
	other := spool.New(dir, sha256.Sum256([]byte("other")))
	appendRows(t, other, "not ours", "neither")
	appendRows(t, other, "nor this")
	other.Close()
	another := spool.New(dir, sha256.Sum256([]byte("another")))
	appendRows(t, another, "nor that")
	another.Close()
	version := must(os.ReadFile(files(t, dir, "*.seg")[0]))
	version[8]++ // as a later version would write it
	os.WriteFile(filepath.Join(dir, "z.seg"), version, 0o600)
	before := contents(t, dir)

	s := open(t, dir)
	r := replayAll(s)
	if len(r.rows) > 0 || len(r.errs) != 3 {
		t.Errorf("got %+v, want to hear of 3 segments", r)
	}
	for _, err := range r.errs {
		if !errors.Is(err, spool.ErrForeign) {
			t.Errorf("got %v, want %v", err, spool.ErrForeign)
		}
	}
	s.Close()
	if after := contents(t, dir); !slices.Equal(after, before) {
		t.Errorf("got %q, want all as it was: %q", after, before)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func contents(t *testing.T, dir string) (all []string) {
	for _, name := range files(t, dir, "*") {
		all = append(all, name+": "+string(must(os.ReadFile(name))))
	}
	return all
}

func TestClockSetBack(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	var want []string
	for i := range 200 {
		want = append(want, fmt.Sprintf("%08d", i)+strings.Repeat("x", 100_000))
	}
	appendRows(t, s, want...)
	s.Close()
	for i, name := range files(t, dir, "*.seg") { // each segment before the former
		then := time.Now().Add(-time.Duration(i) * time.Hour)
		if err := os.Chtimes(name, then, then); err != nil {
			t.Fatal(err)
		}
	}
	checkRows(t, replayAll(open(t, dir)).rows, want)
}

func TestFlatMemory(t *testing.T) {
	const rows = 100_000
	dir := t.TempDir()
	s := open(t, dir)
	text := strings.Repeat("x", 470)
	for i := range rows {
		if err := s.Append(frame(fmt.Sprintf("%d %s", i, text)), uint32(i)); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	next := open(t, dir)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range rows {
		row, key, err := next.Next()
		if want := fmt.Sprintf("%d %s", i, text); err != nil || string(row) != want {
			t.Fatalf("row %d: got %.20q, %v, want %.20q", i, row, err, want)
		}
		next.Settle([]uint32{key})
		if i == rows/2 {
			runtime.GC()
			runtime.ReadMemStats(&after)
		}
	}
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 9<<20 {
		t.Errorf("got %d bytes in use in the middle of 49 MB, want one segment's", grown)
	}
	checkRows(t, replayAll(next).rows, nil)
	checkFiles(t, dir, "*", 0)
	runtime.GC()
	runtime.ReadMemStats(&after)
	if kept := int64(after.HeapAlloc) - int64(before.HeapAlloc); kept > 1<<20 {
		t.Errorf("got %d bytes in use afterwards, want no segment's", kept)
	}
	runtime.KeepAlive(next)
}
