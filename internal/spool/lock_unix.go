//go:build unix && !aix && !solaris

package spool

import (
	"io/fs"
	"os"
	"syscall"
)

// lock locks f, or returns an error at once if another process has locked it.
func lock(f *os.File) error {
	return os.NewSyscallError("flock", syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB))
}

// private reports whether only this user and root can write to the folder.
func private(folder fs.FileInfo) bool {
	stat, ok := folder.Sys().(*syscall.Stat_t)
	return folder.Mode()&0o022 == 0 && (!ok || stat.Uid == 0 || int(stat.Uid) == os.Geteuid())
}
