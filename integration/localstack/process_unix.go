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

// account is the user that PostgreSQL runs as if this process runs as root, because
// PostgreSQL doesn't run as root. A nil account stands for the current user.
type account struct{ uid, gid uint32 }

// serverAccount returns the account postgres or nobody if this process runs as root.
// Otherwise it returns nil.
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

// own makes the account the owner of a file or folder.
func (a *account) own(path string) error {
	if a == nil {
		return nil
	}
	return os.Chown(path, int(a.uid), int(a.gid))
}

// traversable reports whether the account can reach the folder, that is, whether all
// users may traverse it and all of its parents.
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

// detach makes the command start in a new process group and as the account. Ctrl-C at
// the terminal then signals only this program, which stops the stack in order.
func detach(cmd *exec.Cmd, as *account) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if as != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: as.uid, Gid: as.gid}
	}
}

// immediateShutdown is the signal on which PostgreSQL ends at once, without a checkpoint.
const immediateShutdown = syscall.SIGQUIT

// killTree ends a process and its children with SIGKILL. It first stops the parent
// with SIGSTOP, so that the parent can't react or start more children.
func killTree(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	for _, child := range children(pid) {
		_ = syscall.Kill(child, syscall.SIGKILL) // it may have ended already
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}

// children returns the ids of a process's children, from /proc on Linux and from
// pgrep on other systems.
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
