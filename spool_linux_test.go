package docevents_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/docevents/docevents-go"
)

// limitedEnv, if set to a folder, makes the test binary a process that may open 64
// files.
const limitedEnv = "DOCEVENTS_TEST_LIMITED"

// TestReplayWithFewDescriptors checks that with the segments of 200 dead processes,
// while the server is down, the app can open files and listen.
func TestReplayWithFewDescriptors(t *testing.T) {
	if dir := os.Getenv(limitedEnv); dir != "" {
		limited(t, dir)
		return
	}
	dir := t.TempDir()
	for i := range 200 {
		leaveRows(t, dir, 1, fmt.Sprint(i, "."))
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestReplayWithFewDescriptors$", "-test.v")
	cmd.Env = append(os.Environ(), limitedEnv+"="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func limited(t *testing.T, dir string) {
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 64, Max: 64}); err != nil {
		t.Skip(err)
	}
	db := newOutage(0)
	c, _ := newClient(t, db, docevents.WithSpool(dir))
	for c.Stats().Replayed < 200 && t.Context().Err() == nil {
		time.Sleep(time.Millisecond)
	}
	f, err := os.Open(os.Args[0])
	if err != nil {
		t.Errorf("the app can't open a file: %v", err)
	}
	f.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("the app can't listen: %v", err)
	}
	l.Close()
	db.end()
	if err := closeIn(t, c, 20*time.Second); err != nil || c.Stats().Delivered != 200 {
		t.Errorf("%v, %+v", err, c.Stats())
	}
}

// frozen returns a folder on a separate file system, and functions that freeze and
// thaw it. It needs root, mkfs.ext4, a loop device and fsfreeze.
func frozen(t *testing.T) (folder string, freeze, thaw func()) {
	t.Helper()
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Skipf("no file system to freeze: %s: %v %s", name, err, out)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	disk, image := t.TempDir(), filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 32<<20); err != nil {
		t.Fatal(err)
	}
	run("mkfs.ext4", "-q", image)
	run("mount", "-o", "loop", image, disk)
	isFrozen := false
	thaw = func() {
		if isFrozen {
			isFrozen = false
			exec.Command("fsfreeze", "-u", disk).Run()
		}
	}
	t.Cleanup(func() {
		thaw()
		exec.Command("umount", "-l", disk).Run()
	})
	return filepath.Join(disk, "spool"), func() {
		t.Helper()
		run("fsfreeze", "-f", disk)
		isFrozen = true
	}, thaw
}

// TestFrozenDisk checks that rows on disk are kept although the disk hangs while Close
// runs.
func TestFrozenDisk(t *testing.T) {
	dir, freeze, thaw := frozen(t)
	c, _ := newClient(t, &server{answer: away}, docevents.WithSpool(dir))
	const before = 100
	for i := range before {
		c.Record(event(fmt.Sprint(i)))
	}
	time.Sleep(200 * time.Millisecond) // until the rows are on disk
	freeze()
	c.Record(event("late"))
	time.Sleep(20 * time.Millisecond)
	err := c.Close(closed(t))
	st := c.Stats()
	thaw()
	if err == nil || st.Kept != before || st.Dropped.Abandoned != 1 {
		t.Errorf("got %v, %+v, want %d kept", err, st, before)
	}
	db := &server{}
	for end := time.Now().Add(5 * time.Second); len(db.stages()) < before && time.Now().Before(end); { // until the first client releases its lock
		next, _ := newClient(t, db, docevents.WithSpool(dir))
		closeIn(t, next, 5*time.Second)
	}
	if got := len(db.stages()); got < before {
		t.Errorf("got %d of %d events replayed", got, before)
	}
}
