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

// account is the user account that PostgreSQL runs as. PostgreSQL refuses to run as
// root, so a program that runs as root needs another account for it. A nil account
// means the current user.
type account struct{ uid, gid uint32 }

// serverAccount returns the account that PostgreSQL runs as. If this program runs as
// root, the account is postgres, or nobody if there is no user postgres. Otherwise
// serverAccount returns nil, which means the current user.
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

// traversable reports whether the account can reach files in the folder dir. It checks
// whether all users may enter dir and all of its parent folders. A nil account is the
// current user, so traversable returns true.
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

// detach makes the command start in a new process group. Ctrl-C at the terminal then
// signals only this program, which can stop its child processes in the right order. If
// runAs isn't nil, the command runs as this account.
func detach(cmd *exec.Cmd, runAs *account) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if runAs != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: runAs.uid, Gid: runAs.gid}
	}
}

// immediateShutdown is the signal that ends PostgreSQL at once, without a checkpoint.
const immediateShutdown = syscall.SIGQUIT

// killTree ends the process pid and its child processes with SIGKILL. It first stops
// the process with SIGSTOP, so that the process can't start more children.
func killTree(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	for _, child := range children(pid) {
		_ = syscall.Kill(child, syscall.SIGKILL) // it may have ended already
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}

// children returns the process ids of the direct children of the process pid. On Linux,
// it reads them from /proc. On other systems, it runs pgrep.
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
