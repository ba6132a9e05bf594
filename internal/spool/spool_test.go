package spool_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/docevents/docevents-go/internal/spool"
)

const (
	columns = "id,created_at"
	limit   = 1 << 30
)

var project = sha256.Sum256([]byte("https://project/rest/v1 public events"))

func open(t testing.TB, dir string) *spool.Spool {
	s := spool.New(spool.OS{}, dir, project, columns, limit)
	t.Cleanup(func() { s.Close() })
	return s
}

// appendRows appends each row with a separate call to Append.
func appendRows(t testing.TB, s *spool.Spool, rows ...string) {
	t.Helper()
	for _, row := range rows {
		if err := s.Append(frame(row)); err != nil {
			t.Fatal(err)
		}
	}
}

// leave leaves rows in a segment, like a process that has ended.
func leave(t testing.TB, dir string, rows ...string) {
	t.Helper()
	s := open(t, dir)
	appendRows(t, s, rows...)
	s.Close()
}

func frame(row string) []byte {
	return spool.Frame(nil, func(buf []byte) []byte { return append(buf, row...) })
}

// discard removes all segments of s except the one that is being read.
func discard(t testing.TB, s *spool.Spool) {
	t.Helper()
	if err := errors.Join(s.Retire(), s.Discard()); err != nil {
		t.Fatal(err)
	}
}

// A replay holds all rows and errors that Next returned.
type replay struct {
	rows []string
	errs []error
}

func replayAll(s *spool.Spool) (r replay) {
	if err := s.Look(); err != nil {
		r.errs = append(r.errs, err)
	}
	for {
		row, _, err := s.Next()
		switch {
		case err == io.EOF:
			return r
		case err != nil:
			r.errs = append(r.errs, err)
		default:
			r.rows = append(r.rows, string(row))
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

func TestNothingIsDoneBeforeTheFirstRow(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	s := open(t, dir)
	checkRows(t, replayAll(s).rows, nil)
	s.Close()
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want no folder", err)
	}
}

func TestRowsSurviveInOrderWithTheirColumns(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b [c]")
	leave(t, dir, "one", "two", "three")
	s := open(t, dir)
	if err := s.Look(); err != nil {
		t.Fatal(err)
	}
	if row, got, err := s.Next(); string(row) != "one" || got != columns || err != nil {
		t.Errorf("got %q, %q, %v", row, got, err)
	}
	checkRows(t, replayAll(s).rows, []string{"two", "three"})
}

func TestASegmentStaysUntilItIsDiscarded(t *testing.T) {
	dir := t.TempDir()
	leave(t, dir, "one", "two")
	s := open(t, dir)
	checkRows(t, replayAll(s).rows, []string{"one", "two"})
	checkRows(t, replayAll(open(t, dir)).rows, nil) // the rows belong to the first process now
	checkFiles(t, dir, "*.seg", 1)
	discard(t, s)
	s.Close()
	checkFiles(t, dir, "*", 0)
}

func TestASegmentReadInPartIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	leave(t, dir, "one", "two")
	s := open(t, dir)
	if err := s.Look(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Next(); err != nil {
		t.Fatal(err)
	}
	discard(t, s)
	if got := s.State(); got != (spool.State{Reading: 1}) {
		t.Errorf("got %+v, want a segment that is being read", got)
	}
	s.Close()
	checkRows(t, replayAll(open(t, dir)).rows, []string{"one", "two"})
}

func TestRetiredSegmentsStayUntilTheyAreDiscarded(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	appendRows(t, s, "one")
	s.Retire()
	appendRows(t, s, "two")
	checkFiles(t, dir, "*.seg", 2)
	if err := s.Discard(); err != nil {
		t.Fatal(err)
	}
	s.Close()
	checkRows(t, replayAll(open(t, dir)).rows, []string{"two"})
}

func TestOtherUsersCannotReadTheFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	appendRows(t, open(t, dir), "one")
	want := map[string]os.FileMode{dir: 0o700 | os.ModeDir, files(t, dir, "*.seg")[0]: 0o600, files(t, dir, "*.lock")[0]: 0o600}
	for path, want := range want {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: got %v, %v, want %v", path, info.Mode(), err, want)
		}
	}
}

func TestSegmentsEndAt8MiB(t *testing.T) {
	dir := t.TempDir()
	var want []string
	for i := range 200 {
		want = append(want, fmt.Sprintf("%08d", i)+strings.Repeat("x", 100_000))
	}
	leave(t, dir, want...)
	checkFiles(t, dir, "*.seg", 3)
	for _, name := range files(t, dir, "*.seg") {
		if info, err := os.Stat(name); err != nil || info.Size() > 8<<20+110_000 {
			t.Errorf("got %d bytes, %v", info.Size(), err)
		}
	}
	checkRows(t, replayAll(open(t, dir)).rows, want) // the oldest segment is the first
}

func TestOtherFilesAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("mine"), 0o600)
	os.WriteFile(filepath.Join(dir, "0-1.seg"), []byte("mine"), 0o600)
	os.Mkdir(filepath.Join(dir, "folder"), 0o700)
	if r := replayAll(open(t, dir)); len(r.rows)+len(r.errs) > 0 {
		t.Errorf("got %+v", r)
	}
	checkFiles(t, dir, "*", 3)
}

func TestKeptRowsKeepTheirFile(t *testing.T) {
	dir := t.TempDir()
	leave(t, dir, "one", "two")
	s := open(t, dir)
	if err := s.Look(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []error{spool.ErrKept, nil} { // the file is reported once
		if _, _, err := s.Next(); err != nil {
			t.Fatal(err)
		}
		if err := s.Keep(); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	checkRows(t, replayAll(s).rows, nil)
	discard(t, s)
	checkFiles(t, dir, "*.seg.kept", 1)
	checkFiles(t, dir, "*.seg", 0)
}

// TestCloseForgetsRemovedSegments checks that the state after Close has no segment if
// somebody has removed the folder.
func TestCloseForgetsRemovedSegments(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	leave(t, dir, "one")
	leave(t, dir, "two", "three")
	s := open(t, dir)
	appendRows(t, s, "four")
	if err := s.Look(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, _, err := s.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.State(); got.Current == 0 || !got.Retired || got.Reading != 2 {
		t.Errorf("got %+v, want segments in each state", got)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if s.Close(); s.State() != (spool.State{}) {
		t.Errorf("got %+v, want no segment", s.State())
	}
}

// TestProcessesClaimTogether lets several processes replay from a folder at the same
// time. Each segment must go to one of them.
func TestProcessesClaimTogether(t *testing.T) {
	dir := t.TempDir()
	const segments, adopters = 200, 4
	for n := range segments {
		leave(t, dir, fmt.Sprint(n))
	}
	got := make([]replay, adopters)
	var all sync.WaitGroup
	for i := range adopters {
		s := open(t, dir) // it is closed after all have looked
		all.Go(func() { got[i] = replayAll(s) })
	}
	all.Wait()
	var rows []string
	for _, r := range got {
		rows = append(rows, r.rows...)
		if len(r.errs) > 0 {
			t.Error(r.errs)
		}
	}
	slices.Sort(rows)
	if len(rows) != segments || len(slices.Compact(rows)) != segments {
		t.Errorf("got %d rows, want each of %d once", len(rows), segments)
	}
}

// TestALiveProcessIsNotTakenForDead lets processes start and end while others look for
// segments. The others must not get any.
func TestALiveProcessIsNotTakenForDead(t *testing.T) {
	dir := t.TempDir()
	var done atomic.Bool
	var adopters sync.WaitGroup
	var adopted atomic.Int64
	for range 2 {
		adopters.Go(func() {
			for !done.Load() {
				s := spool.New(spool.OS{}, dir, project, columns, limit)
				adopted.Add(int64(len(replayAll(s).rows)))
				s.Retire()
				s.Discard()
				s.Close()
			}
		})
	}
	for range 100 {
		s := open(t, dir)
		appendRows(t, s, "one")
		discard(t, s)
		appendRows(t, s, "two")
		discard(t, s)
		s.Close()
	}
	done.Store(true)
	adopters.Wait()
	if n := adopted.Load(); n > 0 {
		t.Errorf("%d rows of a living process were adopted", n)
	}
	checkFiles(t, dir, "*", 0)
}

// TestDamage damages a small segment at every byte, in several ways. The rows before
// the damage must be replayed, and the file must be kept.
func TestDamage(t *testing.T) {
	rows := []string{"one", strings.Repeat("two", 5), "x", "\x00\x00\x00\x00\x00\x00\x00\x00"}
	whole, ends, name := segmentOf(t, rows)
	check := func(t *testing.T, content []byte, at int) {
		intact := 0
		for _, end := range ends[1:] {
			if end <= at {
				intact++
			}
		}
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
		s := open(t, dir)
		r := replayAll(s)
		checkRows(t, r.rows, rows[:intact])
		checkFiles(t, dir, "*.bad", 0) // the rows must survive this process as well
		discard(t, s)
		checkFiles(t, dir, "*.seg", 0)
		if len(content) < len(whole) && (at == 0 || slices.Contains(ends, at)) { // the rest is a valid segment
			if len(r.errs) > 0 {
				t.Fatalf("got %v, want none", r.errs)
			}
			return
		}
		if len(r.errs) != 1 || !errors.Is(r.errs[0], spool.ErrDamaged) {
			t.Fatalf("got %v, want %v, once", r.errs, spool.ErrDamaged)
		}
		if kept, err := os.ReadFile(files(t, dir, "*.bad")[0]); !bytes.Equal(kept, content) {
			t.Fatalf("got %d bytes, %v, want the file kept as it was", len(kept), err)
		}
	}
	t.Run("torn", func(t *testing.T) {
		for at := range whole {
			check(t, whole[:at], at)
		}
	})
	t.Run("bit flipped", func(t *testing.T) {
		for at := range whole {
			content := bytes.Clone(whole)
			content[at] ^= 1 << (at % 8)
			check(t, content, at)
		}
	})
	t.Run("zeros at the end", func(t *testing.T) { // some file systems leave them after a crash
		check(t, append(bytes.Clone(whole), make([]byte, 4096)...), len(whole))
	})
}

// rowAt is the number of bytes before a row, its length and checksum.
const rowAt = 4 + 4

// segmentOf returns the bytes of a segment, the offsets at which its header and its
// rows end, and its name.
func segmentOf(t testing.TB, rows []string) (content []byte, ends []int, name string) {
	dir := t.TempDir()
	leave(t, dir, rows...)
	path := files(t, dir, "*.seg")[0]
	content, err := os.ReadFile(path)
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
	return content, ends, filepath.Base(path)
}

// FuzzSegment checks that Next returns only rows that are in the file with their lengths
// and checksums.
func FuzzSegment(f *testing.F) {
	rows := []string{"one", "two", strings.Repeat("three", 100)}
	whole, ends, name := segmentOf(f, rows)
	f.Add(whole)
	f.Add(whole[ends[0]:])
	f.Add(whole[ends[1]:])
	f.Add(append(bytes.Clone(whole[:ends[0]]), "\xff\xff\xff\x7f\x00\x00\x00\x00"...))
	f.Add(append(bytes.Clone(whole[:ends[0]]), make([]byte, 8192)...))
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		os.WriteFile(filepath.Join(dir, name), content, 0o600)
		s := spool.New(spool.OS{}, dir, project, columns, limit)
		defer s.Close()
		rows := replayAll(s).rows
		if len(rows) == 0 {
			return
		}
		var frames []byte
		for _, row := range rows {
			frames = append(frames, frame(row)...)
		}
		header := rowAt + binary.LittleEndian.Uint32(content)
		if !bytes.HasPrefix(content[header:], frames) {
			t.Errorf("got %q from %q", rows, content)
		}
	})
}

// A fullDisk writes a part of the rows if full is set. Then Write returns an error, or, as
// on NFS, only Close does.
type fullDisk struct {
	spool.OS
	full, late bool
}

func (d *fullDisk) Write(f *os.File, b []byte) (int, error) {
	if !d.full {
		return d.OS.Write(f, b)
	}
	if d.late {
		f.Close() // so that the next call to Close fails
		return len(b), nil
	}
	n, _ := f.Write(b[:len(b)-1])
	return n, syscall.ENOSPC
}

func TestFullDiskLeavesNoIncompleteRow(t *testing.T) {
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprint("noticed only by Close: ", late), func(t *testing.T) {
			dir := t.TempDir()
			disk := &fullDisk{late: late}
			s := spool.New(disk, dir, project, columns, limit)
			for i, full := range []bool{true, false, true, false} {
				disk.full = full
				if err := s.Append(frame(fmt.Sprint(i))); (err != nil) != full {
					t.Errorf("row %d: got %v", i, err)
				}
			}
			s.Close()
			r := replayAll(open(t, dir))
			if checkRows(t, r.rows, []string{"1", "3"}); len(r.errs) > 0 {
				t.Error(r.errs)
			}
		})
	}
}

// openFiles counts the files that this process has open whenever a spool opens one.
type openFiles struct {
	spool.OS
	most int
}

func (o *openFiles) OpenFile(path string, flag int, perm fs.FileMode) (*os.File, error) {
	f, err := o.OS.OpenFile(path, flag, perm)
	if err != nil {
		return nil, err
	}
	own, _ := os.ReadDir("/proc/self/fd")
	o.most = max(o.most, len(own))
	return f, nil
}

// TestOpenFilesAreConstant checks that a spool has as many files open after one dead
// process as after 200.
func TestOpenFilesAreConstant(t *testing.T) {
	if _, err := os.ReadDir("/proc/self/fd"); err != nil {
		t.Skip(err)
	}
	most := map[int]int{}
	for _, dead := range []int{1, 200} {
		dir := t.TempDir()
		for n := range dead {
			leave(t, dir, fmt.Sprint(n))
		}
		o := &openFiles{}
		s := spool.New(o, dir, project, columns, limit)
		if r := replayAll(s); len(r.rows) != dead || len(r.errs) > 0 {
			t.Fatalf("got %d rows, %v", len(r.rows), r.errs)
		}
		appendRows(t, s, "new")
		discard(t, s)
		s.Close()
		checkFiles(t, dir, "*.seg", 0)
		most[dead] = o.most
	}
	if most[1] != most[200] {
		t.Errorf("got %d files open after 200 processes, %d after one", most[200], most[1])
	}
}

// TestFlatMemory checks that only the segment that is being read is in memory.
func TestFlatMemory(t *testing.T) {
	const rows = 40_000
	dir := t.TempDir()
	s := open(t, dir)
	text := strings.Repeat("x", 470)
	for i := range rows {
		appendRows(t, s, fmt.Sprintf("%d %s", i, text))
	}
	s.Close()
	next := open(t, dir)
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	if err := next.Look(); err != nil {
		t.Fatal(err)
	}
	for i := range rows {
		row, _, err := next.Next()
		if want := fmt.Sprintf("%d %s", i, text); err != nil || string(row) != want {
			t.Fatalf("row %d: got %.20q, %v, want %.20q", i, row, err, want)
		}
		if i == rows/2 {
			if grown := heap() - before; grown > 11<<20 {
				t.Errorf("got %d bytes in use in the middle of 19 MB, want one segment's", grown)
			}
		}
	}
	checkRows(t, replayAll(next).rows, nil)
	if kept := heap() - before; kept > 1<<20 {
		t.Errorf("got %d bytes in use afterwards, want no segment's", kept)
	}
	runtime.KeepAlive(next)
}
