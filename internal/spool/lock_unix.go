//go:build unix && !aix && !solaris

package spool

import (
	"os"
	"syscall"
)

// lock doesn't wait. The lock is the kernel's: it ends with the process, however
// that ends.
func lock(f *os.File) error {
	return os.NewSyscallError("flock", syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB))
}
