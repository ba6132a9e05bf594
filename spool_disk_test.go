package docevents_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/internal/spool"
)

// faultyFiles is a disk with faults. Before each use of the disk, fault is called with
// the number of the use, from 1. If it returns an error, the use fails with it.
type faultyFiles struct {
	disk  spool.OS
	fault func(n int, use string) error

	mu sync.Mutex
	n  int
}

func (f *faultyFiles) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n
}

func (f *faultyFiles) use(use string) error {
	f.mu.Lock()
	f.n++
	n := f.n
	f.mu.Unlock()
	if f.fault == nil {
		return nil
	}
	return f.fault(n, use)
}

func (f *faultyFiles) MkdirAll(path string, perm fs.FileMode) error {
	if err := f.use("mkdir"); err != nil {
		return err
	}
	return f.disk.MkdirAll(path, perm)
}

func (f *faultyFiles) Stat(path string) (fs.FileInfo, error) {
	if err := f.use("stat"); err != nil {
		return nil, err
	}
	return f.disk.Stat(path)
}

func (f *faultyFiles) ReadDir(path string) ([]fs.DirEntry, error) {
	if err := f.use("list"); err != nil {
		return nil, err
	}
	return f.disk.ReadDir(path)
}

func (f *faultyFiles) ReadFile(path string) ([]byte, error) {
	if err := f.use("read"); err != nil {
		return nil, err
	}
	return f.disk.ReadFile(path)
}

func (f *faultyFiles) OpenFile(path string, flag int, perm fs.FileMode) (*os.File, error) {
	if err := f.use("open"); err != nil {
		return nil, err
	}
	return f.disk.OpenFile(path, flag, perm)
}

// Write writes a part of b if the fault is a full disk.
func (f *faultyFiles) Write(file *os.File, b []byte) (int, error) {
	if err := f.use("write"); errors.Is(err, syscall.ENOSPC) {
		n, _ := file.Write(b[:2*len(b)/3])
		return n, err
	} else if err != nil {
		return 0, err
	}
	return f.disk.Write(file, b)
}

func (f *faultyFiles) Rename(from, to string) error {
	if err := f.use("rename"); err != nil {
		return err
	}
	return f.disk.Rename(from, to)
}

func (f *faultyFiles) Remove(path string) error {
	if err := f.use("remove"); err != nil {
		return err
	}
	return f.disk.Remove(path)
}

// hangs returns a fault: each use of the given kind waits until done is closed.
func hangs(kind string, done chan struct{}) func(int, string) error {
	return func(_ int, use string) error {
		if use == kind {
			<-done
		}
		return nil
	}
}

// TestDiskFaults runs two processes again and again, one after the other. Each time,
// another use of the disk fails in the first one.
func TestDiskFaults(t *testing.T) {
	uses := 0
	synctest.Test(t, func(t *testing.T) { uses = runTwoProcesses(t, true, nil, make(chan struct{})) })
	failIf := func(fails bool, err error) error {
		if fails {
			return err
		}
		return nil
	}
	// n is the number of the use, and is negative before the fault begins. ended is closed
	// when the process has ended.
	for name, fault := range map[string]func(n int, use string, ended chan struct{}) error{
		"one use fails": func(n int, _ string, _ chan struct{}) error {
			return failIf(n == 0, syscall.EIO)
		},
		"all fail for a while": func(n int, _ string, _ chan struct{}) error {
			return failIf(0 <= n && n < 20, syscall.EACCES)
		},
		"all fail from then on": func(n int, _ string, _ chan struct{}) error {
			return failIf(n >= 0, syscall.EIO)
		},
		"a write is cut short": func(n int, use string, _ chan struct{}) error {
			return failIf(0 <= n && n < 5 && use == "write", syscall.ENOSPC)
		},
		"the disk hangs for a minute": func(n int, _ string, _ chan struct{}) error {
			if n == 0 {
				time.Sleep(time.Minute)
			}
			return nil
		},
		"the disk hangs until the process has ended": func(n int, _ string, ended chan struct{}) error {
			if n >= 0 {
				<-ended
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			for at := 1; at <= uses; at += 1 + max(0, at-8)/3 { // the first uses of the disk differ most
				synctest.Test(t, func(t *testing.T) {
					ended := make(chan struct{})
					runTwoProcesses(t, at%3 > 0, func(n int, use string) error { return fault(n-at, use, ended) }, ended)
				})
				if t.Failed() {
					t.Fatalf("at use %d of the disk", at)
				}
			}
		})
	}
}

// runTwoProcesses runs two processes, one after the other, in a folder in which a dead
// process has left rows. The disk has faults for the first of the two. If away is true,
// the server is down until that process has ended, which closes ended. Each event must be
// stored once or dropped. If the error of a dropped event matches ErrOutcomeUnknown, the
// event may be stored as well. The result is how often the first process used the disk.
func runTwoProcesses(t *testing.T, away bool, fault func(n int, use string) error, ended chan struct{}) (uses int) {
	dir, limits := filepath.Join(t.TempDir(), "spool"), docevents.WithQueueLimits(1000, 256<<10)
	const left = 30
	leaveRows(t, dir, left, "left", limits)
	db := newOutage(0)
	files := &faultyFiles{fault: fault}
	c, o := newClient(t, db, docevents.WithSpool(dir), docevents.WithSpoolFiles(files), limits)
	recorded := 0
	record := func(events int, pause time.Duration) {
		for range events {
			e := event(fmt.Sprint(recorded))
			e.ErrorMessage = fmt.Sprintf("%0500d", recorded)
			c.Record(e)
			recorded++
			time.Sleep(pause)
		}
	}
	record(40, time.Millisecond)
	time.Sleep(35 * time.Second)
	record(40, 0)
	db.set(!away)
	time.Sleep(20 * time.Second)
	record(40, 100*time.Millisecond)
	db.set(false)
	record(20, 2*time.Second)
	closeIn(t, c, 5*time.Second)
	checkStats(t, c, nil)
	checkReported(t, c, o)
	uses = files.count()
	close(ended)
	synctest.Wait()

	db.set(true)
	next, after := newClient(t, db, docevents.WithSpool(dir), limits)
	time.Sleep(2 * time.Minute)
	if err := closeIn(t, next, time.Minute); err != nil {
		t.Error(err)
	}
	checkStats(t, next, nil)
	if names := segments(t, dir); len(names) > 0 {
		t.Errorf("got %q left, %v", names, after.logged())
	}
	stored, dropped := db.stages(), map[string]error{}
	for _, d := range o.lost() {
		dropped[d.event.Stage] = d.err
	}
	check := func(stage string) {
		err, wasDropped := dropped[stage]
		switch n := stored[stage]; {
		case n > 1, n == 0 && !wasDropped, n == 1 && wasDropped && !errors.Is(err, docevents.ErrOutcomeUnknown):
			t.Errorf("event %s is stored %d times, dropped: %v, %v; %+v", stage, n, wasDropped, err, c.Stats())
		}
	}
	for i := range recorded {
		check(fmt.Sprint(i))
	}
	for i := range left {
		stage := fmt.Sprint("left", i)
		check(stage)
		if _, wasDropped := dropped[stage]; wasDropped {
			t.Errorf("event %s was on disk all the time, and dropped: %v", stage, dropped[stage])
		}
	}
	return uses
}

// TestCloseWhileTheDiskHangs checks that Close keeps the rows that are on disk when the
// disk begins to hang. It abandons later rows, with errors that match
// ErrOutcomeUnknown.
func TestCloseWhileTheDiskHangs(t *testing.T) {
	for _, hung := range []string{"write", "open", "stat", "remove"} {
		t.Run(hung, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				begin, done := make(chan struct{}), make(chan struct{})
				hang := hangs(hung, done)
				files := &faultyFiles{fault: func(n int, use string) error {
					select {
					case <-begin:
						return hang(n, use)
					default:
						return nil
					}
				}}
				c, o := newClient(t, &server{answer: away}, docevents.WithSpool(dir), docevents.WithSpoolFiles(files))
				for i := range 100 {
					c.Record(event(fmt.Sprint(i)))
				}
				time.Sleep(time.Second)
				close(begin)
				c.Record(event("late"))
				synctest.Wait()
				began := time.Now()
				err := c.Close(closed(t))
				if took := time.Since(began); took > time.Second {
					t.Errorf("Close took %s", took)
				}
				st := c.Stats()
				if st.Kept < 100 || st.Kept+st.Dropped.Abandoned != 101 || (err != nil) != (st.Kept == 100) {
					t.Errorf("got %v, %+v, want what was on disk kept", err, st)
				}
				for _, d := range o.lost() {
					if !errors.Is(d.err, docevents.ErrOutcomeUnknown) {
						t.Errorf("got %v, want %v", d.err, docevents.ErrOutcomeUnknown)
					}
				}
				close(done) // the disk works again
				synctest.Wait()
				if db, _, _ := replay(t, dir); len(db.rows) < 100 {
					t.Errorf("the next process stores %d events, want 100", len(db.rows))
				}
			})
		})
	}
}

// TestRejectedWhileTheDiskHangs checks that the error of a rejected row doesn't match
// ErrOutcomeUnknown, because the answer shows that the row isn't stored.
func TestRejectedWhileTheDiskHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		done := make(chan struct{})
		files := &faultyFiles{fault: hangs("write", done)}
		c, o := newClient(t, &server{answer: answerBad(refusal, 0)}, docevents.WithSpool(t.TempDir()), docevents.WithSpoolFiles(files))
		for _, stage := range []string{"bad", "good", "good"} {
			c.Record(event(stage))
			time.Sleep(time.Second)
		}
		lost := o.lost()
		if len(lost) != 1 || lost[0].reason != docevents.Rejected || errors.Is(lost[0].err, docevents.ErrOutcomeUnknown) {
			t.Errorf("got %v, want a rejected event", lost)
		}
		close(done)
		c.Close(t.Context())
	})
}

// TestMemoryWhileTheDiskHangs checks that the memory doesn't grow while events are
// stored and the disk hangs.
func TestMemoryWhileTheDiskHangs(t *testing.T) {
	done := make(chan struct{})
	files := &faultyFiles{fault: hangs("write", done)}
	c, _ := newClient(t, &server{discard: true}, docevents.WithSpool(t.TempDir()), docevents.WithSpoolFiles(files), docevents.WithQueueLimits(10_000, 1<<20))
	store := func(events int64) int64 {
		for end := c.Stats().Delivered + events; c.Stats().Delivered < end; {
			if c.Stats().Pending < 2000 {
				for range 500 {
					c.Record(event("ocr"))
				}
			} else {
				time.Sleep(100 * time.Microsecond)
			}
		}
		return heap()
	}
	before := store(30_000)                             // after this, the buffer is full
	if grown := store(60_000) - before; grown > 2<<20 { // the text of 60,000 events is 6 MB
		t.Errorf("the heap has grown by %d KiB", grown>>10)
	}
	close(done)
	closeIn(t, c, 10*time.Second)
	checkStats(t, c, nil)
}

// TestDiskWorksAgain checks that all pending rows are written once the disk works
// again, even if no further event is recorded.
func TestDiskWorksAgain(t *testing.T) {
	for name, test := range map[string]struct {
		wait  time.Duration // until Close
		later int           // events, one a minute
	}{
		"as Close begins": {0, 0},
		"a minute later":  {time.Minute, 0},
		"30 events later": {time.Minute, 30},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "spool")
				if err := os.WriteFile(dir, nil, 0o600); err != nil { // a file takes the folder's name
					t.Fatal(err)
				}
				c, o := newClient(t, &server{answer: away}, docevents.WithSpool(dir))
				for i := range 100 {
					c.Record(event(fmt.Sprint("then ", i)))
				}
				time.Sleep(time.Second)
				os.Remove(dir)
				time.Sleep(test.wait)
				if got := onDisk(t, dir); test.wait > 0 && got < 100*65 {
					t.Errorf("got %d bytes on disk a minute later, want all 100 events", got)
				}
				for i := range test.later {
					c.Record(event(fmt.Sprint("later ", i)))
					time.Sleep(time.Minute)
				}
				if err := c.Close(closed(t)); err != nil {
					t.Error(err)
				}
				all := int64(100 + test.later)
				checkStats(t, c, &docevents.Stats{Recorded: all, Kept: all})
				if got := linesWith(o, "spool"); len(got) != 1 {
					t.Errorf("got %q, want a line", got)
				}
			})
		})
	}
}

// TestFullDiskIsEmptied checks that segments are removed as soon as their rows are
// stored, even if the last write failed.
func TestFullDiskIsEmptied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		writes := 0
		files := &faultyFiles{fault: func(_ int, use string) error {
			if use == "write" {
				if writes++; writes > 1 {
					return syscall.ENOSPC
				}
			}
			return nil
		}}
		db := newOutage(0)
		c, _ := newClient(t, db, docevents.WithSpool(dir), docevents.WithSpoolFiles(files))
		for range 2 {
			c.Record(event("ocr"))
			synctest.Wait()
		}
		if onDisk(t, dir) == 0 {
			t.Error("the first event is not on disk")
		}
		db.end()
		time.Sleep(20 * time.Second)
		if left := segments(t, dir); len(left) > 0 || c.Stats().Delivered != 2 {
			t.Errorf("got %q left, %+v", left, c.Stats())
		}
		c.Close(t.Context())
	})
}

// TestFolderRemovedWhileRunning checks that the client creates the folder again and
// writes all pending rows to it.
func TestFolderRemovedWhileRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "spool")
		leaveRows(t, dir, 10, "left")
		c, o := newClient(t, &server{answer: away}, docevents.WithSpool(dir))
		for i := range 100 {
			c.Record(event(fmt.Sprint(i)))
		}
		synctest.Wait()
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		c.Record(event("later"))
		time.Sleep(time.Minute)
		if err := c.Close(closed(t)); err != nil {
			t.Error(err)
		}
		checkStats(t, c, &docevents.Stats{Recorded: 101, Replayed: 10, Kept: 111})
		if got := linesWith(o, "spool"); len(got) != 1 {
			t.Errorf("got %q, want a line", got)
		}
		if db, _, _ := replay(t, dir); len(db.rows) != 111 {
			t.Errorf("got %d of 111 events replayed", len(db.rows))
		}
	})
}
