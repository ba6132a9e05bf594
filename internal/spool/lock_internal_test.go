//go:build unix && !aix && !solaris

package spool

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestLockIsRetried checks that lock retries if a signal interrupts flock. Go's runtime
// sends such signals to preempt goroutines.
func TestLockIsRetried(t *testing.T) {
	defer func() { flock = syscall.Flock }()
	signals := 3
	flock = func(fd, how int) error {
		if signals--; signals >= 0 {
			return syscall.EINTR
		}
		return syscall.Flock(fd, how)
	}
	path := filepath.Join(t.TempDir(), "lock")
	first, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if err := lock(first, true); err != nil || signals != -1 {
		t.Errorf("got %v, %d signals left", err, signals+1)
	}
	second, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if err := lock(second, false); !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Errorf("got %v, want %v", err, syscall.EWOULDBLOCK)
	}
}
