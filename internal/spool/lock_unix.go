//go:build unix && !aix && !solaris

package spool

import (
	"io/fs"
	"os"
	"syscall"
)

// lock takes an exclusive or a shared lock on f. If the lock of another process prevents
// that, it returns an error at once.
func lock(f *os.File, exclusive bool) error {
	how := syscall.LOCK_SH
	if exclusive {
		how = syscall.LOCK_EX
	}
	return os.NewSyscallError("flock", syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB))
}

// private reports whether only this user and root can write to the folder.
func private(folder fs.FileInfo) bool {
	stat, ok := folder.Sys().(*syscall.Stat_t)
	return folder.Mode()&0o022 == 0 && (!ok || stat.Uid == 0 || int(stat.Uid) == os.Geteuid())
}
