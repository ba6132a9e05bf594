//go:build darwin || linux

package main

import (
	"os"
	"syscall"
	"unsafe"
)

// columns returns the width of a terminal, or 0 if it is unknown.
func columns(file *os.File) int {
	var size struct{ rows, columns, width, height uint16 }
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, file.Fd(), syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return 0
	}
	return int(size.columns)
}
