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

// process is a child process of this program: PostgreSQL or PostgREST. While it runs,
// the file NAME.pid in the stack's folder contains its process id, for the watchdog.
type process struct {
	cmd     *exec.Cmd
	pidFile string
	output  *tail
	done    chan struct{} // closed when the process has been waited for
}

// startProcess starts the command. Its output goes to log, which may be nil.
func startProcess(cmd *exec.Cmd, dir, name string, log io.Writer) (*process, error) {
	p := &process{
		cmd:     cmd,
		pidFile: filepath.Join(dir, name+".pid"),
		output:  &tail{to: log},
		done:    make(chan struct{}),
	}
	cmd.Stdout, cmd.Stderr = p.output, p.output
	cmd.WaitDelay = time.Second // a child of the killed process may still hold its output open
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

// running reports whether the process is running. p may be nil.
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

// quit ends PostgreSQL and its child processes as a crash would, and waits for
// PostgreSQL.
func (p *process) quit() error {
	if !p.running() {
		return nil
	}
	if err := p.cmd.Process.Signal(immediateShutdown); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.done
	return nil
}

// kill ends the process and its child processes with SIGKILL, and waits for the
// process.
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

// tail forwards a process's output to another writer. It keeps the last tailSize bytes
// for the error message of a process that doesn't start.
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
		_, _ = t.to.Write(b) // an error of the log must not stop the process
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.end))
}

// watchdog is a shell process that cleans up if this program is killed. It reads from a
// pipe, which closes when this program ends.
type watchdog struct {
	cmd   *exec.Cmd
	input io.WriteCloser
}

// watchdogScript waits until its input closes. Then it ends the stack's processes and
// removes the stack's folder. On SIGQUIT, PostgreSQL also ends its child processes.
// PostgREST has none, and may ignore signals other than SIGKILL.
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
	cmd.Env = []string{"PATH=/usr/bin:/bin"} // the folders of cat, rm and sleep
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
