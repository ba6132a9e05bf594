//go:build unix && !aix && !solaris

package spool

import (
	"io/fs"
	"os"
	"syscall"
)

const shared, exclusive = syscall.LOCK_SH, syscall.LOCK_EX

// lock takes a shared or exclusive lock on f. If another process has a lock that
// prevents this, lock returns an error at once.
func lock(f *os.File, how int) error {
	return os.NewSyscallError("flock", syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB))
}

// private reports whether only this user and root can write to the folder.
func private(folder fs.FileInfo) bool {
	stat, ok := folder.Sys().(*syscall.Stat_t)
	return folder.Mode()&0o022 == 0 && (!ok || stat.Uid == 0 || int(stat.Uid) == os.Geteuid())
}
