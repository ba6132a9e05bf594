//go:build unix

package localstack

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// account is whom PostgreSQL runs as. It refuses to run as root, so that root
// lends it another one.
type account struct{ uid, gid uint32 }

// serverAccount returns nil unless this process is root's.
func serverAccount() (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("uid of %s: %w", name, err)
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("gid of %s: %w", name, err)
		}
		return &account{uint32(uid), uint32(gid)}, nil
	}
	return nil, errors.New("PostgreSQL refuses to run as root, and there is no user postgres or nobody to run it as")
}

// own hands a file or folder to the account.
func (a *account) own(path string) error {
	if a == nil {
		return nil
	}
	return os.Chown(path, int(a.uid), int(a.gid))
}

// traversable reports whether the account can reach the folder: whether
// everyone may pass through it and all that is above it.
func (a *account) traversable(dir string) bool {
	if a == nil {
		return true
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return false
	}
	for {
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm()&1 == 0 {
			return false
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return true
		}
		dir = parent
	}
}

// detach puts the command into a process group of its own, so that a Ctrl-C at
// the terminal reaches this program alone, which then stops things in order.
func detach(cmd *exec.Cmd, as *account) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if as != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: as.uid, Gid: as.gid}
	}
}

// The signals as PostgreSQL reads them: a fast shutdown breaks off sessions and
// writes a checkpoint, an immediate one just ends all processes.
const (
	signalFast      = syscall.SIGINT
	signalImmediate = syscall.SIGQUIT
)

// killTree ends a process and its children with SIGKILL, all at once: the
// parent is stopped first, so that it can't start another one or react.
func killTree(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	for _, child := range children(pid) {
		_ = syscall.Kill(child, syscall.SIGKILL) // it may have ended by itself
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}

// children lists the children of a process: from /proc on Linux, with pgrep
// elsewhere.
func children(pid int) []int {
	var list []byte
	if tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)); len(tasks) > 0 {
		for _, task := range tasks {
			b, _ := os.ReadFile(task)
			list = append(list, b...)
		}
	} else {
		list, _ = exec.Command("pgrep", "-P", strconv.Itoa(pid)).Output()
	}
	var pids []int
	for _, field := range strings.Fields(string(list)) {
		if child, err := strconv.Atoi(field); err == nil {
			pids = append(pids, child)
		}
	}
	return pids
}
