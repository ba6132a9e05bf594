package localstack

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// process is a running child of ours: PostgreSQL or PostgREST. While it runs, a
// file NAME.pid in the stack's folder tells the watchdog about it.
type process struct {
	cmd     *exec.Cmd
	pidFile string
	output  *tail
	done    chan struct{} // closed when the process has been waited for
}

// startProcess starts the command, whose output goes to log, and a goroutine
// that waits for its end.
func startProcess(cmd *exec.Cmd, dir, name string, log io.Writer) (*process, error) {
	p := &process{
		cmd:     cmd,
		pidFile: filepath.Join(dir, name+".pid"),
		output:  &tail{to: log},
		done:    make(chan struct{}),
	}
	cmd.Stdout, cmd.Stderr = p.output, p.output
	cmd.WaitDelay = time.Second // an orphan of a killed parent may still hold its output
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if err := os.WriteFile(p.pidFile, strconv.AppendInt(nil, int64(cmd.Process.Pid), 10), 0o600); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, err
	}
	go func() {
		_ = cmd.Wait()
		_ = os.Remove(p.pidFile)
		close(p.done)
	}()
	return p, nil
}

// running reports whether the process has not ended yet. A nil process hasn't
// been started.
func (p *process) running() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// stop sends the signal and waits for the end.
func (p *process) stop(sig os.Signal) error {
	if !p.running() {
		return nil
	}
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.done
	return nil
}

// kill ends the process and its children as a power cut would, and waits.
func (p *process) kill() error {
	if !p.running() {
		return nil
	}
	if err := killTree(p.cmd.Process.Pid); err != nil {
		return err
	}
	<-p.done
	return nil
}

// tail passes a process's output on and keeps its end, for the error message of
// a start that failed.
type tail struct {
	mu  sync.Mutex
	to  io.Writer // may be nil
	end []byte
}

const tailSize = 2048

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end = append(t.end, b...)
	if over := len(t.end) - tailSize; over > 0 {
		t.end = append(t.end[:0], t.end[over:]...)
	}
	if t.to != nil {
		_, _ = t.to.Write(b) // a log that fails must not stop the process
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.end))
}

// watchdog is a shell that outlives this process, however it ends: it waits for
// the end of its input, whose only writer we are, then stops what runs and
// removes the folder. After a Close there is nothing left for it to do.
//
// It is preferred to Linux's parent-death signal, which is bound to the thread
// that started the child, doesn't remove folders, and exists nowhere else.
type watchdog struct {
	cmd   *exec.Cmd
	input io.WriteCloser
}

// PostgreSQL ends its children before itself when it is asked to; PostgREST has
// nothing to end, and may not listen.
const watchdogScript = `
cat >/dev/null
postgres=
for file in "$1"/*.pid; do
	[ -f "$file" ] || continue
	case $file in
	*/postgres.pid)
		postgres=$(cat "$file")
		kill -s QUIT "$postgres"
		;;
	*)
		kill -s KILL "$(cat "$file")"
		;;
	esac
done
tries=0
while [ -n "$postgres" ] && kill -0 "$postgres" && [ $tries -lt 100 ]; do
	tries=$((tries + 1))
	sleep 0.1
done
rm -rf "$1"
`

func startWatchdog(dir string) (*watchdog, error) {
	cmd := exec.Command("/bin/sh", "-c", watchdogScript, "localstack-watchdog", dir)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/bin:/bin"} // where cat, rm and sleep are, whatever ours is
	detach(cmd, nil)
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("watchdog: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("watchdog: %w", err)
	}
	return &watchdog{cmd, input}, nil
}

func (w *watchdog) close() error {
	_ = w.input.Close()
	return w.cmd.Wait()
}
