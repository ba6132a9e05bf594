package spool_test

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docevents/docevents-go/internal/spool"
)

// helperEnv makes the test binary a helper process. Its value is "task dir argument".
const helperEnv = "SPOOL_TEST_HELPER"

func TestMain(m *testing.M) {
	what, rest, isHelper := strings.Cut(os.Getenv(helperEnv), " ")
	if !isHelper {
		os.Exit(m.Run())
	}
	dir, arg, _ := strings.Cut(rest, " ")
	s := spool.New(spool.OS{}, dir, project, columns, limit)
	switch what {
	case "work":
		work(s, arg)
	case "append": // appends one row
		fmt.Println(appendUntil(s, 1))
	case "limited": // limits the size of files, in bytes
		n, _ := strconv.ParseUint(arg, 10, 64)
		fmt.Println(appendLimited(s, n))
	case "replay":
		r := replayAll(s)
		for _, row := range r.rows {
			fmt.Printf("%.20q\n", row)
		}
		for _, err := range r.errs {
			fmt.Println(err)
		}
	}
}

// work replays all rows of dead processes and appends new rows, named after name, until
// it is killed. It prints the last row of each call of Append.
func work(s *spool.Spool, name string) {
	for i := 0; ; i++ {
		adopted := replayAll(s).rows
		for _, row := range adopted {
			if err := s.Append(frame(row)); err != nil {
				fmt.Println("error", err)
				os.Exit(1)
			}
		}
		s.Discard()
		b := fmt.Sprintf("%s.%d.b", name, i)
		if err := s.Append(slices.Concat(frame(fmt.Sprintf("%s.%d.a", name, i)), frame(b))); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println(b)
		time.Sleep(time.Millisecond)
	}
}

// appendUntil appends rows until one fails, and returns how many are on disk.
func appendUntil(s *spool.Spool, n int) (done int, err error) {
	for ; done < n && err == nil; done++ {
		err = s.Append(frame(fmt.Sprintf("%08d%s", done, strings.Repeat("x", 1000))))
	}
	if err != nil {
		done--
	}
	return done, err
}

// appendLimited appends rows to files of limited size.
func appendLimited(s *spool.Spool, limit uint64) (int, error) {
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: limit, Max: limit}); err != nil {
		return 0, err
	}
	return appendUntil(s, 1000)
}

func helper(t *testing.T, what, dir, arg string) *exec.Cmd {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %s", helperEnv, what, dir, arg))
	cmd.Stderr = os.Stderr
	return cmd
}

func output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestKilledInTurns(t *testing.T) {
	for _, processes := range []int{2, 10} {
		t.Run(fmt.Sprint(processes, " processes in one folder"), func(t *testing.T) {
			dir := t.TempDir()
			said := map[string]bool{}
			type process struct {
				cmd *exec.Cmd
				out *bufio.Scanner
			}
			start := func(name string) process {
				cmd := helper(t, "work", dir, name)
				out, err := cmd.StdoutPipe()
				if err == nil {
					err = cmd.Start()
				}
				if err != nil {
					t.Fatal(err)
				}
				return process{cmd, bufio.NewScanner(out)}
			}
			kill := func(p process) {
				for range 3 { // until it works
					p.out.Scan()
					said[p.out.Text()] = true
				}
				p.cmd.Process.Kill()
				for p.out.Scan() {
					if strings.HasSuffix(p.out.Text(), ".b") { // a kill may cut the last line short
						said[p.out.Text()] = true
					}
				}
				p.cmd.Wait()
			}
			var alive []process
			for n := range processes {
				alive = append(alive, start(fmt.Sprint("first", n)))
			}
			for n := range processes {
				kill(alive[n])
				alive[n] = start(fmt.Sprint("second", n))
			}
			for _, p := range alive {
				kill(p)
			}
			r := replayAll(open(t, dir))
			replayed := map[string]bool{}
			for _, row := range r.rows {
				replayed[row] = true
			}
			for _, row := range slices.Sorted(maps.Keys(said)) {
				if !replayed[row] {
					t.Errorf("%s is gone", row)
				}
				if a := strings.TrimSuffix(row, "b") + "a"; !replayed[a] {
					t.Errorf("%s is gone", a)
				}
			}
			for _, err := range r.errs {
				if !errors.Is(err, spool.ErrDamaged) { // a kill may leave an incomplete row
					t.Error(err)
				}
			}
			t.Logf("%d rows said, %d replayed, %d of them once more, %d segments torn", 2*len(said), len(r.rows), len(r.rows)-len(replayed), len(r.errs))
		})
	}
}

// TestDiskFull checks that rows that don't fit are not on disk, that the others are
// complete, and that Append works again when there is room.
func TestDiskFull(t *testing.T) {
	for _, limit := range []uint64{10, 40, 60, 100_000} {
		t.Run(fmt.Sprintf("after %d bytes of a file", limit), func(t *testing.T) {
			dir := t.TempDir()
			var n int
			cmd := helper(t, "limited", dir, fmt.Sprint(limit))
			if out := output(t, cmd); !strings.Contains(out, "file too large") {
				t.Fatalf("got %q, want to hear of the limit", out)
			} else if _, err := fmt.Sscan(out, &n); err != nil {
				t.Fatal(err)
			}
			r := replayAll(open(t, dir))
			if len(r.rows) != n || len(r.errs) > 0 {
				t.Errorf("got %d rows, %v, want %d", len(r.rows), r.errs, n)
			}
		})
	}
	t.Run("a file system without room", func(t *testing.T) {
		dir := t.TempDir()
		if err := mountSmall(dir); err != nil {
			t.Skip("needs root: ", err)
		}
		t.Cleanup(func() { syscall.Unmount(dir, 0) })
		s := open(t, dir)
		n, err := appendUntil(s, 1000)
		if !errors.Is(err, syscall.ENOSPC) || n < 10 {
			t.Fatalf("got %d rows, %v, want %v", n, err, syscall.ENOSPC)
		}
		if _, err := appendUntil(s, 1); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("still full: got %v", err)
		}
		s.Close()
		next := open(t, dir)
		r := replayAll(next)
		if len(r.rows) != n || len(r.errs) > 0 {
			t.Errorf("got %d rows, %v, want %d", len(r.rows), r.errs, n)
		}
		discard(t, next)
		if n, err := appendUntil(next, 10); n != 10 || err != nil {
			t.Errorf("with room again: got %d, %v", n, err)
		}
	})
}

// TestFolderRemoved checks that Append makes the folder again, with and without a
// current segment.
func TestFolderRemoved(t *testing.T) {
	for name, discarded := range map[string]bool{"with a segment": false, "without a segment": true} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "new")
			s := open(t, dir)
			appendRows(t, s, "one", "two")
			if discarded {
				discard(t, s)
			}
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			if err := s.Append(frame("lost")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("got %v, want %v", err, fs.ErrNotExist)
			}
			appendRows(t, s, "three")
			if s.Close(); s.State().Current == 0 {
				t.Error("want the new segment to be there")
			}
			checkRows(t, replayAll(open(t, dir)).rows, []string{"three"})
		})
	}
	t.Run("the state after Close", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "new")
		leave(t, dir, "left")
		s := open(t, dir)
		replayAll(s)
		appendRows(t, s, "one")
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if s.Close(); s.State() != (spool.State{}) {
			t.Errorf("got %+v, want no segment", s.State())
		}
	})
}

// TestEntriesThatAreNotFiles checks that Look skips entries that have a segment's name
// but aren't regular files.
func TestEntriesThatAreNotFiles(t *testing.T) {
	dir := t.TempDir()
	leave(t, dir, "one")
	name := files(t, dir, "*.seg")[0]
	for other, make := range map[string]func(name string) error{
		"folder":   func(name string) error { return os.Mkdir(name, 0o700) },
		"fifo":     func(name string) error { return syscall.Mkfifo(name, 0o600) },
		"dangling": func(name string) error { return os.Symlink("nowhere", name) },
		"device":   func(name string) error { return os.Symlink("/dev/zero", name) },
		"link":     func(to string) error { return os.Symlink(name, to) },
	} {
		if err := make(strings.TrimSuffix(name, ".seg") + other + ".seg"); err != nil {
			t.Fatal(err)
		}
	}
	next := open(t, dir)
	r := replayAll(next)
	checkRows(t, r.rows, []string{"one"})
	if len(r.errs) > 0 {
		t.Errorf("got %v", r.errs)
	}
	discard(t, next)
	checkFiles(t, dir, "*.seg", 5)
}

// TestFolderOfOthers checks that nothing is read from a folder to which other users can
// write.
func TestFolderOfOthers(t *testing.T) {
	for _, mode := range []os.FileMode{0o777, 0o770, 0o720, 0o702, 0o777 | os.ModeSticky} {
		t.Run(mode.String(), func(t *testing.T) {
			dir := t.TempDir()
			leave(t, dir, "planted")
			if err := os.Chmod(dir, mode); err != nil {
				t.Fatal(err)
			}
			r := replayAll(open(t, dir))
			if len(r.rows) > 0 || len(r.errs) != 1 || !errors.Is(r.errs[0], spool.ErrShared) {
				t.Errorf("got %+v, want %v", r, spool.ErrShared)
			}
		})
	}
	t.Run("another user's", func(t *testing.T) {
		dir := t.TempDir()
		leave(t, dir, "planted")
		if err := os.Chown(dir, 65534, 65534); err != nil {
			t.Skip("needs root: ", err)
		}
		if r := replayAll(open(t, dir)); len(r.rows) > 0 || len(r.errs) != 1 || !errors.Is(r.errs[0], spool.ErrShared) {
			t.Errorf("got %+v, want %v", r, spool.ErrShared)
		}
	})
}

// asNobody makes cmd run as a user without rights if this user is root.
func asNobody(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	exe := filepath.Join(t.TempDir(), "helper")
	binary, err := os.ReadFile(cmd.Path)
	if err == nil {
		err = os.WriteFile(exe, binary, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	for dir := filepath.Dir(exe); strings.HasPrefix(dir, os.TempDir()+"/"); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd.Path = exe
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
}

func TestOtherUsers(t *testing.T) {
	t.Run("folder", func(t *testing.T) {
		dir := t.TempDir()
		cmd := helper(t, "append", filepath.Join(dir, "spool"), "1")
		asNobody(t, cmd)
		if got := output(t, cmd); !strings.Contains(got, "permission denied") {
			t.Errorf("got %q", got)
		}
	})
	t.Run("segments", func(t *testing.T) {
		dir := t.TempDir()
		leave(t, dir, "root's")
		cmd := helper(t, "replay", dir, "")
		asNobody(t, cmd)
		os.Chmod(dir, 0o755)
		if err := os.Chown(dir, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		if got := output(t, cmd); !strings.Contains(got, "permission denied") || strings.Count(got, "\n") > 0 {
			t.Errorf("got %q, want to hear of it once", got)
		}
		os.Chown(dir, 0, 0)
		checkRows(t, replayAll(open(t, dir)).rows, []string{"root's"})
	})
}

func TestReadOnly(t *testing.T) {
	t.Run("folder", func(t *testing.T) {
		dir := t.TempDir()
		cmd := helper(t, "append", dir, "1")
		if os.Getuid() == 0 {
			asNobody(t, cmd)
		}
		os.Chmod(dir, 0o500)
		if got := output(t, cmd); !strings.Contains(got, "permission denied") {
			t.Errorf("got %q", got)
		}
	})
	t.Run("file system", func(t *testing.T) {
		dir := t.TempDir()
		if err := mountSmall(dir); err != nil {
			t.Skip("needs root: ", err)
		}
		t.Cleanup(func() { syscall.Unmount(dir, 0) })
		leave(t, dir, "one")
		readOnly(t, dir)
		next := open(t, dir)
		if r := replayAll(next); len(r.rows) > 0 || len(r.errs) != 1 || !errors.Is(r.errs[0], syscall.EROFS) {
			t.Errorf("got %+v", r)
		}
		if _, err := appendUntil(next, 1); !errors.Is(err, syscall.EROFS) {
			t.Errorf("got %v", err)
		}
	})
}

// mountSmall mounts a file system of 256 KiB.
func mountSmall(dir string) error {
	return syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k,mode=0700")
}

func readOnly(t *testing.T, dir string) {
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
}
