package spool_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docevents/docevents-go/internal/spool"
)

// helperEnv makes the test binary a helper process that calls work. Its value is "dir
// name".
const helperEnv = "SPOOL_TEST_HELPER"

func TestMain(m *testing.M) {
	dir, name, isHelper := strings.Cut(os.Getenv(helperEnv), " ")
	if !isHelper {
		os.Exit(m.Run())
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1) // the test has ended without killing this process
	}()
	work(spool.New(spool.OS{}, dir, project, columns, limit), name)
}

// work appends the rows of dead processes and new rows until it is killed. The new
// rows begin with name. After each call to Append, work prints the last row.
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

// TestKilledInTurns kills processes that share a folder. Each row for which Append had
// returned must survive.
func TestKilledInTurns(t *testing.T) {
	const processes = 5
	dir := t.TempDir()
	said := map[string]bool{}
	type process struct {
		cmd *exec.Cmd
		out *bufio.Scanner
	}
	start := func(name string) process {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s", helperEnv, dir, name))
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err == nil {
			_, err = cmd.StdinPipe() // closed when this process ends
		}
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
	for b := range said {
		for _, row := range []string{strings.TrimSuffix(b, "b") + "a", b} {
			if !slices.Contains(r.rows, row) {
				t.Errorf("%s is gone", row)
			}
		}
	}
	for _, err := range r.errs {
		if !errors.Is(err, spool.ErrDamaged) { // a kill may leave an incomplete row
			t.Error(err)
		}
	}
}

// TestTwoLookAtOnce lets a process look for segments while another one checks
// whether the killed process is alive. Both must find its segment.
func TestTwoLookAtOnce(t *testing.T) {
	dir := t.TempDir()
	appendRows(t, open(t, dir), "one") // not closed
	then := filepath.Join(t.TempDir(), "then")
	if err := os.CopyFS(then, os.DirFS(dir)); err != nil { // the folder as a kill leaves it
		t.Fatal(err)
	}
	other, err := os.Open(files(t, then, "*.lock")[0])
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := syscall.Flock(int(other.Fd()), syscall.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	checkRows(t, replayAll(open(t, then)).rows, []string{"one"})
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
	for _, mode := range []os.FileMode{0o720, 0o702, 0o777 | os.ModeSticky} {
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
