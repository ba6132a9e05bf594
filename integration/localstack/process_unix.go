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

// account is the user account that PostgreSQL runs as. It isn't root, because
// PostgreSQL refuses to run as root. nil means the current user.
type account struct{ uid, gid uint32 }

// serverAccount returns nil if this program doesn't run as root. Otherwise it returns
// the account of the user "postgres", or else of the user "nobody".
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

func (a *account) own(path string) error {
	if a == nil {
		return nil
	}
	return os.Chown(path, int(a.uid), int(a.gid))
}

// traversable reports whether the account can reach files in the folder dir. It returns
// true if the account is nil, or if all users are allowed to enter dir and its parent
// folders.
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

// detach makes the command start in a new process group, so that Ctrl-C reaches only
// this program. The command runs as the account runAs. If runAs is nil, it runs as the
// current user.
func detach(cmd *exec.Cmd, runAs *account) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if runAs != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: runAs.uid, Gid: runAs.gid}
	}
}

// immediateShutdown is the signal that ends PostgreSQL at once, without a checkpoint.
const immediateShutdown = syscall.SIGQUIT

// killTree ends the process pid and its child processes with SIGKILL. SIGSTOP comes
// first, so that the process can't start more children.
func killTree(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	for _, child := range children(pid) {
		_ = syscall.Kill(child, syscall.SIGKILL) // it may have ended already
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}

// children returns the process ids of the direct children of the process pid. Linux has
// them in /proc.
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
